package phase

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-multierror"
)

var errBoom = errors.New("boom")

// script is a phase whose parts note that they were called.
type script struct {
	done    *bool // nil: no Done at all
	doneErr error
	needs   error
	do      error
	gate    error
	undo    error
	noDo    bool
	noUndo  bool

	mu    sync.Mutex
	calls []string
}

func (s *script) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, what)
}

func (s *script) phase(name, host string) Phase {
	p := Phase{
		Name: name, Host: host, GateTimeout: time.Second,
		Needs: []Check{{"the need", func(context.Context) error { s.note("needs"); return s.needs }}},
		Gate:  []Check{{"the gate", func(context.Context) error { s.note("gate"); return s.gate }}},
	}
	if s.done != nil || s.doneErr != nil {
		p.Done = func(context.Context) (bool, error) {
			s.note("done")
			return s.done != nil && *s.done, s.doneErr
		}
	}
	if !s.noDo {
		p.Do = func(context.Context) error { s.note("do"); return s.do }
	}
	if !s.noUndo {
		p.Undo = func(context.Context) error { s.note("undo"); return s.undo }
	}
	return p
}

// collect runs stages and returns the events and the error.
func collect(ctx context.Context, r *Runner, stages ...Stage) ([]Event, error) {
	var events []Event
	r.Events = func(e Event) { events = append(events, e) }
	err := r.Run(ctx, stages)
	if len(events) == 0 || events[0].Kind != Workflow {
		return nil, errors.New("the run does not begin with what is to come")
	}
	return events[1:], err
}

func kinds(events []Event) string {
	var out []string
	for _, e := range events {
		out = append(out, string(e.Kind))
	}
	return strings.Join(out, " ")
}

func TestRunnerParts(t *testing.T) {
	yes, no := true, false
	rows := []struct {
		name   string
		script *script
		calls  string
		events string
		part   string // of the error; "" for none
		tally  Tally
	}{
		{"a phase that is not done runs in order", &script{done: &no}, "done needs do gate", "started finished", "", Tally{Changed: 1}},
		{"without Done it always runs", &script{}, "needs do gate", "started finished", "", Tally{Changed: 1}},
		{"a done phase skips Do and its needs, and still proves its gate", &script{done: &yes}, "done gate", "started skipped", "", Tally{Skipped: 1}},
		{"a phase without Do is only its gate", &script{noDo: true}, "gate", "started skipped", "", Tally{Skipped: 1}},
		{"a need that is not met keeps Do from running", &script{done: &no, needs: errBoom}, "done needs", "started failed", "needs", Tally{}},
		{"a Done that cannot tell stops the phase", &script{doneErr: errBoom}, "done", "started failed", "done", Tally{}},
		{"a Do that fails is undone, and its gate not asked", &script{do: errBoom}, "needs do undo", "started undoing failed", "do", Tally{}},
		{"a Do that fails without an Undo", &script{do: errBoom, noUndo: true}, "needs do", "started failed", "do", Tally{}},
		{"a gate that fails freezes: nothing is undone", &script{gate: Final(errBoom)}, "needs do gate", "started failed", "gate", Tally{}},
		{"a gate that fails after a skip", &script{done: &yes, gate: Final(errBoom)}, "done gate", "started failed", "gate", Tally{}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var r Runner
			events, err := collect(t.Context(), &r, One(row.script.phase("join", "cp-2")))
			if got := strings.Join(row.script.calls, " "); got != row.calls {
				t.Errorf("called %q, wanted %q", got, row.calls)
			}
			if got := kinds(events); got != row.events {
				t.Errorf("events %q, wanted %q", got, row.events)
			}
			if got := r.Tally(); got != row.tally {
				t.Errorf("tally %+v, wanted %+v", got, row.tally)
			}
			var e *Error
			if row.part == "" {
				if err != nil {
					t.Errorf("error %v", err)
				}
				return
			}
			if !errors.As(err, &e) || e.Part != row.part || e.Phase != "cp-2: join" || !errors.Is(err, errBoom) {
				t.Errorf("error %#v (%v), wanted part %q of cp-2: join", e, err, row.part)
			}
			if last := events[len(events)-1]; last.Message != err.Error() {
				t.Errorf("the event says %q, the error %q", last.Message, err)
			}
		})
	}
}

