package cmd

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/test/golden"
)

// at is a moment of a run, in the zone that the reporter shows.
func at(seconds int) time.Time {
	return time.Date(2026, 11, 22, 14, 0, seconds, 0, time.Local)
}

func event(second int, kind phase.EventKind, name, host, message string) phase.Event {
	return phase.Event{Time: at(second), Kind: kind, Phase: name, Host: host, Message: message, Elapsed: time.Duration(second) * 100 * time.Millisecond}
}

var oneRun = []phase.Event{
	event(0, phase.Started, "preflight", "", ""),
	event(0, phase.Waiting, "preflight", "", "preflight"),
	event(1, phase.Skipped, "preflight", "", ""),
	event(1, phase.Started, "software", "cp-1", ""),
	event(1, phase.Started, "software", "cp-2", ""),
	event(9, phase.Finished, "software", "cp-2", ""),
	event(12, phase.Finished, "software", "cp-1", ""),
	event(12, phase.Started, "init", "cp-1", ""),
	event(13, phase.Output, "init", "cp-1", "[certs] Using the existing \"sa\" key"),
	event(20, phase.Notice, "init", "cp-1", "QUORUM  init cp-1\nvoters 1  quorum 1\n"),
	event(21, phase.Finished, "init", "cp-1", ""),
	event(21, phase.Started, "join", "cp-2", ""),
	event(25, phase.Undoing, "join", "cp-2", "learner did not catch up"),
	event(26, phase.Failed, "join", "cp-2", "cp-2: join: learner did not catch up"),
}

func TestReporterText(t *testing.T) {
	for file, verbose := range map[string]bool{"run.txt": false, "run-verbose.txt": true} {
		var out bytes.Buffer
		r := newReporter(&out, "text", verbose, "nothing to change: the cluster is as the inventory says")
		for _, e := range oneRun {
			r.event(e)
		}
		r.summary(phase.Tally{Changed: 3, Skipped: 1}, 26*time.Second)
		golden.Check(t, file, out.Bytes())
	}
}

func TestReporterSaysWhenNothingChanged(t *testing.T) {
	var out bytes.Buffer
	r := newReporter(&out, "text", false, "nothing to change: the cluster is as the inventory says")
	r.summary(phase.Tally{Skipped: 40}, 2300*time.Millisecond)
	if want := "\nnothing to change: the cluster is as the inventory says (2.3s)\n"; out.String() != want {
		t.Errorf("%q, wanted %q", out.String(), want)
	}
}

func TestReporterJSONIsOneEventALine(t *testing.T) {
	var out bytes.Buffer
	r := newReporter(&out, "json", false, "nothing to change: the cluster is as the inventory says")
	for _, e := range oneRun {
		r.event(e)
	}
	r.summary(phase.Tally{Changed: 3, Skipped: 1}, time.Second)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(oneRun)+1 {
		t.Fatalf("%d lines for %d events and a summary", len(lines), len(oneRun))
	}
	for i, e := range oneRun {
		var got phase.Event
		if err := json.Unmarshal([]byte(lines[i]), &got); err != nil || got.Kind != e.Kind || got.Host != e.Host || got.Message != e.Message || !got.Time.Equal(e.Time) || got.Elapsed != e.Elapsed {
			t.Errorf("line %d: %s (%v)", i, lines[i], err)
		}
	}
	if want := `{"changed":3,"elapsedNanoseconds":1000000000,"kind":"summary","unchanged":1}`; lines[len(lines)-1] != want {
		t.Errorf("summary %s, wanted %s", lines[len(lines)-1], want)
	}
}

