package phase

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// stopGrace is how long the gate of a change that was just made is still
// polled after a stop was asked for.
const stopGrace = 5 * time.Second

// The parts in which a phase can be stopped; a Do is never cut.
const (
	BeforeDo    = "before its change"
	AfterDo     = "after its change, before that was proven"
	OnlyLooking = "while it only looked"
)

// errStopped is what a stop looks like inside of the runner.
var errStopped = errors.New("stopped")

// StoppedError says where a run stands that was stopped at a safe point, as
// the operator had asked.
type StoppedError struct {
	Ended []string          // IDs of the phases that ended, their gates passed
	At    map[string]string // ID -> part: the phases that were under way
	Left  []string          // IDs of those that were not begun
	text  string
}

func (e *StoppedError) Error() string { return e.text }

// stand is where a run stands; guarded by Runner.mu.
type stand struct {
	ended []*Phase
	at    []stop
}

type stop struct {
	phase *Phase
	part  string
}

func (r *Runner) note(p *Phase, part string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stand.at = append(r.stand.at, stop{p, part})
}

func (s stand) error(stages []Stage) *StoppedError {
	e := &StoppedError{At: map[string]string{}}
	begun := slices.Clone(s.ended)
	for _, at := range s.at {
		begun = append(begun, at.phase)
		e.At[at.phase.ID()] = at.part
	}
	var left []*Phase
	for _, st := range stages {
		for i := range st.Phases {
			if p := &st.Phases[i]; !slices.Contains(begun, p) {
				left = append(left, p)
			}
		}
	}
	e.Ended, e.Left = ids(s.ended), ids(left)
	var b strings.Builder
	b.WriteString("stopped at a safe point\nended:   " + brief(s.ended))
	for _, at := range s.at {
		fmt.Fprintf(&b, "\nstopped: %s, %s", at.phase.ID(), at.part)
	}
	b.WriteString("\nleft:    " + brief(left))
	e.text = b.String()
	return e
}

func ids(phases []*Phase) []string {
	all := make([]string, 0, len(phases))
	for _, p := range phases {
		all = append(all, p.ID())
	}
	return all
}

// brief names phases in their order, those of one name with their hosts.
func brief(phases []*Phase) string {
	if len(phases) == 0 {
		return "nothing"
	}
	var names []string
	hosts := map[string][]string{}
	for _, p := range phases {
		if _, seen := hosts[p.Name]; !seen {
			names = append(names, p.Name)
			hosts[p.Name] = nil
		}
		if p.Host != "" && !slices.Contains(hosts[p.Name], p.Host) {
			hosts[p.Name] = append(hosts[p.Name], p.Host)
		}
	}
	for i, name := range names {
		if on := hosts[name]; len(on) > 0 {
			slices.Sort(on)
			names[i] = name + " (" + strings.Join(on, ", ") + ")"
		}
	}
	return strings.Join(names, ", ")
}

// listen asks for the channel of Stop and says once that a stop was asked
// for. The function that it returns ends that.
func (r *Runner) listen() func() {
	if r.Stop == nil {
		return func() {}
	}
	r.stop = r.Stop()
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-r.stop:
			r.emit(Event{Kind: Stopping, Message: "what is under way is finished first, then the run stops; interrupt again to stop waiting for it"})
		case <-over:
		}
	}()
	return func() { close(over); <-ended }
}

func (r *Runner) stopping() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}

// looking is a context for questions: they are cut some time after a stop was
// asked for, because nothing is half done when they are.
func (r *Runner) looking(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if r.stop != nil {
		go func() {
			select {
			case <-r.stop:
			case <-ctx.Done():
				return
			}
			select {
			case <-time.After(grace):
				cancel(errStopped)
			case <-ctx.Done():
			}
		}()
	}
	return ctx, func() { cancel(context.Canceled) }
}

// whether tells a question that was cut by a stop from one with a bad answer.
func (r *Runner) whether(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStopped) {
		return errStopped
	}
	return err
}
