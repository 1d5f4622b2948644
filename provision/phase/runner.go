package phase

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/ha-install/ha-install/provision/units"
)

// pollEvery is how often a failing check is asked again.
const pollEvery = 250 * time.Millisecond

// undoBudget bounds an Undo, which the operator's interrupt does not reach.
const undoBudget = 2 * time.Minute

// Runner walks a workflow.
type Runner struct {
	// Events receives what happens, from several goroutines at once but one
	// call at a time. nil is allowed.
	Events func(Event)
	// Stop is asked once, when Run begins, for a channel whose closing means
	// "stop at the next safe point": a Do that is under way ends, nothing else
	// is begun, and Run returns a *StoppedError. nil is allowed.
	Stop func() <-chan struct{}

	stop <-chan struct{}

	mu    sync.Mutex
	tally Tally
	stand stand
}

// Tally counts how phases ended.
type Tally struct {
	Changed int // Do ran and its gate passed
	Skipped int // the effect was already there
}

// Tally is the count so far.
func (r *Runner) Tally() Tally {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tally
}

// Error says which phase stopped a workflow, and in which part of it.
type Error struct {
	Phase string // Phase.ID
	Part  string // "done", "needs", "do", "gate" or "undo"
	Err   error
}

func (e *Error) Error() string {
	host, _, _ := strings.Cut(e.Phase, ": ")
	return e.Phase + ": " + strings.TrimPrefix(e.Err.Error(), host+": ") // the host once is enough
}

func (e *Error) Unwrap() error { return e.Err }

// Run walks the stages in order and stops after the first one that fails. In a
// parallel stage every phase is run to its end and all errors are returned.
func (r *Runner) Run(ctx context.Context, stages []Stage) error {
	r.emit(Event{Kind: Workflow, Stages: toCome(stages)})
	defer r.listen()()
	for _, s := range stages {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := r.runStage(ctx, s)
		if errors.Is(err, errStopped) {
			return r.stand.error(stages)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// runStage returns errStopped only when nothing else went wrong.
func (r *Runner) runStage(ctx context.Context, s Stage) error {
	if !s.Parallel {
		for i := range s.Phases {
			if err := r.runPhase(ctx, &s.Phases[i]); err != nil {
				return err
			}
		}
		return nil
	}
	errs := make([]error, len(s.Phases))
	var wg sync.WaitGroup
	for i := range s.Phases {
		wg.Go(func() { errs[i] = r.runPhase(ctx, &s.Phases[i]) })
	}
	wg.Wait()
	stopped := slices.Contains(errs, errStopped)
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == errStopped })
	if err := Join(errs...); err != nil || !stopped {
		return err
	}
	return errStopped
}

// Join makes one error of those that are not nil, each on a line of its own.
// errors.As and errors.Is see all of them.
func Join(errs ...error) error {
	all := &multierror.Error{ErrorFormat: func(errs []error) string {
		lines := make([]string, len(errs))
		for i, err := range errs {
			lines[i] = err.Error()
		}
		return strings.Join(lines, "\n")
	}}
	for _, err := range errs {
		if err != nil {
			all = multierror.Append(all, err)
		}
	}
	return all.ErrorOrNil()
}

// runPhase has failed until its gate has passed: the deferred event says so.
func (r *Runner) runPhase(ctx context.Context, p *Phase) (err error) {
	if r.stopping() {
		return errStopped
	}
	began := time.Now()
	say := func(e Event) {
		e.Phase, e.Host, e.Elapsed = p.Name, p.Host, units.Seconds(time.Since(began))
		r.emit(e)
	}
	ctx, sent := withMeter(withEmitter(ctx, say), func(t Transfer) { say(Event{Kind: Progress, Transfer: &t}) })
	outcome, part := Failed, ""
	defer func() {
		message := ""
		if err != nil {
			message = err.Error()
		}
		if err == errStopped {
			outcome, message = Stopped, part
			r.note(p, part)
		}
		say(Event{Kind: outcome, Message: message, Transfer: sent.sum()})
	}()
	r.emit(Event{Kind: Started, Phase: p.Name, Host: p.Host})

	done := p.Do == nil
	if p.Done != nil && !done {
		if done, err = r.done(ctx, p); err != nil {
			part = BeforeDo
			return err
		}
	}
	if !done {
		if err := r.act(ctx, p); err != nil {
			part = BeforeDo
			return err
		}
	}
	if err := r.gate(ctx, p, done); err != nil {
		if part = AfterDo; done {
			part = OnlyLooking
		}
		return err
	}
	outcome = r.count(p, done)
	return nil
}

func (r *Runner) done(ctx context.Context, p *Phase) (bool, error) {
	ctx, cancel := r.looking(ctx, 0)
	defer cancel()
	done, err := p.Done(ctx)
	if err != nil {
		return false, r.whether(ctx, &Error{p.ID(), "done", err})
	}
	return done, nil
}

func (r *Runner) act(ctx context.Context, p *Phase) error {
	if err := r.needs(ctx, p); err != nil {
		return err
	}
	if r.stopping() { // the last moment: a Do that has begun is not cut
		return errStopped
	}
	if err := p.Do(ctx); err != nil {
		return &Error{p.ID(), "do", r.undo(ctx, p, err)}
	}
	return nil
}

// needs asks the preconditions once each, within DefaultGateTimeout in all.
func (r *Runner) needs(ctx context.Context, p *Phase) error {
	ctx, stop := r.looking(ctx, 0)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, DefaultGateTimeout)
	defer cancel()
	for _, c := range p.Needs {
		if err := c.Run(ctx); err != nil {
			return r.whether(ctx, &Error{p.ID(), "needs", fmt.Errorf("%s: %w", c.Name, err)})
		}
	}
	return nil
}

