// Package browser looks at the reports of runs in a real browser, Debian's
// chromium without a window and without a network.
package browser

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// View is how a page is looked at.
type View struct {
	Width int  // of the window, in CSS pixels
	Dark  bool // what the user prefers
}

// Bar is one step of the timeline, as it is drawn.
type Bar struct {
	Host, Phase, State string
	Seconds            float64
	Left, Width        float64 // CSS pixels, from the left end of its track
	Height             float64
}

// Phase is a row of the table of phases.
type Phase struct {
	Phase         string
	Runs, Changed int
	Seconds       float64
}

// Drilled is a row of the table of a drill.
type Drilled struct {
	Scenario, Verdict     string
	Gap, Moved, Recovered float64 // seconds
	Lost                  int
}

// Chart is the chart of one scenario of a drill, as it is drawn.
type Chart struct {
	Scenario      string
	Width, Height float64 // CSS pixels
	Points        []int   // of each line
	Failures      int     // red marks
	Marks         []string
	Outside       int // what is drawn beyond its edges
}

// Seen is what the browser shows of a report.
type Seen struct {
	Title, Result, Background, Color string
	Changed, Unchanged               int
	Bars                             []Bar
	Track                            float64 // width of the tracks, CSS pixels
	Phases                           []Phase
	Gates, Failures                  int
	Drilled                          []Drilled
	Charts                           []Chart
	PageWidth, WindowWidth           float64 // a page that is wider has to be scrolled sideways

	Requests   []string // other than for the page itself
	Complaints []string // errors and warnings of the console
}

// look collects what is drawn.
const look = `(() => {
	document.querySelectorAll("details").forEach((d) => d.open = true);
	const all = (q) => [...document.querySelectorAll(q)];
	const text = (q) => document.querySelector(q)?.textContent ?? "";
	const style = getComputedStyle(document.body);
	return {
		Title: document.title, Result: text("#result"), Background: style.backgroundColor, Color: style.color,
		Changed: Number(text("#changed")), Unchanged: Number(text("#unchanged")),
		Bars: all(".bar").map((b) => {
			const at = b.getBoundingClientRect(), track = b.parentElement.getBoundingClientRect();
			return {Host: b.closest(".lane").dataset.host, Phase: b.dataset.phase, State: b.classList[1], Seconds: Number(b.dataset.seconds),
				Left: at.left - track.left, Width: at.width, Height: at.height};
		}),
		Track: document.querySelector(".track")?.getBoundingClientRect().width ?? 0,
		Phases: all("#phases tbody tr").map((r) => ({Phase: r.dataset.phase, Runs: Number(r.dataset.runs), Changed: Number(r.dataset.changed), Seconds: Number(r.dataset.seconds)})),
		Drilled: all("#scenarios tbody tr").map((r) => ({Scenario: r.dataset.scenario, Verdict: r.dataset.verdict, Gap: Number(r.dataset.gap),
			Moved: Number(r.dataset.moved), Recovered: Number(r.dataset.recovered), Lost: Number(r.dataset.lost)})),
		Charts: all("svg.chart").map((s) => {
			const at = s.getBoundingClientRect();
			return {Scenario: s.closest("section").dataset.scenario, Width: at.width, Height: at.height,
				Points: [...s.querySelectorAll("polyline")].map((l) => l.points.numberOfItems), Failures: s.querySelectorAll(".fails").length,
				Marks: [...s.querySelectorAll(".mark")].map((m) => m.classList[1]),
				Outside: [...s.querySelectorAll("polyline, rect, line, text")].map((e) => e.getBoundingClientRect()).filter((e) =>
					e.left < at.left - 2 || e.right > at.right + 2 || e.top < at.top - 2 || e.bottom > at.bottom + 2).length};
		}),
		Gates: all(".gate").length, Failures: all("#failures article").length,
		PageWidth: Math.max(document.documentElement.scrollWidth, document.body.scrollWidth), WindowWidth: document.documentElement.clientWidth,
	};
})()`

// Look opens a local file and returns what is seen, and a picture of it.
// Everything that folds is unfolded.
func Look(ctx context.Context, file string, v View) (Seen, []byte, error) {
	var seen Seen
	file, err := filepath.Abs(file)
	if err != nil {
		return seen, nil, err
	}
	ctx, stop := chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, // tests run as root
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND"),
		chromedp.ProxyServer("127.0.0.1:9"))...) // discard
	defer stop()
	page := "file://" + file
	var mu sync.Mutex
	ctx, cancel := chromedp.NewContext(ctx, chromedp.WithListener(func(event any) {
		mu.Lock()
		defer mu.Unlock()
		seen.take(page, event)
	}))
	defer cancel()
	prefers := "light"
	if v.Dark {
		prefers = "dark"
	}
	err = chromedp.Do(ctx,
		enable(network.Enable, network.EnableParams{}), enable(log.Enable, cdp.Empty{}), enable(runtime.Enable, cdp.Empty{}),
		chromedp.EmulateViewport(int64(v.Width), 900),
		enable(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: prefers}}}),
		chromedp.Navigate(page))
	if err != nil {
		return seen, nil, fmt.Errorf("open %s: %w", file, err)
	}
	drawn, err := chromedp.Run(ctx, chromedp.Evaluate[Seen](look))
	if err != nil {
		return seen, nil, fmt.Errorf("look at %s: %w", file, err)
	}
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		return seen, nil, fmt.Errorf("picture of %s: %w", file, err)
	}
	mu.Lock()
	defer mu.Unlock()
	drawn.Requests, drawn.Complaints = seen.Requests, seen.Complaints
	return drawn, picture, nil
}

// take notes what a page should not do.
func (s *Seen) take(page string, event any) {
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if url := e.Request.URL; url != page && !strings.HasPrefix(url, "data:") {
			s.Requests = append(s.Requests, url)
		}
	case *runtime.EventConsoleAPICalled:
		s.Complaints = append(s.Complaints, "console."+string(e.Type))
	case *runtime.EventExceptionThrown:
		s.Complaints = append(s.Complaints, e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		s.Complaints = append(s.Complaints, string(e.Entry.Level)+": "+e.Entry.Text)
	}
}

// enable is a command of the browser's protocol without an answer.
func enable[P, R any](command cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, command, params)
		return err
	})
}
