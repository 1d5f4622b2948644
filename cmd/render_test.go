package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/test/golden"
)

// at is a moment of a run, in the zone that the reporter shows.
func at(seconds int) time.Time {
	return time.Date(2026, 11, 22, 14, 0, seconds, 0, time.Local)
}

func event(second int, kind phase.EventKind, name, host, message string) phase.Event {
	return phase.Event{Time: at(second), Kind: kind, Phase: name, Host: host, Message: message, Elapsed: units.Seconds(time.Duration(second) * 100 * time.Millisecond)}
}

// sentBytes makes the event that of a phase which sent much.
func sentBytes(e phase.Event) phase.Event {
	e.Transfer = &phase.Transfer{Done: 312_000_000, Total: 312_000_000, Rate: 84.2e6}
	return e
}

var oneRun = []phase.Event{
	event(0, phase.Started, "preflight", "", ""),
	event(0, phase.Waiting, "preflight", "", "preflight"),
	event(1, phase.Skipped, "preflight", "", ""),
	event(1, phase.Started, "software", "cp-1", ""),
	event(1, phase.Started, "software", "cp-2", ""),
	event(9, phase.Finished, "software", "cp-2", ""),
	event(12, phase.Progress, "software", "cp-1", ""),
	sentBytes(event(12, phase.Finished, "software", "cp-1", "")),
	event(12, phase.Started, "init", "cp-1", ""),
	event(13, phase.Output, "init", "cp-1", "[certs] Using the existing \"sa\" key"),
	event(20, phase.Notice, "init", "cp-1", "QUORUM  init cp-1\nvoters 1  quorum 1\n"),
	event(21, phase.Finished, "init", "cp-1", ""),
	event(21, phase.Started, "join", "cp-2", ""),
	event(25, phase.Undoing, "join", "cp-2", "learner did not catch up"),
	event(26, phase.Failed, "join", "cp-2", "cp-2: join: learner did not catch up"),
}

// shown runs a reporter over events, with -o format, and ends it with err.
func shown(t *testing.T, f runFlags, events []phase.Event, tally phase.Tally, err error) string {
	t.Helper()
	var out bytes.Buffer
	c := &cobra.Command{Use: "apply"}
	c.SetOut(&out)
	c.SetContext(t.Context())
	r, begun := f.begin(c, &inventory.Cluster{Metadata: inventory.Metadata{Name: "prod"}}, "nothing to change: the cluster is as the inventory says")
	if begun != nil {
		t.Fatal(begun)
	}
	r.began = at(0)
	r.now = func() time.Time { return at(26) }
	for _, e := range events {
		r.event(e)
	}
	if got := r.end(c, err, func() phase.Tally { return tally }); got != err {
		t.Errorf("the error became %v", got)
	}
	return out.String()
}

func TestReporterText(t *testing.T) {
	for file, verbose := range map[string]bool{"run.txt": false, "run-verbose.txt": true} {
		golden.Check(t, file, []byte(shown(t, runFlags{output: "text", verbose: verbose}, oneRun, phase.Tally{Changed: 3, Skipped: 1}, nil)))
	}
}

func TestReporterSaysWhenNothingChanged(t *testing.T) {
	got := shown(t, runFlags{output: "text"}, nil, phase.Tally{Skipped: 40}, nil)
	if want := "\nnothing to change: the cluster is as the inventory says (26s)\n"; got != want {
		t.Errorf("%q, wanted %q", got, want)
	}
}

