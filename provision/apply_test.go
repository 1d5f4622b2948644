package provision

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/sim"
)

// applyAll is `ha-install apply`, to its end. cut may be nil.
func applyAll(ctx context.Context, w *sim.World, c *inventory.Cluster, dir string, cut *sim.Cut, say func(phase.Event)) (phase.Tally, error) {
	ctx = w.Begin(ctx, cut)
	site := Connect(ctx, c, dir, w.Dial)
	defer site.Close()
	run := phase.Runner{Events: say}
	err := Apply(ctx, site, &run)
	return run.Tally(), err
}

func TestApplyMakesThreeMastersAndThenNothing(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	var tables strings.Builder
	show := func(e phase.Event) {
		if e.Kind == phase.Notice {
			tables.WriteString(e.Message)
		}
	}
	if _, err := applyAll(context.Background(), w, c, dirs[0], nil, show); err != nil {
		t.Fatal(err)
	}
	want := []string{"cp-1 voter", "cp-2 voter", "cp-3 voter"}
	if diff := cmp.Diff(want, w.Votes()); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	for _, table := range []string{"voters 1", "voters 2  quorum 2  healthy 2  can lose 0", "voters 3  quorum 2  healthy 3  can lose 1"} {
		if !strings.Contains(tables.String(), table) {
			t.Errorf("no table shows %q", table)
		}
	}
	before := w.Snapshot(nil)
	tally, err := applyAll(context.Background(), w, withoutCA(c), dirs[1], nil, nil)
	if err != nil || tally.Changed != 0 {
		t.Errorf("a second apply changed %d phases, %v", tally.Changed, err)
	}
	if diff := cmp.Diff(before, w.Snapshot(nil)); diff != "" {
		t.Errorf("a second apply changed hosts (-before +after):\n%s", diff)
	}
	if bad := append(w.Broken(), w.Lost()...); len(bad) > 0 {
		t.Errorf("%q", bad)
	}
}

// ofAnyRun leaves out of a snapshot what differs from run to run by nature:
// steps that were tried again, and what was moved aside on the way.
func ofAnyRun(snapshot string) string {
	var kept []string
	for line := range strings.Lines(snapshot) {
		if !strings.Contains(line, "/var/lib/ha-install/steps/") && !strings.Contains(line, ".ha-install-") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// sameKind names what is made anew by each run, with keys or IDs in it.
func sameKind(p string) string {
	switch {
	case strings.HasPrefix(p, "/etc/kubernetes/") && strings.HasSuffix(p, ".conf"):
		return "a kubeconfig"
	case strings.HasPrefix(p, etcdMember):
		return "a member's data"
	}
	return sameSecret(p)
}

// TestApplyCutAtEveryChange kills the installer, or fails a single call, at
// every change from kubeadm init on: uploads, steps, members of etcd, objects
// of the API. The next run must end with three voters and the same hosts.
func TestApplyCutAtEveryChange(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := newWorld(t, c)
	if _, err := prepare(context.Background(), start, c, dirs[0], nil); err != nil {
		t.Fatal(err)
	}
	undisturbed := start.Clone(t, c)
	if _, err := applyAll(context.Background(), undisturbed, c, dirs[0], nil, nil); err != nil {
		t.Fatal(err)
	}
	want, cuts := ofAnyRun(undisturbed.Snapshot(sameKind)), []sim.Cut{}
	for _, call := range undisturbed.Trace() {
		if !call.Writes {
			continue
		}
		cuts = append(cuts, sim.Cut{Host: call.Host, Call: call.Number, When: sim.Before, Once: true}, sim.Cut{Host: call.Host, Call: call.Number, When: sim.After})
		if strings.HasPrefix(call.Name, "etcd ") || strings.HasPrefix(call.Name, "POST ") { // what a lost answer hides
			cuts = append(cuts, sim.Cut{Host: call.Host, Call: call.Number, When: sim.After, Once: true})
		}
	}
	var group errgroup.Group
	group.SetLimit(24)
	for _, cut := range cuts {
		group.Go(func() error {
			w := start.Clone(t, c)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			story := cut.String() + " (" + nameOf(undisturbed, cut) + ")"
			if _, err := applyAll(ctx, w, c, dirs[0], &cut, nil); err == nil && !cut.Once && w.Struck() {
				t.Errorf("%s: the installer died and reported success", story)
			}
			if _, err := applyAll(ctx, w, withoutCA(c), dirs[1], nil, nil); err != nil {
				t.Errorf("%s: the second run: %v", story, err)
				return nil
			}
			if diff := cmp.Diff([]string{"cp-1 voter", "cp-2 voter", "cp-3 voter"}, w.Votes()); diff != "" {
				t.Errorf("%s: members (-want +got):\n%s", story, diff)
			}
			if diff := cmp.Diff(want, ofAnyRun(w.Snapshot(sameKind))); diff != "" {
				t.Errorf("%s: the end differs from an undisturbed run's (-want +got):\n%s", story, diff)
			}
			if bad := append(w.Broken(), w.Lost()...); len(bad) > 0 {
				t.Errorf("%s: %q", story, bad)
			}
			for _, name := range w.API.Names("secrets") {
				if strings.Contains(name, "bootstrap-token") {
					t.Errorf("%s: the token %s is left", story, name)
				}
			}
			return nil
		})
	}
	_ = group.Wait() // every cut reports its own errors
	t.Logf("%d cut points tried", len(cuts))
}
