package etcd

import (
	"fmt"
	"strings"
	"time"
)

// judge decides one listed member's state. The order matters: the first thing
// that is wrong is the one that explains the others.
func (a *assessment) judge(m Member, l Listed, v *View) (MemberState, string) {
	if v == nil {
		return MemberUnreachable, "nothing was asked at " + m.PeerURL
	}
	if why := a.ofBefore(v); why != "" {
		return MemberForeign, why
	}
	if v.Last == nil {
		state, why := a.unanswered(v, m.DeadFor.Duration())
		if m.Unnamed && m.ID != 0 {
			return MemberUnnamed, "added, but it never started; " + why
		}
		return state, why
	}
	s := v.Last
	if s.ClusterID != a.v.ClusterID {
		a.split = append(a.split, fmt.Sprintf("%s serves cluster %s, the cluster is %s", m.Name, s.ClusterID, a.v.ClusterID))
		return MemberForeign, fmt.Sprintf("serves another cluster, %s", s.ClusterID)
	}
	if s.MemberID != l.ID && l.ID != 0 {
		why := fmt.Sprintf("answers as member %s, the list says %s", s.MemberID, l.ID)
		a.disagree("id:"+m.Name, m.Name+" "+why)
		return MemberForeign, why
	}
	if state, why := a.judgeData(m, s.MemberID); why != "" {
		return state, why
	}
	if s.Leader == 0 {
		return MemberIsolated, fmt.Sprintf("no leader at term %d", s.Term)
	}
	if s.Leader != a.v.LeaderID || s.Term != a.v.Term {
		why := fmt.Sprintf("follows leader %s at term %d, the majority %s at term %d", s.Leader, s.Term, a.v.LeaderID, a.v.Term)
		if !l.Learner {
			a.disagree("leader:"+m.Name, m.Name+" "+why)
		}
		return MemberIsolated, why
	}
	if l.Learner {
		return a.judgeLearner(v)
	}
	return a.judgeVoter(m, v)
}

// ofBefore explains an etcd that serves nobody since its data are another cluster's: it
// has no quorum there, and cannot join this one. "" is none of that.
func (a *assessment) ofBefore(v *View) string {
	if v.Last != nil || v.PeerCluster == 0 || a.v.ClusterID == 0 || v.PeerCluster == a.v.ClusterID {
		return ""
	}
	return fmt.Sprintf("its data are of another cluster, %s, which has no quorum: it serves nobody, and cannot join; so it is with data of before a restore", v.PeerCluster)
}

// judgeData reports an alarm that bears the member's ID.
func (a *assessment) judgeData(m Member, id MemberID) (MemberState, string) {
	for _, al := range a.o.Alarms {
		if al.Member != id {
			continue
		}
		if al.Kind == KindCorrupt {
			a.split = append(a.split, fmt.Sprintf("%s (%s) has diverged: CORRUPT alarm", m.Name, id))
			return MemberDiverged, "CORRUPT alarm: its data differ from the other members'"
		}
		return MemberAlarm, al.Kind + " alarm"
	}
	return "", ""
}

func (a *assessment) judgeVoter(m Member, v *View) (MemberState, string) {
	if !a.isVoter(v.Last.Leader) {
		return MemberIsolated, fmt.Sprintf("its leader %s is no voter of the list", v.Last.Leader)
	}
	if v.Local == nil {
		return lateOr(MemberFailing, v.LocalErr == lateText), "its member list: " + orNotAsked(v.LocalErr)
	}
	if !v.Serializable.OK() {
		return lateOr(MemberFailing, v.Serializable.Late), "local read: " + orNotAsked(v.Serializable.Err)
	}
	if !v.Linearizable.OK() {
		return lateOr(MemberIsolated, v.Linearizable.Late), "linearizable read: " + orNotAsked(v.Linearizable.Err)
	}
	for _, l := range [][]Listed{v.Local, v.Agreed} {
		if l != nil && listKey(l) != listKey(a.list) {
			why := fmt.Sprintf("its member list differs: %s", describeList(l))
			a.disagree("list:"+m.Name, m.Name+": "+why)
			return MemberDiverged, why
		}
	}
	if v.Last.AppliedIndex < a.atStart {
		return MemberLagging, fmt.Sprintf("has applied %d, the leader had %d", v.Last.AppliedIndex, a.atStart)
	}
	return MemberHealthy, ""
}

// lateOr tells an answer that did not come in time, which proves nothing, from
// one that says what is wrong.
func lateOr(state MemberState, late bool) MemberState {
	if late {
		return MemberLate
	}
	return state
}

