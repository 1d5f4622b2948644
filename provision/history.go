package provision

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
)

// Past is one operation, as the masters' journals tell it.
type Past struct {
	ID        string        `json:"id"`
	Command   string        `json:"command"`
	Operator  string        `json:"operator"`
	Cluster   string        `json:"cluster"`
	Version   string        `json:"version"`
	Inventory string        `json:"inventorySHA256"`
	Epoch     int           `json:"epoch"` // counts operations, whatever clocks say
	Began     time.Time     `json:"began"`
	Took      units.Seconds `json:"tookSeconds"` // to the last thing that is known
	Result    Result        `json:"result"`
	ExitCode  int           `json:"exitCode"`
	Error     string        `json:"error,omitempty"`
	// Phases are those that failed, or that were under way when it broke off:
	// "cp-2: join".
	Phases    []string `json:"phases,omitempty"`
	Changed   int      `json:"changed"`
	Unchanged int      `json:"unchanged"`
	On        []string `json:"on"`                // the masters that know of it
	Entries   []Entry  `json:"entries,omitempty"` // of one that is shown alone
}

// journalsScript prints of every journal what a list needs.
const journalsScript = `cd "$1" 2>/dev/null || exit 0
for f in *.jsonl; do
	[ -e "$f" ] || continue
	echo "= ${f%.jsonl}"
	if grep -q '"kind":"end"' "$f"; then
		grep -e '"kind":"begin"' -e '"kind":"end"' "$f"
	else
		grep -v -e '"kind":"output"' -e '"kind":"notice"' "$f"
	fi
done
exit 0
`

// History is every operation that a reachable master knows of, the newest
// first. Masters that cannot be asked are left out; it fails when there is
// nobody to ask.
func History(ctx context.Context, s *Site) ([]Past, error) {
	heard := newHearsay()
	err := s.askMasters(ctx, func(ctx context.Context, ih inventory.Host, h host.Host) error {
		out, err := h.Query(ctx, "sh", "-c", journalsScript, "ha-install-journals", host.JournalDir)
		if err != nil {
			return err
		}
		id := ""
		for line := range bytes.Lines(out) {
			if name, ok := bytes.CutPrefix(line, []byte("= ")); ok {
				id = string(bytes.TrimSpace(name))
				heard.know(ih.Name, id)
				continue
			}
			heard.line(id, line)
		}
		return heard.holder(ctx, h)
	})
	if err != nil {
		return nil, err
	}
	var all []Past
	for id := range heard.entries {
		all = append(all, heard.tell(id))
	}
	slices.SortFunc(all, func(a, b Past) int {
		return cmp.Or(cmp.Compare(b.Epoch, a.Epoch), b.Began.Compare(a.Began), cmp.Compare(b.ID, a.ID))
	})
	return all, nil
}

var operationID = regexp.MustCompile(`^[a-z0-9-]{1,100}$`)

// ErrNoOperation means that no reachable master knows of an operation.
var ErrNoOperation = errors.New("no master that answers knows of this operation")

// HistoryOf is one operation with all that was noted of it.
func HistoryOf(ctx context.Context, s *Site, id string) (Past, error) {
	if !operationID.MatchString(id) {
		return Past{}, fmt.Errorf("%q is no operation's ID; ha-install history lists them", id)
	}
	heard := newHearsay()
	err := s.askMasters(ctx, func(ctx context.Context, ih inventory.Host, h host.Host) error {
		text, err := h.ReadFile(ctx, host.JournalDir+"/"+id+".jsonl")
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		heard.know(ih.Name, id)
		for line := range bytes.Lines(text) {
			heard.line(id, line)
		}
		return heard.holder(ctx, h)
	})
	if err != nil {
		return Past{}, err
	}
	if heard.entries[id] == nil {
		return Past{}, fmt.Errorf("%s: %w", id, ErrNoOperation)
	}
	p := heard.tell(id)
	p.Entries = heard.ordered(id)
	return p, nil
}

