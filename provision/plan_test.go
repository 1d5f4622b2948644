package provision

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/sim"
)

// planOf is `ha-install plan`.
func planOf(ctx context.Context, t testing.TB, w *sim.World, c *inventory.Cluster, dir string) (Plan, error) {
	return planBy(ctx, t, w, c, dir, func(ctx context.Context, site *Site) (Plan, error) { return MakePlan(ctx, site, nil) })
}

// planBy makes a plan; it fails the test when a single call writes.
func planBy(ctx context.Context, t testing.TB, w *sim.World, c *inventory.Cluster, dir string, make func(context.Context, *Site) (Plan, error)) (Plan, error) {
	ctx = w.Begin(ctx, nil)
	site := Connect(ctx, c, dir, w.Dial)
	defer site.Close()
	before, leases := w.Snapshot(nil), w.Leases()
	plan, err := make(ctx, site)
	if w.Leases() != leases {
		t.Error("a plan wrote to etcd")
	}
	for _, call := range w.Trace() {
		if call.Writes {
			t.Errorf("a plan made the call %s: %s", call.Host, call.Name)
		}
	}
	if diff := cmp.Diff(before, w.Snapshot(nil)); diff != "" {
		t.Errorf("a plan changed hosts (-before +after):\n%s", diff)
	}
	return plan, err
}

// inState are the IDs of a plan's steps in one of the states, sorted, each once.
func inState(p Plan, states ...phase.State) []string {
	var ids []string
	for _, s := range p.Steps {
		if slices.Contains(states, s.State) {
			ids = append(ids, s.ID())
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// changing runs apply and returns the IDs of the phases that changed something.
func changing(ctx context.Context, w *sim.World, c *inventory.Cluster, dir string) ([]string, error) {
	var ids []string
	_, err := applyAll(ctx, w, c, dir, nil, func(e phase.Event) {
		if e.Kind == phase.Finished {
			ids = append(ids, phase.Phase{Name: e.Phase, Host: e.Host}.ID())
		}
	})
	slices.Sort(ids)
	return slices.Compact(ids), err
}

// comparePlan makes a plan, applies, and compares the two: what was to change
// has changed, nothing else has but what could not be known.
func comparePlan(ctx context.Context, t testing.TB, story string, w *sim.World, c *inventory.Cluster, dir string) Plan {
	plan, err := planOf(ctx, t, w, c, dir)
	if err != nil {
		t.Errorf("%s: plan: %v", story, err)
		return plan
	}
	changed, err := changing(ctx, w, c, dir)
	if err != nil {
		t.Errorf("%s: apply: %v", story, err)
		return plan
	}
	compareWith(t, story, plan, changed)
	return plan
}

// compareWith compares a plan with the IDs of the phases that have changed something.
func compareWith(t testing.TB, story string, plan Plan, changed []string) {
	for _, id := range inState(plan, phase.ToChange) {
		if !slices.Contains(changed, id) {
			t.Errorf("%s: the plan says that %s would change, and it did not", story, id)
		}
	}
	for _, id := range changed {
		if !slices.Contains(inState(plan, phase.ToChange, phase.NotKnown), id) {
			t.Errorf("%s: %s has changed, and the plan did not say so", story, id)
		}
	}
	if plan.Nothing() != (len(changed) == 0) {
		t.Errorf("%s: the plan says nothing to do: %t; what changed: %q", story, plan.Nothing(), changed)
	}
}

func TestPlanOfBareHostsIsWhatApplyDoes(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	plan := comparePlan(t.Context(), t, "bare", w, c, dirs[0])
	if n := plan.Count(phase.NotKnown); n > 0 {
		t.Errorf("on bare hosts all is known; not so: %q", inState(plan, phase.NotKnown))
	}
	var last string
	for _, s := range plan.Steps {
		for _, ch := range s.Changes {
			if ch.Kind == changeMembership {
				last += fmt.Sprintf("%s %s: ", s.ID(), ch.Figures[0].Name)
				for _, f := range ch.Figures {
					last += fmt.Sprintf("%d>%d ", f.Before, f.After)
				}
				last += "\n"
			}
		}
	}
	want := "cp-1: init voters: 0>1 0>1 0>1 0>0 \ncp-2: join voters: 1>2 1>2 1>2 0>0 \ncp-3: join voters: 2>3 2>2 2>3 0>1 \n"
	if diff := cmp.Diff(want, last); diff != "" {
		t.Errorf("projections (-want +got):\n%s", diff)
	}
	again, err := planOf(t.Context(), t, w, c, dirs[0])
	if err != nil || !again.Nothing() {
		t.Errorf("after an apply: %v, to do: %q", err, inState(again, phase.ToChange, phase.NotKnown))
	}
}

// TestPlanOfWhatIsHalfDone plans and applies from every state that a killed
// apply can leave.
func TestPlanOfWhatIsHalfDone(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	f := applying("apply on bare hosts", c, madeBy(t, c, func(*testing.T, *sim.World) {}), dirs)
	_, _, points := f.undisturbed(t)
	n := min(len(points), fewPoints*tries())
	for i := range n {
		p := points[i*len(points)/n]
		if p.state.Steps() > 0 {
			continue // apply waits for these, and finds another state than a plan that does not
		}
		bubble(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), runBudget)
			defer cancel()
			comparePlan(ctx, t, p.story, f.world(t, p.state), c, dirs[0])
		})
	}
	t.Logf("plan where an apply was killed: at %d of %d points", n, len(points))
}

func TestPlanNeverShowsASecret(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	one, err := planOf(t.Context(), t, w, withoutCA(c), dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	two, err := planOf(t.Context(), t, w, withoutCA(c), dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Moved(two); err != nil {
		t.Errorf("two plans of the same state differ: %v", err)
	}
	for _, s := range one.Steps {
		for _, ch := range s.Changes {
			for _, bad := range []string{"PRIVATE KEY", "BEGIN CERTIFICATE", "secret:", "token:"} {
				if strings.Contains(ch.Diff+ch.Text, bad) {
					t.Errorf("%s shows %q of %s", s.ID(), bad, ch.Name)
				}
			}
		}
	}
}

func TestAPlanWaitsForTheStepsOfAKilledRun(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Slow = true
		cut := sim.Cut{Host: "cp-2", Name: "act 1 of column-start-1", Nth: 1, When: sim.Before, Fault: sim.Dies}
		if _, err := applyAll(t.Context(), w, c, dirs[0], &cut, nil); err == nil {
			t.Fatal("the run was not killed")
		}
		if n := w.Keep().Steps(); n != 1 {
			t.Fatalf("%d steps are under way, want the one of cp-2", n)
		}
		ctx := w.Begin(t.Context(), nil)
		site := Connect(ctx, c, dirs[0], w.Dial)
		defer site.Close()
		var told []string
		if err := AwaitSteps(ctx, site, func(text string) { told = append(told, text) }); err != nil {
			t.Error(err)
		}
		if n := w.Keep().Steps(); n != 0 || len(told) != 1 || !strings.Contains(told[0], "cp-2: waiting") || !strings.Contains(told[0], "column-start-1") {
			t.Errorf("%d steps are under way; told %q", n, told)
		}
		for _, call := range w.Trace() {
			if call.Writes && !strings.HasPrefix(call.Name, "act ") {
				t.Errorf("waiting made the call %s: %s", call.Host, call.Name)
			}
		}
	})
}
