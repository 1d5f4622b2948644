package provision

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/haproxy"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/provision/units"
)

var statusTime = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestStatusProblems(t *testing.T) {
	st := Status{
		Hosts: []HostStatus{
			{Name: "cp-1", SSH: ok, APIServer: ok, Kubelet: ok, Node: "Ready", Pods: map[string]string{"etcd": "ready"}},
			{Name: "cp-2", SSH: "cp-2: connection timed out", Kubelet: "not asked"},
			{Name: "cp-3", SSH: ok, APIServer: "not ready: etcd", ControllerManager: ok, Scheduler: "refused", Kubelet: ok, Node: "not ready: no network", Pods: map[string]string{"kube-scheduler": "pending", "etcd": "CrashLoopBackOff"}},
			{Name: "lb-1", SSH: ok, Units: map[string]string{"keepalived": "not active", "haproxy": ok}, BackendErr: "no answer in time"},
			{Name: "w-1", SSH: ok, Kubelet: ok},
		},
		Endpoint: Endpoint{Address: "198.51.100.100:6443", Err: "refused"},
	}
	st.Conclude()
	want := []string{
		"cp-2: connection timed out", "cp-3: apiserver: not ready: etcd", "cp-3: scheduler: refused", "cp-3: node: not ready: no network", "cp-3: etcd: CrashLoopBackOff",
		"cp-3: kube-scheduler: pending", "lb-1: keepalived: not active", "lb-1: haproxy does not say how its backends are: no answer in time", "endpoint 198.51.100.100:6443: refused",
	}
	if diff := cmp.Diff(want, st.Problems); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	none := Status{}
	if none.Conclude(); len(none.Problems) != 0 || len(none.Warnings) != 0 {
		t.Errorf("of nothing: %q, %q", none.Problems, none.Warnings)
	}
}

func TestStatusNamesBackendsThatAreNotServed(t *testing.T) {
	server := func(name string, state haproxy.State, check string) haproxy.Server {
		return haproxy.Server{Name: name, State: state, Check: check, For: units.Seconds(40 * time.Second)}
	}
	st := healthyStatus(func(st *Status) {
		st.Hosts = append(st.Hosts, HostStatus{Name: "lb-1", Role: inventory.RoleLoadBalancer, SSH: ok, Units: map[string]string{"haproxy": ok}, Backend: &haproxy.View{Servers: []haproxy.Server{
			server("cp-1", haproxy.Down, "L4CON: Connection refused"), server("cp-2", haproxy.Drained, "L7OK 200"),
		}}}, HostStatus{Name: "lb-2", Role: inventory.RoleLoadBalancer, SSH: ok, Units: map[string]string{"haproxy": "not active"}, BackendErr: "no socket"})
	})
	bad := strings.Join(st.Problems, "\n")
	for _, want := range []string{"lb-1: backend cp-1 is DOWN for 40s (L4CON: Connection refused)", "lb-1: backend cp-2 is DRAINED for 40s", "lb-1: backend cp-3 is not configured", "lb-2: haproxy: not active"} {
		if !strings.Contains(bad, want) {
			t.Errorf("no problem says %q:\n%s", want, bad)
		}
	}
	if st.State != etcd.Degraded || len(st.Problems) != 4 {
		t.Errorf("%s, %d problems:\n%s", st.State, len(st.Problems), bad)
	}
}

// healthyStatus is a whole cluster of three masters, to be made sick.
func healthyStatus(sick func(*Status)) Status {
	st := Status{At: statusTime, Quorum: etcd.Verdict{State: etcd.Pass}}
	for i := 1; i <= 3; i++ {
		name := fmt.Sprintf("cp-%d", i)
		st.Hosts = append(st.Hosts, HostStatus{Name: name, Role: inventory.RoleControlPlane, SSH: ok, APIServer: ok, Clock: &Clock{Within: units.Seconds(10 * time.Millisecond)}})
		st.Endpoint.Backends = append(st.Endpoint.Backends, name)
	}
	st.Endpoint.Address = "vip:6443"
	if sick != nil {
		sick(&st)
	}
	st.Conclude()
	return st
}