// askMasters asks all reachable masters; it fails when none answers.
func (s *Site) askMasters(ctx context.Context, ask func(context.Context, inventory.Host, host.Host) error) error {
	var mu sync.Mutex
	answered := false
	err := s.onAll(ctx, s.Cluster.ControlPlanes(), func(ctx context.Context, ih inventory.Host, h host.Host) error {
		err := ask(ctx, ih, h)
		mu.Lock()
		defer mu.Unlock()
		answered = answered || err == nil
		return err
	})
	if answered {
		return nil
	}
	return &UnreachableError{err}
}

// hearsay gathers what several masters say of the same operations.
type hearsay struct {
	mu      sync.Mutex
	entries map[string]map[int]Entry // by ID and number
	on      map[string][]string
	runs    map[string]bool // who holds the lock now
}

func newHearsay() *hearsay {
	return &hearsay{entries: map[string]map[int]Entry{}, on: map[string][]string{}, runs: map[string]bool{}}
}

func (g *hearsay) know(name, id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.on[id] = append(g.on[id], name)
	if g.entries[id] == nil {
		g.entries[id] = map[int]Entry{}
	}
}

// line takes one line; what was cut off by a crash is no entry.
func (g *hearsay) line(id string, line []byte) {
	var e Entry
	if json.Unmarshal(line, &e) != nil || e.N == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.entries[id] != nil {
		g.entries[id][e.N] = e
	}
}

func (g *hearsay) holder(ctx context.Context, h host.Host) error {
	by, err := h.Holder(ctx)
	if err != nil || by == nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.runs[by.Holder.Operation] = true
	return nil
}

// ordered are an operation's entries in the order in which they were noted.
func (g *hearsay) ordered(id string) []Entry {
	return slices.SortedFunc(maps.Values(g.entries[id]), func(a, b Entry) int { return cmp.Compare(a.N, b.N) })
}

func (g *hearsay) tell(id string) Past {
	p := told(g.ordered(id), g.runs[id])
	p.ID, p.On = id, slices.Sorted(slices.Values(g.on[id]))
	return p
}

// told sums up an operation's entries. One without an end is running when it
// holds the lock; else its program died, or lost every master.
func told(entries []Entry, holds bool) Past {
	p := Past{Result: ResultBrokeOff}
	if holds {
		p.Result = ResultRunning
	}
	var open []string
	for _, e := range entries {
		if p.Began.IsZero() {
			p.Began = e.Time
		}
		p.Took = units.Seconds(e.Time.Sub(p.Began))
		name := phase.Phase{Name: e.Phase, Host: e.Host}.ID()
		switch e.Kind {
		case entryBegin:
			if b := e.Begin; b != nil {
				p.Epoch, p.Command, p.Operator, p.Cluster, p.Version, p.Inventory = b.Epoch, b.Command, b.Operator, b.Cluster, b.Version, b.InventorySHA256
			}
		case entryEnd:
			if x := e.End; x != nil {
				p.Result, p.ExitCode, p.Error, p.Phases, p.Changed, p.Unchanged = x.Result, x.ExitCode, x.Error, x.Phases, x.Changed, x.Unchanged
				return p
			}
		case phase.Started:
			open = append(open, name)
		case phase.Finished:
			p.Changed++
		case phase.Skipped:
			p.Unchanged++
		case phase.Failed:
			p.Phases = append(p.Phases, name)
		}
		if ended[e.Kind] {
			open = slices.DeleteFunc(open, func(o string) bool { return o == name })
		}
	}
	p.Phases = append(p.Phases, open...)
	return p
}

// ended are the kinds that end a phase.
var ended = map[phase.EventKind]bool{phase.Finished: true, phase.Skipped: true, phase.Failed: true, phase.Stopped: true}

// Where names the phases of an operation in a few words.
func (p Past) Where() string { return strings.Join(p.Phases, ", ") }
