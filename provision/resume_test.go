package provision

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/sim"
)

// TestChangeOfAnInventoryCutAtEveryCall changes the files of hosts that run:
// every daemon must read what is new, whatever was cut.
func TestChangeOfAnInventoryCutAtEveryCall(t *testing.T) {
	t.Parallel()
	before, dirs := testCluster(t), baseDirs(t)
	start := newWorld(t, before)
	if _, err := prepare(context.Background(), start, before, dirs[0], nil); err != nil {
		t.Fatal(err)
	}
	c := testCluster(t)
	c.Spec.LoadBalancer.VirtualRouterID = 77 // keepalived's
	c.Spec.Endpoint.Port = 8443              // HAProxy's
	c.Spec.Containerd = map[string]any{"debug": map[string]any{"level": "info"}}
	undisturbed := start.Clone(t, c)
	if _, err := prepare(context.Background(), undisturbed, c, dirs[0], nil); err != nil {
		t.Fatal(err)
	}
	want := undisturbed.Snapshot(nil)
	if strings.Contains(want, "old configuration") || want == start.Snapshot(nil) {
		t.Fatalf("an undisturbed run leaves\n%s", want)
	}
	cuts := cutsOf(undisturbed.Trace())
	for _, cut := range cuts {
		w := start.Clone(t, c)
		_, _ = prepare(context.Background(), w, c, dirs[0], &cut) // what counts is where the next one ends
		if _, err := prepare(context.Background(), w, c, dirs[0], nil); err != nil {
			t.Errorf("%s: the second run: %v", cut, err)
		}
		if diff := cmp.Diff(want, w.Snapshot(nil)); diff != "" {
			t.Errorf("%s (%s): the end differs from an undisturbed run's (-want +got):\n%s", cut, nameOf(undisturbed, cut), diff)
		}
	}
	t.Logf("%d cut points tried", len(cuts))
}

// TestManyCutsInARow kills run after run at random calls, each with another CA
// set to give, until one comes through.
func TestManyCutsInARow(t *testing.T) {
	t.Parallel()
	const walks, cutsPerWalk = 60, 5
	c, dirs := testCluster(t), baseDirs(t)
	undisturbed := newWorld(t, c)
	if _, err := prepare(context.Background(), undisturbed, c, dirs[0], nil); err != nil {
		t.Fatal(err)
	}
	want := undisturbed.Snapshot(sameSecret)
	for walk := range walks {
		random := rand.New(rand.NewPCG(1, uint64(walk)))
		w := newWorld(t, c)
		held, story := "", []string{}
		for i := range cutsPerWalk {
			hosts := c.Spec.Hosts
			cut := sim.Cut{Host: hosts[random.IntN(len(hosts))].Name, Call: 1 + random.IntN(30), When: sim.When(random.IntN(3))}
			story = append(story, cut.String())
			_, _ = prepare(context.Background(), w, c, dirs[i%2], &cut)
			if now := heldBefore(w, c); held != "" && now != held {
				t.Errorf("walk %d: a master's CA set was replaced after: %q", walk, story)
			} else {
				held = now
			}
		}
		if _, err := prepare(context.Background(), w, c, dirs[1], nil); err != nil {
			t.Errorf("walk %d: the last run: %v, after: %q", walk, err, story)
			continue
		}
		if diff := cmp.Diff(want, w.Snapshot(sameSecret)); diff != "" {
			t.Errorf("walk %d: after %q the end differs (-want +got):\n%s", walk, story, diff)
		}
		if set := fingerprintOn(w.Host("cp-1")); set == "" || set != fingerprintOn(w.Host("cp-2")) || set != fingerprintOn(w.Host("cp-3")) || held != "" && held != set {
			t.Errorf("walk %d: the masters' CA sets differ, or changed, after %q", walk, story)
		}
	}
	t.Logf("%d runs were cut", walks*cutsPerWalk)
}

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

func reset(w *sim.World, c *inventory.Cluster, cut *sim.Cut) error {
	ctx := w.Begin(context.Background(), cut)
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
		kept := map[string]bool{}
		for p, f := range h.Files {
			for _, gone := range []string{"/etc/kubernetes/", "/var/lib/etcd/", "/var/lib/kubelet/", markerFile} {
				if strings.HasPrefix(p, gone) && !strings.Contains(p, ".ha-install-") {
					bad = append(bad, ih.Name+" still has "+p)
				}
			}
			if strings.Contains(p, ".ha-install-") {
				kept[string(f.Content)] = true
			}
		}
		if ih.Role == inventory.RoleControlPlane && !kept["data of "+ih.Name] {
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
	if err := reset(w, c, nil); err != nil {
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

func TestResetCutAtEveryCall(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := grown(t, c, dirs[0])
	undisturbed := start.Clone(t, c)
	if err := reset(undisturbed, c, nil); err != nil {
		t.Fatal(err)
	}
	cuts := cutsOf(undisturbed.Trace())
	for _, cut := range cuts {
		w := start.Clone(t, c)
		if err := reset(w, c, &cut); err == nil && !cut.Once {
			t.Errorf("%s: the installer died and reported success", cut)
		}
		if err := reset(w, c, nil); err != nil {
			t.Errorf("%s (%s): the second reset: %v", cut, nameOf(undisturbed, cut), err)
		} else if bad := afterReset(w, c); bad != "" {
			t.Errorf("%s (%s): %s", cut, nameOf(undisturbed, cut), bad)
		}
		if _, err := prepare(context.Background(), w, c, dirs[1], nil); err != nil {
			t.Errorf("%s (%s): apply after it: %v", cut, nameOf(undisturbed, cut), err)
		}
	}
	t.Logf("%d cut points tried", len(cuts))
}

func TestResetLeavesHostsOfOthersAlone(t *testing.T) {
	c, dirs := testCluster(t), baseDirs(t)
	w := grown(t, c, dirs[0])
	w.Host("cp-3").Put(markerFile, 0o644, `{"cluster":"other"}`)
	delete(w.Host("w-1").Files, markerFile)
	if err := reset(w, c, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cp-3", "w-1"} {
		if len(w.Host(name).Aside) > 0 || w.Host(name).Rules == 0 {
			t.Errorf("%s was reset, although it does not bear this cluster's marker", name)
		}
	}
}
