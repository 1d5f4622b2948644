package etcd

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/provision/units"
)

// count does the arithmetic. V is every voter of the list, started or not.
func (a *assessment) count() {
	var voters, healthy, learners, unnamed int
	for _, m := range a.v.Members {
		switch m.Role {
		case Voter:
			voters++
			if m.Healthy {
				healthy++
			}
		case Learner:
			learners++
		case NoRole:
			continue
		}
		if m.Unnamed && m.ID != 0 {
			unnamed++
		}
	}
	a.v.Numbers = numbers(voters, healthy, learners, unnamed)
}

// hashes compares HashKV where it was taken: equal revision and compaction
// with another sum is divergence; the odd one out is named, or all when no sum
// has a majority of those that were taken.
func (a *assessment) hashes() {
	byPoint := map[Hash]map[uint32][]string{} // by revision and compaction
	var points []Hash
	for _, v := range a.main {
		if v.Hash == nil {
			continue
		}
		p := Hash{Revision: v.Hash.Revision, CompactRevision: v.Hash.CompactRevision}
		if byPoint[p] == nil {
			byPoint[p], points = map[uint32][]string{}, append(points, p)
		}
		byPoint[p][v.Hash.Sum] = append(byPoint[p][v.Hash.Sum], cmp.Or(v.Host, v.PeerURL))
	}
	for _, p := range points {
		if sums := byPoint[p]; len(sums) > 1 {
			a.diverged(p.Revision, oddOnes(sums))
		}
	}
}

// oddOnes are all that are not in the majority.
func oddOnes(sums map[uint32][]string) []string {
	all, most := 0, 0
	for _, names := range sums {
		all, most = all+len(names), max(most, len(names))
	}
	var odd []string
	for _, names := range sums {
		if len(names) < most || most*2 <= all {
			odd = append(odd, names...)
		}
	}
	slices.Sort(odd)
	return odd
}

func (a *assessment) diverged(revision int64, odd []string) {
	a.split = append(a.split, fmt.Sprintf("data differ at revision %d: %s", revision, strings.Join(odd, ", ")))
	for i := range a.v.Members {
		if m := &a.v.Members[i]; slices.Contains(odd, cmp.Or(m.Host, m.PeerURL)) {
			m.State, m.Healthy, m.Why = MemberDiverged, false, fmt.Sprintf("its data differ at revision %d", revision)
		}
	}
	a.count()
}

// state puts the verdict into one word, the worst first.
func (a *assessment) state() {
	switch {
	case len(a.split) > 0:
		a.v.State, a.v.Reasons = Split, a.split
	case a.provenLost():
		a.v.State = NoQuorum
		a.v.Reasons = []string{cmp.Or(a.v.sick(), "no member answers")}
	case len(a.pending) > 0:
		a.v.State, a.v.Reasons = Unknown, a.pending
	default:
		if why := a.unproven(); why != "" {
			a.v.State, a.v.Reasons = Unknown, []string{why}
			return
		}
		a.v.State, a.v.Reasons = Pass, a.outOfPlace()
		if a.v.CanLose < 1 {
			a.v.Reasons = append([]string{cmp.Or(a.v.sick(), fmt.Sprintf("%d voters can lose none", a.v.Voters))}, a.v.Reasons...)
		}
		if a.o.Write != nil && a.o.Write.Err != "" { // with an alarm, else unproven said so
			a.v.Reasons = append(a.v.Reasons, "no write is accepted: "+a.o.Write.Err)
		}
		if len(a.v.Reasons) > 0 {
			a.v.State = Degraded
		}
	}
}

// outOfPlace are members and alarms that a healthy cluster does not have,
// however many votes it could lose.
func (a *assessment) outOfPlace() []string {
	var why []string
	for _, m := range a.v.Members {
		switch {
		case m.Role == NoRole:
		case m.Ghost:
			why = append(why, fmt.Sprintf("%s %s is a ghost %s (member %s)", m.PeerURL, m.Name, m.Role, m.ID))
		case m.Role == Learner:
			why = append(why, fmt.Sprintf("%s is a learner (member %s)", m.Name, m.ID))
		case m.Unnamed:
			why = append(why, fmt.Sprintf("%s was added and never started (member %s)", m.Name, m.ID))
		}
	}
	for _, al := range a.o.Alarms {
		why = append(why, fmt.Sprintf("%s alarm of %s", al.Kind, a.v.nameOf(al.Member)))
	}
	return why
}

// provenLost says that so many voters were seen without a working leader, or
// dead, that the rest cannot be a quorum. A voter that was merely not seen, or
// answered late, proves nothing; nor do timeouts alone: the silent ones may be
// a quorum beyond a cut. With them a member has to say that it has no leader.
func (a *assessment) provenLost() bool {
	lost, certain, leaderless := 0, 0, false
	for i, m := range a.v.Members {
		if m.Role != Voter || m.Healthy {
			continue
		}
		v := a.seen[i]
		switch m.State {
		case MemberAlarm, MemberFailing, MemberUnnamed:
			lost, certain = lost+1, certain+1
		case MemberIsolated:
			if v.Last.Leader == 0 || v.Last.Leader == a.v.LeaderID { // else it follows another one
				lost, certain = lost+1, certain+1
				leaderless = leaderless || v.Last.Leader == 0
			}
		case MemberDead:
			lost++
			if v.saw(Refused) {
				certain++
			}
		case MemberForeign:
			if v.Last == nil { // else it is a split
				lost, certain = lost+1, certain+1
			}
		case MemberHung:
			if m.DeadFor.Duration() >= hungIsLost {
				lost++
			}
		}
	}
	blocking := a.v.Voters - a.v.Quorum
	if a.v.Voters == 0 || lost <= blocking || certain <= blocking && !leaderless {
		return false
	}
	// One member that reads through quorum proves the opposite, whatever the
	// rest look like from here; only alarms make that worthless.
	return !a.v.Proven || a.alarmed() > blocking
}

