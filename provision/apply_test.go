package provision

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/certs"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/sim"
)

// applyAll is `ha-install apply`, to its end. cut may be nil.
func applyAll(ctx context.Context, w *sim.World, c *inventory.Cluster, dir string, cut *sim.Cut, say func(phase.Event)) (phase.Tally, error) {
	ctx = w.Begin(ctx, cut)
	site := Connect(ctx, c, dir, w.Dial)
	defer site.Close()
	run := phase.Runner{Events: say}
	err := Apply(ctx, site, &run)
	return run.Tally(), err
}

func TestApplyMakesThreeMastersAndThenNothing(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	var tables strings.Builder
	show := func(e phase.Event) {
		if e.Kind == phase.Notice {
			tables.WriteString(e.Message)
		}
	}
	if _, err := applyAll(context.Background(), w, c, dirs[0], nil, show); err != nil {
		t.Fatal(err)
	}
	want := []string{"cp-1 voter", "cp-2 voter", "cp-3 voter"}
	if diff := cmp.Diff(want, w.Votes()); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	for _, table := range []string{"voters 1", "voters 2  quorum 2  healthy 2  can lose 0", "voters 3  quorum 2  healthy 3  can lose 1"} {
		if !strings.Contains(tables.String(), table) {
			t.Errorf("no table shows %q", table)
		}
	}
	before := w.Snapshot(nil)
	tally, err := applyAll(context.Background(), w, withoutCA(c), dirs[1], nil, nil)
	if err != nil || tally.Changed != 0 {
		t.Errorf("a second apply changed %d phases, %v", tally.Changed, err)
	}
	if diff := cmp.Diff(before, w.Snapshot(nil)); diff != "" {
		t.Errorf("a second apply changed hosts (-before +after):\n%s", diff)
	}
	if bad := append(w.Broken(), w.Lost()...); len(bad) > 0 {
		t.Errorf("%q", bad)
	}
}

// ofAnyRun leaves out of a snapshot what differs from run to run by nature:
// steps that were tried again, what was moved aside on the way, and who leads.
func ofAnyRun(snapshot string) string {
	var kept []string
	for line := range strings.Lines(snapshot) {
		if before, _, held := strings.Cut(line, `"holderIdentity"`); held {
			line = before + "\n"
		}
		if !strings.Contains(line, "/var/lib/ha-install/steps/") && !strings.Contains(line, ".ha-install-") && !strings.Contains(line, beforeUpgrade+"/certs-") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// sameKind names what is made anew by each run, with keys or IDs in it.
func sameKind(p string) string {
	switch {
	case strings.HasPrefix(p, "/etc/kubernetes/") && strings.HasSuffix(p, ".conf"):
		return "a kubeconfig"
	case strings.HasPrefix(p, certs.KubeletDir):
		return "a kubelet's certificate"
	case strings.HasPrefix(p, etcdMember):
		return "a member's data"
	case p == restoreFile:
		return "a restore's note"
	}
	return sameSecret(p)
}
