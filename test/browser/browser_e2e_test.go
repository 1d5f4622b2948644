//go:build e2e

package browser

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The report of a recorded real run, as cmd's golden file has it.
const (
	report = "../../cmd/testdata/timeline.html"
	record = "../../cmd/testdata/bare.jsonl"
)

func recorded(t *testing.T) Run {
	t.Helper()
	f, err := os.Open(record)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	run, err := ReadRun(f)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func lookAt(t *testing.T, file string, v View) Seen {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	seen, picture, err := Look(ctx, file, v)
	if err != nil {
		t.Fatal(err)
	}
	if dir := os.Getenv("HA_INSTALL_PICTURES"); dir != "" { // to look at by eye
		name := strings.NewReplacer("/", "-", " ", "-").Replace(t.Name()) + ".png"
		if err := os.WriteFile(filepath.Join(dir, name), picture, 0o644); err != nil {
			t.Error(err)
		}
	}
	return seen
}

func TestReportInABrowser(t *testing.T) {
	run := recorded(t)
	backgrounds := map[string]bool{}
	for name, v := range map[string]View{
		"wide and light": {Width: 1280}, "wide and dark": {Width: 1280, Dark: true},
		"narrow and light": {Width: 400}, "narrow and dark": {Width: 400, Dark: true},
	} {
		t.Run(name, func(t *testing.T) {
			seen := lookAt(t, report, v)
			backgrounds[seen.Background] = true
			for _, bad := range Compare(seen, run) {
				t.Error(bad)
			}
			if len(seen.Bars) < 50 || seen.Gates < 10 || seen.Failures != 0 {
				t.Errorf("%d bars, %d gates, %d failures", len(seen.Bars), seen.Gates, seen.Failures)
			}
			checkPage(t, seen)
		})
	}
	if len(backgrounds) != 2 {
		t.Errorf("light and dark have the backgrounds %v", backgrounds)
	}
}

// checkPage is what holds for every report.
func checkPage(t *testing.T, seen Seen) {
	t.Helper()
	if len(seen.Requests) > 0 || len(seen.Complaints) > 0 {
		t.Errorf("requests %q, complaints %q", seen.Requests, seen.Complaints)
	}
	if seen.PageWidth > seen.WindowWidth {
		t.Errorf("the page is %.0f wide in a window of %.0f", seen.PageWidth, seen.WindowWidth)
	}
}

// TestTheBrowserSeesWhatIsWrong is the proof that the test above can fail.
func TestTheBrowserSeesWhatIsWrong(t *testing.T) {
	page, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	spoil := strings.NewReplacer(
		`<meta http-equiv="Content-Security-Policy"`, `<meta name="x"`,
		"</main>", `<img src="https://example.org/pixel.png"><div style="width:2000px">wide</div></main>`,
		`data-phase="images"`, `data-phase="pictures"`,
	)
	file := filepath.Join(t.TempDir(), "spoilt.html")
	if err := os.WriteFile(file, []byte(spoil.Replace(string(page))), 0o644); err != nil {
		t.Fatal(err)
	}
	seen := lookAt(t, file, View{Width: 1280})
	if len(seen.Requests) != 1 || len(seen.Complaints) == 0 || seen.PageWidth <= seen.WindowWidth || len(Compare(seen, recorded(t))) == 0 {
		t.Errorf("requests %q, complaints %q, %.0f wide", seen.Requests, seen.Complaints, seen.PageWidth)
	}
}
