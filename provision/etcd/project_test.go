package etcd

import (
	"math/bits"
	"strings"
	"testing"
)

func TestProject(t *testing.T) {
	add := Operation{Kind: OpAddLearner, Host: "cp-9", PeerURL: peerURL(9), HostEmpty: true}
	promote := Operation{Kind: OpPromote, ID: 4}
	removeDead := Operation{Kind: OpRemoveDead, ID: 3, Fenced: true}
	removeLive := Operation{Kind: OpRemoveLive, ID: 3}
	restart := Operation{Kind: OpRestart, ID: 3, Host: "cp-3"}
	defragment := Operation{Kind: OpDefragment, ID: 3, Host: "cp-3"}
	snapshot := Operation{Kind: OpSnapshot}
	force := func(o Operation) Operation { o.Force = true; return o }
	ghost := extra(Listed{ID: 9, Name: "old", PeerURLs: []string{peerURL(9)}}, false)
	sick := []fault{dead(2), dead(3), leaderless(1), noWrite}
	full := edit(2, func(v *View) { v.Last.DBSize = 8 << 30 / 100 * 96 })

	for _, tt := range []struct {
		name     string
		n        int
		faults   []fault
		op       Operation
		allowed  bool
		after    string
		says     string
		definite bool
	}{
		{"3 of 3: adding a learner is allowed", 3, nil, add, true, "voters 3  quorum 2  healthy 3  can lose 1  learners 1  unnamed 1", "", false},
		{"1 of 1: adding a learner is allowed", 1, nil, add, true, "voters 1  quorum 1  healthy 1  can lose 0  learners 1  unnamed 1", "", false},
		{"2 of 3: adding a learner waits for the sick one", 3, []fault{dead(3)}, add, false, "", "while a voter is unhealthy: cp-3 dead", false},
		{"2 of 3, its host gone: adding a learner is refused for good", 3, []fault{poweredOff(3)}, add, false, "", "cp-3 dead", true},
		{"2 of 3: adding a learner is not a matter of force", 3, []fault{dead(3)}, force(add), false, "", "", false},
		{"a second learner is refused", 4, []fault{learnerAt(4, 61042)}, add, false, "", "cp-4 is a learner", true},
		{"beside a member that never started, adding is refused", 3, []fault{extra(Listed{ID: 8, PeerURLs: []string{peerURL(4)}}, true)}, add, false, "", "never started", true},
		{"beside a ghost, adding is refused with its ID", 3, []fault{extra(Listed{ID: 0xabcdef, Name: "old", PeerURLs: []string{peerURL(8)}}, false)}, add, false, "", "member abcdef", true},
		{"a listed peer URL is refused: kubeadm would reuse it", 3, nil, Operation{Kind: OpAddLearner, Host: "new", PeerURL: peerURL(2), HostEmpty: true}, false, "", "already listed, as member 2", true},
		{"a used name is refused", 3, nil, Operation{Kind: OpAddLearner, Host: "cp-2", PeerURL: peerURL(9), HostEmpty: true}, false, "", "already that of member 2", true},
		{"a directory that is not empty is refused", 3, nil, Operation{Kind: OpAddLearner, Host: "cp-9", PeerURL: peerURL(9)}, false, "", "not seen empty", true},
		{"a NOSPACE alarm refuses an add", 3, []fault{alarm(2, "NOSPACE")}, add, false, "", "", true},

		{"3 of 3: promoting a caught-up learner is allowed", 4, []fault{learnerAt(4, 61042)}, promote, true, "voters 4  quorum 3  healthy 4  can lose 1", "", false},
		{"1 of 1: promoting the second is allowed", 2, []fault{learnerAt(2, 61042)}, Operation{Kind: OpPromote, ID: 2}, true, "voters 2  quorum 2  healthy 2  can lose 0", "", false},
		{"a lagging learner waits", 4, []fault{learnerAt(4, 100)}, promote, false, "", "the learner is lagging", false},
		{"2 of 3: promoting is refused", 4, []fault{learnerAt(4, 61042), dead(3)}, promote, false, "", "a voter is unhealthy: cp-3 dead", false},
		{"2 of 3: force may promote, quorum holds", 4, []fault{learnerAt(4, 61042), dead(3)}, force(promote), true, "voters 4  quorum 3  healthy 3  can lose 0", "forced", false},
		{"promoting a voter is refused", 3, nil, Operation{Kind: OpPromote, ID: 3}, false, "", "already a voter", true},

		{"2 of 3 healthy: removing the sick one is allowed", 3, []fault{dead(3)}, removeDead, true, "voters 2  quorum 2  healthy 2  can lose 0", "removing a dead member", false},
		{"3 of 5 healthy: removing one dead is allowed", 5, []fault{dead(3), dead(4)}, removeDead, true, "voters 4  quorum 3  healthy 3  can lose 0", "", false},
		{"3 of 3: a healthy member is not dead", 3, nil, removeDead, false, "", "healthy, not dead", true},
		{"a member dead for a second waits", 3, []fault{silence(3, 1e9, Attempt{Via: "cp-3", Outcome: Refused})}, removeDead, false, "", "dead for 1s only", false},
		{"a dead member that is not fenced could come back", 3, []fault{dead(3)}, Operation{Kind: OpRemoveDead, ID: 3}, false, "", "not fenced", true},
		{"a member that is only unreachable is not dead", 3, []fault{unseen(3)}, removeDead, false, "", "does not prove it dead", false},
		{"a hung member is not dead", 3, []fault{hung(3)}, removeDead, false, "", "does not prove it dead", false},
		{"a ghost voter is removed by ID", 3, []fault{ghost}, Operation{Kind: OpRemoveDead, ID: 9, Fenced: true}, true, "voters 3  quorum 2  healthy 3  can lose 1", "", false},
		{"without quorum nothing is removed", 3, sick, removeDead, false, "", "there is no quorum", false},

		{"3 of 3: removing a live member is allowed", 3, nil, removeLive, true, "voters 2  quorum 2  healthy 2  can lose 0", "", false},
		{"2 of 3: removing a live member is refused", 3, []fault{dead(2)}, removeLive, false, "voters 2  quorum 2  healthy 1  can lose 0", "1 of 2 voters would be healthy, 2 are needed", false},
		{"3 of 5: removing a live member is refused (the denominator is all voters)", 5, []fault{dead(4), dead(5)}, removeLive, false, "voters 4  quorum 3  healthy 2  can lose 0", "", false},
		{"4 of 5: removing a live member leaves 3 of 4", 5, []fault{dead(5)}, removeLive, true, "voters 4  quorum 3  healthy 3  can lose 0", "", false},
		{"the last voter is never removed", 1, nil, Operation{Kind: OpRemoveLive, ID: 1, Force: true}, false, "", "", true},
		{"2 of 3: force does not beat arithmetic", 3, []fault{dead(2)}, force(removeLive), false, "", "", false},

		{"3 of 3: restarting one is allowed, can lose 0 meanwhile", 3, nil, restart, true, "voters 3  quorum 2  healthy 2  can lose 0", "", false},
		{"2 of 3: restarting a healthy one is refused", 3, []fault{dead(2)}, restart, false, "voters 3  quorum 2  healthy 1  can lose 0", "", false},
		{"2 of 3: force does not restart a healthy one", 3, []fault{dead(2)}, force(restart), false, "", "", false},
		{"2 of 3: restarting the sick one costs no vote", 3, []fault{dead(3)}, restart, true, "voters 3  quorum 2  healthy 2  can lose 0", "already lost", false},
		{"4 of 5: restarting a healthy one is one too many at a time", 5, []fault{dead(5)}, restart, false, "", "one member at a time", false},
		{"4 of 5: force may, quorum holds", 5, []fault{dead(5)}, force(restart), true, "voters 5  quorum 3  healthy 3  can lose 0", "forced", false},
		{"1 of 1: a restart is an outage and refused", 1, nil, Operation{Kind: OpRestart, ID: 1}, false, "", "0 of 1 voters would be healthy", true},
		{"1 of 1: force accepts the outage", 1, nil, Operation{Kind: OpRestart, ID: 1, Force: true}, true, "", "", false},
		{"beside a learner nothing is restarted", 4, []fault{learnerAt(4, 61042)}, restart, false, "", "cp-4 is a learner", true},
		{"at 96 % of the quota nothing is restarted", 3, []fault{full}, restart, false, "", "fills 96 %", true},

		{"3 of 3: defragmenting one is allowed, can lose 0 meanwhile", 3, nil, defragment, true, "voters 3  quorum 2  healthy 2  can lose 0", "answers nobody", false},
		{"2 of 3: defragmenting a healthy one is refused", 3, []fault{dead(2)}, defragment, false, "voters 3  quorum 2  healthy 1  can lose 0", "", false},
		{"4 of 5: defragmenting a healthy one is one too many at a time", 5, []fault{dead(5)}, defragment, false, "", "one member at a time", false},
		{"1 of 1: force does not defragment the only one", 1, nil, force(Operation{Kind: OpDefragment, ID: 1}), false, "", "0 of 1 voters would be healthy", true},
		{"beside a learner nothing is defragmented", 4, []fault{learnerAt(4, 61042)}, defragment, false, "", "cp-4 is a learner", true},
		{"at 96 % of the quota defragmenting is the remedy", 3, []fault{full}, defragment, true, "", "", false},
		{"a NOSPACE alarm needs more than defragmenting its bearer", 3, []fault{alarm(3, "NOSPACE")}, defragment, false, "", "NOSPACE alarm of cp-3", true},

		{"3 of 3: a snapshot is allowed", 3, nil, snapshot, true, "voters 3  quorum 2  healthy 3  can lose 1", "snapshot", false},
		{"2 of 3: a snapshot is allowed and labelled", 3, []fault{dead(3)}, snapshot, true, "", "labelled DEGRADED", false},
		{"NO QUORUM is not overruled", 3, sick, force(restart), false, "", "no quorum", false},
		{"SPLIT is not overruled", 3, []fault{alarm(3, "CORRUPT")}, force(restart), false, "", "SPLIT", true},
		{"UNKNOWN never passes", 3, []fault{unseen(2), unseen(3)}, force(snapshot), false, "", "could not be proven", false},
		{"a member that is not listed cannot be restarted", 3, nil, Operation{Kind: OpRestart, PeerURL: peerURL(7)}, false, "", "not in the member list", true},
		{"removing a learner costs no vote", 4, []fault{learnerAt(4, 100)}, Operation{Kind: OpRemoveLearner, ID: 4}, true, "voters 3  quorum 2  healthy 3  can lose 1", "", false},
		{"2 of 3: a learner that never started may be removed", 3, []fault{dead(3), extra(Listed{ID: 8, Learner: true, PeerURLs: []string{peerURL(4)}}, true)}, Operation{Kind: OpRemoveLearner, ID: 8}, true, "voters 3  quorum 2  healthy 2  can lose 0", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := Assess(observed(tt.n, tt.faults...))
			d := Project(v, tt.op)
			if d.Allowed != tt.allowed || d.Definite != tt.definite {
				t.Errorf("allowed %t, definite %t: %s (%s)", d.Allowed, d.Definite, d.Reason, v.State)
			}
			if tt.after != "" && d.After.String() != tt.after {
				t.Errorf("after: %s\n want: %s", d.After, tt.after)
			}
			if !strings.Contains(d.Reason, tt.says) {
				t.Errorf("reason %q does not say %q", d.Reason, tt.says)
			}
			if err := d.Err(v); (err == nil) != d.Allowed {
				t.Errorf("error %v", err)
			} else if err != nil && strings.Count(err.Error(), "\n") != 2 {
				t.Errorf("not three lines:\n%v", err)
			}
		})
	}
}

