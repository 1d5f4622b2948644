package etcd

import (
	"fmt"
	"strings"
	"time"

	"github.com/ha-install/ha-install/provision/units"
)

// State is the verdict in one word.
type State string

const (
	// Pass: quorum, it survives the loss of a voter, and no member is out of
	// place (ghosts, learners, members that never started, alarms).
	Pass     State = "PASS"
	Degraded State = "DEGRADED"  // quorum, but can lose 0, or one of these
	NoQuorum State = "NO QUORUM" // proven to be without
	Split    State = "SPLIT"     // cluster IDs, lists, leaders or data disagree
	Unknown  State = "UNKNOWN"   // it could not be proven
)

// HasQuorum says whether quorum was proven.
func (s State) HasQuorum() bool { return s == Pass || s == Degraded }

// Role is what a member is in the cluster.
type Role string

const (
	Voter   Role = "voter"
	Learner Role = "learner"
	NoRole  Role = "" // not in the member list
)

// MemberState is what became of one member.
type MemberState string

const (
	MemberHealthy     MemberState = "healthy"
	MemberLearner     MemberState = "learner"     // caught up; no vote yet
	MemberLagging     MemberState = "lagging"     // has not applied what the leader had
	MemberIsolated    MemberState = "isolated"    // answers, but without the majority's leader
	MemberDiverged    MemberState = "diverged"    // its list or its data differ
	MemberAlarm       MemberState = "alarm"       // an alarm bears its ID
	MemberFailing     MemberState = "failing"     // answers, but a read of its own fails
	MemberLate        MemberState = "late"        // answers, but not every question in time; that proves nothing
	MemberUnverified  MemberState = "unverified"  // its port is open, but TLS or the request failed
	MemberHung        MemberState = "hung"        // its port is open, no answer comes
	MemberDead        MemberState = "dead"        // from every vantage point
	MemberUnreachable MemberState = "unreachable" // by us; no other vantage point to confirm it
	MemberUnnamed     MemberState = "unnamed"     // added, never started
	MemberForeign     MemberState = "foreign"     // of another cluster, or another member than the list says
	MemberAbsent      MemberState = "absent"      // the inventory has the host, the list has no member there
)

// Member is one row of the verdict.
type Member struct {
	ID      MemberID    `json:"id"`
	Name    string      `json:"name"`           // of its host; etcd's name where no host fits
	Host    string      `json:"host,omitempty"` // in the inventory; empty for a ghost
	PeerURL string      `json:"peerURL"`
	Role    Role        `json:"role"`
	Leader  bool        `json:"leader,omitempty"`
	Ghost   bool        `json:"ghost,omitempty"` // listed, but no inventory host has its peer URL
	Unnamed bool        `json:"unnamed,omitempty"`
	State   MemberState `json:"state"`
	Healthy bool        `json:"healthy"` // counted in Healthy (voters), or caught up (learners)
	// HostDown says that our own connection to the host failed too.
	HostDown     bool          `json:"hostDown,omitempty"`
	Via          string        `json:"via,omitempty"`
	DeadFor      units.Seconds `json:"deadForSeconds,omitempty"`
	RaftIndex    uint64        `json:"raftIndex,omitempty"`
	AppliedIndex uint64        `json:"appliedIndex,omitempty"`
	DBSize       int64         `json:"dbSize,omitempty"`
	DBInUse      int64         `json:"dbInUse,omitempty"`
	DBQuota      int64         `json:"dbQuota,omitempty"`
	Version      string        `json:"version,omitempty"`
	Latency      units.Seconds `json:"latencySeconds,omitempty"` // of the linearizable read
	FsyncP99     units.Seconds `json:"fsyncP99Seconds,omitempty"`
	Why          string        `json:"why,omitempty"`
	// Inputs are the facts that the row was judged by; nil when nobody looked.
	Inputs *View `json:"inputs,omitempty"`
}

// Numbers are the arithmetic of quorum. The denominator is all voters.
type Numbers struct {
	Voters   int `json:"voters"`
	Quorum   int `json:"quorum"`
	Healthy  int `json:"healthy"`
	CanLose  int `json:"canLose"` // below 0 without quorum
	Learners int `json:"learners"`
	Unnamed  int `json:"unnamed"`
}

