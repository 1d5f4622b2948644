package cmd

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/test/golden"
)

// recorded reads what `-o json` has printed.
func recorded(t *testing.T, file string) recordedRun {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var run recordedRun
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e phase.Event
		into := any(&e)
		switch {
		case bytes.Contains(lines.Bytes(), []byte(`"kind":"run"`)):
			into = &run.Head
		case bytes.Contains(lines.Bytes(), []byte(`"kind":"summary"`)):
			into = &run.Summary
		}
		if err := json.Unmarshal(lines.Bytes(), into); err != nil {
			t.Fatal(err)
		}
		if e.Kind != "" {
			run.Events = append(run.Events, e)
		}
	}
	return run
}

func rendered(t *testing.T, run recordedRun) string {
	t.Helper()
	var page strings.Builder
	if err := timeline(&page, run); err != nil {
		t.Fatal(err)
	}
	return page.String()
}

// TestTimelineOfARecordedRun renders a real run from bare hosts; the browser
// looks at the same file in test/browser.
func TestTimelineOfARecordedRun(t *testing.T) {
	run := recorded(t, filepath.Join("testdata", "bare.jsonl"))
	page := rendered(t, run)
	golden.Check(t, "timeline.html", []byte(page))
	bars, began := strings.Count(page, `class="bar `), 0
	for _, e := range run.Events {
		if e.Kind == phase.Started {
			began++
		}
	}
	if bars != began || bars < 50 {
		t.Errorf("%d bars for %d steps", bars, began)
	}
	if n := strings.Count(page, `class="gate"`); n < 10 {
		t.Errorf("%d tables of quorum", n)
	}
}

// hostile is a run that failed, and whose every text tries to get out.
func hostile() recordedRun {
	const bad = `<script src="https://example.org/x.js">alert(1)</script><img src=//example.org/p.png>" style="x`
	v := etcd.Verdict{Title: "init " + bad, State: etcd.NoQuorum, Reasons: []string{bad}, LeaderName: bad, Version: bad, Members: []etcd.Member{{Name: bad, Role: etcd.Voter, State: etcd.MemberDead, Why: bad}}}
	events := []phase.Event{
		event(0, phase.Started, "claim", "cp-1", ""), event(1, phase.Skipped, "claim", "cp-1", ""),
		event(1, phase.Started, bad, bad, ""),
		event(5, phase.Waiting, bad, bad, bad),
		event(5, phase.Output, bad, bad, bad),
		event(6, phase.Notice, bad, bad, bad),
		event(6, phase.Undoing, bad, bad, bad),
		{Time: at(7), Kind: phase.Notice, Phase: bad, Data: phase.Data{"quorum": v}},
		event(8, phase.Failed, bad, bad, bad+"\nsecond line"),
		event(8, phase.Stopping, "", "", bad),
		event(8, phase.Started, "join", "cp-2", ""), // never ends
	}
	run := recordedRun{
		Head:    runHead{Kind: "run", Schema: 1, Time: at(0), Command: "apply", Cluster: bad, Kubernetes: bad, Version: bad, Hosts: []runHost{{Name: "cp-1", Role: "control-plane"}, {Name: bad, Role: "worker"}}},
		Events:  events,
		Summary: runSummary{Time: at(9), Kind: "summary", Result: resultFailed, ExitCode: 6, Error: bad, Unchanged: 1, Elapsed: units.Seconds(9 * time.Second)},
	}
	for _, e := range events {
		if e.Phase != "" {
			run.Summary.Phases = summarize(run.Summary.Phases, e)
		}
	}
	return run
}

func TestTimelineEscapesEverything(t *testing.T) {
	page := rendered(t, hostile())
	for _, out := range []string{"<script", "<img", `src="`, `" style="x`, "url("} {
		if strings.Contains(page, out) {
			t.Errorf("%q got out", out)
		}
	}
	if n := strings.Count(page, "&lt;script"); n < 15 {
		t.Errorf("only %d of the texts are shown", n)
	}
	if !regexp.MustCompile(`(?s)id="failures".*second line`).MatchString(page) || !strings.Contains(page, "failed, exit code 6") {
		t.Error("the failure is not shown")
	}
	if !strings.Contains(page, `class="bar stopped`) {
		t.Error("what never ended is not shown as stopped")
	}
}

func TestTimelineOfNothing(t *testing.T) {
	run := hostile()
	run.Events, run.Summary.Phases, run.Summary.Error = nil, nil, "cp-1: connection refused"
	page := rendered(t, run)
	if !strings.Contains(page, "cp-1: connection refused") || strings.Contains(page, `id="chart"`) {
		t.Error(page)
	}
}

func TestTheReportIsWrittenWhateverTheEnd(t *testing.T) {
	for name, end := range map[string]error{"ok": nil, "failed": errors.New("cp-1: init: boom")} {
		file := filepath.Join(t.TempDir(), "run.html")
		shown(t, runFlags{output: "json", report: file}, oneRun, phase.Tally{Changed: 3}, end)
		page, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(page), `id="result">`+name) || strings.Count(string(page), `class="bar `) != 5 {
			t.Errorf("%s: %v, %d bytes", name, err, len(page))
		}
		if entries, err := os.ReadDir(filepath.Dir(file)); err != nil || len(entries) != 1 {
			t.Errorf("left behind: %v, %v", entries, err)
		}
	}
	file := filepath.Join(t.TempDir(), "run.html")
	if code, _, errOut := run(t, "", "apply", "--report", file, writeInventory(t, nil)); code != exitUnreachable {
		t.Errorf("exit code %d, %s", code, errOut)
	}
	if page, err := os.ReadFile(file); err != nil || !strings.Contains(string(page), "failed, exit code 5") {
		t.Errorf("hosts out of reach: %v, %d bytes", err, len(page))
	}
}

func TestAReportThatCannotBeWrittenIsSaidAtOnce(t *testing.T) {
	for _, file := range []string{t.TempDir(), filepath.Join(t.TempDir(), "no", "run.html")} {
		code, _, errOut := run(t, "", "apply", "--report", file, writeInventory(t, nil))
		if code != exitUsage || !strings.Contains(errOut, "--report: ") || !strings.Contains(errOut, "nothing was changed") {
			t.Errorf("%s: exit code %d, %s", file, code, errOut)
		}
	}
}
