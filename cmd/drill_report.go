package cmd

import (
	_ "embed" // for the page
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"

	"github.com/ha-install/ha-install/provision/drill"
	"github.com/ha-install/ha-install/provision/units"
)

//go:embed drill.html
var drillHTML string

var drillTemplate = template.Must(template.New("drill").Funcs(template.FuncMap{
	"time": drillTime, "short": short, "seconds": func(s units.Seconds) float64 { return s.Duration().Seconds() },
	"date":     func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"takeover": takeover,
	"class":    func(v drill.Verdict) string { return strings.ReplaceAll(strings.ToLower(string(v)), " ", "-") },
	"cells":    drillRow, "pods": drillPods,
}).Parse(drillHTML))

// drillPage writes a drill as one page that needs nothing else.
func drillPage(out io.Writer, r drill.Report) error {
	page := struct {
		drill.Report
		Head    []string
		Took    units.Seconds
		Version string
		Charts  []drillChart
	}{Report: r, Head: drillHead, Took: units.Seconds(r.Ended.Sub(r.Began)), Version: Version}
	for _, s := range r.Scenarios {
		page.Charts = append(page.Charts, chartOf(s))
	}
	return drillTemplate.Execute(out, page)
}

// The chart of a scenario, in units of its own.
const (
	chartWidth  = 1000.0
	chartTop    = 40.0 // above it the marks have their words
	markHeight  = 11.0
	chartHeight = 130.0
	// failureWidth is what the word takes where letters are largest, on a narrow
	// screen.
	failureWidth = 80.0
	failHeight   = 14.0 // of the row of failures of each client
	leastTop     = 100 * time.Millisecond
)

// drillChart is what is drawn of one scenario; empty where nothing was played.
type drillChart struct {
	drill.Result
	Width, Height, Top, Bottom float64
	Lines                      []chartLine
	Marks                      []chartMark
	Ticks                      []chartMark
	Rows                       []chartMark // of latencies
	DownLeft, DownWidth        float64
}

// chartLine is a client: the slowest request of each moment, and its failures.
type chartLine struct {
	Kind     string
	Class    string
	Points   string
	Failures []chartMark
}

// chartMark is something at a place.
type chartMark struct {
	X, Y, Width float64
	Text        string
	Class       string
	// Late marks have their word on the left.
	Late bool
}

func chartOf(s drill.Result) drillChart {
	c := drillChart{Result: s, Width: chartWidth, Top: chartTop, Bottom: chartTop + chartHeight}
	c.Height = c.Bottom + failHeight*float64(len(s.Clients)) + 24
	first, last, slowest := extent(s)
	if last <= first {
		return c
	}
	x := func(at units.Seconds) float64 {
		return tenth(float64(at-first) / float64(last-first) * chartWidth)
	}
	y := func(took units.Seconds) float64 {
		return tenth(c.Bottom - math.Min(float64(took)/float64(slowest), 1)*chartHeight)
	}
	for i, client := range s.Clients {
		c.Lines = append(c.Lines, lineOf(client, i, x, y, c.Bottom))
	}
	c.DownLeft, c.DownWidth = x(0), x(s.Down)-x(0)
	c.Marks = []chartMark{{X: x(0), Text: "failure", Class: "failure"}, {X: x(s.Down), Text: "repair", Class: "repair"}}
	for _, t := range s.Takeovers {
		if t.To != "" {
			c.Marks = append(c.Marks, chartMark{X: x(t.After), Text: t.What + ": " + t.To, Class: "takeover"})
		}
	}
	for i := range c.Marks {
		m := &c.Marks[i]
		m.Y, m.Late = 10+float64(i%3)*markHeight, m.X > chartWidth*0.75
	}
	c.Marks[0].Late = c.DownLeft > failureWidth // leaves room for who takes over at once
	for at := units.Seconds(0); at < last; at += units.Seconds(10 * time.Second) {
		c.Ticks = append(c.Ticks, chartMark{X: x(at), Text: fmt.Sprintf("%.0f s", at.Duration().Seconds()), Late: x(at) > chartWidth*0.95})
	}
	for _, part := range []units.Seconds{slowest, slowest / 2} {
		c.Rows = append(c.Rows, chartMark{Y: y(part), Text: part.Duration().Round(time.Millisecond).String()})
	}
	return c
}

// extent is the time that a scenario's timelines span, and their slowest request.
func extent(s drill.Result) (first, last, slowest units.Seconds) {
	slowest, last = units.Seconds(leastTop), s.Down
	for _, client := range s.Clients {
		for _, b := range client.Timeline {
			first, last = min(first, b.At), max(last, b.At+units.Seconds(drill.BucketWidth))
			slowest = max(slowest, b.Slowest)
		}
	}
	return first, last, slowest
}

func lineOf(client drill.Client, i int, x, y func(units.Seconds) float64, bottom float64) chartLine {
	line := chartLine{Kind: client.Kind, Class: fmt.Sprintf("client-%d", i+1)}
	var points []string
	for _, b := range client.Timeline {
		points = append(points, fmt.Sprintf("%g,%g", x(b.At), y(b.Slowest)))
		if b.Failed > 0 {
			line.Failures = append(line.Failures, chartMark{
				X: x(b.At), Y: bottom + failHeight*float64(i) + 3, Width: math.Max(x(b.At+units.Seconds(drill.BucketWidth))-x(b.At), 2),
				Text: fmt.Sprintf("%s: %d of %d requests failed", client.Kind, b.Failed, b.Requests),
			})
		}
	}
	line.Points = strings.Join(points, " ")
	return line
}

func tenth(f float64) float64 { return math.Round(f*10) / 10 }
