package provision

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/preflight"
	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/sim"
)

func TestPrepareBareHostsAndAgain(t *testing.T) {
	ctx, c, dirs := context.Background(), testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	tally, err := prepare(ctx, w, c, dirs[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	if tally.Changed == 0 {
		t.Error("nothing was changed on bare hosts")
	}
	before := w.Snapshot(nil)
	if strings.Contains(before, "old configuration") || strings.Contains(before, "read: false") {
		t.Errorf("something does not run what is on disk:\n%s", before)
	}
	tally, err = prepare(ctx, w, c, dirs[1], nil)
	if err != nil || tally.Changed != 0 {
		t.Errorf("the second run changed %d phases, error %v", tally.Changed, err)
	}
	if diff := cmp.Diff(before, w.Snapshot(nil)); diff != "" {
		t.Errorf("the second run changed hosts (-before +after):\n%s", diff)
	}
	for _, call := range w.Trace() {
		if call.Writes && !strings.Contains(call.Name, "fsync") {
			t.Errorf("the second run wrote: %+v", call)
		}
	}
}

// scenario is a world to begin from.
type scenario struct {
	name    string
	prepare func(t *testing.T, w *sim.World, c *inventory.Cluster, dirs [2]string)
	// given is the directory of the cut run and of the one after it.
	given [2]int
}

var scenarios = []scenario{
	{"bare hosts", func(*testing.T, *sim.World, *inventory.Cluster, [2]string) {}, [2]int{0, 1}},
	{"a master of three was there before, with data", withMember, [2]int{1, 1}},
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

// TestPrepareCutAtEveryCall stops the installer at every remote call, runs it
// again and wants what an undisturbed run leaves.
func TestPrepareCutAtEveryCall(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			c, dirs := testCluster(t), baseDirs(t)
			start := newWorld(t, c)
			s.prepare(t, start, c, dirs)
			undisturbed := start.Clone(t, c)
			if _, err := prepare(context.Background(), undisturbed, c, dirs[s.given[0]], nil); err != nil {
				t.Fatal(err)
			}
			cuts := cutsOf(undisturbed.Trace())
			want := undisturbed.Snapshot(sameSecret)
			for _, cut := range cuts {
				w := start.Clone(t, c)
				if problem := cutAndRepeat(w, c, dirs, s.given, cut); problem != "" {
					t.Errorf("%s (%s): %s", cut, nameOf(undisturbed, cut), problem)
				} else if diff := cmp.Diff(want, w.Snapshot(sameSecret)); diff != "" {
					t.Errorf("%s (%s): the end differs from an undisturbed run's (-want +got):\n%s", cut, nameOf(undisturbed, cut), diff)
				}
			}
			t.Logf("%d cut points tried", len(cuts))
		})
	}
}

// cutsOf are all faults that the calls of a run allow.
func cutsOf(trace []sim.Call) []sim.Cut {
	var cuts []sim.Cut
	for _, call := range trace {
		cuts = append(cuts, sim.Cut{Host: call.Host, Call: call.Number, When: sim.Before, Once: true})
		if !call.Writes {
			continue
		}
		// To die before a call is to die after the one before it.
		cuts = append(cuts, sim.Cut{Host: call.Host, Call: call.Number, When: sim.After})
		if call.Parts > 1 {
			cuts = append(cuts, sim.Cut{Host: call.Host, Call: call.Number, When: sim.Half})
		}
	}
	return cuts
}

func nameOf(w *sim.World, cut sim.Cut) string {
	for _, call := range w.Trace() {
		if call.Host == cut.Host && call.Number == cut.Call {
			return call.Name
		}
	}
	return ""
}

