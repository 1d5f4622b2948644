package etcd

import (
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/units"
)

func TestAssess(t *testing.T) {
	for _, tt := range []struct {
		name    string
		n       int
		faults  []fault
		state   State
		healthy int
		lose    int
		member  int         // 0: none is looked at
		is      MemberState // of that member
		says    string      // somewhere in reasons, warnings or WHY
	}{
		{"three healthy voters can lose one", 3, nil, Pass, 3, 1, 1, MemberHealthy, ""},
		{"five healthy voters can lose two", 5, nil, Pass, 5, 2, 5, MemberHealthy, ""},
		{"one voter has quorum and can lose none", 1, nil, Degraded, 1, 0, 0, "", "1 voters can lose none"},
		{"two voters have quorum and can lose none", 2, nil, Degraded, 2, 0, 0, "", ""},
		{"a dead voter of three leaves quorum without reserve", 3, []fault{dead(3)}, Degraded, 2, 0, 3, MemberDead, "2379 refused from cp-3 for 3m0s"},
		{"a powered-off voter is dead when the others confirm it", 3, []fault{poweredOff(3)}, Degraded, 2, 0, 3, MemberDead, "ssh: timeout; 2379 refused from cp-1, cp-2 for 3m10s"},
		{"a voter that nobody else could look at is unreachable, not dead", 3, []fault{unseen(3)}, Degraded, 2, 0, 3, MemberUnreachable, "ssh: no route to host"},
		{"a timeout seen from a host that works is a witness", 3, []fault{silence(3, time.Minute,
			Attempt{Via: "cp-3", Outcome: TimedOut, Err: "timeout"}, Attempt{Via: "cp-1", Outcome: TimedOut})}, Degraded, 2, 0, 3, MemberDead, "ssh: timeout; 2379 timed out from cp-1 for 1m0s"},
		{"timeouts seen from hosts that do not work are none", 3, []fault{
			silence(2, time.Minute, Attempt{Via: "cp-2", Outcome: TimedOut, Err: "timeout"}, Attempt{Via: "cp-3", Outcome: TimedOut}),
			silence(3, time.Minute, Attempt{Via: "cp-3", Outcome: TimedOut, Err: "timeout"}, Attempt{Via: "cp-2", Outcome: TimedOut}),
			silence(1, time.Minute, Attempt{Via: "cp-1", Outcome: VantageDown, Err: "no route"}, Attempt{Via: "cp-2", Outcome: TimedOut}),
			noWrite}, Unknown, 0, -2, 2, MemberUnreachable, "no other host to look from"},
		{"a frozen voter is hung although its port is open", 3, []fault{hung(2)}, Degraded, 2, 0, 2, MemberHung, "port open, no answer"},
		{"one dead of five still can lose one", 5, []fault{dead(5)}, Pass, 4, 1, 5, MemberDead, ""},
		{"two dead of three is no quorum", 3, []fault{dead(2), dead(3), leaderless(1), noWrite}, NoQuorum, 0, -2, 1, MemberIsolated, "no leader at term 7"},
		{"all three dead is no quorum", 3, []fault{dead(1), dead(2), dead(3), noWrite}, NoQuorum, 0, -2, 1, MemberDead, ""},
		{"no host reachable proves nothing", 3, []fault{unseen(1), unseen(2), unseen(3), noWrite}, Unknown, 0, -2, 1, MemberUnreachable, "no member could be asked"},
		{"one isolated and two unseen voters prove nothing: they may have quorum", 3, []fault{leaderless(1), unseen(2), unseen(3), noWrite}, Unknown, 0, -2, 0, "", "could not be read through quorum"},
		{"one reading voter and two unseen: votes not seen are votes lost", 3, []fault{unseen(2), unseen(3)}, Unknown, 1, -1, 0, "", "only 1 of 3 voters were seen healthy"},
		{"the cut-off minority is isolated, the majority has quorum", 3, []fault{leaderless(3)}, Degraded, 2, 0, 3, MemberIsolated, ""},
		{"a member of another cluster is SPLIT at once", 3, []fault{edit(3, func(v *View) { v.Last.ClusterID = 9 })}, Split, 2, 0, 3, MemberForeign, "serves another cluster"},
		{"one that serves nobody, and has another cluster's data, is foreign", 3, []fault{ofBefore(3)}, Degraded, 2, 0, 3, MemberForeign, "its data are of another cluster, 384"},
		{"two of them are lost when the third has no leader", 3, []fault{ofBefore(2), ofBefore(3), leaderless(1), noWrite}, NoQuorum, 0, -2, 3, MemberForeign, "another cluster"},
		{"nobody knows which cluster it should be: they hang", 3, []fault{ofBefore(1), ofBefore(2), ofBefore(3), noWrite}, Unknown, 0, -2, 3, MemberHung, ""},
		{"another leader in one sample may be an election", 3, []fault{edit(3, func(v *View) { v.Last.Leader, v.Last.Term = 3, 8 })}, Unknown, 2, 0, 3, MemberIsolated, "follows leader 3 at term 8"},
		{"another leader in two samples is SPLIT", 3, []fault{edit(3, func(v *View) { v.Last.Leader, v.Last.Term = 3, 8 }), history("leader:cp-3")}, Split, 2, 0, 0, "", ""},
		{"another list in one sample may be a change under way", 3, []fault{edit(3, func(v *View) { v.Local = listOf(2) })}, Unknown, 2, 0, 3, MemberDiverged, "its member list differs: 1, 2"},
		{"another list in two samples is SPLIT", 3, []fault{edit(3, func(v *View) { v.Local = listOf(2) }), history("list:cp-3")}, Split, 2, 0, 0, "", ""},
		{"answering under another ID than the list's is foreign", 3, []fault{edit(2, func(v *View) { v.Last.MemberID = 77 })}, Unknown, 2, 0, 2, MemberForeign, "answers as member 4d, the list says 2"},
		{"a voter behind what the leader had is lagging", 3, []fault{edit(2, func(v *View) { v.Last.AppliedIndex = 61000 })}, Degraded, 2, 0, 2, MemberLagging, "has applied 61000, the leader had 61042"},
		{"a voter ahead of what the leader had at the start is healthy", 3, []fault{edit(2, func(v *View) { v.Last.AppliedIndex = 61050 })}, Pass, 3, 1, 2, MemberHealthy, ""},
		{"a voter whose linearizable read fails is isolated", 3, []fault{edit(2, func(v *View) { v.Linearizable.Err = "etcdserver: no leader" })}, Degraded, 2, 0, 2, MemberIsolated, "linearizable read: etcdserver: no leader"},
		{"a voter whose linearizable read is late is late", 3, []fault{late(2)}, Degraded, 2, 0, 2, MemberLate, "linearizable read: timeout"},
		{"late answers of a majority prove nothing", 3, []fault{late(1), late(2), late(3), noWrite}, Unknown, 0, -2, 2, MemberLate, "could not be read through quorum"},
		{"one late answer and one dead voter prove nothing", 3, []fault{late(2), dead(3)}, Unknown, 1, -1, 2, MemberLate, "only 1 of 3 voters were seen healthy"},
		{"a local read that is late is late", 3, []fault{edit(2, func(v *View) { v.Serializable = Read{Done: true, Late: true, Err: "timeout"} })}, Degraded, 2, 0, 2, MemberLate, "local read: timeout"},
		{"a member list that is late is late", 3, []fault{edit(2, func(v *View) { v.Local, v.LocalErr = nil, "timeout" })}, Degraded, 2, 0, 2, MemberLate, "its member list: timeout"},
		{"a member list that fails is failing", 3, []fault{edit(2, func(v *View) { v.Local, v.LocalErr = nil, "etcdserver: stopped" })}, Degraded, 2, 0, 2, MemberFailing, "its member list: etcdserver: stopped"},
		{"two that have just hung may only be late", 3, []fault{hung(2), hung(3), leaderless(1), noWrite}, Unknown, 0, -2, 2, MemberHung, ""},
		{"two that hang for long are lost when the third has no leader", 3, []fault{hungFor(2, 12*time.Second), hungFor(3, 12*time.Second), leaderless(1), noWrite}, NoQuorum, 0, -2, 2, MemberHung, ""},
		{"timeouts alone prove no loss: the silent ones may be a quorum beyond a cut", 3, []fault{timedOut(2), timedOut(3), late(1), noWrite}, Unknown, 0, -2, 2, MemberDead, ""},
		{"timeouts and a survivor without a leader prove the loss", 3, []fault{timedOut(2), timedOut(3), leaderless(1), noWrite}, NoQuorum, 0, -2, 2, MemberDead, ""},
		{"three that follow three leaders may be an election", 3, []fault{following(1, 1, 8), following(2, 2, 9), following(3, 3, 10)}, Unknown, 1, -1, 1, MemberIsolated, ""},
		{"a voter whose local read fails is failing", 3, []fault{edit(2, func(v *View) { v.Serializable.Err = "I/O error" })}, Degraded, 2, 0, 2, MemberFailing, "local read: I/O error"},
		{"a read that was not made is not a success", 3, []fault{edit(2, func(v *View) { v.Linearizable = Read{} })}, Degraded, 2, 0, 2, MemberIsolated, "not asked"},
		{"an alarm makes only its bearer unhealthy", 3, []fault{alarm(2, "NOSPACE")}, Degraded, 2, 0, 2, MemberAlarm, "NOSPACE alarm of member 2"},
		{"alarms of a majority leave no quorum of healthy voters", 3, []fault{alarm(1, "NOSPACE"), alarm(2, "NOSPACE")}, NoQuorum, 1, -1, 1, MemberAlarm, ""},
		{"a CORRUPT alarm is SPLIT and names the odd one", 3, []fault{alarm(3, "CORRUPT")}, Split, 2, 0, 3, MemberDiverged, "cp-3 (3) has diverged"},
		{"equal hashes pass", 3, []fault{hashesOf(5, 5, 5)}, Pass, 3, 1, 0, "", ""},
		{"one other hash is SPLIT and names the odd one", 3, []fault{hashesOf(5, 5, 6)}, Split, 2, 0, 3, MemberDiverged, "data differ at revision 500: cp-3"},
		{"a learner without a hash does not change who is odd", 4, []fault{learnerAt(4, 61042), hashesOf(5, 5, 6)}, Split, 2, 0, 3, MemberDiverged, "data differ at revision 500: cp-3"},
		{"three hashes of three members name all", 3, []fault{hashesOf(5, 6, 7)}, Split, 0, -2, 1, MemberDiverged, "cp-1, cp-2, cp-3"},
		{"hashes of different compactions prove nothing", 3, []fault{hashesOf(5, 5, 6), edit(3, func(v *View) { v.Hash.CompactRevision = 99 })}, Unknown, 3, 1, 0, "", "compacted to different revisions"},
		{"two hashes of two members name both", 2, []fault{hashesOf(5, 6)}, Split, 0, -2, 0, "", "cp-1, cp-2"},
		{"a hash that is missing proves nothing", 3, []fault{hashesOf(5, 5)}, Unknown, 3, 1, 0, "", "data could not be compared: cp-3"},
		{"a dead member's hash is not waited for", 3, []fault{hashesOf(5, 5), dead(3)}, Degraded, 2, 0, 0, "", ""},
		{"a ghost voter counts in the denominator", 3, []fault{extra(Listed{ID: 9, Name: "old", PeerURLs: []string{peerURL(9)}}, false)}, Degraded, 3, 0, 4, MemberDead, "member 9 at https://10.0.0.9:2380 is on no host of the inventory"},
		{"a voter that never started counts in the denominator", 3, []fault{extra(Listed{ID: 9, PeerURLs: []string{peerURL(4)}}, true)}, Degraded, 3, 0, 4, MemberUnnamed, "never started"},
		{"a learner does not count, and is out of place", 4, []fault{learnerAt(4, 61042)}, Degraded, 3, 1, 4, MemberLearner, "caught up"},
		{"a learner behind the leader is lagging", 4, []fault{learnerAt(4, 100)}, Degraded, 3, 1, 4, MemberLagging, "cp-4 is a learner (member 4)"},
		{"a ghost that is healthy is out of place all the same", 3, []fault{noHost(3)}, Degraded, 3, 1, 3, MemberHealthy, "cp-3 is a ghost voter (member 3)"},
		{"an alarm is out of place even where one vote could be lost", 5, []fault{alarm(2, "NOSPACE")}, Degraded, 4, 1, 2, MemberAlarm, "NOSPACE alarm of cp-2"},
		{"an alarm of a member that died is one still", 5, []fault{dead(5), alarm(5, "NOSPACE")}, Degraded, 4, 1, 5, MemberDead, "NOSPACE alarm of cp-5"},
		{"one that never started is out of place even where one vote could be lost", 5, []fault{extra(Listed{ID: 9, PeerURLs: []string{peerURL(6)}}, true)}, Degraded, 5, 1, 6, MemberUnnamed, "cp-6 was added and never started"},
		{"a learner that never started counts in no denominator", 3, []fault{extra(Listed{ID: 9, Learner: true, PeerURLs: []string{peerURL(4)}}, true)}, Degraded, 3, 1, 4, MemberUnnamed, "cp-4 is a learner"},
		{"a learner of another cluster is SPLIT", 4, []fault{learnerAt(4, 61042), edit(4, func(v *View) { v.Last.ClusterID = 9 })}, Split, 3, 1, 4, MemberForeign, "cp-4 serves cluster 9"},
		{"a failed write without an alarm proves nothing", 3, []fault{func(o *Observation) { o.Write = &Write{Err: "timeout"} }}, Unknown, 3, 1, 0, "", "write probe: timeout"},
		{"no write at all proves nothing", 3, []fault{func(o *Observation) { o.Write = nil }}, Unknown, 3, 1, 0, "", "no write was tried"},
		{"a read-only look needs no write", 3, []fault{func(o *Observation) { o.Write, o.ReadOnly = nil, true }}, Pass, 3, 1, 0, "", ""},
		{"alarms that are not known prove nothing", 3, []fault{func(o *Observation) { o.AlarmErr = "timeout" }}, Unknown, 3, 1, 0, "", "alarms are not known"},
		{"SSH down but etcd seen through another host is healthy", 3, []fault{edit(3, func(v *View) {
			v.Via = "cp-1"
			v.Attempts = []Attempt{{Via: "cp-3", Outcome: VantageDown, Err: "no route"}}
		})}, Pass, 3, 1, 3, MemberHealthy, "ssh: no route; answers through cp-1"},
		{"a wiped member that serves an empty cluster under its old IDs is SPLIT", 3, []fault{func(o *Observation) {
			for i := range o.Views {
				o.Views[i].First.Leader, o.Views[i].Last.Leader = 2, 2
			}
			w := &o.Views[0]
			w.Last.Leader, w.Last.Term, w.Last.AppliedIndex, w.Local, w.Agreed = 1, 2, 9, listOf(1), listOf(1)
		}, history("leader:cp-1")}, Split, 2, 0, 1, MemberIsolated, "cp-1 follows leader 1 at term 2"},
		{"a missing client certificate is not SSH being down", 3, []fault{edit(3, func(v *View) {
			v.Via = "cp-1"
			v.Attempts = []Attempt{{Via: "cp-3", Outcome: NoCertificate, Err: "cp-3: etcd client certificate: file does not exist"}}
		})}, Pass, 3, 1, 3, MemberHealthy, "certificate: file does not exist; answers through cp-1"},
		{"members that we cannot verify prove nothing", 3, []fault{unverified(1), unverified(2), unverified(3), noWrite}, Unknown, 0, -2, 1, MemberUnverified, "tls: unknown authority"},
		{"a slow read warns", 3, []fault{edit(2, func(v *View) { v.Linearizable.Latency = units.Seconds(150 * time.Millisecond) })}, Pass, 3, 1, 2, MemberHealthy, "cp-2: a linearizable read took 150ms"},
		{"a slow disk warns", 3, []fault{edit(2, func(v *View) { v.FsyncP99 = units.Seconds(64 * time.Millisecond) })}, Pass, 3, 1, 2, MemberHealthy, "cp-2: the disk is slow"},
		{"a database at 80 % of its quota warns", 3, []fault{edit(2, func(v *View) { v.Last.DBSize = 7 << 30 })}, Pass, 3, 1, 0, "", "cp-2: the database fills 88 % of its quota"},
		{"a host that is no member yet is absent", 2, []fault{func(o *Observation) {
			o.Hosts = append(o.Hosts, Host{Name: "cp-3", PeerURL: peerURL(3)})
			o.Views = append(o.Views, View{Host: "cp-3", PeerURL: peerURL(3), Attempts: []Attempt{{Via: "cp-3", Outcome: Refused}}})
		}}, Degraded, 2, 0, 3, MemberAbsent, "not in the member list"},
		{"a host that is no member but serves etcd is SPLIT", 2, []fault{func(o *Observation) {
			o.Hosts = append(o.Hosts, Host{Name: "cp-3", PeerURL: peerURL(3)})
			v := healthyView(3, listOf(1))
			v.Last.ClusterID = 99
			o.Views = append(o.Views, v)
		}}, Split, 2, 0, 3, MemberForeign, "cp-3 serves cluster 63"},
		{"members are matched by peer URL, not by name", 3, []fault{func(o *Observation) {
			o.Hosts[1].Name, o.Hosts[2].Name = o.Hosts[2].Name, o.Hosts[1].Name
			o.Views[1].Host, o.Views[2].Host = "cp-3", "cp-2"
		}, dead(3)}, Degraded, 2, 0, 3, MemberDead, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := Assess(observed(tt.n, tt.faults...))
			if v.State != tt.state || v.Healthy != tt.healthy || v.CanLose != tt.lose {
				t.Errorf("got %s, %s (%d); %v\n%v", v.State, v.Numbers, v.CanLose, v.Reasons, v.Members)
			}
			if tt.member > 0 && v.Members[tt.member-1].State != tt.is {
				t.Errorf("member %d is %s (%s), want %s", tt.member, v.Members[tt.member-1].State, v.Members[tt.member-1].Why, tt.is)
			}
			all := append(append([]string{}, v.Reasons...), v.Warnings...)
			for _, m := range v.Members {
				all = append(all, m.Why)
			}
			if !strings.Contains(strings.Join(all, "\n"), tt.says) {
				t.Errorf("nothing says %q in:\n%s", tt.says, strings.Join(all, "\n"))
			}
			if (v.State == Pass || v.State == Degraded) && !v.Holds() {
				t.Errorf("%s with %s", v.State, v.Numbers)
			}
		})
	}
}

