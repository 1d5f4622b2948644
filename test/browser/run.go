package browser

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"

	"github.com/ha-install/ha-install/provision/phase"
)

// Run is what `-o json` says of a run.
type Run struct {
	Events  []phase.Event
	Summary struct {
		Result             string
		Changed, Unchanged int
		ElapsedSeconds     float64
		Phases             []struct {
			Phase          string
			Runs, Changed  int
			ElapsedSeconds float64
		}
	}
}

// ReadRun reads the lines of `-o json`.
func ReadRun(r io.Reader) (Run, error) {
	var run Run
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var e phase.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return run, fmt.Errorf("event %.200q: %w", lines.Text(), err)
		}
		run.Events = append(run.Events, e)
		if e.Kind == "summary" {
			if err := json.Unmarshal(lines.Bytes(), &run.Summary); err != nil {
				return run, fmt.Errorf("summary %.200q: %w", lines.Text(), err)
			}
		}
	}
	return run, lines.Err()
}

// Compare returns what a report shows otherwise than the run was.
func Compare(seen Seen, run Run) []string {
	var bad []string
	say := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	if s := run.Summary; seen.Result != s.Result || seen.Changed != s.Changed || seen.Unchanged != s.Unchanged {
		say("the head says %s, %d changed, %d unchanged; the run %s, %d, %d", seen.Result, seen.Changed, seen.Unchanged, s.Result, s.Changed, s.Unchanged)
	}
	left := append([]Bar{}, seen.Bars...)
	for _, e := range run.Events {
		switch e.Kind {
		case phase.Finished, phase.Skipped, phase.Failed, phase.Stopped:
		default:
			continue
		}
		found := false
		for i, b := range left {
			host := e.Host
			if host == "" {
				host = "cluster"
			}
			if b.Phase == e.Phase && b.Host == host && b.State == string(e.Kind) && near(b.Seconds, e.Elapsed.Duration().Seconds(), 0.001) {
				found = true
				bad = append(bad, b.wrong(seen.Track, run.Summary.ElapsedSeconds)...)
				left = append(left[:i], left[i+1:]...)
				break
			}
		}
		if !found {
			say("no bar for %s %s, %s after %s", e.Host, e.Phase, e.Kind, e.Elapsed)
		}
	}
	for _, b := range left {
		say("a bar for no step: %+v", b)
	}
	if len(seen.Phases) != len(run.Summary.Phases) {
		say("%d rows for %d phases", len(seen.Phases), len(run.Summary.Phases))
		return bad
	}
	for i, want := range run.Summary.Phases {
		if got := seen.Phases[i]; got.Phase != want.Phase || got.Runs != want.Runs || got.Changed != want.Changed || !near(got.Seconds, want.ElapsedSeconds, 0.001) {
			say("row %d is %+v, the phase %+v", i+1, got, want)
		}
	}
	return bad
}

// wrong compares what is drawn of a bar with its time.
func (b Bar) wrong(track, whole float64) []string {
	want := math.Max(b.Seconds/whole*track, 2) // what is short is drawn two pixels wide
	if !near(b.Width, want, 2+track/100) || b.Height < 20 || b.Left < -1 || b.Left+b.Width > track+3 {
		return []string{fmt.Sprintf("the bar of %s %s is %.1f pixels of %.1f wide from %.1f on, for %.2f s of %.2f s", b.Host, b.Phase, b.Width, track, b.Left, b.Seconds, whole)}
	}
	return nil
}

func near(a, b, by float64) bool { return math.Abs(a-b) <= by }
