package etcd

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/provision/units"
)

// Assess judges an observation. It has no I/O: the same facts always give the
// same verdict. A vote that was not seen is a vote lost.
func Assess(o Observation) Verdict {
	a := newAssessment(o)
	a.members()
	a.count()
	a.hashes()
	a.state()
	a.stability()
	a.warn()
	if o.Inputs {
		for i := range a.v.Members {
			a.v.Members[i].Inputs = a.seen[i]
		}
	}
	return a.v
}

// assessment is the work space of Assess.
type assessment struct {
	o Observation
	v Verdict

	main    []*View // views of the cluster, as opposed to foreign ones
	list    []Listed
	claimed []*View // views already tied to a listed member
	seen    []*View // by row of the verdict; nil where nobody looked
	atStart uint64  // what the leader had applied, at least, when the observation began

	split   []string // definite: SPLIT
	pending []string // SPLIT when an earlier sample saw the same, UNKNOWN until then
}

func newAssessment(o Observation) *assessment {
	a := &assessment{o: o, v: Verdict{At: o.At, Alarms: o.Alarms, Write: o.Write}}
	a.chooseCluster()
	a.chooseLeader()
	a.chooseList()
	return a
}

// chooseCluster decides which cluster ID is the cluster's: the one that can
// read through quorum, then the one with more members answering.
func (a *assessment) chooseCluster() {
	groups := map[MemberID][]*View{}
	var ids []MemberID // in the inventory's order, which decides a tie
	for i := range a.o.Views {
		if v := &a.o.Views[i]; v.Last != nil {
			if groups[v.Last.ClusterID] == nil {
				ids = append(ids, v.Last.ClusterID)
			}
			groups[v.Last.ClusterID] = append(groups[v.Last.ClusterID], v)
		}
	}
	quorate := func(id MemberID) int {
		n := 0
		for _, v := range groups[id] {
			if v.Linearizable.OK() {
				n++
			}
		}
		return n
	}
	slices.SortStableFunc(ids, func(x, y MemberID) int {
		return cmp.Or(cmp.Compare(quorate(y), quorate(x)), cmp.Compare(len(groups[y]), len(groups[x])))
	})
	if len(ids) > 0 {
		a.v.ClusterID, a.main = ids[0], groups[ids[0]]
	}
}

// chooseLeader takes the leader and term that most members report.
func (a *assessment) chooseLeader() {
	type reign struct {
		leader MemberID
		term   uint64
	}
	votes := map[reign]int{}
	for _, v := range a.main {
		if v.Last.Leader != 0 && !v.Last.Learner {
			votes[reign{v.Last.Leader, v.Last.Term}]++
		}
	}
	var best reign
	for r, n := range votes {
		if n > votes[best] || n == votes[best] && (r.term > best.term || r.term == best.term && r.leader > best.leader) {
			best = r
		}
	}
	a.v.LeaderID, a.v.Term = best.leader, best.term
	if best.leader == 0 {
		return
	}
	for _, v := range a.main {
		switch {
		case v.First == nil || v.Last.Leader != best.leader:
		case v.First.MemberID == best.leader:
			a.atStart = v.First.AppliedIndex
			return
		default: // a leader that was not seen had at least what its followers had
			a.atStart = max(a.atStart, v.First.AppliedIndex)
		}
	}
}

// chooseList takes the member list that was read through quorum from a member
// which follows the majority's leader; failing that, the most advanced local
// one, which proves nothing; failing that, the inventory.
func (a *assessment) chooseList() {
	var local *View
	for _, v := range a.main {
		if v.Last.Leader != a.v.LeaderID || a.v.LeaderID == 0 {
			continue
		}
		if v.Agreed != nil && (a.list == nil || v.Last.MemberID == a.v.LeaderID) {
			a.list, a.v.Proven = v.Agreed, true
		}
	}
	if a.v.Proven {
		return
	}
	for _, v := range a.main {
		if v.Local != nil && (local == nil || v.Last.Term > local.Last.Term ||
			v.Last.Term == local.Last.Term && v.Last.AppliedIndex > local.Last.AppliedIndex) {
			local = v
		}
	}
	if local != nil {
		a.list = local.Local
		return
	}
	for _, h := range a.o.Hosts {
		a.list = append(a.list, Listed{Name: h.Name, PeerURLs: []string{h.PeerURL}})
	}
}

// members makes the rows: first the listed ones in the inventory's order,
// then ghosts, then hosts that are no members.
func (a *assessment) members() {
	order := func(m Listed) int {
		i := slices.IndexFunc(a.o.Hosts, func(h Host) bool { return hasURL(m.PeerURLs, h.PeerURL) })
		if i < 0 {
			return len(a.o.Hosts)
		}
		return i
	}
	list := slices.Clone(a.list)
	slices.SortStableFunc(list, func(x, y Listed) int { return cmp.Compare(order(x), order(y)) })
	views := make([]*View, len(list))
	for i, m := range list { // all ties first: a stray view must not be taken twice
		views[i] = a.viewOf(m)
	}
	for i, m := range list {
		a.v.Members, a.seen = append(a.v.Members, a.row(m, views[i])), append(a.seen, views[i])
	}
	for i := range a.o.Views {
		if v := &a.o.Views[i]; !slices.Contains(a.claimed, v) {
			a.v.Members, a.seen = append(a.v.Members, a.stray(v)), append(a.seen, v)
		}
	}
	for _, m := range a.v.Members {
		if m.Leader {
			a.v.LeaderName = m.Name
		}
	}
}

