package phase

import (
	"context"
	"time"
)

// EventKind says what an Event reports.
type EventKind string

const (
	Started  EventKind = "started"
	Waiting  EventKind = "waiting"  // Message completes "waiting for ...": the check, and what it last saw
	Output   EventKind = "output"   // a line of a long command
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
	Phase   string        `json:"phase"`
	Host    string        `json:"host,omitempty"`
	Message string        `json:"message,omitempty"`
	Elapsed time.Duration `json:"elapsedNanoseconds,omitempty"` // since the phase started
}

type emitterKey struct{}

func withEmitter(ctx context.Context, emit func(EventKind, string)) context.Context {
	return context.WithValue(ctx, emitterKey{}, emit)
}

func emit(ctx context.Context, kind EventKind, message string) {
	if f, ok := ctx.Value(emitterKey{}).(func(EventKind, string)); ok {
		f(kind, message)
	}
}

// Say reports one line of a long command in the name of the running phase.
func Say(ctx context.Context, line string) { emit(ctx, Output, line) }

// Await reports what the running phase still waits for.
func Await(ctx context.Context, what string) { emit(ctx, Waiting, what) }

// Tell reports something that the operator should read, in the name of the running phase.
func Tell(ctx context.Context, text string) { emit(ctx, Notice, text) }
