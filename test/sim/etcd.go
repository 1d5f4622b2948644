package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// etcdManifest is where a host's etcd has its static pod.
const etcdManifest = "/etc/kubernetes/manifests/etcd.yaml"

// member is an entry of etcd's member list.
type member struct {
	id      uint64
	name    string // empty until it has started once
	peerURL string
	learner bool
}

// etcdState is what all members agree on.
type etcdState struct {
	members  []*member
	next     uint64
	revision int64
	term     uint64
	lead     uint64    // the leader, while it runs
	electAt  time.Time // when those who lost their leader have another one
	leases   int       // that were ever granted
	token    string    // of the restore that made it; "" for none
	bump     string    // by how much it was to raise revisions, which are not raised here

	compacted int64 // up to this revision
	space     space
}

// Leases counts the leases that etcd has ever granted: one for each write that
// proves that it takes any.
func (w *World) Leases() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.etcd.leases
}

func (e etcdState) clone() etcdState {
	members := make([]*member, len(e.members))
	for i, m := range e.members {
		now := *m
		members[i] = &now
	}
	e.members, e.space = members, e.space.clone()
	return e
}

func (e etcdState) votes() []string {
	var votes []string
	for _, m := range e.members {
		role := "voter"
		if m.learner {
			role = "learner"
		}
		votes = append(votes, m.name+" "+role)
	}
	return votes
}

// cluster is its ID.
func (e etcdState) cluster() uint64 {
	if e.token != "" {
		return idOf(e.token, "")
	}
	return 0x14bfbf98aabbccdd
}

func (h *Host) peerURL() string { return "https://" + h.address + ":2380" }

// startEtcd is what the kubelet does with the manifest: etcd starts from its
// data, or as the member that is listed for it, or makes a cluster of one.
func (h *Host) startEtcd() {
	manifest, ok := h.Files[etcdManifest]
	if !ok {
		return
	}
	if h.etcdHas == "" { // one that runs goes on with the data that it has open
		h.etcdHas = h.data()
	}
	if h.Mute {
		return
	}
	defer func() { h.etcdRuns = string(manifest.Content) }()
	h.adopt()
	if len(h.under(memberDir)) > 0 {
		if h.etcdRuns != "" && h.etcdRuns != string(manifest.Content) { // it ends in good order, and starts again
			h.etcdBack = time.Now().Add(h.w.after(etcdRestart))
		}
		return
	}
	e := &h.w.etcd
	existing := strings.Contains(string(manifest.Content), "--initial-cluster-state=existing")
	if !existing && !h.w.anyData() && len(e.members) > 0 { // all of it was reset
		*e = etcdState{next: e.next, term: e.term}
		h.w.API.Clear()
	}
	listed := h.listed()
	switch {
	case listed != nil && fmt.Sprint(listed.id) == h.lostData:
		return // it ends again and again
	case listed != nil && listed.name != "" && existing:
		return // etcd exits: the members know it, and it knows nothing
	case listed != nil && listed.name == "" && existing:
		listed.name = h.name
	case listed != nil:
		h.w.t.Errorf("sim: %s: etcd starts without data as a member that had some", h.name)
		return
	case existing:
		return // etcd exits: it is in nobody's list
	default:
		if len(e.members) > 0 {
			h.w.t.Errorf("sim: %s: a second cluster is made", h.name)
		}
		e.next++
		listed = &member{id: e.next<<56 | 0x1122334455, name: h.name, peerURL: h.peerURL()}
		e.members = append(e.members, listed)
	}
	h.etcdUp, h.unheard = time.Now(), false
	h.Put(memberDir+"/id", 0o600, fmt.Sprint(listed.id))
	h.etcdHas = h.data()
}

// data is the ID of the member whose data lie in their place; "" for none.
func (h *Host) data() string { return string(h.Files[memberDir+"/id"].Content) }

