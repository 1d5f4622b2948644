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
	"github.com/ha-install/ha-install/provision/haproxy"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/test/golden"
)

var statusTime = time.Date(2026, 11, 22, 14, 0, 0, 0, time.Local)

func statusOfThree() provision.Status {
	pods := map[string]string{"etcd": "ready", "kube-apiserver": "ready", "kube-controller-manager": "ready", "kube-scheduler": "ready"}
	expires := &provision.Expiry{File: "/etc/kubernetes/pki/apiserver.crt", NotAfter: statusTime.Add(364*24*time.Hour + time.Hour)}
	st := provision.Status{
		Schema: provision.StatusSchema, Cluster: "prod", At: statusTime, Took: units.Seconds(412 * time.Millisecond), State: etcd.Pass,
		Quorum: etcd.Verdict{
			State: etcd.Pass, ClusterID: 0x14bfbf98aabbccdd, LeaderID: memberID(0), LeaderName: "cp-1", Term: 7, Version: "3.6.8", Proven: true,
			Numbers: etcd.Numbers{Voters: 3, Quorum: 2, Healthy: 3, CanLose: 1},
		},
		Endpoint: provision.Endpoint{Address: "198.51.100.100:6443", Backends: []string{"cp-1", "cp-2", "cp-3"}, Via: "cp-1"},
		Leaders:  []provision.LeaderName{{Component: "kube-controller-manager", Node: "cp-2"}, {Component: "kube-scheduler", Node: "cp-1"}},
	}
	for i, name := range []string{"lb-1", "lb-2"} {
		st.Hosts = append(st.Hosts, provision.HostStatus{Name: name, Role: inventory.RoleLoadBalancer, Balances: true, SSH: "ok", HoldsVIP: i == 0, Units: map[string]string{"haproxy": "ok", "keepalived": "ok"}, Backend: &haproxy.View{Version: "2.6.12", Servers: []haproxy.Server{
			{Name: "cp-1", State: haproxy.Up, Well: true, For: units.Seconds(76 * time.Hour)}, {Name: "cp-2", State: haproxy.Up, Well: true, For: units.Seconds(75 * time.Hour)}, {Name: "cp-3", State: haproxy.Up, Well: true, For: units.Seconds(90 * time.Second)}}}})
	}
	for i, name := range []string{"cp-1", "cp-2", "cp-3"} {
		st.Quorum.Members = append(st.Quorum.Members, etcd.Member{ID: memberID(i), Name: name, Role: etcd.Voter, State: etcd.MemberHealthy, Healthy: true, Leader: i == 0})
		st.Hosts = append(st.Hosts, provision.HostStatus{Name: name, Role: inventory.RoleControlPlane, SSH: "ok", APIServer: "ok", ControllerManager: "ok", Scheduler: "ok", Kubelet: "ok", Node: "Ready", Version: "v1.36.3", Pods: pods, Expires: expires,
			Uptime: units.Seconds(76 * time.Hour), Clock: &provision.Clock{Within: units.Seconds(20 * time.Millisecond)}, Disks: []provision.Disk{{Path: "/", Used: 0.41}, {Path: "/var/lib/etcd", Used: 0.07}}})
	}
	st.Hosts = append(st.Hosts, provision.HostStatus{Name: "w-1", Role: inventory.RoleWorker, SSH: "ok", Kubelet: "ok", Node: "Ready", Version: "v1.36.3"})
	st.Conclude()
	return st
}

func TestRenderStatus(t *testing.T) {
	sick := statusOfThree()
	sick.State = etcd.Degraded
	sick.Quorum.State, sick.Quorum.Numbers = etcd.Degraded, etcd.Numbers{Voters: 3, Quorum: 2, Healthy: 2}
	sick.Quorum.Members[2].State, sick.Quorum.Members[2].Healthy = etcd.MemberDead, false
	sick.Hosts[0].Backend.Servers[1].State, sick.Hosts[0].Backend.Servers[1].For = haproxy.Drained, units.Seconds(40*time.Second)
	sick.Hosts[0].Backend.Servers[2] = haproxy.Server{Name: "cp-3", State: haproxy.Down, For: units.Seconds(3 * time.Second), Check: "L4TOUT"}
	sick.Hosts[1].Backend, sick.Hosts[1].BackendErr = nil, "no such file"
	sick.Hosts[1].Units = map[string]string{"haproxy": "not active", "keepalived": "ok"}
	sick.Hosts[4] = provision.HostStatus{Name: "cp-3", Role: inventory.RoleControlPlane, SSH: "cp-3: dial 198.51.100.23:22: connection timed out", Node: "not ready: Kubelet stopped posting node status", Version: "v1.36.3",
		Pods: map[string]string{"kube-controller-manager": "not ready", "kube-scheduler": "not ready"}}
	sick.Hosts[5].Kubelet = "kubelet: 500 Internal Server Error: PLEG is not healthy"
	sick.Endpoint = provision.Endpoint{Address: "198.51.100.100:6443", Via: "cp-1", Err: "connection refused"}
	sick.Leaders, sick.LeaderErr = nil, "no API server is ready: 2 errors occurred:\n\t* x\n\t* y"
	sick.Running = []provision.Running{{Holder: host.Holder{Operation: "20261122-135837-1a2b", Command: "ha-install apply prod.yaml", Operator: "ops@laptop", PID: 4711}, Hosts: []string{"cp-1", "cp-2"}, Age: units.Seconds(83 * time.Second)}}
	sick.Conclude()
	for file, st := range map[string]provision.Status{"status.txt": statusOfThree(), "status-sick.txt": sick} {
		var out bytes.Buffer
		if err := renderStatus(&out, st); err != nil {
			t.Fatal(err)
		}
		golden.Check(t, file, out.Bytes())
	}
}

