//go:build e2e

package e2e

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/lab"
)

// upgradeKilled kills the installer at the end of each phase of an upgrade that
// changes something.
func upgradeKilled(t *testing.T) {
	needUndisturbed(t)
	before, after := older(t)
	ps := startProbes(t, kubeconfigOf(t, before), asTheyAre)
	ids := memberIDs(t, masters)
	const least = 3 * 2 // something before and after each master's restart
	killedAtEveryEnd(t, least, "upgrade", "--yes", "-o", "json", after)
	awaitFaultless(t, after, time.Minute)
	ps.unnoticed(t, "an upgrade that was killed everywhere")
	wantRelease(t, lab.DefaultVersion, masters, "w-1")
	wantWhole(t, after, masters, "w-1")
	wantAsNew(t)
	if now := memberIDs(t, masters); now != ids {
		t.Errorf("members before:\n%s\nafter:\n%s", ids, now)
	}
}

// turnPhases are what happens to one master before the next one is touched.
var turnPhases = []string{"drain", "upgrade", "readmit", "uncordon"}

// killedInAMastersTurn runs an upgrade and kills it at the end of a phase of a
// master's turn that is left to chance; the first to go is spared.
func killedInAMastersTurn(t *testing.T, after string) {
	t.Helper()
	var turn []string // masters of which a phase has begun, in order
	left := 1 + seeded(t).IntN(len(turnPhases))
	var at event
	r := haWatched(t, func(line string) bool {
		var e event
		if json.Unmarshal([]byte(line), &e) != nil || !slices.Contains(turnPhases, e.Phase) || !slices.Contains(masters, e.Host) {
			return false
		}
		if e.Kind == "started" && !slices.Contains(turn, e.Host) {
			turn = append(turn, e.Host)
		}
		if e.Kind == "finished" && len(turn) > 1 {
			left--
			at = e
		}
		return left == 0
	}, "upgrade", "--yes", "-o", "json", after)
	if r.code != -1 {
		t.Fatalf("it was not killed; exit %d\n%s", r.code, r.tail())
	}
	t.Logf("killed at the end of %s %s, after %s", at.Host, at.Phase, r.took.Round(100*time.Millisecond))
}
