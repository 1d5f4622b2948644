package provision

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/sim"
)

// madeBy is the world that f leaves of bare hosts of the inventory.
func madeBy(t *testing.T, c *inventory.Cluster, f func(t *testing.T, w *sim.World)) *sim.State {
	t.Helper()
	var state *sim.State
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Slow = true
		f(t, w)
		w.Begin(t.Context(), nil) // what a run of its own counted is no concern of the next
		state = w.Keep()
	})
	return state
}

// finished is a cluster that apply has made of bare hosts of have's inventory,
// in a world that has all hosts of c.
func finished(t *testing.T, have, c *inventory.Cluster, dir string) *sim.State {
	t.Helper()
	return madeBy(t, c, func(t *testing.T, w *sim.World) { running(t, w, have, dir) })
}

// given are the inventory and the CA directory of a run: a cluster that was
// made keeps its CA set; until then each run has its own to give.
func given(w *sim.World, c *inventory.Cluster, dirs [2]string, again bool) (*inventory.Cluster, string) {
	dir := dirs[0]
	if again {
		dir = dirs[1]
	}
	if heldBefore(w, c) != "" {
		c = withoutCA(c)
	}
	return c, dir
}

// applying is `ha-install apply` as a workflow.
func applying(name string, c *inventory.Cluster, start *sim.State, dirs [2]string) workflow {
	return workflow{
		name: name, c: c, start: start,
		run: func(ctx context.Context, w *sim.World, again bool, cut *sim.Cut) error {
			with, dir := given(w, c, dirs, again)
			_, err := applyAll(ctx, w, with, dir, cut, nil)
			return err
		},
		wrong: func(w *sim.World) string { return unfinished(w, c) },
	}
}

// preparing is apply up to kubeadm init.
func preparing(name string, c *inventory.Cluster, start *sim.State, dirs [2]string) workflow {
	return workflow{
		name: name, c: c, start: start,
		run: func(ctx context.Context, w *sim.World, again bool, cut *sim.Cut) error {
			with, dir := given(w, c, dirs, again)
			_, err := prepare(ctx, w, with, dir, cut)
			return err
		},
		wrong: func(w *sim.World) string { return strings.Join(unequalSecrets(w, c), "; ") },
		then: func(ctx context.Context, w *sim.World) error {
			with, dir := given(w, c, dirs, true)
			tally, err := prepare(ctx, w, with, dir, nil)
			if err != nil || tally.Changed > 0 {
				return fmt.Errorf("the third run changed %d phases, error %w", tally.Changed, err)
			}
			return nil
		},
	}
}

// resetting is `ha-install reset`; in the end apply has to work again.
func resetting(name string, c *inventory.Cluster, start *sim.State, dirs [2]string) workflow {
	return workflow{
		name: name, c: c, start: start,
		run: func(ctx context.Context, w *sim.World, _ bool, cut *sim.Cut) error {
			w.MayEnd = true
			return reset(ctx, w, c, cut)
		},
		wrong: func(w *sim.World) string { return afterReset(w, c) },
		then: func(ctx context.Context, w *sim.World) error {
			if _, err := applyAll(ctx, w, c, dirs[1], nil, nil); err != nil {
				return fmt.Errorf("apply after reset: %w", err)
			}
			if bad := append(w.Broken(), unfinished(w, c)); strings.Join(bad, "") != "" {
				return fmt.Errorf("apply after reset: %q", bad)
			}
			return nil
		},
	}
}

// unequalSecrets says in what masters and balancers differ that all have in common.
func unequalSecrets(w *sim.World, c *inventory.Cluster) []string {
	var wrong []string
	first := w.Host(c.ControlPlanes()[0].Name)
	set, key := fingerprintOn(first), string(first.Files[templates.EncryptionConfigPath].Content)
	for _, ih := range c.ControlPlanes() {
		h := w.Host(ih.Name)
		if fingerprintOn(h) != set || set == "" {
			wrong = append(wrong, ih.Name+" and "+first.Name()+" have different CA sets")
		}
		if string(h.Files[templates.EncryptionConfigPath].Content) != key || key == "" {
			wrong = append(wrong, ih.Name+" and "+first.Name()+" have different encryption keys")
		}
	}
	for _, ih := range c.Balancers() {
		if ca := string(w.Host(ih.Name).Files[templates.HAProxyCAPath].Content); ca != string(first.Files[kube.PKIDir+"/ca.crt"].Content) {
			wrong = append(wrong, ih.Name+" trusts another CA than the masters have")
		}
	}
	return wrong
}