// judgeLearner can ask less: etcd serves a learner's clients nothing but
// Status and serializable reads.
func (a *assessment) judgeLearner(v *View) (MemberState, string) {
	if !v.Serializable.OK() {
		return lateOr(MemberFailing, v.Serializable.Late), "local read: " + orNotAsked(v.Serializable.Err)
	}
	if v.Last.AppliedIndex < a.atStart {
		return MemberLagging, fmt.Sprintf("has applied %d, the leader had %d", v.Last.AppliedIndex, a.atStart)
	}
	if a.atStart == 0 {
		return MemberLagging, "the leader's progress was not seen"
	}
	return MemberLearner, "caught up"
}

func (a *assessment) isVoter(id MemberID) bool {
	for _, l := range a.list {
		if l.ID == id && !l.Learner {
			return true
		}
	}
	return false
}

// unanswered tells a dead member from one that only we cannot reach. Dead
// needs a witness: its own host saying that nothing listens there, or another
// working host that cannot connect to it either.
func (a *assessment) unanswered(v *View, deadFor time.Duration) (MemberState, string) {
	var own string
	witnesses := map[Outcome][]string{}
	var hung, rejected []string
	for _, t := range v.Attempts {
		isOwn := t.Via == v.Host && v.Host != ""
		switch {
		case t.Outcome == VantageDown, t.Outcome == NoCertificate, isOwn && t.Outcome == TimedOut:
			if isOwn {
				own = ownText(t)
			}
		case t.Outcome == TimedOut && !a.works(t.Via): // its own SSH may be what timed out
		case t.Outcome == Hung:
			hung = append(hung, t.Via)
		case t.Outcome == Rejected:
			rejected = append(rejected, t.Via+": "+t.Err)
		default:
			witnesses[t.Outcome] = append(witnesses[t.Outcome], t.Via)
		}
	}
	var why []string
	if own != "" {
		why = append(why, own)
	}
	lasting := ""
	if deadFor >= time.Second {
		lasting = " for " + shortDuration(deadFor)
	}
	switch {
	case len(rejected) > 0:
		return MemberUnverified, strings.Join(append(why, "asked from "+strings.Join(rejected, "; ")), "; ")
	case len(hung) > 0:
		return MemberHung, strings.Join(append(why, fmt.Sprintf("port open, no answer seen from %s%s", strings.Join(hung, ", "), lasting)), "; ")
	case len(witnesses) > 0:
		for _, o := range []Outcome{Refused, TimedOut} {
			if len(witnesses[o]) > 0 {
				why = append(why, fmt.Sprintf("2379 %s from %s%s", o, strings.Join(witnesses[o], ", "), lasting))
			}
		}
		return MemberDead, strings.Join(why, "; ")
	default:
		return MemberUnreachable, strings.Join(append(why, "no other host to look from"), "; ")
	}
}

// works says that a host proved to be a working vantage point: its own member,
// or its own SSH server, answered over its own connection.
func (a *assessment) works(host string) bool {
	for _, v := range a.o.Views {
		if v.Host != host {
			continue
		}
		if v.First != nil && v.Via == "" {
			return true
		}
		for _, t := range v.Attempts {
			if t.Via == host && t.Outcome != VantageDown && t.Outcome != TimedOut {
				return true
			}
		}
	}
	return false
}

// ownHostDown says that our own connection to the member's host failed.
func ownHostDown(v *View) bool {
	for _, t := range v.Attempts {
		if t.Via == v.Host && v.Host != "" && (t.Outcome == VantageDown || t.Outcome == TimedOut) {
			return true
		}
	}
	return false
}

// ownText says what failed on the member's own host.
func ownText(t Attempt) string {
	switch t.Outcome {
	case VantageDown, TimedOut:
		return "ssh: " + t.Err
	case NoCertificate:
		return t.Err
	default:
		return fmt.Sprintf("%s on its own host", t.Outcome)
	}
}

func ownFailure(v *View) string {
	for _, t := range v.Attempts {
		if t.Via == v.Host {
			return ownText(t)
		}
	}
	return "not asked on its own host"
}

func describeList(l []Listed) string {
	s := make([]string, len(l))
	for i, m := range l {
		s[i] = m.ID.String()
		if m.Learner {
			s[i] += " (learner)"
		}
	}
	return strings.Join(s, ", ")
}

func orNotAsked(s string) string {
	if s == "" {
		return "not asked"
	}
	return s
}

// shortDuration drops what a reader does not need: 3m10s, 4ms.
func shortDuration[D ~int64](short D) string {
	switch d := time.Duration(short); {
	case d >= time.Second:
		return d.Round(time.Second).String()
	case d >= time.Millisecond:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(100 * time.Microsecond).String()
	}
}
