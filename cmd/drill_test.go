package cmd

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/drill"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/test/golden"
)

// drilled is a report with one scenario of each verdict.
func drilled() drill.Report {
	seconds := func(n float64) units.Seconds { return units.Seconds(n * float64(time.Second)) }
	began := time.Date(2026, 11, 22, 21, 36, 0, 0, time.UTC)
	client := func(kind string, failed int, gap float64) drill.Client {
		c := drill.Client{Kind: kind, Writes: 612, FailedWrites: failed, WriteGap: seconds(gap), WriteGapAt: seconds(0.1), Reads: 640, FailedReads: failed / 2, Verified: true}
		for i := -8; i < 120; i++ {
			b := drill.Bucket{At: units.Seconds(time.Duration(i) * drill.BucketWidth), Requests: 10, Slowest: seconds(0.02 + 0.001*float64(i%7))}
			if i >= 0 && i < failed {
				b.Failed, b.Slowest = 2, seconds(1)
			}
			c.Timeline = append(c.Timeline, b)
		}
		return c
	}
	s, _ := drill.Select([]string{"etcd", "master", "balancer"})
	result := func(i int, r drill.Result) drill.Result {
		r.Scenario, r.Fails, r.Mitigates, r.Failed = s[i].Name, s[i].Fails, s[i].Mitigates, began.Add(10*time.Second)
		return r
	}
	r := drill.Report{Schema: drill.Schema, Cluster: "prod", Began: began, Ended: began.Add(151 * time.Second), Thresholds: drill.Defaults(), Scenarios: []drill.Result{
		result(0, drill.Result{
			Verdict: drill.Pass, Host: "cp-2", Why: "it leads etcd", Down: seconds(15.1), Moved: seconds(2.04), Recovered: seconds(19.2),
			Takeovers: []drill.Takeover{{What: drill.Etcd, From: "cp-2", To: "cp-1", After: seconds(1.14)}},
			Clients:   []drill.Client{client("new connections", 4, 2.04), client("a long-lived client", 3, 1.87)},
		}),
		result(1, drill.Result{
			Verdict: drill.Fail, Reasons: []string{"no write for 6.1s, 5s are allowed (client with a long-lived client)", "nobody took kube-scheduler over from cp-1"},
			Host: "cp-1", Why: "it leads etcd", Down: seconds(60.2), Moved: seconds(6.2), Recovered: seconds(48),
			Takeovers: []drill.Takeover{{What: drill.Etcd, From: "cp-1", To: "cp-3", After: seconds(1.61)}, {What: drill.Scheduler, From: "cp-1"}},
			Clients:   []drill.Client{client("new connections", 5, 2.3), client("a long-lived client", 9, 6.1)},
		}),
		result(2, drill.Result{Verdict: drill.LeftOut, Reasons: []string{"no balancer of ours is in the inventory"}}),
	}}
	pod, replaced := seconds(1.6), seconds(17.1)
	r.Scenarios[0].Workload = &drill.Workload{Requests: 412, Scheduled: &pod, Replaced: &replaced}
	r.Scenarios[1].Workload = &drill.Workload{Requests: 702, Failed: 2, Replaced: &replaced}
	r.Conclude()
	return r
}

func TestDrillTable(t *testing.T) {
	var out bytes.Buffer
	if err := renderDrill(&out, drilled()); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "drill.txt", out.Bytes())
}

func TestDrillPage(t *testing.T) {
	var out bytes.Buffer
	if err := drillPage(&out, drilled()); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "drill.html", out.Bytes())
	for _, want := range []string{"<polyline", "etcd: cp-3", "2 of 10 requests failed", "left-out"} {
		if !bytes.Contains(out.Bytes(), []byte(want)) {
			t.Errorf("the page has no %q", want)
		}
	}
	if n := bytes.Count(out.Bytes(), []byte("<svg")); n != 2 {
		t.Errorf("%d charts, want one for each scenario that was played", n)
	}
}

func TestDrillJSON(t *testing.T) {
	var out bytes.Buffer
	f := drillFlags{output: "json"}
	if err := f.show(&out, drilled()); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "drill.json", out.Bytes())
	var back drill.Report
	if err := json.Unmarshal(out.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if back.Schema != 1 || back.Verdict != drill.Fail || len(back.Scenarios) != 3 || back.Scenarios[1].WriteGap().Duration() != 6100*time.Millisecond {
		t.Errorf("%+v", back)
	}
}

func TestDrillOfWhatIsNot(t *testing.T) {
	file := writeInventory(t, nil)
	for _, row := range []struct{ name, says, flag, value string }{
		{"no such scenario", "meteorite", "--scenario", "meteorite"},
		{"one hook without the other", "power-on-hook", "--power-off-hook", "/bin/true"},
		{"another cluster's name", "is not the name of the cluster", "--confirm", "other"},
		{"no name", "--confirm NAME", "-o", "json"},
	} {
		code, _, errOut := run(t, "", "drill", row.flag, row.value, file)
		if code != exitUsage || !bytes.Contains([]byte(errOut), []byte(row.says)) {
			t.Errorf("%s: exit %d\n%s", row.name, code, errOut)
		}
	}
}

func TestDrillThatDidNotPassHasItsExitCode(t *testing.T) {
	if code := exitCode(&saidError{errDrill}); code != exitDrill {
		t.Errorf("exit %d", code)
	}
	if code := exitCode(&provision.NotWholeError{State: etcd.Degraded}); code != exitDegraded {
		t.Errorf("on a cluster that is not whole: exit %d", code)
	}
}