func (h *Host) listed() *member {
	for _, m := range h.w.etcd.members {
		if m.peerURL == h.peerURL() {
			return m
		}
	}
	return nil
}

// serving is the member that answers clients on the host; nil when none does. One
// that has seen no quorum since it started answers nobody.
func (h *Host) serving() *member {
	m := h.running()
	if h.w.together(); h.waits {
		return nil
	}
	return m
}

// running is the member that runs on the host; nil when none does.
func (h *Host) running() *member {
	m := h.listed()
	if m == nil || !h.etcdProcess() || h.hit("etcd") || time.Now().Before(h.etcdBack) || h.data() != fmt.Sprint(m.id) || h.etcdHas != h.data() {
		return nil
	}
	return m
}

func (h *Host) active(unit string) bool {
	u := h.Units[unit]
	return u != nil && u.Active
}

// at is the host of a member; nil for a ghost's.
func (w *World) at(m *member) *Host {
	for _, h := range w.hosts {
		if h.peerURL() == m.peerURL {
			return h
		}
	}
	return nil
}

// cutOff says that the host's etcd does not hear the others.
func (h *Host) cutOff() bool { return time.Now().Before(h.isolatedUntil) }

// together are the voters that run and hear each other, of how many there are.
func (w *World) together() (up []*member, voters int) {
	for _, m := range w.etcd.members {
		if m.learner {
			continue
		}
		voters++
		if h := w.at(m); h != nil && h.running() == m && h.valid(pkiDir+"/etcd/peer.crt") {
			up = append(up, m)
		}
	}
	if voters > 1 {
		up = slices.DeleteFunc(up, func(m *member) bool { return w.at(m).cutOff() })
	}
	if len(up) >= voters/2+1 {
		for _, m := range w.etcd.members { // learners hear of it, too
			if h := w.at(m); h != nil && h.running() == m && !h.cutOff() {
				h.waits = false
			}
		}
	}
	return up, voters
}

func (w *World) quorate() bool {
	up, voters := w.together()
	return voters > 0 && len(up) >= voters/2+1
}

// leader is who leads the majority. When it goes without handing over, the
// others need some time to elect another one.
func (w *World) leader() *member {
	e := &w.etcd
	up, _ := w.together()
	if !w.quorate() {
		e.lead = 0
		return nil
	}
	for _, m := range up {
		if m.id == e.lead {
			e.electAt = time.Time{}
			return m
		}
	}
	if e.electAt.IsZero() {
		e.electAt = time.Now()
		for _, m := range e.members {
			if h := w.at(m); m.id == e.lead && h != nil && (h.cutOff() || h.unheard) {
				e.electAt = e.electAt.Add(w.after(electionTime))
			}
		}
	}
	if time.Now().Before(e.electAt) {
		return nil
	}
	e.lead, e.electAt = up[0].id, time.Time{}
	w.at(up[0]).unheard = false
	e.term++
	return up[0]
}

// leader is who leads as far as the host's own member knows. One that is cut
// off finds out by and by that it leads nobody.
func (h *Host) leader() *member {
	m := h.serving()
	if _, voters := h.w.together(); m == nil || voters < 2 || !h.cutOff() {
		return h.w.leader()
	}
	if m.id == h.w.etcd.lead && time.Since(h.isolated) < electionTime {
		return m
	}
	return nil
}

// settled says whether every voter has been there long enough for a change of
// members.
func (w *World) settled() bool {
	up, voters := w.together()
	if len(up) < voters {
		return false
	}
	for _, m := range up {
		h := w.at(m)
		for _, since := range []time.Time{h.etcdUp, h.etcdBack, h.isolatedUntil} {
			if !since.IsZero() && time.Since(since) < w.after(connected) && m.id != w.etcd.lead {
				return false
			}
		}
	}
	return true
}

// etcdServer answers for the member on one host.
type etcdServer struct {
	pb.UnimplementedClusterServer
	pb.UnimplementedMaintenanceServer
	pb.UnimplementedKVServer
	pb.UnimplementedLeaseServer
	h *Host
}

