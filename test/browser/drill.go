package browser

import (
	"fmt"

	"github.com/ha-install/ha-install/provision/drill"
)

// CompareDrill returns what the page of a drill shows otherwise than its JSON.
func CompareDrill(seen Seen, r drill.Report) []string {
	var bad []string
	say := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	if seen.Result != string(r.Verdict) {
		say("the head says %q, the drill %s", seen.Result, r.Verdict)
	}
	if len(seen.Drilled) != len(r.Scenarios) {
		say("%d rows for %d scenarios", len(seen.Drilled), len(r.Scenarios))
		return bad
	}
	charts := seen.Charts
	for i, s := range r.Scenarios {
		want := Drilled{Scenario: s.Scenario, Verdict: string(s.Verdict), Gap: s.WriteGap().Duration().Seconds(),
			Moved: s.Moved.Duration().Seconds(), Recovered: s.Recovered.Duration().Seconds(), Lost: s.Lost()}
		got := seen.Drilled[i]
		if got.Scenario != want.Scenario || got.Verdict != want.Verdict || got.Lost != want.Lost ||
			!near(got.Gap, want.Gap, 0.001) || !near(got.Moved, want.Moved, 0.001) || !near(got.Recovered, want.Recovered, 0.001) {
			say("row %d is %+v, the scenario %+v", i+1, got, want)
		}
		if len(s.Clients) == 0 {
			continue
		}
		if len(charts) == 0 || charts[0].Scenario != s.Scenario {
			say("no chart for %s", s.Scenario)
			return bad
		}
		bad = append(bad, charts[0].wrong(s)...)
		charts = charts[1:]
	}
	if len(charts) > 0 {
		say("%d charts of nothing", len(charts))
	}
	return bad
}

// wrong compares what is drawn with what was counted.
func (c Chart) wrong(s drill.Result) []string {
	var bad []string
	say := func(format string, args ...any) {
		bad = append(bad, fmt.Sprintf("the chart of "+c.Scenario+" "+format, args...))
	}
	failures, marks := 0, 2 // the failure and the repair
	for i, client := range s.Clients {
		if i >= len(c.Points) || c.Points[i] != len(client.Timeline) {
			say("has %v points, client %d has %d moments", c.Points, i+1, len(client.Timeline))
		}
		for _, b := range client.Timeline {
			if b.Failed > 0 {
				failures++
			}
		}
	}
	for _, t := range s.Takeovers {
		if t.To != "" {
			marks++
		}
	}
	if c.Failures != failures || len(c.Marks) != marks {
		say("marks %d failures and %q, want %d and %d", c.Failures, c.Marks, failures, marks)
	}
	if c.Width < 200 || c.Height < 40 || c.Outside > 0 {
		say("is %.0f by %.0f, and %d parts of it lie outside", c.Width, c.Height, c.Outside)
	}
	return bad
}
