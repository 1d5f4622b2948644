package provision

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/golden"
)

// TestPlanAsJSON keeps what programs read of a plan; of every diff its head,
// for the files themselves are the templates' to keep.
func TestPlanAsJSON(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	plan, err := planOf(t.Context(), t, newWorld(t, c), withoutCA(c), dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	plan.Digest, plan.Inputs = "", nil
	kept := map[string]bool{"lb-1": true, "cp-1": true, "cp-3": true, "w-1": true, "": true}
	var steps []phase.PlannedStep
	for _, s := range plan.Steps {
		if !kept[s.Host] {
			continue
		}
		for i, change := range s.Changes {
			if lines := strings.SplitAfter(change.Diff, "\n"); len(lines) > 2 {
				s.Changes[i].Diff, s.Changes[i].Bytes = strings.Join(lines[:2], ""), 0
			}
		}
		steps = append(steps, s)
	}
	plan.Steps = steps
	data, err := json.MarshalIndent(plan, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "plan.json", append(data, '\n'))
}
