// Package phase is the step under every workflow: what must hold before, the
// one mutation, what must hold after. It knows nothing of Kubernetes or SSH.
package phase

import (
	"context"
	"time"
)

// Check is a read-only question. Name completes the sentence "waiting for ...".
// Its error says what was seen and what was wanted; an error made by Final is
// an answer that time will not change.
type Check struct {
	Name string
	Run  func(context.Context) error
}

// Phase is one mutation of one host, or of the cluster when Host is empty.
type Phase struct {
	Name string // stable: journal, events, --from
	Host string

	// Done reports whether the effect is already there; nil means never.
	Done func(context.Context) (bool, error)
	// Needs are asked immediately before Do.
	Needs []Check
	// Do is the only mutation.
	Do func(context.Context) error
	// Gate must pass after Do, and also when Do was skipped: a resumed run
	// proves where it stands before it moves.
	Gate []Check
	// GateTimeout bounds the polling of Gate; 0 means DefaultGateTimeout.
	GateTimeout time.Duration
	// Undo takes back a Do that ended in an error. It runs on a context that
	// outlives an interrupt. It is never called after a failed gate: a change
	// of membership that was made is not unwound by guesswork.
	Undo func(context.Context) error

	// Local says that Do fills only this process's memory: a plan runs it too,
	// so that what follows can be explained.
	Local bool
	// After names earlier phases that make what Done asks about. While one of
	// them (on the same host, or for all) is still to change something, a plan
	// asks Foresee instead of Done.
	After []string
	// ForAll says that what the phase makes is for all hosts, although it runs
	// on one.
	ForAll bool
	// Explain says what Do would change, without changing it; a plan asks it
	// when Done said no. What it says never holds a secret.
	Explain func(context.Context) ([]Change, error)
	// Foresee says what a plan can know while the pending phases (by their IDs)
	// have not run: ToChange, AlreadyDone, or NotKnown with the changes that
	// are possible. nil means that nothing can be known.
	Foresee func(ctx context.Context, pending []string) (State, []Change, error)
}

// ID names the phase and its host, as events and errors show it.
func (p Phase) ID() string {
	if p.Host == "" {
		return p.Name
	}
	return p.Host + ": " + p.Name
}

// DefaultGateTimeout is how long a gate is polled when the phase names no other bound.
const DefaultGateTimeout = 60 * time.Second

// Stage is a list of phases that run one after the other, or all at once.
// Whatever changes membership or restarts a master belongs into a serial stage.
type Stage struct {
	Phases   []Phase
	Parallel bool
}

// One is a stage of a single phase.
func One(p Phase) Stage { return Stage{Phases: []Phase{p}} }

// InTurn makes one phase for each item, to be run strictly one at a time.
func InTurn[T any](items []T, phaseFor func(T) Phase) Stage {
	return Stage{Phases: each(items, phaseFor)}
}

// AtOnce makes one phase for each item, to be run all at the same time.
func AtOnce[T any](items []T, phaseFor func(T) Phase) Stage {
	return Stage{Phases: each(items, phaseFor), Parallel: true}
}

// Together runs the phases of several stages at the same time, where nothing
// in one depends on another.
func Together(stages ...Stage) Stage {
	all := Stage{Parallel: true}
	for _, s := range stages {
		all.Phases = append(all.Phases, s.Phases...)
	}
	return all
}

func each[T any](items []T, phaseFor func(T) Phase) []Phase {
	phases := make([]Phase, 0, len(items))
	for _, item := range items {
		phases = append(phases, phaseFor(item))
	}
	return phases
}