func statusOfThree() provision.Status {
	pods := map[string]string{"etcd": "ready", "kube-apiserver": "ready", "kube-controller-manager": "ready", "kube-scheduler": "ready"}
	expires := &provision.Expiry{File: "apiserver.crt", NotAfter: time.Now().Add(364*24*time.Hour + time.Hour)}
	st := provision.Status{
		Cluster: "prod", Took: units.Seconds(412 * time.Millisecond), State: etcd.Pass,
		Quorum: etcd.Verdict{
			State: etcd.Pass, ClusterID: 0x14bfbf98aabbccdd, LeaderID: memberID(0), LeaderName: "cp-1", Term: 7, Version: "3.6.8", Proven: true,
			Numbers: etcd.Numbers{Voters: 3, Quorum: 2, Healthy: 3, CanLose: 1},
		},
		Endpoint: provision.Endpoint{Address: "198.51.100.100:6443", Backends: []string{"cp-1", "cp-2", "cp-3"}, Via: "cp-1"},
		Leaders:  []provision.LeaderName{{Component: "kube-controller-manager", Node: "cp-2"}, {Component: "kube-scheduler", Node: "cp-1"}},
	}
	for i, name := range []string{"lb-1", "lb-2"} {
		st.Hosts = append(st.Hosts, provision.HostStatus{Name: name, Role: inventory.RoleLoadBalancer, SSH: "ok", HoldsVIP: i == 0, Units: map[string]string{"haproxy": "ok", "keepalived": "ok"}})
	}
	for i, name := range []string{"cp-1", "cp-2", "cp-3"} {
		st.Quorum.Members = append(st.Quorum.Members, etcd.Member{ID: memberID(i), Name: name, Role: etcd.Voter, State: etcd.MemberHealthy, Healthy: true, Leader: i == 0})
		st.Hosts = append(st.Hosts, provision.HostStatus{Name: name, Role: inventory.RoleControlPlane, SSH: "ok", APIServer: "ok", Kubelet: "ok", Node: "Ready", Version: "v1.36.3", Pods: pods, Expires: expires})
	}
	st.Hosts = append(st.Hosts, provision.HostStatus{Name: "w-1", Role: inventory.RoleWorker, SSH: "ok", Kubelet: "ok", Node: "Ready", Version: "v1.36.3"})
	return st
}

func TestRenderStatus(t *testing.T) {
	sick := statusOfThree()
	sick.State = etcd.Degraded
	sick.Quorum.State, sick.Quorum.Numbers = etcd.Degraded, etcd.Numbers{Voters: 3, Quorum: 2, Healthy: 2}
	sick.Quorum.Members[2].State, sick.Quorum.Members[2].Healthy = etcd.MemberDead, false
	sick.Hosts[1].Units = map[string]string{"haproxy": "not active", "keepalived": "ok"}
	sick.Hosts[4] = provision.HostStatus{Name: "cp-3", Role: inventory.RoleControlPlane, SSH: "cp-3: dial 198.51.100.23:22: connection timed out", Node: "not ready: Kubelet stopped posting node status", Version: "v1.36.3",
		Pods: map[string]string{"kube-controller-manager": "not ready", "kube-scheduler": "not ready"}}
	sick.Hosts[5].Kubelet = "kubelet: 500 Internal Server Error: PLEG is not healthy"
	sick.Endpoint = provision.Endpoint{Address: "198.51.100.100:6443", Via: "cp-1", Err: "connection refused"}
	sick.Leaders, sick.LeaderErr = nil, "no API server is ready: 2 errors occurred:\n\t* x\n\t* y"
	for file, st := range map[string]provision.Status{"status.txt": statusOfThree(), "status-sick.txt": sick} {
		var out bytes.Buffer
		if err := renderStatus(&out, st); err != nil {
			t.Fatal(err)
		}
		golden.Check(t, file, out.Bytes())
	}
}

func TestIndentSetsLaterLinesOff(t *testing.T) {
	for in, want := range map[string]string{"one": "one", "one\n": "one", "one\ntwo\nthree\n\n": "one\n  two\n  three"} {
		if got := indent(in); got != want {
			t.Errorf("indent(%q) = %q, wanted %q", in, got, want)
		}
	}
}

func memberID(i int) etcd.MemberID { return 0x1331223d9f0c5a11 + etcd.MemberID(i)<<56 }