// unfinished says what a cluster lacks that apply has called done.
func unfinished(w *sim.World, c *inventory.Cluster) string {
	wrong := unequalSecrets(w, c)
	var want []string
	for _, ih := range c.ControlPlanes() {
		want = append(want, ih.Name+" voter")
	}
	votes := w.Votes()
	slices.Sort(votes)
	if strings.Join(votes, ",") != strings.Join(want, ",") {
		wrong = append(wrong, fmt.Sprintf("members %q", votes))
	}
	for _, name := range w.API.Names("secrets") {
		if strings.Contains(name, "bootstrap-token") {
			wrong = append(wrong, "the token "+name+" is left")
		}
	}
	if out := w.Drained(); len(out) > 0 {
		wrong = append(wrong, fmt.Sprintf("still drained: %q", out))
	}
	for _, ih := range c.Spec.Hosts {
		if _, left := w.Host(ih.Name).Files[kube.DiscoveryFile]; left {
			wrong = append(wrong, ih.Name+" still has a token on its disk")
		}
	}
	return strings.Join(wrong, "; ")
}

// dressed is the test's cluster with labels and taints on its Nodes.
func dressed(t *testing.T) *inventory.Cluster {
	c := testCluster(t)
	for i := range c.Spec.Hosts {
		if h := &c.Spec.Hosts[i]; h.Role != inventory.RoleLoadBalancer {
			h.Labels = map[string]string{"site": "east"}
			h.Taints = []inventory.Taint{{Key: "dedicated", Value: "x", Effect: "NoSchedule"}}
		}
	}
	return c
}

// fiveMasters is c with two masters and a worker more.
func fiveMasters(c *inventory.Cluster) *inventory.Cluster {
	five := *c
	five.Spec.Hosts = slices.Clone(c.Spec.Hosts)
	for i, name := range []string{"cp-4", "cp-5", "w-2"} {
		role := inventory.RoleControlPlane
		if name == "w-2" {
			role = inventory.RoleWorker
		}
		address := fmt.Sprintf("198.51.100.%d", 40+i)
		five.Spec.Hosts = append(five.Spec.Hosts, inventory.Host{Name: name, Address: address, InternalAddress: address, Role: role})
	}
	return &five
}

func TestPreparingBareHostsStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	preparing("apply on bare hosts, up to kubeadm init", c, madeBy(t, c, func(*testing.T, *sim.World) {}), dirs).everywhere(t)
}

func TestPreparingWhereAMasterHasDataStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := madeBy(t, c, func(t *testing.T, w *sim.World) { withMember(t, w, c, dirs) })
	f := preparing("apply where one of three masters has data already, up to kubeadm init", withoutCA(c), start, dirs)
	f.about = func(c sim.Call) bool {
		return strings.Contains(c.Name, "/etc/kubernetes") || strings.Contains(c.Name, "cluster.json")
	}
	f.everywhere(t)
}

func TestApplyFromInitOnStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := dressed(t), baseDirs(t)
	start := madeBy(t, c, func(t *testing.T, w *sim.World) {
		if _, err := prepare(t.Context(), w, c, dirs[0], nil); err != nil {
			t.Fatal(err)
		}
	})
	f := applying("apply from kubeadm init on", c, start, dirs)
	f.about = notTheLock
	f.everywhere(t)
}

func TestApplyOnAFinishedClusterStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	f := applying("apply on a finished cluster", c, finished(t, c, c, dirs[0]), dirs)
	f.everywhere(t)
}

func TestScaleOutStoppedAnywhere(t *testing.T) {
	t.Parallel()
	three, dirs := testCluster(t), baseDirs(t)
	five := fiveMasters(three)
	f := applying("apply from 3 to 5 masters and another worker", five, finished(t, three, five, dirs[0]), dirs)
	f.about = func(c sim.Call) bool { // cp-5 joins as cp-4 does
		return c.Host == "cp-4" || c.Host == "w-2" || strings.HasPrefix(c.Name, "etcd ") || strings.Contains(c.Name, "/api")
	}
	f.everywhere(t)
}