// cutAndRepeat says what went wrong, "" for nothing.
func cutAndRepeat(w *sim.World, c *inventory.Cluster, dirs [2]string, given [2]int, cut sim.Cut) string {
	_, err := prepare(context.Background(), w, c, dirs[given[0]], &cut)
	if err == nil && !cut.Once {
		return "the installer died and reported success"
	}
	held := heldBefore(w, c)
	if _, err := prepare(context.Background(), w, c, dirs[given[1]], nil); err != nil {
		return "the second run: " + err.Error()
	}
	set := fingerprintOn(w.Host("cp-1"))
	key := string(w.Host("cp-1").Files[templates.EncryptionConfigPath].Content)
	for _, ih := range c.ControlPlanes() {
		h := w.Host(ih.Name)
		if fingerprintOn(h) != set || set == "" {
			return ih.Name + " and cp-1 have different CA sets"
		}
		if string(h.Files[templates.EncryptionConfigPath].Content) != key || key == "" {
			return ih.Name + " and cp-1 have different encryption keys"
		}
		if ca := string(h.Files[kube.PKIDir+"/ca.crt"].Content); ca != string(w.Host("lb-1").Files[templates.HAProxyCAPath].Content) {
			return "the balancer trusts another CA than " + ih.Name + " has"
		}
	}
	if held != "" && held != set {
		return "a master held a whole CA set, and another one was made"
	}
	if lost := w.Lost(); len(lost) > 0 {
		return strings.Join(lost, "; ")
	}
	tally, err := prepare(context.Background(), w, c, dirs[given[1]], nil)
	if err != nil {
		return "the third run: " + err.Error()
	}
	if tally.Changed > 0 {
		return "the third run still found something to change"
	}
	return ""
}

// heldBefore is the CA set that some master holds together with the
// encryption key: from then on it is the cluster's.
func heldBefore(w *sim.World, c *inventory.Cluster) string {
	for _, ih := range c.ControlPlanes() {
		h := w.Host(ih.Name)
		if _, ok := h.Files[templates.EncryptionConfigPath]; ok && fingerprintOn(h) != "" {
			return fingerprintOn(h)
		}
	}
	return ""
}

func TestPrepareRefuses(t *testing.T) {
	rows := []struct {
		name   string
		change func(w *sim.World)
		want   string
	}{
		{"etcd data on a master, and no CA set anywhere", func(w *sim.World) {
			w.Host("cp-2").Put(markerFile, 0o644, `{"cluster":"prod"}`)
			w.Host("cp-2").Put(etcdMember+"/snap/db", 0o600, "data")
		}, "no master has the cluster's CA set"},
		{"a host that belongs to another cluster", func(w *sim.World) {
			w.Host("w-1").Put(markerFile, 0o644, `{"cluster":"other"}`)
		}, "belongs to the cluster other"},
		{"files of a cluster that nobody claims", func(w *sim.World) {
			w.Host("cp-3").Put(kube.AdminConf, 0o600, "kubeconfig")
		}, "/etc/kubernetes/admin.conf"},
		{"etcd data that nobody claims", func(w *sim.World) {
			w.Host("cp-1").Put(etcdMember+"/snap/db", 0o600, "data")
		}, etcdMember},
		{"a host that no other reaches", func(w *sim.World) { w.Host("cp-3").Down = true }, "no answer from cp-3"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c, dirs := testCluster(t), baseDirs(t)
			w := newWorld(t, c)
			row.change(w)
			before := w.Snapshot(nil)
			_, err := prepare(context.Background(), w, c, dirs[0], nil)
			if err == nil {
				t.Fatal("nothing was refused")
			}
			var failure *preflight.Failure
			text := err.Error()
			if errors.As(err, &failure) {
				if diff := cmp.Diff(before, w.Snapshot(nil)); diff != "" {
					t.Errorf("preflight refused, and yet hosts were changed:\n%s", diff)
				}
			}
			if !strings.Contains(text, row.want) {
				t.Errorf("the error is\n%s\nwanted %q in it", text, row.want)
			}
			if lost := w.Lost(); len(lost) > 0 {
				t.Errorf("lost: %q", lost)
			}
		})
	}
}
