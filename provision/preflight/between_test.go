package preflight

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
)

func TestDecideBetween(t *testing.T) {
	rows := []struct {
		name   string
		change func(f map[string]*Facts, o *Options)
		want   string
		seen   string
	}{
		{"six hosts of their own", func(map[string]*Facts, *Options) {}, "", ""},
		{"two clones with one machine ID", func(f map[string]*Facts, _ *Options) { f["cp-2"].MachineID = f["cp-1"].MachineID },
			"MachineID error, MachineID error", "also on cp-2"},
		{"two entries that lead to one machine", func(f map[string]*Facts, _ *Options) {
			f["cp-2"].MachineID, f["cp-2"].BootID, f["cp-2"].Addresses = f["cp-1"].MachineID, f["cp-1"].BootID, f["cp-1"].Addresses
		}, "MachineID error, MachineID error", "the same machine as cp-2"},
		{"an empty machine ID", func(f map[string]*Facts, _ *Options) { f["w-1"].MachineID = "" }, "MachineID error", "empty"},
		{"two hosts of one name", func(f map[string]*Facts, _ *Options) { f["cp-2"].Hostname = "CP-1" }, "Hostname error, Hostname error", "also on cp-2"},
		{"two machines with one product UUID", func(f map[string]*Facts, _ *Options) { f["cp-2"].ProductUUID = f["cp-1"].ProductUUID },
			"ProductUUID error, ProductUUID error", "also on cp-2"},
		{"two hosts with one MAC address", func(f map[string]*Facts, _ *Options) { f["cp-2"].MACs = f["cp-1"].MACs },
			"MACAddress error, MACAddress error", "also on cp-2"},
		{"containers of one machine share its UUID and its fate", func(f map[string]*Facts, _ *Options) {
			for _, name := range []string{"cp-1", "cp-2"} {
				f[name].Container, f[name].BootID, f[name].ProductUUID = "lxc", "boot", "uuid"
			}
		}, "ProductUUID warning, ProductUUID warning", "same machine as cp-2"},
		{"two CAs in one cluster", func(f map[string]*Facts, _ *Options) {
			for _, name := range []string{"cp-1", "cp-2"} {
				f[name].Journal, f[name].CA = "lab", strings.Repeat(name[3:], 64)
			}
		}, "ClusterCA error, ClusterCA error", "CA 111111111111 on cp-1"},
		{"10 s of skew on one host", func(f map[string]*Facts, _ *Options) { f["cp-2"].ClockOffset = 10 * time.Second }, "Clock warning", "+10.000 s"},
		{"6 minutes behind", func(f map[string]*Facts, _ *Options) { f["cp-2"].ClockOffset = -6 * time.Minute }, "Clock error", "-360.000 s"},
		{"skew within the uncertainty", func(f map[string]*Facts, _ *Options) {
			f["cp-2"].ClockOffset, f["cp-2"].ClockError = 900*time.Millisecond, 500*time.Millisecond
		}, "", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c, opt, facts := testCluster(), Options{}, map[string]*Facts{}
			for _, h := range c.Spec.Hosts {
				f := healthy(h)
				facts[h.Name] = &f
			}
			row.change(facts, &opt)
			got := decideBetween(subjects(c, &opt, facts))
			if p := problems(got); p != row.want {
				t.Fatalf("found %q, wanted %q\n%+v", p, row.want, got)
			}
			first := slices.IndexFunc(got, func(f Finding) bool { return f.Severity != OK })
			if first >= 0 && !strings.Contains(got[first].Seen, row.seen) {
				t.Errorf("seen %q, wanted %q in it", got[first].Seen, row.seen)
			}
		})
	}
}

func subjects(c *inventory.Cluster, opt *Options, facts map[string]*Facts) []subject {
	var all []subject
	for _, h := range c.Spec.Hosts {
		if f := facts[h.Name]; f != nil {
			all = append(all, subject{cluster: c, opt: opt, host: h, facts: *f})
		}
	}
	return all
}

// When all hosts are off by the same, the operator's machine is the odd one.
func TestClockBlamesTheOperator(t *testing.T) {
	c, facts := testCluster(), map[string]*Facts{}
	for _, h := range c.Spec.Hosts {
		f := healthy(h)
		f.ClockOffset = 2 * time.Hour
		facts[h.Name] = &f
	}
	for _, f := range decideClocks(subjects(c, &Options{}, facts)) {
		if f.Severity != Error || !strings.Contains(f.Fix, "the machine that runs ha-install") {
			t.Errorf("%+v", f)
		}
	}
}

