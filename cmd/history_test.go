package cmd

import (
	"bytes"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/test/golden"
)

var pastOnes = []provision.Past{
	{ID: "20261122t140300z-0c0c0c", Command: "ha-install apply prod.yaml", Operator: "bert@two", Began: at(180), Took: units.Seconds(9 * time.Second), Result: provision.ResultRunning, Phases: []string{"cp-3: join"}, Changed: 2},
	{ID: "20261122t140200z-0b0b0b", Command: "ha-install apply prod.yaml", Operator: "anna@one", Began: at(120), Took: units.Seconds(31 * time.Second), Result: provision.ResultBrokeOff, Phases: []string{"cp-2: join"}, Changed: 17},
	{ID: "20261122t140100z-0a0a0a", Command: "ha-install apply prod.yaml", Operator: "anna@one", Began: at(60), Took: units.Seconds(26 * time.Second), Result: provision.ResultFailed, Phases: []string{"cp-2: join"}, Changed: 4},
	{ID: "20261122t140000z-090909", Command: "ha-install apply prod.yaml", Operator: "anna@one", Began: at(0), Took: units.Seconds(79 * time.Second), Result: provision.ResultDone, Changed: 56},
}

func TestHistoryAsText(t *testing.T) {
	var b bytes.Buffer
	if err := renderHistory(&b, pastOnes); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "history.txt", b.Bytes())
}

func TestOneOperationAsText(t *testing.T) {
	p := pastOnes[2]
	p.Cluster, p.Version, p.Inventory = "prod", "v0.1.0", "f00d"
	p.ExitCode, p.Error, p.Unchanged = 6, "cp-2: join: learner did not catch up", 3
	p.Entries = []provision.Entry{{N: 1, Event: phase.Event{Time: at(0), Kind: "begin"}}}
	for i, e := range oneRun {
		p.Entries = append(p.Entries, provision.Entry{N: i + 2, Event: e})
	}
	for name, verbose := range map[string]bool{"history-show.txt": false, "history-show-verbose.txt": true} {
		var b bytes.Buffer
		renderOperation(&b, p, verbose)
		golden.Check(t, name, b.Bytes())
	}
}