func TestUndoOutlivesAnInterrupt(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	var seen error
	var bounded bool
	p := Phase{
		Name: "join",
		Do:   func(context.Context) error { interrupt(); return ctx.Err() },
		Undo: func(ctx context.Context) error {
			_, bounded = ctx.Deadline()
			seen = ctx.Err()
			return nil
		},
	}
	_, err := collect(ctx, &Runner{}, One(p))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if seen != nil || !bounded {
		t.Errorf("Undo's context: %v, with a deadline: %t", seen, bounded)
	}
}

func TestUndoThatFailsIsSaidBesideItsCause(t *testing.T) {
	undo := errors.New("no way back")
	_, err := collect(t.Context(), &Runner{}, One((&script{do: errBoom, undo: undo}).phase("join", "")))
	if !errors.Is(err, errBoom) || !errors.Is(err, undo) || !strings.Contains(err.Error(), "taking it back: no way back") {
		t.Errorf("error %v", err)
	}
}

func TestGateIsPolledUntilItPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		began := time.Now()
		p := Phase{Name: "join", Gate: []Check{{"quorum", func(context.Context) error {
			if asked++; asked < 4 {
				return errBoom
			}
			return nil
		}}}}
		if _, err := collect(t.Context(), &Runner{}, One(p)); err != nil || asked != 4 {
			t.Errorf("error %v after %d questions", err, asked)
		}
		if took := time.Since(began); took != 3*pollEvery {
			t.Errorf("took %s, wanted three pauses", took)
		}
	})
}

func TestFinalAnswerStopsPolling(t *testing.T) {
	asked := 0
	check := Check{"quorum", func(context.Context) error {
		asked++
		return fmt.Errorf("seen on cp-1: %w", Final(errBoom))
	}}
	err := Wait(t.Context(), check)
	if asked != 1 || !errors.Is(err, errBoom) {
		t.Errorf("asked %d times, error %v", asked, err)
	}
	if Final(nil) != nil {
		t.Error("Final makes an error of nothing")
	}
}

func TestDeadlineSaysWhatWasSeenLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		p := Phase{Name: "join", Host: "cp-2", GateTimeout: 2 * time.Second, Gate: []Check{{"three voters", func(context.Context) error {
			asked++
			return fmt.Errorf("look %d: 2 voters, wanted 3", asked)
		}}}}
		_, err := collect(t.Context(), &Runner{}, One(p))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		for _, part := range []string{"cp-2: join", "waiting for three voters", fmt.Sprintf("last seen: look %d: 2 voters, wanted 3", asked)} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q is not in %q", part, err)
			}
		}
	})
}

func TestParallelStageRunsAllAndNamesEveryError(t *testing.T) {
	var ran atomic.Int32
	stage := AtOnce([]string{"cp-1", "cp-2", "cp-3"}, func(host string) Phase {
		return Phase{Name: "software", Host: host, Do: func(context.Context) error {
			ran.Add(1)
			if host == "cp-2" {
				return nil
			}
			return errBoom
		}}
	})
	never := One(Phase{Name: "init", Do: func(context.Context) error { t.Error("a stage ran after one that failed"); return nil }})
	var r Runner
	_, err := collect(t.Context(), &r, stage, never)
	var all *multierror.Error
	if !errors.As(err, &all) || len(all.Errors) != 2 || ran.Load() != 3 {
		t.Fatalf("ran %d, error %v", ran.Load(), err)
	}
	for i, want := range []string{"cp-1: software: boom", "cp-3: software: boom"} {
		if all.Errors[i].Error() != want {
			t.Errorf("error %d is %q, wanted %q", i, all.Errors[i], want)
		}
	}
	if r.Tally() != (Tally{Changed: 1}) {
		t.Errorf("tally %+v", r.Tally())
	}
}

