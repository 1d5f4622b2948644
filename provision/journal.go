package provision

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
)

// Entry is one line of an operation's journal: what a run said, in order, with
// a first line that says who began what and a last one that says how it ended.
// It holds no secret, as events do not.
type Entry struct {
	N int `json:"n"` // from 1; a line that is there twice was sent twice
	phase.Event
	Begin *Began `json:"begin,omitempty"`
	End   *Ended `json:"end,omitempty"`
}

// The kinds of the first line and the last; the others are those of events.
const (
	entryBegin phase.EventKind = "begin"
	entryEnd   phase.EventKind = "end"
)

// Began is who began what.
type Began struct {
	host.Holder
	Epoch           int    `json:"epoch"` // counts operations, whatever clocks say
	Cluster         string `json:"cluster"`
	Version         string `json:"version"`
	InventorySHA256 string `json:"inventorySHA256"`
}

// Result says how an operation ended.
type Result string

// The results. The last two are found by who reads a journal without an end.
const (
	ResultDone        Result = "done"
	ResultFailed      Result = "failed"
	ResultStopped     Result = "stopped"     // at a safe point, as the operator wished
	ResultInterrupted Result = "interrupted" // at once
	ResultTakenOver   Result = "taken over"  // by another operation
	ResultRunning     Result = "running"     // it holds the lock now
	ResultBrokeOff    Result = "broke off"   // its program or its machine died
)

// Ended is how an operation ended.
type Ended struct {
	Result    Result   `json:"result"`
	ExitCode  int      `json:"exitCode"`
	Error     string   `json:"error,omitempty"`
	Phases    []string `json:"phases,omitempty"` // that failed: "cp-2: join"
	Changed   int      `json:"changed"`
	Unchanged int      `json:"unchanged"`
}

// journal writes on every master what a run says.
type journal struct {
	to []host.Lock

	mu     sync.Mutex
	n      int
	synced int // the newest line that has to be on a disk
	noted  int // the newest line that is on one
	told   chan struct{}
	deaf   bool // nobody answered the last time
	failed []string
}

func newJournal() *journal { return &journal{told: make(chan struct{}, 1)} }

// write adds an entry. What must be known after a crash goes to the disk.
func (j *journal) write(e Entry, sync bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.n++
	e.N = j.n
	line, err := json.Marshal(e)
	if err != nil {
		return // the types have nothing that cannot be encoded
	}
	if sync {
		j.synced = j.n
	}
	for _, h := range j.to {
		h.Note(j.n, string(line), sync)
	}
}

// event writes what of an event is of use later.
func (j *journal) event(e phase.Event) {
	e.Data, e.Stages = nil, nil // the message says the same
	switch e.Kind {
	case phase.Progress, phase.Waiting, phase.Workflow:
		return
	case phase.Failed:
		j.mu.Lock()
		j.failed = append(j.failed, phase.Phase{Name: e.Phase, Host: e.Host}.ID())
		j.mu.Unlock()
	}
	j.write(Entry{Event: e}, e.Kind != phase.Output && e.Kind != phase.Skipped && e.Kind != phase.Notice)
}

// heard is told by a master which line has arrived.
func (j *journal) heard(n int) {
	j.mu.Lock()
	j.noted, j.deaf = max(j.noted, n), false
	j.mu.Unlock()
	select {
	case j.told <- struct{}{}:
	default: // there is word already
	}
}

// noteBudget bounds how long a change waits for the journal: masters whose
// disks are full or slow must not keep a cluster from being mended.
const noteBudget = time.Second

// known waits until one master has on its disk that the phases under way have
// started, for noteBudget at most.
func (j *journal) known(ctx context.Context) {
	late := time.NewTimer(noteBudget)
	defer late.Stop()
	for {
		j.mu.Lock()
		enough := j.noted >= j.synced || j.deaf || len(j.to) == 0
		j.mu.Unlock()
		if enough {
			return
		}
		select {
		case <-j.told:
		case <-time.After(notePoll): // another who waits has taken the word
		case <-ctx.Done():
			return
		case <-late.C:
			j.mu.Lock()
			j.deaf = true
			j.mu.Unlock()
			return
		}
	}
}

const notePoll = 10 * time.Millisecond

// begin writes the first line.
func (j *journal) begin(s *Site, who host.Holder, epoch int) {
	op := s.Operation
	j.write(Entry{
		Event: phase.Event{Time: time.Now().UTC(), Kind: entryBegin},
		Begin: &Began{Holder: who, Epoch: epoch, Cluster: s.Cluster.Metadata.Name, Version: op.Version, InventorySHA256: op.InventorySHA256},
	}, true)
}

// end writes the last line and waits until it has arrived, for a while.
func (j *journal) end(ctx context.Context, s *Site, tally phase.Tally, err error) {
	e := Ended{Result: resultOf(err), Changed: tally.Changed, Unchanged: tally.Skipped, Phases: j.failed}
	if err != nil {
		e.Error, e.ExitCode = err.Error(), 1
		if s.Operation.ExitCode != nil {
			e.ExitCode = s.Operation.ExitCode(err)
		}
	}
	j.write(Entry{Event: phase.Event{Time: time.Now().UTC(), Kind: entryEnd}, End: &e}, true)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushBudget)
	defer cancel()
	var all sync.WaitGroup
	for _, h := range j.to {
		all.Go(func() { _ = h.Flush(ctx) }) // a master that is away has the beginning, the others the end
	}
	all.Wait()
}

// flushBudget is for the last line.
const flushBudget = 3 * time.Second

func resultOf(err error) Result {
	var fenced *host.FencedError
	var stopped *phase.StoppedError
	switch {
	case err == nil:
		return ResultDone
	case errors.As(err, &fenced):
		return ResultTakenOver
	case errors.As(err, &stopped):
		return ResultStopped
	case errors.Is(err, context.Canceled):
		return ResultInterrupted
	}
	return ResultFailed
}

// listen has the journal hear what the runner says, beside who hears it now.
func (j *journal) listen(run *phase.Runner) {
	others := run.Events
	run.Events = func(e phase.Event) {
		j.event(e)
		if others != nil {
			others(e)
		}
	}
}

// holder is how this operation presents itself.
func (s *Site) holder(id, verb string, pid int) host.Holder {
	return host.Holder{
		Operation: id, Command: cmp.Or(s.Operation.Command, verb), Operator: s.Operation.Operator,
		PID: pid, Since: time.Now().UTC().Truncate(time.Second),
	}
}