// viewOf ties a listed member to what we saw: the view asked at its peer URL,
// else the one that answered under its ID.
func (a *assessment) viewOf(m Listed) *View {
	for i := range a.o.Views {
		if v := &a.o.Views[i]; !slices.Contains(a.claimed, v) && hasURL(m.PeerURLs, v.PeerURL) {
			a.claimed = append(a.claimed, v)
			return v
		}
	}
	for i := range a.o.Views {
		v := &a.o.Views[i]
		if v.Last != nil && v.Last.MemberID == m.ID && m.ID != 0 && v.Last.ClusterID == a.v.ClusterID && !slices.Contains(a.claimed, v) {
			a.claimed = append(a.claimed, v)
			return v
		}
	}
	return nil
}

// row judges one listed member.
func (a *assessment) row(l Listed, v *View) Member {
	m := Member{ID: l.ID, Role: Voter, Ghost: true, Unnamed: l.Name == "", Leader: l.ID != 0 && l.ID == a.v.LeaderID}
	if l.Learner {
		m.Role = Learner
	}
	if len(l.PeerURLs) > 0 {
		m.PeerURL = l.PeerURLs[0]
	}
	for _, h := range a.o.Hosts {
		if hasURL(l.PeerURLs, h.PeerURL) {
			m.Ghost, m.Host, m.Name = false, h.Name, h.Name
		}
	}
	if m.Ghost {
		m.Name = cmp.Or(l.Name, "(unnamed)")
	}
	a.fill(&m, v)
	m.State, m.Why = a.judge(m, l, v)
	m.Healthy = m.State == MemberHealthy || m.State == MemberLearner
	if m.Healthy && v.Via != "" {
		m.Why = fmt.Sprintf("%s; answers through %s", ownFailure(v), v.Via)
	}
	if m.Ghost {
		m.Why = strings.TrimSuffix(fmt.Sprintf("ghost: member %s at %s is on no host of the inventory; %s", m.ID, m.PeerURL, m.Why), "; ")
	}
	return m
}

// fill copies the figures of a view into a row.
func (a *assessment) fill(m *Member, v *View) {
	if v == nil {
		return
	}
	m.Via = v.Via
	m.HostDown = ownHostDown(v)
	if !v.DownSince.IsZero() {
		m.DeadFor = units.Seconds(a.o.At.Sub(v.DownSince))
	}
	if v.Last == nil {
		return
	}
	m.RaftIndex, m.AppliedIndex = v.Last.RaftIndex, v.Last.AppliedIndex
	m.DBSize, m.DBInUse, m.DBQuota = v.Last.DBSize, v.Last.DBInUse, v.Last.DBQuota
	m.Version, m.FsyncP99 = v.Last.Version, v.FsyncP99
	if v.Linearizable.OK() {
		m.Latency = v.Linearizable.Latency
	}
}

// stray is a host of the inventory, or an address, that no listed member has.
func (a *assessment) stray(v *View) Member {
	m := Member{Name: cmp.Or(v.Host, v.PeerURL), Host: v.Host, PeerURL: v.PeerURL, Role: NoRole}
	a.fill(&m, v)
	m.DeadFor = 0
	if why := a.ofBefore(v); why != "" {
		m.State, m.Why = MemberForeign, why
		return m
	}
	if v.Last == nil {
		m.State, m.Why = MemberAbsent, "not in the member list"
		return m
	}
	m.ID = v.Last.MemberID
	m.State = MemberForeign
	if v.Last.ClusterID != a.v.ClusterID {
		m.Why = fmt.Sprintf("serves another cluster, %s", v.Last.ClusterID)
		a.split = append(a.split, fmt.Sprintf("%s serves cluster %s, the cluster is %s", m.Name, v.Last.ClusterID, a.v.ClusterID))
		return m
	}
	m.Why = fmt.Sprintf("answers as member %s, which is not in the list", m.ID)
	a.disagree("stray:"+m.Name+":"+m.ID.String(), m.Name+" "+m.Why)
	return m
}

// disagree notes what is SPLIT if it lasts: right after a change, or while
// the leader moves, members may differ for a moment.
func (a *assessment) disagree(key, text string) {
	a.v.Disagrees = append(a.v.Disagrees, key)
	for _, s := range a.o.History {
		if age := a.o.At.Sub(s.At); age >= ElectionTimeout && age <= sampleLifetime && slices.Contains(s.Disagrees, key) {
			a.split = append(a.split, text)
			return
		}
	}
	a.pending = append(a.pending, text)
}