func TestHostGatewaysNeedOneLink(t *testing.T) {
	c, facts := testCluster(), map[string]*Facts{}
	c.Spec.Network.CNI.Backend = inventory.CNIBackendHostGW
	for i, h := range c.Spec.Hosts {
		if h.Name == "w-1" {
			c.Spec.Hosts[i].InternalAddress = "10.9.0.31"
		}
		f := healthy(c.Spec.Hosts[i])
		facts[h.Name] = &f
	}
	got := decidePodNetwork(subjects(c, &Options{}, facts))
	if len(got) != 4 || got[0].Seen != "w-1 not in 10.0.0.0/24" || got[3].Severity != Error {
		t.Errorf("%+v", got)
	}
}

func TestDecideEndpoint(t *testing.T) {
	vipAddr := netip.MustParseAddrPort("10.0.0.10:6443")
	stale := &x509.Certificate{Subject: pkix.Name{CommonName: "kube-apiserver"}, Issuer: pkix.Name{CommonName: "old"}}
	rows := []struct {
		name   string
		change func(c *inventory.Cluster, f map[string]*Facts)
		answer answer
		want   string
	}{
		{"nobody at the VIP before the cluster exists", nil, silent, ""},
		{"somebody answers before the cluster exists", nil, connected, "Endpoint error"},
		{"a refusal says that a machine holds the VIP", nil, refused, "Endpoint error"},
		{"our own balancer holds the VIP", func(_ *inventory.Cluster, f map[string]*Facts) {
			f["lb-1"].Journal = "lab"
			f["lb-1"].Addresses = append(f["lb-1"].Addresses, Address{"eth0", netip.MustParsePrefix("10.0.0.10/32")})
		}, connected, ""},
		{"somebody answers while our balancers do not hold the VIP", func(_ *inventory.Cluster, f map[string]*Facts) { f["lb-1"].Journal = "lab" }, connected, "Endpoint error"},
		{"a balancer that could not be asked may be the one", func(_ *inventory.Cluster, f map[string]*Facts) { delete(f, "lb-2") }, connected, ""},
		{"the VIP is on a host that is not ours", func(_ *inventory.Cluster, f map[string]*Facts) {
			f["w-1"].Addresses = append(f["w-1"].Addresses, Address{"eth0", netip.MustParsePrefix("10.0.0.10/32")})
		}, silent, "Endpoint error"},
		{"a master of ours that balances holds the VIP", func(c *inventory.Cluster, f map[string]*Facts) {
			onMasters(c)
			f["cp-2"].Journal = "lab"
			f["cp-2"].Addresses = append(f["cp-2"].Addresses, Address{"eth0", netip.MustParsePrefix("10.0.0.10/32")})
		}, connected, ""},
		{"a master that balances and could not be asked may hold the VIP", func(c *inventory.Cluster, f map[string]*Facts) {
			onMasters(c)
			delete(f, "cp-3")
		}, connected, ""},
		{"somebody answers although no master holds the VIP", func(c *inventory.Cluster, _ map[string]*Facts) { onMasters(c) }, connected, "Endpoint error"},
		{"an external balancer answers", external, connected, ""},
		{"an external balancer is silent", external, silent, "Endpoint warning"},
		{"an external balancer leads to a stale backend before the cluster exists", external, connected, "Endpoint error"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c, facts := testCluster(), map[string]*Facts{}
			for _, h := range c.Spec.Hosts {
				f := healthy(h)
				facts[h.Name] = &f
			}
			if row.change != nil {
				row.change(c, facts)
			}
			d := dial{from: "cp-1", address: vipAddr, answer: row.answer}
			if strings.Contains(row.name, "stale") {
				d.presented = stale
			}
			got := decideEndpoint(c, subjects(c, &Options{}, facts), []dial{d})
			if p := problems(got); p != row.want {
				t.Errorf("found %q, wanted %q\n%+v", p, row.want, got)
			}
		})
	}
}

func external(c *inventory.Cluster, _ map[string]*Facts) {
	c.Spec.LoadBalancer.Mode = inventory.BalancerExternal
}

func TestIgnoredErrorsBecomeWarnings(t *testing.T) {
	findings := []Finding{{Check: CheckMemory, Severity: Error}, {Check: CheckSwap, Severity: Error}, {Check: CheckConnection, Severity: Error}}
	demote(findings, []string{"memory", "Connection", "SystemVerification"})
	if p := problems(findings); p != "Memory warning, Swap error, Connection error" || !findings[0].Ignored {
		t.Errorf("got %s, %+v", p, findings)
	}
}

// Every check that can be reported has its place in the order.
func TestOrderHoldsEveryCheck(t *testing.T) {
	have := map[string]int{}
	for _, name := range order {
		have[name]++
	}
	for _, c := range hostChecks {
		if have[c.name] != 1 {
			t.Errorf("%s is %d times in the order", c.name, have[c.name])
		}
	}
	for name, n := range have {
		if n != 1 {
			t.Errorf("%s is %d times in the order", name, n)
		}
	}
}