func TestStatusConcludes(t *testing.T) {
	expires := func(host int, in time.Duration) func(*Status) {
		return func(st *Status) {
			h := &st.Hosts[host-1]
			h.Certificates = []Expiry{{File: "/pki/apiserver.crt", NotAfter: statusTime.Add(in)}, {File: "/pki/ca.crt", NotAfter: statusTime.AddDate(10, 0, 0)}}
			h.Expires = &h.Certificates[0]
		}
	}
	ahead := func(offsets ...time.Duration) func(*Status) {
		return func(st *Status) {
			for i, o := range offsets {
				st.Hosts[i].Clock.Offset = units.Seconds(o)
			}
		}
	}
	filled := func(used float64) func(*Status) {
		return func(st *Status) { st.Hosts[0].Disks = []Disk{{Path: "/var/lib/etcd", Used: used}} }
	}
	for _, row := range []struct {
		name      string
		sick      func(*Status)
		state     etcd.State
		problem   string // the only one; "" for none
		warning   string
		crossings int
	}{
		{"all is well", nil, etcd.Pass, "", "", 0},
		{"a certificate with 31 days left is well", expires(2, 31*24*time.Hour), etcd.Pass, "", "", 0},
		{"one with 29 days left warns", expires(2, 29*24*time.Hour), etcd.Pass, "", "cp-2: certificate /pki/apiserver.crt runs out at 2026-12-21 12:00:00", 1},
		{"one with 23 hours left is a problem", expires(2, 23*time.Hour), etcd.Degraded, "cp-2: certificate /pki/apiserver.crt runs out at 2026-11-23 11:00:00", "", 1},
		{"one that ran out says so", expires(2, -time.Hour), etcd.Degraded, "cp-2: certificate /pki/apiserver.crt ran out at 2026-11-22 11:00:00", "", 1},
		{"a clock off by less than the round trip leaves open is well", func(st *Status) {
			st.Hosts[0].Clock = &Clock{Offset: units.Seconds(600 * time.Millisecond), Within: units.Seconds(200 * time.Millisecond)}
		}, etcd.Pass, "", "", 0},
		{"a clock off by a second warns", ahead(0, time.Second), etcd.Pass, "", "cp-2: its clock is +1.000 s from this machine's", 1},
		{"a clock behind warns too", ahead(0, 0, -2*time.Second), etcd.Pass, "", "cp-3: its clock is -2.000 s", 1},
		{"a clock off by two hours is a problem", ahead(0, 2*time.Hour), etcd.Degraded, "cp-2: its clock is +7200.000 s", "", 1},
		{"when all hosts agree, this machine's clock is the odd one", ahead(time.Hour, time.Hour, time.Hour), etcd.Pass, "", "set the clock of this one", 1},
		{"a file system 84 % full is well", filled(0.84), etcd.Pass, "", "", 0},
		{"one 90 % full warns", filled(0.9), etcd.Pass, "", "cp-1: the file system of /var/lib/etcd is 90 % full", 1},
		{"one 96 % full is a problem", filled(0.96), etcd.Degraded, "cp-1: the file system of /var/lib/etcd is 96 % full", "", 1},
		{"a master that does not answer at the endpoint is a problem", func(st *Status) { st.Endpoint.Backends = []string{"cp-1", "cp-3"} }, etcd.Degraded, "endpoint vip:6443: 2 of 3 masters answer there: cp-1, cp-3", "", 0},
		{"a master that does not reach the endpoint is a problem: the balancer cannot hairpin", func(st *Status) {
			st.Endpoint.From = []Vantage{{Host: "cp-1", Backends: []string{"cp-2", "cp-3"}, Err: "no answer in time"}, {Host: "cp-2", Backends: st.Endpoint.Backends}}
		}, etcd.Degraded, "endpoint vip:6443 from cp-1: no answer in time", "", 0},
		{"a backend that one vantage did not meet warns", func(st *Status) {
			st.Endpoint.From = []Vantage{{Host: "cp-1", Backends: []string{"cp-2", "cp-3"}}, {Host: "cp-2", Backends: st.Endpoint.Backends}}
		}, etcd.Pass, "", "endpoint vip:6443 from cp-1: only cp-2, cp-3 answered", 0},
		{"an operator who does not reach the endpoint need not", func(st *Status) { st.Endpoint.Operator = &Vantage{Host: "operator", Err: "refused"} }, etcd.Pass, "", "endpoint vip:6443 from this machine: refused", 0},
		{"a problem beside PASS makes it DEGRADED", func(st *Status) { st.Hosts[2].Scheduler = "refused" }, etcd.Degraded, "cp-3: scheduler: refused", "", 0},
		{"a problem does not make NO QUORUM better", func(st *Status) { st.Quorum.State, st.Hosts[2].Scheduler = etcd.NoQuorum, "refused" }, etcd.NoQuorum, "cp-3: scheduler: refused", "", 0},
		{"an alarm shows its remedy", func(st *Status) {
			st.Quorum.State, st.Quorum.Alarms = etcd.Degraded, []etcd.Alarm{{Member: 0xabc, Kind: "NOSPACE"}}
		}, etcd.Degraded, "etcd: NOSPACE alarm of member abc: run ha-install etcd alarms disarm, which makes room first", "", 0},
		{"a ghost is a problem", func(st *Status) {
			st.Quorum.State, st.Quorum.Members = etcd.Degraded, []etcd.Member{{ID: 0xabc, Name: "old", Ghost: true, Role: etcd.Voter}}
		}, etcd.Degraded, "etcd member abc (old) is on no host of the inventory", "", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			st := healthyStatus(row.sick)
			one := func(kind, want string, got []string) {
				if want == "" && len(got) != 0 || want != "" && (len(got) != 1 || !strings.Contains(got[0], want)) {
					t.Errorf("%s %q, want %q", kind, got, want)
				}
			}
			one("problems", row.problem, st.Problems)
			one("warnings", row.warning, st.Warnings)
			if st.State != row.state || len(st.Thresholds) != row.crossings {
				t.Errorf("%s, want %s; thresholds %v", st.State, row.state, st.Thresholds)
			}
		})
	}
}