func TestReporterJSONIsOneEventALine(t *testing.T) {
	cause := errors.New("cp-2: join: learner did not catch up")
	lines := strings.Split(strings.TrimSpace(shown(t, runFlags{output: "json"}, oneRun, phase.Tally{Changed: 3, Skipped: 1}, cause)), "\n")
	if len(lines) != len(oneRun)+2 {
		t.Fatalf("%d lines for a head, %d events and a summary", len(lines), len(oneRun))
	}
	var head runHead
	if err := json.Unmarshal([]byte(lines[0]), &head); err != nil || head.Kind != "run" || head.Schema != 1 || head.Cluster != "prod" || head.Command != "apply" || head.Time.IsZero() {
		t.Errorf("head %s (%v)", lines[0], err)
	}
	for i, e := range oneRun {
		var got phase.Event
		if err := json.Unmarshal([]byte(lines[i+1]), &got); err != nil || got.Kind != e.Kind || got.Host != e.Host || got.Message != e.Message || !got.Time.Equal(e.Time) || got.Elapsed != e.Elapsed {
			t.Errorf("line %d: %s (%v)", i+1, lines[i+1], err)
		}
	}
	var end runSummary
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &end); err != nil {
		t.Fatal(err)
	}
	want := runSummary{
		Time: at(26).UTC(), Kind: "summary", Result: "failed", ExitCode: exitOther, Error: cause.Error(), Changed: 3, Unchanged: 1, Elapsed: units.Seconds(26 * time.Second),
		Phases: []phaseSummary{
			{Phase: "preflight", Runs: 1, Elapsed: units.Seconds(time.Second)},
			{Phase: "software", Runs: 2, Changed: 2, Elapsed: units.Seconds(11 * time.Second), Bytes: 312_000_000},
			{Phase: "init", Runs: 1, Changed: 1, Elapsed: units.Seconds(9 * time.Second)},
			{Phase: "join", Runs: 1, Failed: 1, Elapsed: units.Seconds(5 * time.Second)},
		},
	}
	if diff := cmp.Diff(want, end, cmpopts.IgnoreUnexported(phaseSummary{})); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
}

// TestEveryKindIsDocumented keeps the help and the events together.
func TestEveryKindIsDocumented(t *testing.T) {
	for _, kind := range []phase.EventKind{
		"run", "summary", phase.Workflow, phase.Started, phase.Waiting, phase.Output, phase.Progress, phase.Notice,
		phase.Undoing, phase.Finished, phase.Skipped, phase.Failed, phase.Stopping, phase.Stopped,
	} {
		if !strings.Contains(eventHelp, "\n  "+string(kind)+" ") {
			t.Errorf("the kind %s is not in the help", kind)
		}
	}
	_, out, _ := run(t, "", "apply", "--help")
	if !strings.Contains(out, eventHelp) {
		t.Error("the help of apply does not say what -o json is")
	}
}

func TestAnInterruptIsNoFailure(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	c := &cobra.Command{Use: "apply"}
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetContext(ctx)
	f := runFlags{output: "json"}
	r, err := f.begin(c, &inventory.Cluster{}, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.end(c, fmt.Errorf("cp-1: init: %w", ctx.Err()), func() phase.Tally { return phase.Tally{} }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if !strings.Contains(out.String(), `"result":"interrupted","exitCode":130`) {
		t.Error(out.String())
	}
}

func TestAPhaseThatRunsTwiceCountsWhileItRuns(t *testing.T) {
	var phases []phaseSummary
	for _, e := range []phase.Event{
		event(0, phase.Started, "establish", "cp-1", ""), event(2, phase.Finished, "establish", "cp-1", ""),
		event(10, phase.Started, "establish", "cp-2", ""), event(11, phase.Started, "establish", "cp-3", ""),
		event(13, phase.Skipped, "establish", "cp-2", ""), event(14, phase.Finished, "establish", "cp-3", ""),
	} {
		phases = summarize(phases, e)
	}
	if len(phases) != 1 || phases[0].Runs != 3 || phases[0].Changed != 2 || phases[0].Elapsed.Duration() != 6*time.Second {
		t.Errorf("%+v", phases)
	}
}

func TestIndentSetsLaterLinesOff(t *testing.T) {
	for in, want := range map[string]string{"one": "one", "one\n": "one", "one\ntwo\nthree\n\n": "one\n  two\n  three"} {
		if got := indent(in); got != want {
			t.Errorf("indent(%q) = %q, wanted %q", in, got, want)
		}
	}
}
