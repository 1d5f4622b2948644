package cmd

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ha-install/ha-install/provision/phase"
)

// reporter shows a run as it goes: lines for people, or one JSON event a line.
type reporter struct {
	out   io.Writer
	json  *json.Encoder // nil for text
	lines bool          // show the output of long commands
	times []phaseTime
	waits map[string]string // what each phase last said that it waits for
	none  string            // what it means that nothing was changed
}

type phaseTime struct {
	name  string
	hosts int
	from  time.Time
	to    time.Time
	did   bool
}

func newReporter(out io.Writer, format string, lines bool, none string) *reporter {
	r := &reporter{out: out, lines: lines, waits: map[string]string{}, none: none}
	if format == "json" {
		r.json = json.NewEncoder(out)
	}
	return r
}

// event is called by the runner, one call at a time.
func (r *reporter) event(e phase.Event) {
	r.clock(e)
	if r.json != nil {
		_ = r.json.Encode(e) // a closed pipe must not stop a run half way
		return
	}
	who := e.Phase
	if e.Host != "" {
		who = e.Host + " " + e.Phase
	}
	at := e.Time.Local().Format(time.TimeOnly)
	switch e.Kind {
	case phase.Finished:
		fmt.Fprintf(r.out, "%s  ok       %-26s %s\n", at, who, short(e.Elapsed))
	case phase.Skipped:
		fmt.Fprintf(r.out, "%s  already  %-26s %s\n", at, who, short(e.Elapsed))
	case phase.Failed:
		fmt.Fprintf(r.out, "%s  FAILED   %-26s %s\n", at, who, short(e.Elapsed))
	case phase.Waiting:
		// What passes by at once is not worth a line.
		if e.Elapsed > patience && r.waits[who] != e.Message {
			r.waits[who] = e.Message
			fmt.Fprintf(r.out, "%s  ...      %-26s waiting for %s\n", at, who, firstLine(e.Message))
		}
	case phase.Undoing:
		fmt.Fprintf(r.out, "%s  undo     %-26s after: %s\n", at, who, e.Message)
	case phase.Output:
		if r.lines {
			fmt.Fprintf(r.out, "%s           %-26s | %s\n", at, who, e.Message)
		}
	case phase.Notice:
		fmt.Fprintf(r.out, "\n%s\n", indentBlock(e.Message))
	}
}

// clock notes from when to when each phase ran, over all hosts.
func (r *reporter) clock(e phase.Event) {
	if e.Kind == phase.Started {
		if n := len(r.times); n == 0 || r.times[n-1].name != e.Phase {
			r.times = append(r.times, phaseTime{name: e.Phase, from: e.Time})
		}
		r.times[len(r.times)-1].hosts++
		return
	}
	for i := len(r.times) - 1; i >= 0; i-- {
		if r.times[i].name == e.Phase {
			r.times[i].to = e.Time
			r.times[i].did = r.times[i].did || e.Kind == phase.Finished
			return
		}
	}
}

// summary says what was done and where the time went.
func (r *reporter) summary(t phase.Tally, took time.Duration) {
	if r.json != nil {
		_ = r.json.Encode(map[string]any{"kind": "summary", "changed": t.Changed, "unchanged": t.Skipped, "elapsedNanoseconds": took})
		return
	}
	if t.Changed == 0 {
		fmt.Fprintf(r.out, "\n%s (%s)\n", r.none, short(took))
		return
	}
	fmt.Fprintf(r.out, "\n%-14s %-6s %s\n", "PHASE", "RUNS", "TIME")
	for _, p := range r.times {
		if p.did {
			fmt.Fprintf(r.out, "%-14s %-6d %s\n", p.name, p.hosts, short(p.to.Sub(p.from)))
		}
	}
	fmt.Fprintf(r.out, "\ndone: %d steps changed something, %d found all as it should be (%s)\n", t.Changed, t.Skipped, short(took))
}

// patience is how long a phase runs before its waiting is shown.
const patience = 2 * time.Second

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func short(d time.Duration) string { return d.Round(100 * time.Millisecond).String() }

func indentBlock(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ") + "\n"
}