// saw says that an attempt to reach the member ended so.
func (v *View) saw(o Outcome) bool {
	return slices.ContainsFunc(v.Attempts, func(t Attempt) bool { return t.Outcome == o })
}

func (a *assessment) alarmed() int {
	return len(a.v.only(func(m Member) bool { return m.Role == Voter && m.State == MemberAlarm }))
}

// unproven says what keeps quorum from being proven; "" when nothing does.
func (a *assessment) unproven() string {
	switch {
	case len(a.main) == 0:
		return "no member could be asked"
	case !a.v.Proven:
		return "the member list could not be read through quorum"
	case a.v.LeaderID == 0:
		return "no leader"
	case !a.isVoter(a.v.LeaderID):
		return fmt.Sprintf("the leader %s is no voter of the list", a.v.LeaderID)
	case !a.v.Holds():
		return fmt.Sprintf("only %d of %d voters were seen healthy: %s", a.v.Healthy, a.v.Voters, a.v.sick())
	case a.o.AlarmErr != "":
		return "the alarms are not known: " + a.o.AlarmErr
	case a.o.Hashed && a.unhashed() != "":
		return "data could not be compared: " + a.unhashed()
	case a.o.Write == nil && !a.o.ReadOnly:
		return "no write was tried"
	case a.o.Write != nil && a.o.Write.Err != "" && len(a.o.Alarms) == 0:
		return "the write probe: " + a.o.Write.Err
	}
	return ""
}

// unhashed says which healthy voter's data were not compared. Hashes taken at
// different compactions cannot be: a member compacts when it gets to it.
func (a *assessment) unhashed() string {
	compacted := map[int64]bool{}
	for _, v := range a.main {
		if v.Last.Learner {
			continue
		}
		if v.Hash == nil {
			return cmp.Or(v.Host, v.PeerURL) + ": " + orNotAsked(v.HashErr)
		}
		compacted[v.Hash.CompactRevision] = true
	}
	if len(compacted) > 1 {
		return "members are compacted to different revisions"
	}
	return ""
}

// stability measures over how long the samples agree, back from this one.
func (a *assessment) stability() {
	if a.v.LeaderID == 0 || len(a.pending) > 0 {
		return
	}
	for i := len(a.o.History) - 1; i >= 0; i-- {
		s := a.o.History[i]
		if s.Leader != a.v.LeaderID || s.Term != a.v.Term || a.o.At.Sub(s.At) > sampleLifetime {
			return
		}
		a.v.StableFor = units.Seconds(a.o.At.Sub(s.At))
	}
}

// warn adds what does not change the verdict but wants attention.
func (a *assessment) warn() {
	say := func(f string, args ...any) { a.v.Warnings = append(a.v.Warnings, fmt.Sprintf(f, args...)) }
	versions := map[string]bool{}
	for _, m := range a.v.Members {
		if m.Role == NoRole {
			continue
		}
		if m.Version != "" {
			versions[m.Version] = true
			if a.v.Version == "" || olderVersion(m.Version, a.v.Version) {
				a.v.Version = m.Version
			}
		}
		for _, c := range crossings(m) {
			a.v.Crossed = append(a.v.Crossed, c)
			say("%s", c.Text)
		}
		if m.Via != "" {
			say("%s: no answer in time over our own connection to the host; seen through %s", m.Name, m.Via)
		}
		if m.Ghost {
			say("member %s (%s, %s) is on no host of the inventory", m.ID, m.Name, m.PeerURL)
		}
	}
	for _, al := range a.o.Alarms {
		say("%s alarm of member %s (%s)%s", al.Kind, al.Member, a.v.nameOf(al.Member), AlarmRemedy(al.Kind))
	}
	if len(versions) > 1 {
		say("members run different versions: %s", strings.Join(sortedKeys(versions), ", "))
	}
	if w := a.o.Write; w != nil && w.Err == "" && w.Latency.Duration() > slowRead {
		c := writeCrossing(w)
		a.v.Crossed = append(a.v.Crossed, c)
		say("%s", c.Text)
	}
}

// AlarmRemedy is what to do about an alarm, to be put behind its name.
func AlarmRemedy(kind string) string {
	switch kind {
	case KindNoSpace:
		return ": run ha-install etcd alarms disarm, which makes room first"
	case KindCorrupt:
		return ": stop its etcd, and replace it"
	}
	return ""
}

func sortedKeys(m map[string]bool) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// olderVersion compares x.y.z numerically.
func olderVersion(a, b string) bool {
	var x, y [3]int
	fmt.Sscanf(a, "%d.%d.%d", &x[0], &x[1], &x[2])
	fmt.Sscanf(b, "%d.%d.%d", &y[0], &y[1], &y[2])
	return slices.Compare(x[:], y[:]) < 0
}
