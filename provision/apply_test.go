package provision

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
		t.Log(e.Host, e.Phase, e.Kind, e.Elapsed)
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
	tally, err := applyAll(context.Background(), w, c, dirs[1], nil, nil)
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
