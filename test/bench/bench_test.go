package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/probe"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/test/golden"
)

var masters = []string{"cp-1", "cp-2", "cp-3"}

// at is a moment so many seconds into a run.
func at(seconds float64) time.Time {
	return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
}

// events is a run in short: "12.5 finished join cp-2".
func events(t *testing.T, lines ...string) []phase.Event {
	t.Helper()
	var all []phase.Event
	began := map[string]time.Time{}
	for _, line := range lines {
		var seconds float64
		var kind, name, host string
		if _, err := fmt.Sscanf(line, "%f %s %s %s", &seconds, &kind, &name, &host); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		e := phase.Event{Time: at(seconds), Kind: phase.EventKind(kind), Phase: name, Host: host}
		if e.Kind == phase.Started {
			began[name+host] = e.Time
		} else {
			e.Elapsed = units.Seconds(e.Time.Sub(began[name+host]))
		}
		all = append(all, e)
	}
	return all
}

func wholeRun(t *testing.T) []phase.Event {
	return events(t,
		"0 started secrets -", "0.5 finished secrets -",
		"0.5 started certificates cp-1", "0.5 started certificates cp-2", "0.7 finished certificates cp-1", "1 finished certificates cp-2",
		"1 started balancer lb-1", "2 finished balancer lb-1",
		"2 started prepare cp-2", "2.1 started init cp-1", "3 finished prepare cp-2", "10 finished init cp-1",
		"10 started join cp-2", "18 finished join cp-2",
		"18 started establish cp-2", "18 finished establish cp-2",
		"18 started join cp-3", "25 finished join cp-3",
		"25 started establish cp-3", "25.5 finished establish cp-3",
		"25 started harden-etcd cp-1", "30 finished harden-etcd cp-1",
		"30 started join w-1", "33 finished join w-1")
}

func TestClusterPhase(t *testing.T) {
	got, err := clusterPhase(wholeRun(t), masters)
	if err != nil {
		t.Fatal(err)
	}
	if want := 23 * time.Second; got.whole != want {
		t.Errorf("whole = %s, want %s: from the first preparation to the last master's join, the worker's left out", got.whole, want)
	}
	if want := time.Second; got.secrets != want {
		t.Errorf("secrets = %s, want %s", got.secrets, want)
	}
	if len(got.steps) != 3 || got.steps[2].name != "join cp-3" || got.steps[2].took != 7*time.Second {
		t.Errorf("steps = %v", got.steps)
	}
}

func TestClusterPhaseOfARunThatFoundMasters(t *testing.T) {
	run := wholeRun(t)
	for name, spoil := range map[string]func(*phase.Event){
		"a join that was skipped":  func(e *phase.Event) { skip(e, "join", "cp-2") },
		"an init that was skipped": func(e *phase.Event) { skip(e, "init", "cp-1") },
	} {
		t.Run(name, func(t *testing.T) {
			spoilt := append([]phase.Event{}, run...)
			for i := range spoilt {
				spoil(&spoilt[i])
			}
			if got, err := clusterPhase(spoilt, masters); err == nil {
				t.Errorf("it was measured: %v", got)
			}
		})
	}
}

func skip(e *phase.Event, name, host string) {
	if e.Kind == phase.Finished && e.Phase == name && e.Host == host {
		e.Kind = phase.Skipped
	}
}

func TestSpansOfAPhaseThatRunsTwice(t *testing.T) {
	for _, s := range spans(wholeRun(t), masters) {
		if s.name == "establish" && (s.took != 500*time.Millisecond || s.hosts != 2) {
			t.Errorf("establish took %s on %d hosts, want 0.5 s on 2: what lies between does not count", s.took, s.hosts)
		}
	}
}

