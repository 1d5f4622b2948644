package drill

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/provision/units"
)

func seconds(n float64) units.Seconds { return units.Seconds(n * float64(time.Second)) }

func scenario(t *testing.T, name string) Scenario {
	t.Helper()
	s, err := Select([]string{name})
	if err != nil || len(s) != 1 {
		t.Fatal(s, err)
	}
	return s[0]
}

func TestSelect(t *testing.T) {
	all, err := Select(nil)
	if err != nil || len(all) != len(Names()) {
		t.Errorf("%d scenarios, %v", len(all), err)
	}
	two, err := Select([]string{"master", "etcd"})
	if err != nil || len(two) != 2 || two[0].Name != "etcd" {
		t.Errorf("%v, %v: want etcd before master, as they are played", two, err)
	}
	if _, err := Select([]string{"etcd", "meteorite"}); err == nil || !strings.Contains(err.Error(), "meteorite") || !strings.Contains(err.Error(), "balancer") {
		t.Errorf("%v: want what is wrong and what there is", err)
	}
	for _, s := range all {
		if s.Fails == "" || s.Mitigates == "" {
			t.Errorf("%s does not say what fails and what mitigates it", s.Name)
		}
	}
}

func TestChoose(t *testing.T) {
	whole := Facts{
		Masters: []string{"cp-1", "cp-2", "cp-3"}, Balancers: []string{"lb-1", "lb-2"}, VIPHolder: "lb-2",
		Leaders: map[string]string{Etcd: "cp-2", Scheduler: "cp-3", ControllerManager: "cp-2"},
	}
	with := func(change func(*Facts)) Facts {
		f := whole
		f.Leaders = map[string]string{Etcd: "cp-2", Scheduler: "cp-3", ControllerManager: "cp-2"}
		change(&f)
		return f
	}
	rows := []struct {
		name, scenario string
		facts          Facts
		want           Target
	}{
		{"the API server of etcd's leader; its vote stays", "apiserver", whole, Target{Host: "cp-2", Why: "it leads etcd"}},
		{"etcd's leader, which others have to replace", "etcd", whole, Target{Host: "cp-2", Why: "it leads etcd", Votes: true, Leads: []string{Etcd}}},
		{"the scheduler that leads, not etcd's host", "scheduler", whole, Target{Host: "cp-3", Why: "it leads kube-scheduler", Leads: []string{Scheduler}}},
		{"the controller-manager that leads", "controller-manager", whole, Target{Host: "cp-2", Why: "it leads kube-controller-manager", Leads: []string{ControllerManager}}},
		{"a whole master: all that it leads has to be taken over, and no more", "master", whole, Target{Host: "cp-2", Why: "it leads etcd", Votes: true, Leads: []string{Etcd, ControllerManager}}},
		{"a cut-off master, likewise", "partition", whole, Target{Host: "cp-2", Why: "it leads etcd", Votes: true, Leads: []string{Etcd, ControllerManager}}},
		{"the balancer with the virtual IP", "balancer", whole, Target{Host: "lb-2", Why: "it holds the virtual IP"}},
		{"no balancer of ours", "balancer", with(func(f *Facts) { f.Balancers = nil }), Target{LeftOut: "no balancer of ours is in the inventory"}},
		{"a single balancer", "balancer", with(func(f *Facts) { f.Balancers = f.Balancers[:1] }), Target{LeftOut: "there is one balancer only, and nobody to take over"}},
		{"nobody with the virtual IP", "balancer", with(func(f *Facts) { f.VIPHolder = "" }), Target{LeftOut: "no balancer holds the virtual IP"}},
		{"one master", "etcd", with(func(f *Facts) { f.Masters = f.Masters[:1] }), Target{LeftOut: "1 masters cannot lose one"}},
		{"two masters", "master", with(func(f *Facts) { f.Masters = f.Masters[:2] }), Target{LeftOut: "2 masters cannot lose one"}},
		{"a lease that nobody holds", "scheduler", with(func(f *Facts) { f.Leaders[Scheduler] = "" }), Target{LeftOut: "no master of the inventory leads kube-scheduler"}},
		{"a lease held from outside", "scheduler", with(func(f *Facts) { f.Leaders[Scheduler] = "cp-9" }), Target{LeftOut: "no master of the inventory leads kube-scheduler"}},
	}
	for _, row := range rows {
		if diff := cmp.Diff(row.want, scenario(t, row.scenario).Choose(row.facts)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}

func TestArguments(t *testing.T) {
	p := Place{VIP: "198.51.100.10", SSHPort: 2222, Masters: []string{"198.51.100.22"}, Others: []string{"198.51.100.22", "198.51.100.31"}}
	for name, want := range map[string]string{
		"apiserver":          "component kube-apiserver",
		"etcd":               "component etcd",
		"scheduler":          "component kube-scheduler",
		"controller-manager": "component kube-controller", // as the kernel cuts it
		"master":             "master 198.51.100.10 2222 198.51.100.22 198.51.100.31",
		"partition":          "partition 2222 198.51.100.22",
		"balancer":           "balancer 198.51.100.10",
	} {
		if got := strings.Join(scenario(t, name).Arguments(p), " "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	p.VIP = ""
	if got := scenario(t, "master").Arguments(p)[1]; got != "-" {
		t.Errorf("without a virtual IP %q", got)
	}
}

// passing is a result that any threshold lets pass.
func passing() Result {
	soon := seconds(3)
	return Result{
		Scenario: "master", Host: "cp-2", Recovered: seconds(30),
		Takeovers: []Takeover{{What: Etcd, From: "cp-2", To: "cp-1", After: seconds(1.4)}},
		Clients:   []Client{{Kind: "new connections", Writes: 900, FailedWrites: 3, WriteGap: seconds(1.9), Verified: true}},
		Workload:  &Workload{Requests: 500, Scheduled: &soon, Replaced: &soon},
	}
}

func TestJudge(t *testing.T) {
	rows := []struct {
		name   string
		change func(*Result)
		limits func(*Thresholds)
		reason string // "" for PASS
	}{
		{"all within the limits", func(*Result) {}, nil, ""},
		{"exactly the limit", func(r *Result) { r.Clients[0].WriteGap = seconds(5) }, nil, ""},
		{"a longer gap", func(r *Result) { r.Clients[0].WriteGap = seconds(5.1) }, nil, "no write for 5.1s, 5s are allowed (client with new connections)"},
		{"a lost write", func(r *Result) { r.Clients[0].Lost = 1 }, func(l *Thresholds) { l.WriteGap = seconds(1e6) }, "1 ACKNOWLEDGED WRITES LOST (client with new connections)"},
		{"lost writes that nobody could look for", func(r *Result) { r.Clients[0].Verified = false }, nil, "what the client with new connections has written could not be read back"},
		{"a stale read", func(r *Result) { r.Clients[0].Stale = 2 }, nil, "2 reads did not find what was acknowledged (client with new connections)"},
		{"back in time", func(r *Result) { r.Clients[0].Backwards = 1 }, nil, "the API went back in time at 1 writes (client with new connections)"},
		{"failed writes where they are counted", func(*Result) {}, func(l *Thresholds) { l.FailedWrites = 2 }, "3 writes failed, 2 are allowed (client with new connections)"},
		{"nobody leads", func(r *Result) { r.Takeovers[0].To = "" }, nil, "nobody took etcd over from cp-2"},
		{"somebody leads late", func(r *Result) { r.Takeovers[0].After = seconds(26) }, nil, "cp-1 led etcd after 26s, 25s are allowed"},
		{"whole late", func(r *Result) { r.Recovered = seconds(301) }, nil, "the cluster was whole 5m1s after the repair, 5m0s are allowed"},
		{"a workload that noticed", func(r *Result) { r.Workload.Failed = 1 }, nil, "1 of 500 requests to a running pod failed, 0 are allowed"},
		{"a pod that did not run", func(r *Result) { r.Workload.Scheduled = nil }, nil, "a new pod did not run"},
		{"a pod that ran late", func(r *Result) { late := seconds(46); r.Workload.Replaced = &late }, nil, "a pod in a deleted one's place ran after 46s, 45s are allowed"},
		{"no workload to look at", func(r *Result) { r.Workload = nil }, nil, ""},
	}
	for _, row := range rows {
		r, limits := passing(), Defaults()
		row.change(&r)
		if row.limits != nil {
			row.limits(&limits)
		}
		got := limits.Judge(r)
		want, reasons := Pass, []string(nil)
		if row.reason != "" {
			want, reasons = Fail, []string{row.reason}
		}
		if got.Verdict != want || !slices.Equal(got.Reasons, reasons) {
			t.Errorf("%s: %s %q, want %s %q", row.name, got.Verdict, got.Reasons, want, reasons)
		}
	}
	left := Defaults().Judge(Result{Verdict: LeftOut, Reasons: []string{"why"}})
	if left.Verdict != LeftOut || len(left.Reasons) != 1 {
		t.Errorf("what was left out was judged: %+v", left)
	}
}

func TestConclude(t *testing.T) {
	for _, row := range []struct {
		verdicts []Verdict
		err      string
		want     Verdict
	}{
		{[]Verdict{Pass, LeftOut, Pass}, "", Pass},
		{[]Verdict{Pass, Fail, Pass}, "", Fail},
		{[]Verdict{LeftOut}, "", LeftOut},
		{nil, "", LeftOut},
		{nil, "refused", Fail},
		{[]Verdict{Pass}, "interrupted", Fail},
	} {
		r := Report{Error: row.err}
		for _, v := range row.verdicts {
			r.Scenarios = append(r.Scenarios, Result{Verdict: v})
		}
		if r.Conclude(); r.Verdict != row.want {
			t.Errorf("%v, error %q: %s, want %s", row.verdicts, row.err, r.Verdict, row.want)
		}
	}
}

func TestReportReadsBack(t *testing.T) {
	r := Report{Schema: Schema, Cluster: "prod", Thresholds: Defaults(), Scenarios: []Result{passing()}}
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, back); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, name := range []string{`"schema":1`, `"writeGapSeconds":1.9`, `"afterSeconds":1.4`, `"lostWrites":0`} {
		if !strings.Contains(string(data), name) {
			t.Errorf("%s is not in %s", name, data)
		}
	}
}

// TestScriptsAreWhatAShellReads has the host's shell parse each script, and run
// the end of an injection where there is none.
func TestScriptsAreWhatAShellReads(t *testing.T) {
	for name, script := range map[string]string{"start": startScript, "inject": injectScript, "undo": undoScript, "end": endScript} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("sh", "-n", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	for _, arguments := range [][]string{scenario(t, "master").Arguments(Place{VIP: "198.51.100.10", SSHPort: 22, Others: []string{"198.51.100.1"}})} {
		for _, a := range arguments {
			if strings.ContainsAny(a, " \t%$\"'\\") {
				t.Errorf("argument %q has what systemd would read", a)
			}
		}
	}
	if !slices.Contains(StartCommand("/lock", "x"), fmt.Sprint(int(MostTime.Seconds()))) {
		t.Error("an injection has no end of its own")
	}
}
