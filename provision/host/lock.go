package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Locker is a host that one operation at a time can hold.
type Locker interface {
	// Lock takes the host for an operation, at once or not at all: the error
	// is *BusyError when another holds it. It is held until Release, as long
	// as this process is alive, awake and connected (see LockExpiry). A
	// connection that was lost is made anew, and the lock taken again.
	Lock(ctx context.Context, who Holder, hooks LockHooks) (Lock, error)
	// Holder says who holds the host now, as a *BusyError; nil for nobody. It
	// changes nothing.
	Holder(ctx context.Context) (*BusyError, error)
}

// JournalDir is where a host keeps the journals of operations, one file
// "<ID>.jsonl" for each of the last fifty.
const JournalDir = "/var/lib/ha-install/journal"

// LockDir is where a host keeps its lock. The first word of the file "holder" in
// it is the process that holds the host for its operator.
const LockDir = "/var/lib/ha-install/lock"

// Lock is a host that is held.
type Lock interface {
	// Epoch is the host's when the lock was taken; "0" for none.
	Epoch() string
	// Raise gives the host a new epoch. From then on what the Writer does is
	// done only while the host still has it, which the host itself checks in
	// the same command: else the error is *FencedError. It waits for what an
	// earlier operation has under way; *WorkingError when that takes too long.
	Raise(ctx context.Context, epoch string) error
	// Fresh says that the host cannot have given the lock to another yet: it
	// acknowledged a heartbeat that is young enough, by every clock.
	Fresh() bool
	// Note adds a line to the operation's journal on the host, in time and
	// again after a lost connection; n counts from 1. With sync it is on the
	// disk when LockHooks.Noted is told.
	Note(n int, line string, sync bool)
	// Flush waits until all notes are acknowledged, or for ctx.
	Flush(ctx context.Context) error
	// Release gives the host free.
	Release()
}

// LockHooks are told from other goroutines what happens to a Lock. Any may be nil.
type LockHooks struct {
	// Before is asked before each change of the host; its error is the change's.
	Before func(context.Context) error
	// Fenced is told when the host turned out to have another epoch.
	Fenced func(*FencedError)
	// Noted is told the number of the newest acknowledged note.
	Noted func(n int)
}

// Holder says who holds a host. It is shown to others and kept on the host: no
// secret may be in it.
type Holder struct {
	Operation string    `json:"operation"` // its ID: a-z, 0-9 and '-'
	Command   string    `json:"command"`   // "ha-install apply prod.yaml"
	Operator  string    `json:"operator"`  // "ops@laptop"
	PID       int       `json:"pid"`
	Since     time.Time `json:"since"` // by the operator's clock
}

func (h Holder) String() string {
	if h.Operation == "" {
		return "somebody who left no name"
	}
	return fmt.Sprintf("%s (%s, pid %d)", h.Operator, h.Command, h.PID)
}

const (
	// LockExpiry is how long a host waits for a sign of life of its holder.
	LockExpiry = 15 * time.Second
	// beatsToExpiry is how many heartbeats may be lost, less one: the time of
	// the last is for their way, and for timers that are late.
	beatsToExpiry = 5
	// workPatience is how long Raise waits for commands of an earlier holder.
	workPatience = time.Minute
)

// BusyError means that another operation holds the host.
type BusyError struct {
	Host   string
	Holder Holder
	Age    time.Duration // since it took the lock, by the host's clock
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("%s: held by %s for %s", e.Host, e.Holder, e.Age)
}

// FencedError means that another operation has taken the host over. Nothing
// was done.
type FencedError struct {
	Host string
	By   Holder // of the new operation; empty when the host cannot say
}

func (e *FencedError) Error() string {
	if e.By.Operation == "" {
		return e.Host + ": the host no longer knows of this operation: it was set up anew, or /var/lib/ha-install was removed"
	}
	return fmt.Sprintf("%s: another operation took over: %s, begun %s", e.Host, e.By, e.By.Since.Local().Format(time.DateTime))
}

// WorkingError means that commands of an earlier operation are still running.
type WorkingError struct {
	Host string
	What string // "PID COMMAND; ..."
}

func (e *WorkingError) Error() string {
	return fmt.Sprintf("%s: commands of an earlier operation are still at work: %s", e.Host, e.What)
}

// fence is what every change of a host is made under.
type fence struct {
	dir    string
	epoch  string
	before func(context.Context) error
	fenced func(*FencedError)
}

// How a fenced command runs; see fence.sh.
const (
	fencedWork = "work"
	fencedFed  = "fed"
)

const (
	exitFenced = 46
	fencedMark = "ha-install-fenced "
)

// ask is what precedes a change, on our side.
func (f *fence) ask(ctx context.Context) error {
	if f == nil || f.before == nil {
		return nil
	}
	return f.before(ctx)
}

// wrap puts the check of the epoch before a command.
func (f *fence) wrap(how string, argv []string) []string {
	if f == nil || how == "" {
		return argv
	}
	return append([]string{"sh", f.dir + "/fence", how, f.epoch}, argv...)
}

// refusal is the check's own answer, if err is that.
func (f *fence) refusal(host string, err error) error {
	var run *RunError
	if f == nil || !errors.As(err, &run) {
		return err
	}
	_, by, refused := cutLast(run.Stderr, fencedMark)
	gone := strings.Contains(run.Stderr, f.dir+"/fence: No such file")
	if !gone && (run.Code != exitFenced || !refused) {
		return err
	}
	e := &FencedError{Host: host, By: parseHolder(by)}
	if f.fenced != nil {
		f.fenced(e)
	}
	return e
}
