package provision

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/sim"
)

// grown is a world in which a cluster ran: what kubeadm, kubelet and flannel
// leave on hosts.
func grown(t *testing.T, c *inventory.Cluster, dir string) *sim.World {
	t.Helper()
	w := newWorld(t, c)
	if _, err := prepare(context.Background(), w, c, dir, nil); err != nil {
		t.Fatal(err)
	}
	for _, ih := range append(c.ControlPlanes(), c.Workers()...) {
		h := w.Host(ih.Name)
		h.Rules = 40
		h.Put("/var/lib/kubelet/config.yaml", 0o644, "config")
		h.Put(kube.KubeletConf, 0o600, "kubeconfig")
		h.Units["kubelet.service"].Active = true
		if ih.Role == inventory.RoleControlPlane {
			h.Put(kube.AdminConf, 0o600, "kubeconfig")
			h.Put(etcdManifest, 0o600, "pod")
			h.Put(etcdMember+"/snap/db", 0o600, "data of "+ih.Name)
		}
	}
	return w
}

func reset(ctx context.Context, w *sim.World, c *inventory.Cluster, cut *sim.Cut) error {
	ctx = w.Begin(ctx, cut)
	site := Connect(ctx, c, "", w.Dial)
	defer site.Close()
	return Reset(ctx, site, &phase.Runner{})
}

// afterReset says what a reset host still has that it must not, or lacks of
// what must be kept; "" for nothing.
func afterReset(w *sim.World, c *inventory.Cluster) string {
	var bad []string
	for _, ih := range c.Spec.Hosts {
		h := w.Host(ih.Name)
		kept := false
		for p := range h.Files {
			for _, gone := range []string{"/etc/kubernetes/", "/var/lib/etcd/", "/var/lib/kubelet/", markerFile, templates.HAProxyConfigPath, templates.KeepalivedPath} {
				if strings.HasPrefix(p, gone) && !strings.Contains(p, ".ha-install-") {
					bad = append(bad, ih.Name+" still has "+p)
				}
			}
			if strings.Contains(p, ".ha-install-") {
				kept = kept || strings.HasPrefix(p, kube.EtcdDir)
			}
		}
		if ih.Role == inventory.RoleControlPlane && !kept {
			bad = append(bad, ih.Name+": etcd's data is nowhere")
		}
		if h.Rules != 0 && ih.Role != inventory.RoleLoadBalancer {
			bad = append(bad, ih.Name+": packet filter rules are left")
		}
		for name, u := range h.Units {
			if name != "containerd.service" && name != "systemd-modules-load.service" && (u.Active || u.Enabled) {
				bad = append(bad, fmt.Sprintf("%s: %s is active %t, enabled %t", ih.Name, name, u.Active, u.Enabled))
			}
		}
	}
	return strings.Join(append(bad, w.Lost()...), "; ")
}

func TestResetKeepsWhatIsPreciousAndApplyWorksAgain(t *testing.T) {
	c, dirs := testCluster(t), baseDirs(t)
	w := grown(t, c, dirs[0])
	if err := reset(t.Context(), w, c, nil); err != nil {
		t.Fatal(err)
	}
	if bad := afterReset(w, c); bad != "" {
		t.Error(bad)
	}
	if _, err := prepare(context.Background(), w, c, dirs[1], nil); err != nil {
		t.Errorf("apply after reset: %v", err)
	}
	sets, err := caSets()
	if err != nil || fingerprintOn(w.Host("cp-1")) != sets[1].Fingerprint() {
		t.Errorf("the new cluster does not have the CA that was given (%v)", err)
	}
}

func TestResetLeavesHostsOfOthersAlone(t *testing.T) {
	c, dirs := testCluster(t), baseDirs(t)
	w := grown(t, c, dirs[0])
	w.Host("cp-3").Put(markerFile, 0o644, `{"cluster":"other"}`)
	delete(w.Host("w-1").Files, markerFile)
	if err := reset(t.Context(), w, c, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cp-3", "w-1"} {
		if len(w.Host(name).Aside) > 0 || w.Host(name).Rules == 0 {
			t.Errorf("%s was reset, although it does not bear this cluster's marker", name)
		}
	}
}