func memberID(i int) etcd.MemberID { return 0x1331223d9f0c5a11 + etcd.MemberID(i)<<56 }

func TestStatusAsJSON(t *testing.T) {
	var out bytes.Buffer
	st := statusOfThree()
	st.At = st.At.UTC()
	if err := newStatusView(&out, true, false).show(st); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"schema", "cluster", "at", "tookSeconds", "state", "quorum", "operations", "endpoint", "hosts", "problems", "warnings", "thresholds"} {
		if got[field] == nil {
			t.Errorf("no field %s, or null:\n%s", field, out.String())
		}
	}
	if got["schema"] != 1.0 || got["tookSeconds"] != 0.412 {
		t.Errorf("schema %v, took %v", got["schema"], got["tookSeconds"])
	}
	if strings.Contains(out.String(), "Nanos") {
		t.Errorf("durations in nanoseconds:\n%s", out.String())
	}
}

// TestEveryVerdictHasItsExitCode goes the way of the program from a verdict to
// the code that a script sees.
func TestEveryVerdictHasItsExitCode(t *testing.T) {
	for state, want := range map[etcd.State]int{etcd.Pass: 0, etcd.Degraded: 10, etcd.NoQuorum: 11, etcd.Split: 12, etcd.Unknown: 13} {
		got := 0
		if err := statusError(state); err != nil {
			got = exitCode(err)
		}
		if got != want {
			t.Errorf("%s: exit code %d, want %d", state, got, want)
		}
	}
}

func TestWatchInAPipeIsABlockARound(t *testing.T) {
	var out bytes.Buffer
	v := newStatusView(&out, false, true)
	for _, st := range threeRounds() {
		if err := v.show(st); err != nil {
			t.Fatal(err)
		}
	}
	golden.Check(t, "watch.txt", out.Bytes())
}

func TestWatchAsJSONIsALineARound(t *testing.T) {
	var out bytes.Buffer
	v := newStatusView(&out, true, true)
	for _, st := range threeRounds() {
		if err := v.show(st); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines for three rounds:\n%s", len(lines), out.String())
	}
	var changes []int
	for _, l := range lines {
		var st provision.Status
		if err := json.Unmarshal([]byte(l), &st); err != nil {
			t.Fatal(err)
		}
		changes = append(changes, len(st.Changes))
	}
	if changes[0] != 0 || changes[1] == 0 || changes[2] != 0 {
		t.Errorf("changes %v, want some in the second round only", changes)
	}
}

// threeRounds are a whole cluster, one that has lost a scheduler, and the same.
func threeRounds() []provision.Status {
	rounds := []provision.Status{statusOfThree(), statusOfThree(), statusOfThree()}
	for i := range rounds[1:] {
		st := &rounds[i+1]
		st.At = st.At.Add(time.Duration(i+1) * 2 * time.Second)
		st.Hosts[3].Scheduler = "connection refused"
		st.Leaders[1].Node = "cp-3"
		st.Conclude()
	}
	return rounds
}

func TestWatchOnATerminalStaysInPlace(t *testing.T) {
	for name, height := range map[string]int{"a high terminal": 100, "a low one": 20, "one that does not say": 0} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			v := newStatusView(&out, false, true)
			v.inPlace, v.size = true, func() (int, int) { return 90, height }
			for _, st := range threeRounds() {
				if err := v.show(st); err != nil {
					t.Fatal(err)
				}
			}
			frames := strings.Split(out.String(), home)[1:]
			if len(frames) != 3 || strings.Count(out.String(), clearAll) != 1 {
				t.Fatalf("%d frames, cleared %d times", len(frames), strings.Count(out.String(), clearAll))
			}
			for _, f := range frames {
				if rows := strings.Count(f, "\n"); height > 0 && rows > height-1 {
					t.Errorf("%d rows on a terminal of %d", rows, height)
				}
				for _, l := range strings.Split(f, "\n") {
					if l = strings.NewReplacer(clearRight, "", clearBelow, "").Replace(l); len([]rune(l)) > 90 || strings.Contains(l, "\x1b") {
						t.Errorf("%d columns, or a control sequence: %q", len([]rune(l)), l)
					}
				}
			}
			// The change is still there a round later, and the verdict on top.
			if last := frames[2]; !strings.Contains(last, "cp-2 scheduler: ok -> down") || !strings.Contains(last, "MEMBER") || !strings.Contains(last, "round 3") {
				t.Errorf("the last frame:\n%s", last)
			}
		})
	}
}

func TestStatusRefusesAnIntervalOfNothing(t *testing.T) {
	if code, _, errOut := run(t, "", "status", "--interval", "5s", writeInventory(t, nil)); code != exitUsage || !strings.Contains(errOut, "--watch") {
		t.Errorf("--interval without --watch: exit code %d: %s", code, errOut)
	}
	if code, _, errOut := run(t, "", "status", "--watch", "--interval", "0s", writeInventory(t, nil)); code != exitUsage || !strings.Contains(errOut, "--interval 0s") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}