func TestNothingIsBegunBesideACertificateThatRunsOut(t *testing.T) {
	st := healthyStatus(func(st *Status) {
		st.Quorum.Numbers, st.Quorum.Proven = etcd.Numbers{Voters: 3, Quorum: 2, Healthy: 3, CanLose: 1}, true
		st.Hosts[1].Certificates = []Expiry{{File: "/pki/apiserver.crt", NotAfter: statusTime.Add(time.Hour)}}
		st.Hosts[1].Expires = &st.Hosts[1].Certificates[0]
	})
	for _, d := range st.Operations {
		if snapshot := d.Op.Kind == etcd.OpSnapshot; d.Allowed != snapshot {
			t.Errorf("%s: allowed %t: %s", d.Op, d.Allowed, d.Reason)
		}
	}
}

func TestChangesSinceTheRoundBefore(t *testing.T) {
	before := healthyStatus(func(st *Status) { st.Quorum.LeaderName, st.Quorum.Term = "cp-1", 7 })
	after := healthyStatus(func(st *Status) {
		st.Quorum.LeaderName, st.Quorum.Term = "cp-2", 8
		st.Hosts[0].SSH = "cp-1: no route to host"
		st.Hosts[1].BootID = "another"
	})
	want := []string{"status: PASS -> DEGRADED", "leader: cp-1 -> cp-2", "term: 7 -> 8", "cp-1 ssh: ok -> down", "cp-2 boot: - -> another"}
	var got []string
	for _, c := range after.Since(before) {
		got = append(got, c.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if again := after.Since(after); len(again) != 0 {
		t.Errorf("since itself: %v", again)
	}
	after.Hosts[0].SSH = "cp-1: another text for the same"
	if again := after.Since(healthyStatus(func(st *Status) { *st = after; st.Hosts[0].SSH = "cp-1: no route to host" })); len(again) != 0 {
		t.Errorf("another text: %v", again)
	}
}

func TestGlanceIsRead(t *testing.T) {
	set, err := pki.New(statusTime)
	if err != nil {
		t.Fatal(err)
	}
	var ca string
	for _, f := range set.Files() {
		if strings.HasSuffix(f.Path, "/pki/ca.crt") {
			ca = string(f.Content)
		}
	}
	sent := time.Unix(1795356117, 0)
	out := "clock_begin=1795356119.100000000\nboot=b1\ninit=1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 250 9 9\nuptime=15.0\ndisk=1000 250 /\ncert=/etc/kubernetes/pki/ca.crt\n" + ca + "clock_end=1795356119.300000000\n"
	g, err := parseGlance([]byte(out), sent, sent.Add(400*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if g.offset.Round(time.Millisecond) != 2*time.Second || g.offsetWithin.Round(time.Millisecond) != 100*time.Millisecond {
		t.Errorf("offset %s ± %s", g.offset, g.offsetWithin)
	}
	if g.bootID != "b1.250" || g.uptime != 12500*time.Millisecond || len(g.disks) != 1 || g.disks[0].Used != 0.75 || g.disks[0].FreeBytes != 250<<10 {
		t.Errorf("%+v", g)
	}
	if len(g.certificates) != 1 || g.certificates[0].File != "/etc/kubernetes/pki/ca.crt" {
		t.Errorf("%+v", g.certificates)
	}
	for name, bad := range map[string]string{"no clock": "boot=b1\n", "half a disk": strings.Replace(out, "disk=1000 250", "disk=1000", 1), "no number": strings.Replace(out, "uptime=15.0", "uptime=x", 1)} {
		if _, err := parseGlance([]byte(bad), sent, sent); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzGlance(f *testing.F) {
	f.Add("clock_begin=1\ndisk=1 2 /\ncert=/x\n-----BEGIN CERTIFICATE-----\n" + base64.StdEncoding.EncodeToString([]byte("x==")) + "\nclock_end=2\n")
	f.Fuzz(func(t *testing.T, s string) {
		g, err := parseGlance([]byte(s), statusTime, statusTime)
		if err == nil && g.pem == nil {
			t.Error("neither an answer nor an error")
		}
	})
}
