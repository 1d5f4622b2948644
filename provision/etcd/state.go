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
// with another sum is divergence; the odd one out is named.
func (a *assessment) hashes() {
	type point struct{ rev, compact int64 }
	byPoint := map[point]map[uint32][]string{}
	for _, v := range a.main {
		if v.Hash == nil {
			continue
		}
		p := point{v.Hash.Revision, v.Hash.CompactRevision}
		if byPoint[p] == nil {
			byPoint[p] = map[uint32][]string{}
		}
		byPoint[p][v.Hash.Sum] = append(byPoint[p][v.Hash.Sum], cmp.Or(v.Host, v.PeerURL))
	}
	for p, sums := range byPoint {
		if len(sums) < 2 {
			continue
		}
		most := 0
		for _, names := range sums {
			most = max(most, len(names))
		}
		var odd []string
		for _, names := range sums {
			if len(names) < most || most*2 <= len(a.main) {
				odd = append(odd, names...)
			}
		}
		slices.Sort(odd)
		a.split = append(a.split, fmt.Sprintf("data differ at revision %d: %s", p.rev, strings.Join(odd, ", ")))
		for i := range a.v.Members {
			if m := &a.v.Members[i]; slices.Contains(odd, cmp.Or(m.Host, m.PeerURL)) {
				m.State, m.Healthy, m.Why = MemberDiverged, false, fmt.Sprintf("its data differ at revision %d", p.rev)
			}
		}
		a.count()
	}
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
		a.v.State = Pass
		if a.v.CanLose < 1 {
			a.v.State = Degraded
			a.v.Reasons = append(a.v.Reasons, cmp.Or(a.v.sick(), fmt.Sprintf("%d voters can lose none", a.v.Voters)))
		}
		if a.o.Write != nil && a.o.Write.Err != "" { // with an alarm, else unproven said so
			a.v.State = Degraded
			a.v.Reasons = append(a.v.Reasons, "no write is accepted: "+a.o.Write.Err)
		}
	}
}

// provenLost says that so many voters were seen without a working leader, or
// dead, that the rest cannot be a quorum. A voter that was merely not seen
// proves nothing.
func (a *assessment) provenLost() bool {
	lost := 0
	for _, m := range a.v.Members {
		if m.Role != Voter || m.Healthy {
			continue
		}
		switch m.State {
		case MemberDead, MemberIsolated, MemberAlarm, MemberFailing, MemberUnnamed, MemberHung:
			lost++
		}
	}
	if a.v.Voters == 0 || lost <= a.v.Voters-a.v.Quorum {
		return false
	}
	// One member that reads through quorum proves the opposite, whatever the
	// rest look like from here; only alarms make that worthless.
	return !a.v.Proven || a.alarmed() > a.v.Voters-a.v.Quorum
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
		if m.Latency.Duration() > slowRead {
			say("%s: a linearizable read took %s (warns above %s)", m.Name, shortDuration(m.Latency.Duration()), slowRead)
		}
		if m.FsyncP99.Duration() > slowFsync {
			say("%s: the disk is slow: 99 %% of etcd's fsyncs take up to %s (warns above %s)", m.Name, shortDuration(m.FsyncP99.Duration()), slowFsync)
		}
		if full := fullness(m); full >= quotaWarn {
			say("%s: the database fills %.0f %% of its quota (warns at %.0f %%, mutations are refused at %.0f %%): compact and defragment it", m.Name, full*100, quotaWarn*100, quotaRefuse*100)
		}
		if m.Via != "" {
			say("%s: no answer in time over our own connection to the host; seen through %s", m.Name, m.Via)
		}
		if m.Ghost {
			say("member %s (%s, %s) is on no host of the inventory", m.ID, m.Name, m.PeerURL)
		}
	}
	for _, al := range a.o.Alarms {
		say("%s alarm of member %s%s", al.Kind, al.Member, alarmRemedy(al.Kind))
	}
	if len(versions) > 1 {
		say("members run different versions: %s", strings.Join(sortedKeys(versions), ", "))
	}
	if a.o.Write != nil && a.o.Write.Err == "" && a.o.Write.Latency.Duration() > slowRead {
		say("the write probe took %s", shortDuration(a.o.Write.Latency.Duration()))
	}
}

func alarmRemedy(kind string) string {
	if kind == "NOSPACE" {
		return ": compact, defragment each member, then etcdctl alarm disarm"
	}
	return ""
}

// fullness is the database size over its quota; 0 where the quota is not told.
func fullness(m Member) float64 {
	if m.DBQuota <= 0 {
		return 0
	}
	return float64(m.DBSize) / float64(m.DBQuota)
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
