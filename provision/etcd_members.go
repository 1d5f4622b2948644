package provision

import (
	"context"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/units"
)

// MembersSchema is the version of the JSON form of EtcdMembers. It is raised when a
// field changes its meaning or goes; new fields do not raise it.
const MembersSchema = 1

// EtcdMembers are etcd's members as they stand.
type EtcdMembers struct {
	Schema  int           `json:"schema"`
	Cluster string        `json:"cluster"`
	At      time.Time     `json:"at"`
	Took    units.Seconds `json:"tookSeconds"` // connecting included
	State   etcd.State    `json:"state"`
	Reasons []string      `json:"reasons,omitempty"` // why it is not PASS
	Leader  string        `json:"leader,omitempty"`  // its host
	Term    uint64        `json:"term"`
	Members []EtcdMember  `json:"members"`
	Alarms  []EtcdAlarm   `json:"alarms"`
	Quorum  etcd.Numbers  `json:"numbers"`
}

// EtcdMember is one member, or a host where one is missing (its role is "").
type EtcdMember struct {
	ID      etcd.MemberID    `json:"id"`
	Name    string           `json:"name"`           // of its host; etcd's name where no host fits
	Host    string           `json:"host,omitempty"` // in the inventory; empty for a ghost
	PeerURL string           `json:"peerURL"`
	Role    etcd.Role        `json:"role"`
	Leader  bool             `json:"leader"`
	State   etcd.MemberState `json:"state"`
	Healthy bool             `json:"healthy"`
	Version string           `json:"version,omitempty"`
	DBSize  int64            `json:"dbSize"`  // bytes; 0: it did not answer
	DBInUse int64            `json:"dbInUse"` // bytes of it that hold data; the rest is what a defragmentation gives back
	DBQuota int64            `json:"dbQuota"` // bytes; 0: not told
	// Behind is how many entries of the raft log are known to a member that
	// answers, and not applied by this one.
	Behind uint64   `json:"behind"`
	Alarms []string `json:"alarms,omitempty"`
	Why    string   `json:"why,omitempty"`
}

// EtcdAlarm is an alarm with its member.
type EtcdAlarm struct {
	Member etcd.MemberID `json:"member"`
	Host   string        `json:"host,omitempty"`
	Kind   string        `json:"kind"`   // NOSPACE, CORRUPT
	Remedy string        `json:"remedy"` // what to do
}

// LookAtMembers asks all masters, each over its own connection; neither the API nor
// quorum is needed. It changes nothing.
func LookAtMembers(ctx context.Context, s *Site) EtcdMembers {
	began := s.round()
	looking, enough := context.WithDeadline(ctx, began.Add(lookBudget))
	defer enough()
	all := membersOf(s.members.Judge(looking, etcd.Options{ReadOnly: true}))
	all.Cluster, all.At, all.Took = s.Cluster.Metadata.Name, began.UTC(), units.Seconds(time.Since(began).Round(time.Millisecond))
	return all
}

func membersOf(v etcd.Verdict) EtcdMembers {
	all := EtcdMembers{Schema: MembersSchema, State: v.State, Reasons: v.Reasons, Leader: v.LeaderName, Term: v.Term, Quorum: v.Numbers, Members: []EtcdMember{}, Alarms: []EtcdAlarm{}}
	var most uint64
	for _, m := range v.Members {
		most = max(most, m.RaftIndex)
	}
	for _, m := range v.Members {
		row := EtcdMember{ID: m.ID, Name: m.Name, Host: m.Host, PeerURL: m.PeerURL, Role: m.Role, Leader: m.Leader, State: m.State, Healthy: m.Healthy,
			Version: m.Version, DBSize: m.DBSize, DBInUse: m.DBInUse, DBQuota: m.DBQuota, Why: m.Why}
		if m.Version != "" { // it answers
			row.Behind = most - min(most, m.AppliedIndex)
		}
		for _, a := range v.Alarms {
			if a.Member == m.ID {
				row.Alarms = append(row.Alarms, a.Kind)
			}
		}
		all.Members = append(all.Members, row)
	}
	for _, a := range v.Alarms {
		m, _ := v.Find(a.Member, "")
		all.Alarms = append(all.Alarms, EtcdAlarm{Member: a.Member, Host: m.Host, Kind: a.Kind, Remedy: remedies[a.Kind]})
	}
	return all
}

// remedies are what to do about an alarm.
var remedies = map[string]string{
	etcd.KindNoSpace: "delete what is not needed, then ha-install etcd alarms disarm INVENTORY",
	etcd.KindCorrupt: "its data differ from the others': stop its etcd, and ha-install replace INVENTORY that host",
}