// with runs f under the world's lock, when the member runs and, if it is
// wanted, has a leader. It is a call to the host, which may be cut.
func (s *etcdServer) with(ctx context.Context, what string, writes, quorum bool, f func(*pb.ResponseHeader, *member) error) error {
	return s.h.served(ctx, "etcd "+what, writes, func() error {
		m, leader := s.h.serving(), s.h.leader()
		if m == nil {
			return rpctypes.ErrGRPCStopped
		}
		if quorum && (leader == nil || s.h.w.leader() != leader) {
			return rpctypes.ErrGRPCNoLeader
		}
		return f(&pb.ResponseHeader{ClusterId: s.h.w.etcd.cluster(), MemberId: m.id, Revision: s.h.w.etcd.revision, RaftTerm: s.h.w.etcd.term}, m)
	})
}

func (s *etcdServer) list() []*pb.Member {
	var out []*pb.Member
	for _, m := range s.h.w.etcd.members {
		p := &pb.Member{ID: m.id, Name: m.name, PeerURLs: []string{m.peerURL}, IsLearner: m.learner}
		if m.name != "" {
			p.ClientURLs = []string{strings.Replace(m.peerURL, ":2380", ":2379", 1)}
		}
		out = append(out, p)
	}
	return out
}

func (s *etcdServer) Status(ctx context.Context, _ *pb.StatusRequest) (r *pb.StatusResponse, err error) {
	err = s.with(ctx, "status", false, false, func(head *pb.ResponseHeader, m *member) error {
		d := s.h.w.etcd.space.of(m.id)
		r = &pb.StatusResponse{Header: head, Version: "3.6.8", DbSize: d.size, DbSizeInUse: d.inUse, DbSizeQuota: s.h.w.etcd.space.most(),
			RaftTerm: head.RaftTerm, RaftIndex: 100, RaftAppliedIndex: 100, IsLearner: m.learner}
		if l := s.h.leader(); l != nil {
			r.Leader = l.id
		}
		return nil
	})
	return r, err
}

func (s *etcdServer) MemberList(ctx context.Context, q *pb.MemberListRequest) (r *pb.MemberListResponse, err error) {
	err = s.with(ctx, "list", false, q.Linearizable, func(head *pb.ResponseHeader, _ *member) error {
		r = &pb.MemberListResponse{Header: head, Members: s.list()}
		return nil
	})
	return r, err
}

func (s *etcdServer) MemberAdd(ctx context.Context, q *pb.MemberAddRequest) (r *pb.MemberAddResponse, err error) {
	err = s.with(ctx, "add "+q.PeerURLs[0], true, true, func(head *pb.ResponseHeader, _ *member) error {
		e := &s.h.w.etcd
		for _, m := range e.members {
			if m.peerURL == q.PeerURLs[0] {
				return rpctypes.ErrGRPCPeerURLExist
			}
			if m.learner {
				s.h.w.accuse("a second learner was asked for")
				return rpctypes.ErrGRPCTooManyLearners
			}
		}
		if !s.h.w.settled() {
			return rpctypes.ErrGRPCUnhealthy
		}
		if !q.IsLearner {
			s.h.w.accuse("a voter was added at once")
		}
		e.next++
		e.revision++
		m := &member{id: e.next<<56 | 0x1122334455, peerURL: q.PeerURLs[0], learner: q.IsLearner}
		e.members = append(e.members, m)
		r = &pb.MemberAddResponse{Header: head, Member: &pb.Member{ID: m.id, PeerURLs: q.PeerURLs, IsLearner: true}, Members: s.list()}
		return nil
	})
	return r, err
}

