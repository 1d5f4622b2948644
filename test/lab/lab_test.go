package lab_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/test/lab"
)

func open(t *testing.T) *lab.Lab {
	t.Helper()
	t.Setenv("HA_INSTALL_LAB_DIR", t.TempDir())
	l, err := lab.Open()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestTheTableIsOneNetworkWithoutDuplicates(t *testing.T) {
	l := open(t)
	network, err := netip.ParsePrefix(l.Network)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{l.Gateway: "gateway", l.VIP: "vip"}
	for _, h := range l.Hosts {
		if address, err := netip.ParseAddr(h.Address); err != nil || !network.Contains(address) {
			t.Errorf("%s: address %q is not in %s", h.Name, h.Address, network)
		}
		if other, ok := seen[h.Address]; ok {
			t.Errorf("%s has the address of %s", h.Name, other)
		}
		if other, ok := seen[h.Name]; ok {
			t.Errorf("%s is there twice: %s", h.Name, other)
		}
		seen[h.Address], seen[h.Name] = h.Name, h.Address
	}
}

func TestSpareHostsAreSelectedOnlyByName(t *testing.T) {
	l := open(t)
	for _, c := range []struct {
		what   string
		wanted []string
		want   string
	}{
		{"nobody named: all but the spares", nil, "lb-1 lb-2 cp-1 cp-2 cp-3 w-1"},
		{"a spare named: that one, in the order asked", []string{"w-2", "cp-1"}, "w-2 cp-1"},
	} {
		hosts, err := l.Select(c.wanted...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range hosts {
			got = append(got, h.Name)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", c.what, got, c.want)
		}
	}
	if _, err := l.Select("cp-9"); err == nil || !strings.Contains(err.Error(), "cp-1") {
		t.Errorf("an unknown host: %v, want an error that lists the known ones", err)
	}
}

func TestItsInventoryIsValid(t *testing.T) {
	l := open(t)
	for what, opts := range map[string]lab.InventoryOptions{
		"the standard one":             {},
		"five masters and two workers": {Hosts: []string{"lb-1", "lb-2", "cp-1", "cp-2", "cp-3", "cp-4", "cp-5", "w-1", "w-2"}},
		"an older release":             {Version: "v1.35.4"},
	} {
		t.Run(what, func(t *testing.T) {
			if err := l.WriteInventory(l.Inventory(), opts); err != nil {
				t.Fatal(err)
			}
			raw, err := os.ReadFile(l.Inventory())
			if err != nil {
				t.Fatal(err)
			}
			cluster, warnings, err := inventory.Parse(l.Inventory(), raw)
			if err != nil || len(warnings) > 0 {
				t.Fatalf("Parse: %v, %v", warnings, err)
			}
			want := len(opts.Hosts)
			if want == 0 {
				want = 6
			}
			if len(cluster.Spec.Hosts) != want {
				t.Errorf("%d hosts, want %d", len(cluster.Spec.Hosts), want)
			}
			if opts.Version != "" && (cluster.Spec.Kubernetes.Version != opts.Version || !strings.Contains(cluster.Spec.Software.Bundle, opts.Version)) {
				t.Errorf("version %s with bundle %s, want both %s", cluster.Spec.Kubernetes.Version, cluster.Spec.Software.Bundle, opts.Version)
			}
		})
	}
}

func TestVirtualMachinesNeedNoneOfTheContainersSettings(t *testing.T) {
	t.Setenv("HA_INSTALL_LAB_PROVIDER", "libvirt")
	l := open(t)
	if err := l.WriteInventory(l.Inventory(), lab.InventoryOptions{}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(l.Inventory())
	if err != nil {
		t.Fatal(err)
	}
	cluster, _, err := inventory.Parse(l.Inventory(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if len(cluster.Spec.Preflight.IgnoreErrors)+len(cluster.Spec.Containerd)+len(cluster.Spec.Kubeadm.KubeletConfiguration) > 0 {
		t.Errorf("got settings for containers:\n%s", raw)
	}
}

func TestADirectoryThatLXCCannotTakeIsRefused(t *testing.T) {
	t.Setenv("HA_INSTALL_LAB_DIR", filepath.Join(t.TempDir(), "my lab"))
	if _, err := lab.Open(); err == nil || !strings.Contains(err.Error(), "HA_INSTALL_LAB_DIR") {
		t.Errorf("Open = %v, want an error that names the variable", err)
	}
}
