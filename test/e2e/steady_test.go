//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/test/lab"
)

// secondApply wants nothing at all to change: no file's time, no member, no
// container, no service.
func secondApply(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitProbePodsGone(t)
	ids := memberIDs(t, masters)
	before := onEach(t, baseHosts, clusterFootprint)
	r := ha(t, "apply", path)
	r.want(t, 0)
	wantSame(t, "a second apply", before, onEach(t, baseHosts, clusterFootprint))
	if now := memberIDs(t, masters); now != ids {
		t.Errorf("members before:\n%s\nafter:\n%s", ids, now)
	}
	if !strings.Contains(r.stdout, "nothing to change") {
		t.Errorf("it does not say that there was nothing to change:\n%s", r.tail())
	}
	t.Logf("an apply with nothing to do: %s", r.took.Round(100*time.Millisecond))
	const bound = time.Minute
	if r.took > bound {
		t.Errorf("an apply with nothing to do took %s, want less than %s", r.took, bound)
	}
	report := filepath.Join(t.TempDir(), "run.html")
	r = ha(t, "apply", "-o", "json", "--debug", "--report", report, path)
	if n := r.changed(t); n != 0 {
		t.Errorf("a third apply changed %d steps", n)
	}
	lookAtReport(t, report, r)
	checkDebug(t, baseHosts, r)
}

// awaitProbePodsGone waits for the pods of the data path's proof: the apply
// that ran them has deleted them, and did not wait for their last words.
func awaitProbePodsGone(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := lab.Await(ctx, "the pods of the data path's proof to end", 2*time.Minute, func(context.Context) error {
		if left := kubectl(t, "get", "namespaces", "--selector", kube.PassingLabel, "-o", "name"); left != "" {
			return fmt.Errorf("%s is there", left)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// power pulls the plug of a host, or puts it back.
func power(t *testing.T, host string, on bool) {
	t.Helper()
	var err error
	if on {
		err = theLab.PowerOn(t.Context(), host)
	} else {
		_, err = inject.Unplug(t.Context(), host)
		t.Cleanup(func() { heal(t) })
	}
	if err != nil {
		t.Fatal(err)
	}
}
