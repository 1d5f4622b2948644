//go:build e2e

package browser

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/provision/drill"
)

// The page of a drill and the same drill as JSON, as cmd's golden files have them.
const (
	drillPage = "../../cmd/testdata/drill.html"
	drillJSON = "../../cmd/testdata/drill.json"
)

func drilled(t *testing.T) drill.Report {
	t.Helper()
	data, err := os.ReadFile(drillJSON)
	if err != nil {
		t.Fatal(err)
	}
	var r drill.Report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDrillInABrowser(t *testing.T) {
	r := drilled(t)
	for name, v := range map[string]View{"wide and light": {Width: 1280}, "wide and dark": {Width: 1280, Dark: true}, "narrow": {Width: 400}} {
		t.Run(name, func(t *testing.T) {
			seen := lookAt(t, drillPage, v)
			for _, bad := range CompareDrill(seen, r) {
				t.Error(bad)
			}
			checkPage(t, seen)
		})
	}
}

// TestTheBrowserSeesAWrongDrill is the proof that the test above can fail.
func TestTheBrowserSeesAWrongDrill(t *testing.T) {
	page, err := os.ReadFile(drillPage)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]*strings.Replacer{
		"a number":   strings.NewReplacer(`data-gap="6.1"`, `data-gap="1.6"`),
		"a takeover": strings.NewReplacer(`class="mark takeover"`, `class="x"`),
		"a chart":    strings.NewReplacer(`<polyline`, `<poly`),
	} {
		file := filepath.Join(t.TempDir(), "spoilt.html")
		if err := os.WriteFile(file, []byte(spoil.Replace(string(page))), 0o644); err != nil {
			t.Fatal(err)
		}
		if bad := CompareDrill(lookAt(t, file, View{Width: 1280}), drilled(t)); len(bad) == 0 {
			t.Errorf("%s that is wrong was not seen", name)
		}
	}
}
