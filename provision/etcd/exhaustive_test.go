package etcd

import (
	"fmt"
	"math/bits"
	"slices"
	"testing"
)

// condition is what a voter of the enumerated clusters may be in.
type condition struct {
	name  string
	fault func(i int) fault
	// loud ones contradict the rest: SPLIT, or UNKNOWN until it is certain.
	loud bool
	// sure is a vote that is proven to be lost when another has no leader.
	sure bool
}

var conditions = []condition{
	{"healthy", func(int) fault { return func(*Observation) {} }, false, false},
	{"lagging", func(i int) fault { return edit(i, func(v *View) { v.Last.AppliedIndex-- }) }, false, false},
	{"late", late, false, false},
	{"leaderless", leaderless, false, true},
	{"failing", func(i int) fault { return edit(i, func(v *View) { v.Serializable.Err = "I/O error" }) }, false, true},
	{"hung", hung, false, false},
	{"unverified", unverified, false, false},
	{"unreachable", unseen, false, false},
	{"dead", dead, false, true},
	{"other list", func(i int) fault { return edit(i, func(v *View) { v.Local = listOf(9) }) }, true, false},
	{"other leader", func(i int) fault { return following(i, 99, 9) }, true, false},
	{"of before", ofBefore, false, true},
	{"foreign", func(i int) fault { return edit(i, func(v *View) { v.Last.ClusterID = MemberID(900 + i) }) }, true, false},
}

// oddity is what may be wrong beside the voters' conditions.
type oddity struct {
	name  string
	fault func(n int) fault
	votes int // that it adds to the denominator
}

var oddities = []oddity{
	{"none", func(int) fault { return func(*Observation) {} }, 0},
	{"learner", func(n int) fault { return hostedLearner(n + 1) }, 0},
	{"ghost", func(int) fault { return extra(Listed{ID: 90, Name: "old", PeerURLs: []string{peerURL(90)}}, false) }, 1},
	{"unnamed voter", func(n int) fault { return extra(Listed{ID: 91, PeerURLs: []string{peerURL(91)}}, true) }, 1},
	{"NOSPACE of the first", func(int) fault { return alarm(1, "NOSPACE") }, 0},
	{"NOSPACE of one that is gone", func(int) fault { return alarm(70, "NOSPACE") }, 0},
	{"alarms not known", func(int) fault { return func(o *Observation) { o.AlarmErr = "timeout" } }, 0},
}

// hostedLearner lists a learner that has caught up.
func hostedLearner(i int) fault {
	return func(o *Observation) {
		l := Listed{ID: MemberID(i), Name: name(i), PeerURLs: []string{peerURL(i)}, Learner: true}
		extra(l, true)(o)
		v := healthyView(i, nil)
		v.First.Learner, v.Last.Learner = true, true
		v.Local, v.Agreed, v.Linearizable = nil, nil, Read{}
		o.Views[len(o.Views)-1] = v
	}
}

// picture is one enumerated cluster.
type picture struct {
	of []int // by voter: its condition
	f  int
}

func (p picture) String() string {
	s := oddities[p.f].name + ":"
	for _, c := range p.of {
		s += " " + conditions[c].name
	}
	return s
}

func (p picture) assess() Verdict {
	n := len(p.of)
	var faults []fault
	for i, c := range p.of {
		faults = append(faults, conditions[c].fault(i+1))
	}
	o := observed(n, oddities[p.f].fault(n))
	if p.f > 4 { // as a status looks: nothing but the alarm itself tells of it
		o.Write, o.ReadOnly = nil, true
	}
	for _, f := range faults {
		f(&o)
	}
	return Assess(o)
}

// pictures calls f with every multiset of conditions of n voters, each with
// every oddity.
func pictures(n int, f func(picture)) {
	var grow func(of []int)
	grow = func(of []int) {
		if len(of) == n {
			some := oddities
			if n == 5 { // five times as many as all smaller ones together
				some = oddities[:2]
			}
			for k := range some {
				f(picture{slices.Clone(of), k})
			}
			return
		}
		from := 0
		if len(of) > 0 {
			from = of[len(of)-1]
		}
		for c := from; c < len(conditions); c++ {
			grow(append(of, c))
		}
	}
	grow(nil)
}

// rank orders verdicts by what they permit.
func rank(s State) int {
	switch s {
	case Pass:
		return 0
	case Degraded:
		return 1
	}
	return 2
}

// TestEveryCluster enumerates all clusters of one to five voters over the
// conditions and oddities, and holds each verdict and projection against what
// must be so whatever the rest looks like.
func TestEveryCluster(t *testing.T) {
	seen := map[State]int{}
	tried, allowed := 0, 0
	for n := 1; n <= 5; n++ {
		pictures(n, func(p picture) {
			v := p.assess()
			seen[v.State]++
			tried++
			for _, broken := range append(verdictHolds(p, v), monotonic(p, v)...) {
				t.Errorf("%s: %s (%s, %s): %s", p, v.State, v.Numbers, v.Reasons, broken)
			}
			for _, d := range everyProjection(v) {
				if d.Allowed {
					allowed++
				}
				if broken := projectionHolds(v, d); broken != "" {
					t.Errorf("%s: %s (%s): %s: %s", p, v.State, v.Numbers, d.Op, broken)
				}
			}
		})
	}
	for _, s := range []State{Pass, Degraded, NoQuorum, Split, Unknown} {
		if seen[s] == 0 {
			t.Errorf("no cluster is %s: the test does not cover it", s)
		}
	}
	t.Logf("%d clusters: %v; %d projections allowed", tried, seen, allowed)
}