func numbers(voters, healthy, learners, unnamed int) Numbers {
	q := voters/2 + 1
	return Numbers{Voters: voters, Quorum: q, Healthy: healthy, CanLose: healthy - q, Learners: learners, Unnamed: unnamed}
}

// Holds says that the healthy voters are a quorum of all voters.
func (n Numbers) Holds() bool { return n.Voters > 0 && n.Healthy >= n.Quorum }

// String is the arithmetic as the user reads it.
func (n Numbers) String() string {
	s := fmt.Sprintf("voters %d  quorum %d  healthy %d  can lose %d", n.Voters, n.Quorum, n.Healthy, max(n.CanLose, 0))
	if n.Learners > 0 {
		s += fmt.Sprintf("  learners %d", n.Learners)
	}
	if n.Unnamed > 0 {
		s += fmt.Sprintf("  unnamed %d", n.Unnamed)
	}
	return s
}

// Verdict is the judgement of one observation.
type Verdict struct {
	Title      string    `json:"title,omitempty"` // what is being done; set by the caller
	At         time.Time `json:"at"`
	State      State     `json:"state"`
	Reasons    []string  `json:"reasons,omitempty"` // why it is not PASS
	ClusterID  MemberID  `json:"clusterID"`
	LeaderID   MemberID  `json:"leaderID"`
	LeaderName string    `json:"leader,omitempty"`
	Term       uint64    `json:"term"`
	Version    string    `json:"version,omitempty"` // the lowest among the members
	Numbers    `json:"numbers"`
	// Proven says that the member list was read through quorum.
	Proven   bool     `json:"proven"`
	Members  []Member `json:"members"`
	Alarms   []Alarm  `json:"alarms,omitempty"`
	Write    *Write   `json:"write,omitempty"` // nil: none was tried
	Warnings []string `json:"warnings,omitempty"`
	// Crossed are the thresholds that were crossed.
	Crossed []Crossing `json:"thresholds,omitempty"`
	// StableFor is how long leader and term have been the same over
	// consecutive samples, this one included.
	StableFor units.Seconds `json:"stableForSeconds"`
	// Disagrees are keys of disagreements that one more sample must confirm
	// or clear; see Sample.
	Disagrees []string `json:"disagrees,omitempty"`
}

// mayBeChanging says that another look could show something else soon: members
// disagree, or those that answer could elect a leader among themselves.
func (v Verdict) mayBeChanging() bool {
	answering := v.only(func(m Member) bool { return m.Role == Voter && m.Version != "" })
	switch v.State {
	case Pass, Split:
		return false
	case Degraded:
		return len(v.Disagrees) > 0
	case NoQuorum:
		return len(answering) >= v.Quorum
	default:
		return true
	}
}

// Sample is what later observations need to know of this one.
func (v Verdict) Sample() Sample {
	return Sample{At: v.At, Leader: v.LeaderID, Term: v.Term, Disagrees: v.Disagrees}
}

// Find returns the row with the given ID, or else with the given peer URL.
func (v Verdict) Find(id MemberID, peerURL string) (Member, bool) {
	for _, m := range v.Members {
		if id != 0 && m.ID == id || id == 0 && peerURL != "" && sameURL(m.PeerURL, peerURL) {
			return m, true
		}
	}
	return Member{}, false
}

// nameOf is the name of the member's host, or its ID where it has no row.
func (v Verdict) nameOf(id MemberID) string {
	if m, ok := v.Find(id, ""); ok {
		return m.Name
	}
	return id.String()
}

// sick names the voters that are not healthy, with their states.
func (v Verdict) sick() string {
	var s []string
	for _, m := range v.Members {
		if m.Role == Voter && !m.Healthy {
			s = append(s, m.Name+" "+string(m.State))
		}
	}
	return strings.Join(s, ", ")
}

// only returns the rows for which keep says yes.
func (v Verdict) only(keep func(Member) bool) []Member {
	var out []Member
	for _, m := range v.Members {
		if keep(m) {
			out = append(out, m)
		}
	}
	return out
}