func TestSerialStageStopsAtTheFirstError(t *testing.T) {
	var order []string
	stage := InTurn([]string{"cp-1", "cp-2", "cp-3"}, func(host string) Phase {
		return Phase{Name: "join", Host: host, Do: func(context.Context) error {
			order = append(order, host)
			if host == "cp-2" {
				return errBoom
			}
			return nil
		}}
	})
	_, err := collect(t.Context(), &Runner{}, stage)
	if want := []string{"cp-1", "cp-2"}; !slices.Equal(order, want) || err.Error() != "cp-2: join: boom" {
		t.Errorf("ran %v, error %v", order, err)
	}
}

// TestPhasesInTurnNeverOverlap is what keeps membership changes one at a time.
func TestPhasesInTurnNeverOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now atomic.Int32
		work := func(context.Context) error {
			if now.Add(1) != 1 {
				t.Error("two phases at a time")
			}
			<-time.After(time.Second)
			now.Add(-1)
			return nil
		}
		stage := InTurn([]string{"a", "b", "c"}, func(host string) Phase {
			return Phase{Name: "harden", Host: host, Do: work, Gate: []Check{{"it", work}}}
		})
		if _, err := collect(t.Context(), &Runner{}, stage); err != nil {
			t.Error(err)
		}
	})
}

func TestTogetherRunsStagesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		slow := func(name string) Phase {
			return Phase{Name: name, Do: func(context.Context) error { <-time.After(time.Minute); return nil }}
		}
		stage := Together(One(slow("init")), AtOnce([]string{"x", "y"}, slow))
		if _, err := collect(t.Context(), &Runner{}, stage); err != nil || time.Since(began) != time.Minute || len(stage.Phases) != 3 {
			t.Errorf("%d phases took %s, error %v", len(stage.Phases), time.Since(began), err)
		}
	})
}

func TestInterruptedRunStartsNothingMore(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	first := One(Phase{Name: "claim", Do: func(context.Context) error { interrupt(); return nil }})
	second := One(Phase{Name: "init", Do: func(context.Context) error { t.Error("it began after the interrupt"); return nil }})
	if _, err := collect(ctx, &Runner{}, first, second); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestEventsOfLongCommands(t *testing.T) {
	p := Phase{Name: "init", Host: "cp-1", Do: func(ctx context.Context) error {
		Say(ctx, "[certs] using the existing CA")
		Tell(ctx, "voters 1  quorum 1")
		return nil
	}}
	events, _ := collect(t.Context(), &Runner{}, One(p))
	want := []Event{
		{Kind: Started, Phase: "init", Host: "cp-1"},
		{Kind: Output, Phase: "init", Host: "cp-1", Message: "[certs] using the existing CA"},
		{Kind: Notice, Phase: "init", Host: "cp-1", Message: "voters 1  quorum 1"},
		{Kind: Finished, Phase: "init", Host: "cp-1"},
	}
	for i := range events {
		if events[i].Time.IsZero() || events[i].Time.Location() != time.UTC {
			t.Errorf("event %d has the time %s", i, events[i].Time)
		}
		events[i].Time, events[i].Elapsed = time.Time{}, 0
	}
	if diff := cmp.Diff(want, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	Say(t.Context(), "outside of a phase nobody listens, and nothing happens")
}

func TestWaitSaysWhatItSawBeforeItsLimitCutALookShort(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	err := Wait(ctx, Check{Name: "dpkg", Run: func(ctx context.Context) error {
		if asked++; asked == 1 {
			return errors.New("locked")
		}
		cancel()
		return Final(ctx.Err())
	}})
	if err == nil || !strings.Contains(err.Error(), "last seen: locked") {
		t.Errorf("%v, want what was seen before", err)
	}
}

func TestWaitSaysWhatItSawOnceForEachAnswer(t *testing.T) {
	answers := []string{"1 of 3", "1 of 3", "2 of 3"}
	var said []string
	ctx := withEmitter(t.Context(), func(e Event) { said = append(said, string(e.Kind)+" "+e.Message) })
	asked := 0
	err := Wait(ctx, Check{Name: "three voters", Run: func(context.Context) error {
		if asked++; asked > len(answers) {
			return nil
		}
		return errors.New(answers[asked-1])
	}})
	want := []string{"waiting three voters: 1 of 3", "waiting three voters: 2 of 3"}
	if err != nil || !slices.Equal(said, want) {
		t.Errorf("said %q, error %v; wanted %q", said, err, want)
	}
}
