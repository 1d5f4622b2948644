package phase

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// stopped runs the stages and asks for a stop after the given time.
func stopped(t *testing.T, after time.Duration, stages ...Stage) (events []Event, took time.Duration, err error) {
	t.Helper()
	stop := make(chan struct{})
	time.AfterFunc(after, func() { close(stop) })
	began := time.Now()
	r := Runner{Stop: func() <-chan struct{} { return stop }}
	events, err = collect(t.Context(), &r, stages...)
	return events, time.Since(began), err
}

// lasting takes its time and ends early only with its context.
func lasting(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
			return nil
		}
	}
}

func failing(context.Context) error { return errBoom }

func TestStopAtTheNextSafePoint(t *testing.T) {
	const stopAt = time.Minute
	no := func(context.Context) (bool, error) { return false, nil }
	slowDone := func(ctx context.Context) (bool, error) { return false, lasting(time.Hour)(ctx) }
	never := One(Phase{Name: "never", Do: func(context.Context) error { t.Error("a phase was begun after the stop"); return nil }})
	rows := []struct {
		name  string
		stage Stage
		at    map[string]string
		ended []string
		took  time.Duration
	}{
		{"a Do that is under way ends, and its gate passes", One(Phase{Name: "join", Host: "cp-2", Do: lasting(3 * time.Minute)}),
			map[string]string{}, []string{"cp-2: join"}, 3 * time.Minute},
		{"after a Do its gate has a moment, not its whole time", One(Phase{Name: "join", Host: "cp-2", Do: lasting(3 * time.Minute), Gate: []Check{{"quorum", failing}}, GateTimeout: time.Hour}),
			map[string]string{"cp-2: join": AfterDo}, []string{}, 3*time.Minute + stopGrace},
		{"a gate that is being polled is given up soon", One(Phase{Name: "join", Host: "cp-2", Do: lasting(0), Gate: []Check{{"quorum", failing}}, GateTimeout: time.Hour}),
			map[string]string{"cp-2: join": AfterDo}, []string{}, stopAt + stopGrace},
		{"one question of a gate that hangs is given up, too", One(Phase{Name: "join", Host: "cp-2", Do: lasting(0), Gate: []Check{{"quorum", lasting(time.Hour)}}, GateTimeout: time.Hour}),
			map[string]string{"cp-2: join": AfterDo}, []string{}, stopAt + stopGrace},
		{"a phase that only looks stops at once", One(Phase{Name: "verify", Gate: []Check{{"all", failing}}, GateTimeout: time.Hour}),
			map[string]string{"verify": OnlyLooking}, []string{}, stopAt},
		{"a Done that takes long is given up, and Do is not begun", One(Phase{Name: "join", Done: slowDone, Do: failing}),
			map[string]string{"join": BeforeDo}, []string{}, stopAt},
		{"a Done that answers in spite of it does not begin its Do", One(Phase{Name: "join", Done: func(context.Context) (bool, error) { <-time.After(2 * time.Minute); return false, nil }, Do: failing}),
			map[string]string{"join": BeforeDo}, []string{}, 2 * time.Minute},
		{"a need that takes long is given up, and Do is not begun", One(Phase{Name: "join", Done: no, Needs: []Check{{"the endpoint", lasting(time.Hour)}}, Do: failing}),
			map[string]string{"join": BeforeDo}, []string{}, stopAt},
		{"in a parallel stage each ends in its own way", Together(One(Phase{Name: "init", Do: lasting(2 * time.Minute)}), One(Phase{Name: "look", Done: slowDone, Do: failing})),
			map[string]string{"look": BeforeDo}, []string{"init"}, 2 * time.Minute},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// The need that hangs would otherwise meet its own bound in the same instant.
				at := stopAt
				if strings.HasPrefix(row.name, "a need") {
					at -= time.Second
					row.took -= time.Second
				}
				events, took, err := stopped(t, at, row.stage, never)
				var e *StoppedError
				if !errors.As(err, &e) {
					t.Fatalf("error %v", err)
				}
				if diff := cmp.Diff(row.at, e.At); diff != "" {
					t.Errorf("stopped (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(row.ended, e.Ended); diff != "" {
					t.Errorf("ended (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([]string{"never"}, e.Left); diff != "" {
					t.Errorf("left (-want +got):\n%s", diff)
				}
				if took != row.took {
					t.Errorf("took %s, wanted %s", took, row.took)
				}
				if !strings.Contains(kinds(events), string(Stopping)) {
					t.Errorf("events %q do not say that a stop was asked for", kinds(events))
				}
			})
		})
	}
}

func TestStopSaysWhereItStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick := func(host string) Phase { return Phase{Name: "software", Host: host, Do: lasting(0)} }
		slow := func(host string) Phase {
			return Phase{Name: "join", Host: host, Do: lasting(time.Hour), Gate: []Check{{"quorum", failing}}}
		}
		_, _, err := stopped(t, time.Minute, AtOnce([]string{"cp-2", "cp-1"}, quick), InTurn([]string{"cp-2", "cp-3"}, slow), One(Phase{Name: "verify"}))
		want := `stopped at a safe point
ended:   software (cp-1, cp-2)
stopped: cp-2: join, after its change, before that was proven
left:    join (cp-3), verify`
		if err == nil || err.Error() != want {
			t.Errorf("said:\n%v\nwanted:\n%s", err, want)
		}
	})
}

func TestStopDoesNotHideAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := Phase{Name: "software", Host: "cp-1", Do: func(ctx context.Context) error { _ = lasting(time.Hour)(ctx); return errBoom }}
		_, _, err := stopped(t, time.Minute, Together(One(broken), One(Phase{Name: "verify", Gate: []Check{{"all", failing}}, GateTimeout: time.Hour})))
		var e *StoppedError
		if !errors.Is(err, errBoom) || errors.As(err, &e) {
			t.Errorf("error %v", err)
		}
	})
}

func TestStopAfterTheLastPhaseIsNoStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if _, took, err := stopped(t, time.Minute, One(Phase{Name: "verify", Do: lasting(time.Hour)})); err != nil || took != time.Hour {
			t.Errorf("error %v after %s", err, took)
		}
	})
}

func TestASecondInterruptReachesADo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		time.AfterFunc(time.Minute, func() { close(stop) })
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		began := time.Now()
		r := Runner{Stop: func() <-chan struct{} { return stop }}
		err := r.Run(ctx, []Stage{One(Phase{Name: "join", Do: lasting(time.Hour)})})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 2*time.Minute {
			t.Errorf("error %v after %s", err, time.Since(began))
		}
	})
}