func (r *Runner) undo(ctx context.Context, p *Phase, cause error) error {
	if p.Undo == nil {
		return cause
	}
	emit(ctx, Event{Kind: Undoing, Message: cause.Error()})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBudget)
	defer cancel()
	if err := p.Undo(ctx); err != nil {
		return errors.Join(cause, fmt.Errorf("taking it back: %w", err))
	}
	return cause
}

// gate proves what the phase stands for. Once a stop is asked for, a change
// that was just made still gets a moment to show itself.
func (r *Runner) gate(ctx context.Context, p *Phase, skipped bool) error {
	grace := stopGrace
	if skipped {
		grace = 0
	}
	ctx, stop := r.looking(ctx, grace)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, p.gateTimeout())
	defer cancel()
	for _, c := range p.Gate {
		if err := Wait(ctx, c); err != nil {
			return r.whether(ctx, &Error{p.ID(), "gate", err})
		}
	}
	return nil
}

func (p *Phase) gateTimeout() time.Duration {
	if p.GateTimeout == 0 {
		return DefaultGateTimeout
	}
	return p.GateTimeout
}

func (r *Runner) count(p *Phase, skipped bool) EventKind {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stand.ended = append(r.stand.ended, p)
	if skipped {
		r.tally.Skipped++
		return Skipped
	}
	r.tally.Changed++
	return Finished
}

func (r *Runner) emit(e Event) {
	if r.Events == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Time = time.Now().UTC()
	r.Events(e)
}

// Wait polls the check until it passes, gives a final answer, or the context
// ends; the error then carries the last thing seen.
func Wait(ctx context.Context, c Check) error {
	var said string
	var last error
	for {
		err := c.Run(ctx)
		if last != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = last // what our own limit has cut short says nothing
		}
		var final *finalError
		if err == nil || errors.As(err, &final) {
			return err
		}
		last = err
		if text := c.Name + ": " + err.Error(); text != said && ctx.Err() == nil {
			Await(ctx, text)
			said = text
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last seen: %w", c.Name, ctx.Err(), err)
		case <-time.After(pollEvery):
		}
	}
}

type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

// Final marks an error that polling again cannot mend.
func Final(err error) error {
	if err == nil {
		return nil
	}
	return &finalError{err}
}
