package phase

import (
	"context"
	"slices"
	"sync"
)

// State is what a plan says of a phase.
type State string

const (
	AlreadyDone State = "done"    // its effect is there
	ToChange    State = "change"  // Do would run
	NotKnown    State = "unknown" // it depends on what an earlier phase has yet to make
	Proof       State = "gate"    // it only looks
)

// Figure is a number that a change moves: "voters" from 1 to 2.
type Figure struct {
	Name   string `json:"name"`
	Before int    `json:"before"`
	After  int    `json:"after"`
}

// Change is one thing that a Do would change. It never holds a secret, nor
// anything that differs from one plan of the same state to the next.
type Change struct {
	Kind string `json:"kind"` // "file", "package", "membership", "restart", ...; the workflow's own words
	Name string `json:"name"` // what is changed: a path, a unit, a member
	Text string `json:"text,omitempty"`
	// Mode is the wanted mode of a file, "0644".
	Mode string `json:"mode,omitempty"`
	// New says that nothing of that name is there yet.
	New   bool  `json:"new,omitempty"`
	Bytes int64 `json:"bytes,omitempty"`
	// Diff is the unified diff of a text; empty with Withheld.
	Diff string `json:"diff,omitempty"`
	// Withheld says why the content is not shown: "secret".
	Withheld string   `json:"withheld,omitempty"`
	Figures  []Figure `json:"figures,omitempty"`
}

// PlannedStep is what a plan says of one phase.
type PlannedStep struct {
	Phase string `json:"phase"`
	Host  string `json:"host,omitempty"`
	State State  `json:"state"`
	// Stage counts from 1; the steps of one stage run at the same time when it
	// is Parallel, else one after the other.
	Stage    int      `json:"stage"`
	Parallel bool     `json:"parallel,omitempty"`
	WaitsFor []string `json:"waitsFor,omitempty"` // IDs of the phases that NotKnown waits for
	Changes  []Change `json:"changes,omitempty"`
}

// ID is Phase.ID of the step's phase.
func (s PlannedStep) ID() string { return Phase{Name: s.Phase, Host: s.Host}.ID() }

// Plan is what a run of the stages would do.
type Plan struct {
	Steps []PlannedStep `json:"steps"`
}

// Count is how many steps the plan has in a state.
func (p Plan) Count(s State) int {
	n := 0
	for _, step := range p.Steps {
		if step.State == s {
			n++
		}
	}
	return n
}

// Nothing says that a run would change nothing.
func (p Plan) Nothing() bool { return p.Count(ToChange)+p.Count(NotKnown) == 0 }

// Planner walks the stages that a Runner would walk, with the same Done.
type Planner struct {
	// SkipGates leaves out even the gates that can be asked already.
	SkipGates bool
	// Tell is given what gates have to say; nil is allowed.
	Tell func(text string)
}

// Make asks what a run of the stages would do. Parallel stages are asked in
// parallel, as they are run. The gates of phases that only look are asked as
// long as no earlier phase would change anything: a run would ask them in the
// same state. An error is what would stop the run, too.
func (pl Planner) Make(ctx context.Context, stages []Stage) (Plan, error) {
	var plan Plan
	var pending []*Phase
	for n, s := range stages {
		steps := make([]PlannedStep, len(s.Phases))
		errs := make([]error, len(s.Phases))
		ask := func(i int) {
			p := &s.Phases[i]
			steps[i], errs[i] = pl.step(ctx, p, pending)
			steps[i].Stage, steps[i].Parallel = n+1, s.Parallel && len(s.Phases) > 1
		}
		waits := func(i int) {
			if st := steps[i].State; st == ToChange || st == NotKnown {
				pending = append(pending, &s.Phases[i])
			}
		}
		if s.Parallel {
			var wg sync.WaitGroup
			for i := range s.Phases {
				wg.Go(func() { ask(i) })
			}
			wg.Wait()
			for i := range s.Phases {
				waits(i)
			}
		} else {
			for i := range s.Phases {
				if ask(i); errs[i] != nil {
					break
				}
				waits(i)
			}
		}
		if err := Join(errs...); err != nil {
			return plan, err
		}
		plan.Steps = append(plan.Steps, steps...)
	}
	return plan, ctx.Err()
}

func (pl Planner) step(ctx context.Context, p *Phase, pending []*Phase) (PlannedStep, error) {
	step := PlannedStep{Phase: p.Name, Host: p.Host}
	if p.Do == nil {
		step.State = Proof
		if pl.SkipGates || len(pending) > 0 {
			return step, nil
		}
		return step, pl.gate(ctx, p)
	}
	step.WaitsFor = p.waitsFor(pending)
	var err error
	switch {
	case len(step.WaitsFor) == 0:
		err = p.look(ctx, &step)
	case p.Foresee == nil:
		step.State = NotKnown
	default:
		if step.State, step.Changes, err = p.Foresee(ctx, step.WaitsFor); err != nil {
			return step, &Error{p.ID(), "plan", err}
		}
	}
	if step.State != NotKnown {
		step.WaitsFor = nil
	}
	if step.State == AlreadyDone {
		step.Changes = nil
	}
	return step, err
}

// gate asks a gate as a run would, but for no longer than one that has no
// bound of its own.
func (pl Planner) gate(ctx context.Context, p *Phase) error {
	if pl.Tell != nil {
		ctx = withEmitter(ctx, func(e Event) {
			if e.Kind == Notice {
				pl.Tell(e.Message)
			}
		})
	}
	bounded := *p
	bounded.GateTimeout = min(p.gateTimeout(), DefaultGateTimeout)
	return (&Runner{}).gate(ctx, &bounded, true)
}

// waitsFor are the IDs of the pending phases that p comes after.
func (p *Phase) waitsFor(pending []*Phase) []string {
	var ids []string
	for _, q := range pending {
		if slices.Contains(p.After, q.Name) && (q.Host == p.Host || q.Host == "" || q.ForAll || p.Host == "") {
			ids = append(ids, q.ID())
		}
	}
	return ids
}

// look asks Done, and Explain where something is to do.
func (p *Phase) look(ctx context.Context, step *PlannedStep) error {
	if p.Done != nil {
		done, err := p.Done(ctx)
		if err != nil {
			return &Error{p.ID(), "done", err}
		}
		if done {
			step.State = AlreadyDone
			return nil
		}
	}
	step.State = ToChange
	if p.Local {
		if err := p.Do(ctx); err != nil {
			return &Error{p.ID(), "do", err}
		}
	}
	if p.Explain == nil {
		return nil
	}
	var err error
	if step.Changes, err = p.Explain(ctx); err != nil {
		return &Error{p.ID(), "plan", err}
	}
	return nil
}
