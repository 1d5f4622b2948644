//go:build e2e

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/browser"
)

// lookAtReport compares what a browser shows of a report with what the same
// run said in JSON.
func lookAtReport(t *testing.T, file string, r result) {
	t.Helper()
	run, err := browser.ReadRun(strings.NewReader(r.stdout))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, width := range []int{1280, 400} {
		seen, _, err := browser.Look(ctx, file, browser.View{Width: width})
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range browser.Compare(seen, run) {
			t.Errorf("report at %d pixels: %s", width, bad)
		}
		if len(seen.Bars) == 0 || seen.PageWidth > seen.WindowWidth || len(seen.Requests)+len(seen.Complaints) > 0 {
			t.Errorf("report at %d pixels: %d bars, %.0f wide, requests %q, complaints %q", width, len(seen.Bars), seen.PageWidth, seen.Requests, seen.Complaints)
		}
	}
}

// checkDebug wants commands of every host on standard error, and no secret.
func checkDebug(t *testing.T, hosts []string, r result) {
	t.Helper()
	for _, host := range hosts {
		if !strings.Contains(r.stderr, "debug    "+host+" ") {
			t.Errorf("--debug shows no command on %s", host)
		}
	}
	for _, secret := range []string{"PRIVATE KEY", "client-key-data", "BEGIN CERTIFICATE"} {
		if strings.Contains(r.stderr, secret) {
			t.Errorf("--debug shows %q", secret)
		}
	}
}