func TestReadSteps(t *testing.T) {
	clock := 0.0
	now := func() time.Time { clock += 2; return at(clock) }
	steps, err := readSteps(strings.NewReader("step init cp-1\n[init] step by step\nstep join cp-2\nstep end\n"), now)
	if err != nil {
		t.Fatal(err)
	}
	want := []step{{"init cp-1", 2 * time.Second}, {"join cp-2", 2 * time.Second}}
	if fmt.Sprint(steps) != fmt.Sprint(want) {
		t.Errorf("steps = %v, want %v", steps, want)
	}
	if _, err := readSteps(strings.NewReader("step init cp-1\n"), now); err == nil {
		t.Error("a script that stopped half way was measured")
	}
}

func TestSpread(t *testing.T) {
	for name, row := range map[string]struct {
		values []float64
		want   string
	}{
		"one value is all three":                     {[]float64{4}, "4 4 4"},
		"of three the middle one":                    {[]float64{9, 1, 2}, "1 2 9"},
		"of four half way between the two in middle": {[]float64{4, 1, 2, 3}, "1 2.5 4"},
	} {
		t.Run(name, func(t *testing.T) {
			low, middle, high := spread(row.values)
			if got := fmt.Sprint(low, middle, high); got != row.want {
				t.Errorf("spread(%v) = %s, want %s", row.values, got, row.want)
			}
		})
	}
}

func TestParseTicks(t *testing.T) {
	before, err := parseTicks("cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 1 1\n")
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseTicks("cpu  160 0 60 820 60 0 0 0 7 0\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := after.busySince(before); got != 0.7 {
		t.Errorf("busy = %v, want 0.7: 70 of 100 ticks, waiting for a disk being idle", got)
	}
	if _, err := parseTicks("intr 5\n"); err == nil {
		t.Error("another file was understood")
	}
}

// seen is a client's report: its longest gap in seconds, and how many of its writes failed.
func seen(gap float64, failed, of int) probe.Report {
	return probe.Report{LongestGap: time.Duration(gap * float64(time.Second)), Failures: make([]probe.Failure, failed), Attempts: of}
}

func TestMarkdown(t *testing.T) {
	phases, err := clusterPhase(wholeRun(t), masters)
	if err != nil {
		t.Fatal(err)
	}
	one := pair{
		hand:  []step{{"init cp-1", 9 * time.Second}, {"join cp-2", 20 * time.Second}, {"join cp-3", 17 * time.Second}},
		apply: phases, busy: [2]float64{0.12, 0.2}, load: [2]string{"0.80", "1.10"},
		off: [2]failover{
			{master: "cp-2", found: 3300 * time.Millisecond, fresh: seen(2.5, 4, 300), lasting: seen(46, 1000, 1200)},
			{master: "cp-1", found: 900 * time.Millisecond, fresh: seen(1.2, 2, 280), lasting: seen(1.15, 22, 290)},
		},
	}
	upgrade := rides{
		hand: ride{masters: []step{{"cp-1", 152 * time.Second}, {"cp-2", 164 * time.Second}, {"cp-3", 160 * time.Second}}, span: 476 * time.Second,
			whole: 476 * time.Second, fresh: seen(0.5, 95, 9600), lasting: seen(3.3, 126, 9600), busy: 0.1, load: "0.90"},
		ours: ride{masters: []step{{"cp-2", 30 * time.Second}, {"cp-3", 31 * time.Second}, {"cp-1", 32 * time.Second}}, span: 93 * time.Second,
			whole: 140 * time.Second, fresh: seen(0.2, 0, 2800), lasting: seen(0.3, 0, 2800), busy: 0.2, load: "1.20"},
	}
	r := result{
		at: at(0), machine: "2 cores (a processor), 24 GiB", version: "v1.36.3", masters: masters, memory: 150 << 20,
		bare: run{took: 90 * time.Second, events: wholeRun(t)}, again: []time.Duration{4 * time.Second, 5 * time.Second}, pairs: []pair{one, one},
		rides: []rides{upgrade},
	}
	var got bytes.Buffer
	r.markdown(&got)
	golden.Check(t, "tables.md", got.Bytes())
}