func TestStability(t *testing.T) {
	at := func(ago time.Duration, leader MemberID, term uint64) Sample {
		return Sample{At: t0.Add(-ago), Leader: leader, Term: term}
	}
	for _, tt := range []struct {
		name    string
		history []Sample
		want    time.Duration
	}{
		{"the first look proves no stability", nil, 0},
		{"equal samples span the time between them", []Sample{at(3*time.Second, 1, 7), at(time.Second, 1, 7)}, 3 * time.Second},
		{"another term in between starts anew", []Sample{at(3*time.Second, 1, 7), at(2*time.Second, 1, 6), at(time.Second, 1, 7)}, time.Second},
		{"another leader just before is not stable", []Sample{at(3*time.Second, 1, 7), at(time.Second, 2, 7)}, 0},
		{"a look without a leader in between starts anew", []Sample{at(3*time.Second, 1, 7), at(time.Second, 0, 0)}, 0},
		{"old samples do not count", []Sample{at(time.Hour, 1, 7)}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := observed(3)
			o.History = tt.history
			if got := Assess(o).StableFor.Duration(); got != tt.want {
				t.Errorf("stable for %s, want %s", got, tt.want)
			}
		})
	}
}

func TestURLs(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"https://10.0.0.1:2380", "HTTPS://10.0.0.1:2380/", true},
		{"https://[2001:db8::1]:2380", "https://[2001:0db8:0:0::1]:2380", true},
		{"https://CP-1:2380", "https://cp-1:2380", true},
		{"https://10.0.0.1:2380", "https://10.0.0.1:2379", false},
		{"http://10.0.0.1:2380", "https://10.0.0.1:2380", false},
	} {
		if sameURL(tt.a, tt.b) != tt.same {
			t.Errorf("%s and %s: same is not %t", tt.a, tt.b, tt.same)
		}
	}
}