// votes is the brute force: members are bits, and quorum is the existence of a
// majority, found by looking at every subset of the voters.
func votes(voters, healthy uint) bool {
	for set := uint(1); set <= voters; set++ {
		if set&^voters == 0 && set&^healthy == 0 && 2*bits.OnesCount(set) > bits.OnesCount(voters) {
			return true
		}
	}
	return false
}

// TestProjectAgainstBruteForce tries every operation on every pattern of
// health of 1, 3, 5 and 7 voters, with and without force, and demands of all
// that is allowed that each state in between has a live majority.
func TestProjectAgainstBruteForce(t *testing.T) {
	tried, allowed := 0, 0
	for _, n := range []int{1, 3, 5, 7} {
		all := uint(1)<<n - 1
		for healthy := uint(0); healthy <= all; healthy++ {
			var faults []fault
			if !votes(all, healthy) {
				faults = append(faults, noWrite)
			}
			leader := MemberID(bits.TrailingZeros(healthy | 1<<n))
			for i := range n {
				switch {
				case healthy&(1<<i) == 0:
					faults = append(faults, dead(i+1))
				case !votes(all, healthy):
					faults = append(faults, leaderless(i+1))
				default:
					faults = append(faults, edit(i+1, func(v *View) { v.First.Leader, v.Last.Leader = leader+1, leader+1 }))
				}
			}
			v := Assess(observed(n, faults...))
			if v.State.HasQuorum() != votes(all, healthy) {
				t.Fatalf("%d voters, healthy %b: %s %v", n, healthy, v.State, v.Reasons)
			}
			if degraded := v.State == Degraded; v.State.HasQuorum() && degraded != !votesAfterAnyLoss(all, healthy) {
				t.Fatalf("%d voters, healthy %b: %s", n, healthy, v.State)
			}
			for i := range n {
				bit := uint(1) << i
				for _, kind := range []OpKind{OpRemoveDead, OpRemoveLive, OpRestart, OpDefragment} {
					for _, force := range []bool{false, true} {
						tried++
						op := Operation{Kind: kind, ID: MemberID(i + 1), Fenced: true, Force: force}
						d := Project(v, op)
						if !d.Allowed {
							continue
						}
						allowed++
						voters, left := all&^bit, healthy&^bit // while and after
						if kind == OpRestart || kind == OpDefragment {
							voters = all
						}
						outage := n == 1 && force && kind == OpRestart
						if !votes(all, healthy) || !votes(voters, left) && !outage {
							t.Errorf("%d voters, healthy %b: %s member %d was allowed (force %t)", n, healthy, kind, i+1, force)
						}
						if d.After.Holds() != votes(voters, left) {
							t.Errorf("%d voters, healthy %b, %s member %d: after %s", n, healthy, kind, i+1, d.After)
						}
					}
				}
			}
		}
	}
	if allowed == 0 || tried == allowed {
		t.Fatalf("%d of %d allowed: the test tests nothing", allowed, tried)
	}
	t.Logf("%d projections, %d allowed", tried, allowed)
}

// votesAfterAnyLoss says that the healthy ones survive the loss of any one.
func votesAfterAnyLoss(voters, healthy uint) bool {
	for b := uint(1); b <= voters; b <<= 1 {
		if healthy&b != 0 && !votes(voters, healthy&^b) {
			return false
		}
	}
	return true
}