// TestChangedInventoryStoppedAnywhere changes the files of hosts that run:
// every daemon must read what is new, whatever was cut.
func TestChangedInventoryStoppedAnywhere(t *testing.T) {
	t.Parallel()
	before, dirs := testCluster(t), baseDirs(t)
	c := dressed(t)
	c.Spec.LoadBalancer.VirtualRouterID = 77 // keepalived's
	c.Spec.Containerd = map[string]any{"debug": map[string]any{"level": "info"}}
	f := applying("apply of a changed inventory", c, finished(t, before, c, dirs[0]), dirs)
	f.about = notTheLock
	f.wrong = func(w *sim.World) string {
		if text := w.Snapshot(nil); strings.Contains(text, "old configuration") || !strings.Contains(text, `"site":"east"`) {
			return "not everything that runs has what is new:\n" + text
		}
		return unfinished(w, c)
	}
	f.everywhere(t)
}

// TestHalfJoinedStoppedAnywhere begins where an earlier run broke off in the
// middle of a join, and is stopped again.
func TestHalfJoinedStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	var starts []point
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Slow = true
		w.Watch(func(m sim.Moment) {
			if m.Host == "cp-2" && strings.Contains(m.Name, "column-start") || m.Name == "etcd add https://198.51.100.22:2380" {
				starts = append(starts, point{story: m.Name, state: m.Keep()})
			}
		})
		running(t, w, c, dirs[0])
	})
	for _, p := range starts {
		if p.state.Steps() > 0 { // it goes on by itself, as in a run that was killed
			continue
		}
		f := applying("apply after a join that broke off at "+p.story, c, p.state, dirs)
		f.about = ofTheJoin
		t.Run(p.story, f.everywhere)
	}
	for _, acts := range []int{1, 2, 3} { // the host lost its power after so many of them
		f := applying(fmt.Sprintf("apply after a reboot in the join, %d acts of column-start done", acts), c, rebooted(t, c, dirs, acts), dirs)
		f.about = ofTheJoin
		t.Run(fmt.Sprint("reboot ", acts), f.everywhere)
	}
}

// notTheLock leaves out how the lock is taken: it is the same in each workflow.
func notTheLock(c sim.Call) bool { return c.Name != "lock" && c.Name != "raise" }

// ofTheJoin are the calls that take a broken join up or back.
func ofTheJoin(c sim.Call) bool {
	return c.Writes && (c.Host == "cp-2" && notTheLock(c) || strings.HasPrefix(c.Name, "etcd "))
}

// rebooted is what a run leaves whose operator gave up when the host that was
// to join lost its power in the middle.
func rebooted(t *testing.T, c *inventory.Cluster, dirs [2]string, acts int) *sim.State {
	return madeBy(t, c, func(t *testing.T, w *sim.World) {
		cut := sim.Cut{Host: "cp-2", Name: fmt.Sprintf("act %d of column-start-1", acts), Nth: 1, When: sim.After, Fault: sim.Reboots}
		if _, err := applyAll(t.Context(), w, c, dirs[0], &cut, nil); err == nil {
			t.Errorf("a reboot in the join was not noticed")
		}
		w.Back()
	})
}

func TestResetStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	resetting("reset", c, finished(t, c, c, dirs[0]), dirs).everywhere(t)
}

// TestManyKillsInARow kills run after run, each at any point of the work that
// is left, until one comes through.
func TestManyKillsInARow(t *testing.T) {
	t.Parallel()
	walks, kills := 2*tries(), 5
	c, dirs := testCluster(t), baseDirs(t)
	f := applying("apply on bare hosts", c, madeBy(t, c, func(*testing.T, *sim.World) {}), dirs)
	for walk := range walks {
		f.walk(t, rand.New(rand.NewPCG(*seedFlag, uint64(walk))), kills)
	}
	t.Logf("%d runs were killed", walks*kills)
}

// withMember makes cp-2 the one master of a running cluster.
func withMember(t *testing.T, w *sim.World, _ *inventory.Cluster, _ [2]string) {
	sets, err := caSets()
	if err != nil {
		t.Fatal(err)
	}
	h := w.Host("cp-2")
	h.Put(markerFile, 0o644, `{"cluster":"prod"}`)
	h.Put(etcdMember+"/snap/db", 0o600, "all there is")
	h.Put(etcdManifest, 0o600, "a pod")
	for _, f := range (&secrets{ca: sets[0], encryption: templates.EncryptionConfig([32]byte{1})}).files() {
		h.Put(f.Path, f.Mode, string(f.Content))
	}
}
