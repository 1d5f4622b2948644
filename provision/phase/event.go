package phase

import (
	"context"
	"time"

	"github.com/ha-install/ha-install/provision/units"
)

// EventKind says what an Event reports.
type EventKind string

const (
	Workflow EventKind = "workflow" // the phases to come; Stages has them
	Started  EventKind = "started"
	Waiting  EventKind = "waiting"  // Message completes "waiting for ...": the check, and what it last saw
	Output   EventKind = "output"   // a line of a long command
	Progress EventKind = "progress" // of what is sent; Transfer has the bytes
	Notice   EventKind = "notice"   // something the operator should read: a quorum table, a warning
	Undoing  EventKind = "undoing"  // Message is the cause
	Finished EventKind = "finished" // changed, and the gate passed
	Skipped  EventKind = "skipped"  // the effect was already there, and the gate passed
	Failed   EventKind = "failed"   // Message is the error
	Stopped  EventKind = "stopped"  // the operator asked for it; Message says in which part
	Stopping EventKind = "stopping" // of the whole run: the operator asked for a stop at the next safe point
)

// Event is one thing that happened in a run. It never holds a secret.
type Event struct {
	Time    time.Time     `json:"time"`
	Kind    EventKind     `json:"kind"`
	Phase   string        `json:"phase,omitempty"` // empty for Workflow
	Host    string        `json:"host,omitempty"`  // empty for what is of the cluster as a whole
	Message string        `json:"message,omitempty"`
	Elapsed units.Seconds `json:"elapsedSeconds,omitempty"` // since the phase started
	// Transfer is what the phase has sent so far: with Progress, and at the end
	// of a phase that sent something.
	Transfer *Transfer `json:"transfer,omitempty"`
	Stages   []Planned `json:"stages,omitempty"`
	// Data are what Message shows, for programs, by the name of their form.
	Data Data `json:"data,omitempty"`
}

// Data are values that encode as JSON.
type Data map[string]any

// Planned is a stage that a workflow is about to run.
type Planned struct {
	Parallel bool     `json:"parallel,omitempty"`
	Phases   []Target `json:"phases"`
}

// Target is a phase that is to come.
type Target struct {
	Phase string `json:"phase"`
	Host  string `json:"host,omitempty"`
}

// toCome names what the stages will run.
func toCome(stages []Stage) []Planned {
	all := make([]Planned, 0, len(stages))
	for _, s := range stages {
		p := Planned{Parallel: s.Parallel, Phases: []Target{}}
		for _, of := range s.Phases {
			p.Phases = append(p.Phases, Target{Phase: of.Name, Host: of.Host})
		}
		all = append(all, p)
	}
	return all
}

type emitterKey struct{}

func withEmitter(ctx context.Context, emit func(Event)) context.Context {
	return context.WithValue(ctx, emitterKey{}, emit)
}

func emit(ctx context.Context, e Event) {
	if f, ok := ctx.Value(emitterKey{}).(func(Event)); ok {
		f(e)
	}
}

// Say reports one line of a long command in the name of the running phase.
func Say(ctx context.Context, line string) { emit(ctx, Event{Kind: Output, Message: line}) }

// Await reports what the running phase still waits for.
func Await(ctx context.Context, what string) { emit(ctx, Event{Kind: Waiting, Message: what}) }

// Tell reports something that the operator should read, in the name of the running phase.
func Tell(ctx context.Context, text string) { emit(ctx, Event{Kind: Notice, Message: text}) }

// TellData is Tell with what the text shows, for programs.
func TellData(ctx context.Context, text string, data Data) {
	emit(ctx, Event{Kind: Notice, Message: text, Data: data})
}