func (s *etcdServer) MemberPromote(ctx context.Context, q *pb.MemberPromoteRequest) (r *pb.MemberPromoteResponse, err error) {
	err = s.with(ctx, "promote", true, true, func(head *pb.ResponseHeader, _ *member) error {
		for _, m := range s.h.w.etcd.members {
			if m.id != q.ID {
				continue
			}
			if !m.learner {
				return rpctypes.ErrGRPCMemberNotLearner
			}
			if h := s.h.w.at(m); m.name == "" || h == nil || h.serving() != m || h.cutOff() || s.h.cutOff() || h.Behind {
				return rpctypes.ErrGRPCLearnerNotReady
			}
			m.learner = false
			r = &pb.MemberPromoteResponse{Header: head, Members: s.list()}
			return nil
		}
		return rpctypes.ErrGRPCMemberNotFound
	})
	return r, err
}

func (s *etcdServer) MemberRemove(ctx context.Context, q *pb.MemberRemoveRequest) (r *pb.MemberRemoveResponse, err error) {
	err = s.with(ctx, "remove", true, true, func(head *pb.ResponseHeader, _ *member) error {
		e := &s.h.w.etcd
		i := slices.IndexFunc(e.members, func(m *member) bool { return m.id == q.ID })
		if i < 0 {
			return rpctypes.ErrGRPCMemberNotFound
		}
		if !e.members[i].learner && e.members[i].name != s.h.w.MayLeave {
			s.h.w.accuse("the voter %s was removed", e.members[i].name)
		}
		e.members = slices.Delete(e.members, i, i+1)
		r = &pb.MemberRemoveResponse{Header: head, Members: s.list()}
		return nil
	})
	return r, err
}

func (s *etcdServer) MoveLeader(ctx context.Context, q *pb.MoveLeaderRequest) (r *pb.MoveLeaderResponse, err error) {
	err = s.with(ctx, "move leader", true, true, func(head *pb.ResponseHeader, m *member) error {
		e := &s.h.w.etcd
		if e.lead != m.id {
			return rpctypes.ErrGRPCNotLeader
		}
		up, _ := s.h.w.together()
		if !slices.ContainsFunc(up, func(m *member) bool { return m.id == q.TargetID }) {
			return rpctypes.ErrGRPCBadLeaderTransferee
		}
		s.h.w.mayDrop()
		e.lead = q.TargetID
		e.term++
		r = &pb.MoveLeaderResponse{Header: head}
		return nil
	})
	return r, err
}

func (s *etcdServer) Range(ctx context.Context, q *pb.RangeRequest) (r *pb.RangeResponse, err error) {
	err = s.with(ctx, "read", false, !q.Serializable, func(head *pb.ResponseHeader, _ *member) error { r = &pb.RangeResponse{Header: head}; return nil })
	return r, err
}

func (s *etcdServer) Put(ctx context.Context, _ *pb.PutRequest) (r *pb.PutResponse, err error) {
	err = s.with(ctx, "probe", false, true, func(head *pb.ResponseHeader, _ *member) error {
		r = &pb.PutResponse{Header: head}
		return s.noSpace()
	})
	return r, err
}

func (s *etcdServer) LeaseGrant(ctx context.Context, q *pb.LeaseGrantRequest) (r *pb.LeaseGrantResponse, err error) {
	err = s.with(ctx, "lease", false, true, func(head *pb.ResponseHeader, _ *member) error {
		if err := s.noSpace(); err != nil {
			return err
		}
		s.h.w.etcd.leases++
		r = &pb.LeaseGrantResponse{Header: head, ID: time.Now().UnixNano(), TTL: q.TTL}
		return nil
	})
	return r, err
}

func (s *etcdServer) LeaseRevoke(ctx context.Context, _ *pb.LeaseRevokeRequest) (r *pb.LeaseRevokeResponse, err error) {
	err = s.with(ctx, "lease end", false, true, func(head *pb.ResponseHeader, _ *member) error { r = &pb.LeaseRevokeResponse{Header: head}; return nil })
	return r, err
}
