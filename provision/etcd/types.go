package etcd

import (
	"fmt"
	"strconv"
	"time"

	"github.com/ha-install/ha-install/provision/units"
)

// MemberID is an etcd member or cluster ID. Its text is the hexadecimal
// spelling that etcdctl prints and accepts.
type MemberID uint64

// String spells the ID as etcdctl does.
func (id MemberID) String() string { return strconv.FormatUint(uint64(id), 16) }

// Short is the first eight digits, for tables only; commands need String.
func (id MemberID) Short() string {
	if id == 0 {
		return "-"
	}
	return fmt.Sprintf("%016x", uint64(id))[:8]
}

// MarshalText implements encoding.TextMarshaler.
func (id MemberID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *MemberID) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 16, 64)
	if err != nil {
		return fmt.Errorf("member ID %q: want hexadecimal digits", b)
	}
	*id = MemberID(v)
	return nil
}

// Host is a control plane host that the inventory expects. The peer URL, not
// the name, is what ties it to a member.
type Host struct {
	Name    string `json:"name"`
	PeerURL string `json:"peerURL"`
}

// Listed is one entry of a member list.
type Listed struct {
	ID         MemberID `json:"id"`
	Name       string   `json:"name,omitempty"` // empty until the member has started once
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs,omitempty"`
	Learner    bool     `json:"learner,omitempty"`
}

// Status is what a member says of itself.
type Status struct {
	ClusterID    MemberID `json:"clusterID"`
	MemberID     MemberID `json:"memberID"`
	Leader       MemberID `json:"leader"` // 0: it knows none
	Term         uint64   `json:"term"`
	RaftIndex    uint64   `json:"raftIndex"` // committed
	AppliedIndex uint64   `json:"appliedIndex"`
	Revision     int64    `json:"revision"`
	DBSize       int64    `json:"dbSize"`
	DBInUse      int64    `json:"dbInUse"`
	DBQuota      int64    `json:"dbQuota"` // 0: not told (etcd before 3.6)
	Version      string   `json:"version"`
	Learner      bool     `json:"learner,omitempty"`
	Errors       []string `json:"errors,omitempty"`
}

// Outcome is how one attempt to reach a member ended.
type Outcome string

const (
	Answered    Outcome = "answered"
	Refused     Outcome = "refused"      // the vantage point works; nothing listens there
	TimedOut    Outcome = "timed out"    // no connection within DialTimeout
	Hung        Outcome = "hung"         // connected, but no answer came
	Rejected    Outcome = "rejected"     // connected, but TLS or the request failed
	VantageDown Outcome = "vantage down" // the host we wanted to look from does not work
	// NoCertificate: the host works but has no client certificate to look with.
	NoCertificate Outcome = "no client certificate"
)

// Attempt is one try to reach a member.
type Attempt struct {
	Via     string  `json:"via"` // the host that we looked from
	Outcome Outcome `json:"outcome"`
	Err     string  `json:"err,omitempty"`
}

// Read is the result of one read.
type Read struct {
	Latency units.Seconds `json:"latencySeconds"`
	Err     string        `json:"err,omitempty"`  // empty: it worked
	Late    bool          `json:"late,omitempty"` // no answer in time, which proves nothing
	Done    bool          `json:"done"`           // false: not asked
}

// OK says that the read was made and worked.
func (r Read) OK() bool { return r.Done && r.Err == "" }

// Hash is a member's HashKV at a revision.
type Hash struct {
	Revision        int64  `json:"revision"`
	CompactRevision int64  `json:"compactRevision"`
	Sum             uint32 `json:"sum"`
}

// View is what one member, or one host where a member is expected, showed.
type View struct {
	Host    string `json:"host,omitempty"` // in the inventory; empty for a member that it does not have
	PeerURL string `json:"peerURL"`
	// Via is the host through which the member answered, when not its own.
	Via      string    `json:"via,omitempty"`
	Attempts []Attempt `json:"attempts,omitempty"`
	// PeerCluster is the cluster that an etcd which answered no client told its peers
	// to be of; 0: not known.
	PeerCluster MemberID `json:"peerCluster,omitempty"`
	// First and Last are its status at the start and at the end of the
	// observation; both nil when it did not answer.
	First *Status `json:"first,omitempty"`
	Last  *Status `json:"last,omitempty"`

	Local        []Listed `json:"local,omitempty"` // its own member list
	LocalErr     string   `json:"localErr,omitempty"`
	Agreed       []Listed `json:"agreed,omitempty"` // the linearizable member list, asked of this member
	AgreedErr    string   `json:"agreedErr,omitempty"`
	Serializable Read     `json:"serializable"`
	Linearizable Read     `json:"linearizable"`
	Hash         *Hash    `json:"hash,omitempty"`
	HashErr      string   `json:"hashErr,omitempty"`
	// FsyncP99 is of its write-ahead log since it started; 0: not known.
	FsyncP99 units.Seconds `json:"fsyncP99Seconds,omitempty"`

	// DownSince is the first look since which no vantage point got an answer.
	DownSince time.Time `json:"downSince,omitzero"`
}

// The kinds of alarms.
const (
	KindNoSpace = "NOSPACE" // the database has reached its quota
	KindCorrupt = "CORRUPT" // the member's data differ from the others'
)

// Alarm is one entry of AlarmList.
type Alarm struct {
	Member MemberID `json:"member"`
	Kind   string   `json:"kind"` // KindNoSpace, KindCorrupt
}

// Write is the result of the leased write.
type Write struct {
	Latency units.Seconds `json:"latencySeconds"`
	Err     string        `json:"err,omitempty"`
}

// Sample is what the stability of a cluster is judged by.
type Sample struct {
	At        time.Time `json:"at"`
	Leader    MemberID  `json:"leader"`
	Term      uint64    `json:"term"`
	Disagrees []string  `json:"disagrees,omitempty"` // keys of disagreements seen
}

// Observation is everything that Assess needs: facts without judgement.
type Observation struct {
	At     time.Time `json:"at"` // of its end
	Hosts  []Host    `json:"hosts"`
	Views  []View    `json:"views"`
	Alarms []Alarm   `json:"alarms,omitempty"`
	// AlarmErr says why the alarms are not known.
	AlarmErr string `json:"alarmErr,omitempty"`
	// Write is nil when no write was tried.
	Write *Write `json:"write,omitempty"`
	// ReadOnly observations make no write and are not judged by one.
	ReadOnly bool `json:"readOnly,omitempty"`
	// Inputs asks for the facts beside each row of the verdict.
	Inputs bool `json:"-"`
	// Hashed observations also compare HashKV; every healthy voter must have one.
	Hashed  bool     `json:"hashed,omitempty"`
	History []Sample `json:"history,omitempty"` // earlier samples, oldest first
}
