package phase

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// planned is a phase whose Do must not be called.
func planned(t *testing.T, name, host string, done bool, after ...string) Phase {
	return Phase{
		Name: name, Host: host, After: after,
		Done:    func(context.Context) (bool, error) { return done, nil },
		Do:      func(context.Context) error { t.Errorf("%s: a plan ran its Do", name); return nil },
		Explain: func(context.Context) ([]Change, error) { return []Change{{Kind: "file", Name: "/" + name}}, nil },
	}
}

// told is a plan as lines: "cp-1: join change /join".
func told(p Plan) []string {
	var lines []string
	for _, s := range p.Steps {
		line := s.ID() + " " + string(s.State)
		for _, c := range s.Changes {
			line += " " + c.Name
		}
		if len(s.WaitsFor) > 0 {
			line += " after " + strings.Join(s.WaitsFor, ", ")
		}
		lines = append(lines, line)
	}
	return lines
}

func TestPlan(t *testing.T) {
	gate := func(err error) Phase {
		return Phase{Name: "verify", Gate: []Check{{"all", func(context.Context) error { return Final(err) }}}}
	}
	foresee := func(p Phase, s State) Phase {
		p.Foresee = func(_ context.Context, pending []string) (State, []Change, error) {
			return s, []Change{{Name: "because of " + strings.Join(pending, "+")}}, nil
		}
		return p
	}
	forAll := func(p Phase) Phase { p.ForAll = true; return p }
	rows := []struct {
		name   string
		stages []Stage
		want   []string
		err    bool
	}{
		{"what is done is not explained", []Stage{One(planned(t, "claim", "cp-1", true))}, []string{"cp-1: claim done"}, false},
		{"what is not done is explained", []Stage{One(planned(t, "claim", "cp-1", false))}, []string{"cp-1: claim change /claim"}, false},
		{"without a Done it always changes something", []Stage{One(Phase{Name: "reset", Do: failing})}, []string{"reset change"}, false},
		{"what follows a pending phase on the same host is not known", []Stage{One(planned(t, "software", "cp-1", false)), One(planned(t, "images", "cp-1", true, "software"))},
			[]string{"cp-1: software change /software", "cp-1: images unknown after cp-1: software"}, false},
		{"on another host it is", []Stage{One(planned(t, "software", "cp-2", false)), One(planned(t, "images", "cp-1", true, "software"))},
			[]string{"cp-2: software change /software", "cp-1: images done"}, false},
		{"a phase of the cluster waits for one on any host", []Stage{One(planned(t, "join", "cp-2", false)), One(planned(t, "data-path", "", true, "join"))},
			[]string{"cp-2: join change /join", "data-path unknown after cp-2: join"}, false},
		{"a phase on a host waits for one of the cluster", []Stage{One(planned(t, "network", "", false)), One(planned(t, "labels", "cp-1", true, "network"))},
			[]string{"network change /network", "cp-1: labels unknown after network"}, false},
		{"a phase waits for one on another host that is for all", []Stage{One(forAll(planned(t, "init", "cp-1", false))), One(planned(t, "join", "cp-2", true, "init"))},
			[]string{"cp-1: init change /init", "cp-2: join unknown after cp-1: init"}, false},
		{"what was done already is not waited for", []Stage{One(planned(t, "software", "cp-1", true)), One(planned(t, "images", "cp-1", false, "software"))},
			[]string{"cp-1: software done", "cp-1: images change /images"}, false},
		{"what is not known makes what follows it not known", []Stage{One(planned(t, "a", "", false)), One(planned(t, "b", "", true, "a")), One(planned(t, "c", "", true, "b"))},
			[]string{"a change /a", "b unknown after a", "c unknown after b"}, false},
		{"a phase of a serial stage waits for the one before it", []Stage{InTurn([]string{"init", "join"}, func(n string) Phase { return planned(t, n, "", false, "init") })},
			[]string{"init change /init", "join unknown after init"}, false},
		{"phases at the same time do not wait for each other", []Stage{AtOnce([]string{"init", "join"}, func(n string) Phase { return planned(t, n, "", false, "init") })},
			[]string{"init change /init", "join change /join"}, false},
		{"what can be foreseen is", []Stage{One(planned(t, "init", "", false)), One(foresee(planned(t, "join", "cp-2", true, "init"), ToChange)), One(planned(t, "labels", "cp-2", true, "join"))},
			[]string{"init change /init", "cp-2: join change because of init", "cp-2: labels unknown after cp-2: join"}, false},
		{"what is foreseen to be done needs nothing", []Stage{One(planned(t, "init", "", false)), One(foresee(planned(t, "labels", "cp-2", false, "init"), AlreadyDone)), One(planned(t, "x", "cp-2", true, "labels"))},
			[]string{"init change /init", "cp-2: labels done", "cp-2: x done"}, false},
		{"what is possible is shown though it is not known", []Stage{One(planned(t, "init", "", false)), One(foresee(planned(t, "images", "cp-2", false, "init"), NotKnown))},
			[]string{"init change /init", "cp-2: images unknown because of init after init"}, false},
		{"a gate is asked while nothing has changed", []Stage{One(planned(t, "claim", "", true)), One(gate(errBoom))}, nil, true},
		{"a gate after a change is left for the run", []Stage{One(planned(t, "claim", "", false)), One(gate(errBoom))}, []string{"claim change /claim", "verify gate"}, false},
		{"a Done that cannot tell stops the plan", []Stage{One(Phase{Name: "join", Done: func(context.Context) (bool, error) { return false, errBoom }, Do: failing})}, nil, true},
		{"an Explain that finds a refusal stops the plan", []Stage{One(Phase{Name: "join", Do: failing, Explain: func(context.Context) ([]Change, error) { return nil, errBoom }})}, nil, true},
		{"a local Do that fails stops the plan", []Stage{One(Phase{Name: "secrets", Local: true, Do: failing})}, nil, true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			plan, err := Planner{}.Make(t.Context(), row.stages)
			if row.err != errors.Is(err, errBoom) || !row.err && err != nil {
				t.Fatalf("error %v", err)
			}
			if row.err {
				return
			}
			if diff := cmp.Diff(row.want, told(plan)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestPlanRunsWhatIsLocal: what a run would keep in memory is there for what follows.
func TestPlanRunsWhatIsLocal(t *testing.T) {
	key := ""
	secrets := Phase{Name: "secrets", Local: true, Do: func(context.Context) error { key = "drawn"; return nil }}
	push := planned(t, "push", "cp-1", false)
	push.Explain = func(context.Context) ([]Change, error) { return []Change{{Name: key}}, nil }
	plan, err := Planner{}.Make(t.Context(), []Stage{One(secrets), One(push)})
	if want := []string{"secrets change", "cp-1: push change drawn"}; err != nil || !slices.Equal(told(plan), want) {
		t.Errorf("%q, %v", told(plan), err)
	}
}

func TestPlanSkipsGatesWhenTold(t *testing.T) {
	plan, err := Planner{SkipGates: true}.Make(t.Context(), []Stage{One(Phase{Name: "preflight", Gate: []Check{{"all", failing}}})})
	if err != nil || !plan.Nothing() || plan.Count(Proof) != 1 {
		t.Errorf("%q, %v", told(plan), err)
	}
}

func TestPlanAsksParallelStagesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		slow := func(host string) Phase {
			p := planned(t, "software", host, false)
			p.Done = func(ctx context.Context) (bool, error) { return false, lasting(time.Minute)(ctx) }
			return p
		}
		var hosts []string
		for i := range 10 {
			hosts = append(hosts, fmt.Sprintf("w-%d", i))
		}
		plan, err := Planner{}.Make(t.Context(), []Stage{AtOnce(hosts, slow)})
		if err != nil || time.Since(began) != time.Minute || plan.Count(ToChange) != 10 || plan.Nothing() {
			t.Errorf("%d steps in %s, %v", len(plan.Steps), time.Since(began), err)
		}
	})
}