// verdictHolds is what is broken about a verdict; nothing should be.
func verdictHolds(p picture, v Verdict) (broken []string) {
	say := func(bad bool, text string, args ...any) {
		if bad {
			broken = append(broken, fmt.Sprintf(text, args...))
		}
	}
	healthy, loud, sure, mute := 0, 0, 0, 0
	answering := 0
	if oddities[p.f].name == "learner" {
		answering = 1
	}
	for _, c := range p.of {
		if !slices.Contains([]string{"hung", "unverified", "unreachable", "dead", "of before"}, conditions[c].name) {
			answering++
		}
	}
	for i, c := range p.of {
		switch {
		case conditions[c].name == "foreign" && answering == 1: // it is all that there is
			if p.f != 4 || i != 0 {
				healthy++
			}
		case conditions[c].loud:
			loud++
		case c == 0 && !(oddities[p.f].name == "NOSPACE of the first" && i == 0):
			healthy++
		}
		if conditions[c].sure {
			sure++
		}
		if name := conditions[c].name; name == "unreachable" || name == "unverified" || name == "late" || name == "hung" {
			mute++
		}
	}
	outOfPlace := p.f >= 1 && p.f <= 5
	say(v.State == Pass && outOfPlace, "PASS with %s", oddities[p.f].name)
	say(v.State == Pass && v.CanLose < 1, "PASS and can lose none")
	say(v.State.HasQuorum() && !v.Holds(), "quorum without a majority of all voters")
	say(v.State.HasQuorum() && !v.Proven, "quorum from a list that was not read through quorum")
	say(v.State.HasQuorum() && p.f == 6, "quorum with alarms that are not known")
	say(v.State.HasQuorum() && loud > 0, "quorum although members contradict each other")
	say(v.State == NoQuorum && v.Holds(), "NO QUORUM with a healthy majority")
	say(v.State == NoQuorum && mute == len(p.of) && p.f < 2, "NO QUORUM, and nobody said anything")
	say(v.State == Split && loud == 0, "SPLIT, and nobody contradicts")
	say(v.State != Pass && len(v.Reasons) == 0, "no reason is given")
	say(v.Quorum != v.Voters/2+1 || v.CanLose != v.Healthy-v.Quorum, "arithmetic")
	if v.Proven && loud == 0 {
		voters := len(p.of) + oddities[p.f].votes
		say(v.Voters != voters, "%d voters, want all %d", v.Voters, voters)
		say(v.Healthy != healthy, "%d healthy, want %d", v.Healthy, healthy)
	}
	for _, m := range v.Members {
		say(!m.Healthy && m.Why == "" && m.Role != NoRole, "%s is %s, and nothing says why", m.Name, m.State)
	}
	return broken
}

// monotonic tries every voter one condition worse, where worse is every
// condition for a healthy one, and death for every one that contradicts nobody.
func monotonic(p picture, v Verdict) (broken []string) {
	for i, c := range p.of {
		if i > 1 && p.of[i-1] == c { // one like it was tried, a leader and a follower
			continue
		}
		for to := range conditions {
			worse := c == 0 && to != 0 || !conditions[c].loud && conditions[to].name == "dead"
			if len(p.of) > 3 && to%3 != 2 { // of the many every third: late, unverified, dead, of before
				continue
			}
			if !worse || i == 0 && p.f == 4 { // an alarm would go with its bearer's row
				continue
			}
			q := picture{slices.Clone(p.of), p.f}
			q.of[i] = to
			if w := q.assess(); rank(w.State) < rank(v.State) {
				broken = append(broken, fmt.Sprintf("with %s %s it would be %s", name(i+1), conditions[to].name, w.State))
			}
		}
	}
	return broken
}

// everyProjection is Projections, and each of its operations with force.
func everyProjection(v Verdict) []Decision {
	ds := Projections(v)
	if !v.State.HasQuorum() { // nothing is allowed anyhow
		return ds
	}
	for _, d := range slices.Clone(ds) {
		op := d.Op
		op.Force = true
		ds = append(ds, Project(v, op))
	}
	return ds
}

// projectionHolds is what is broken about a decision; "" when nothing is. The
// vote is counted anew, on the members.
func projectionHolds(v Verdict, d Decision) string {
	if !d.Allowed {
		return ""
	}
	var voters, healthy uint
	for i, m := range v.Members {
		if m.Role != Voter {
			continue
		}
		gone := m.ID == d.Op.ID && (d.Op.Kind == OpRemoveDead || d.Op.Kind == OpRemoveLive)
		if !gone {
			voters |= 1 << i
		}
		if m.Healthy && !gone && (m.ID != d.Op.ID || d.Op.Kind != OpRestart) {
			healthy |= 1 << i
		}
	}
	if d.Op.Kind == OpPromote {
		voters, healthy = voters|1<<30, healthy|1<<30
	}
	outage := d.Forced && d.Op.Kind == OpRestart && v.Voters <= 2
	switch {
	case !v.State.HasQuorum():
		return "allowed although it is " + string(v.State)
	case bits.OnesCount(healthy)*2 <= bits.OnesCount(voters) && !outage:
		return fmt.Sprintf("allowed with %d of %d voters left", bits.OnesCount(healthy), bits.OnesCount(voters))
	case d.After.Holds() == outage:
		return fmt.Sprintf("after: %s", d.After)
	case d.Op.Kind == OpAddLearner && v.Healthy < v.Voters:
		return "a learner would be added beside a sick voter"
	case d.Op.Kind != OpSnapshot && d.Op.Kind != OpRemoveDead && d.Op.Kind != OpRemoveLearner && len(v.Alarms) > 0 && !d.Forced:
		return "allowed under an alarm"
	}
	return ""
}
