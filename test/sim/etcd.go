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
	// Refusals of changes that etcd would have made; a test looks at them.
	lostQuorum []string
	twoAtOnce  bool
	leases     int // that were ever granted
}

// Leases counts the leases that etcd has ever granted: one for each write that
// proves that it takes any.
func (w *World) Leases() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.etcd.leases
}

const clusterID = 0x14bfbf98aabbccdd

func (h *Host) peerURL() string { return "https://" + h.address + ":2380" }

// startEtcd is what the kubelet does with the manifest: etcd starts from its
// data, or as the member that is listed for it, or makes a cluster of one.
func (h *Host) startEtcd() {
	manifest, ok := h.Files[etcdManifest]
	if !ok {
		return
	}
	e := &h.w.etcd
	existing := strings.Contains(string(manifest.Content), "--initial-cluster-state=existing")
	if len(h.under(etcdDir)) > 0 {
		return
	}
	listed := h.listed()
	switch {
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
	h.Put(etcdDir+"/member/id", 0o600, fmt.Sprint(listed.id))
}

func (h *Host) listed() *member {
	for _, m := range h.w.etcd.members {
		if m.peerURL == h.peerURL() {
			return m
		}
	}
	return nil
}

// serving is the member that runs on the host; nil when none does.
func (h *Host) serving() *member {
	m, data := h.listed(), h.Files[etcdDir+"/member/id"]
	_, manifest := h.Files[etcdManifest]
	if m == nil || !manifest || !h.active("kubelet.service") || string(data.Content) != fmt.Sprint(m.id) {
		return nil
	}
	return m
}

func (h *Host) active(unit string) bool {
	u := h.Units[unit]
	return u != nil && u.Active
}

// leader is the first voter that runs, while a majority does.
func (w *World) leader() *member {
	voters, running := 0, []*member{}
	for _, m := range w.etcd.members {
		if m.learner {
			continue
		}
		voters++
		for _, h := range w.hosts {
			if h.peerURL() == m.peerURL && h.serving() == m {
				running = append(running, m)
			}
		}
	}
	if voters == 0 || len(running) < voters/2+1 {
		return nil
	}
	return running[0]
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
// wanted, has a leader. A change is one call to the host, which may be cut.
func (s *etcdServer) with(ctx context.Context, change string, quorum bool, f func(*pb.ResponseHeader, *member) error) error {
	ask := func() error {
		m, leader := s.h.serving(), s.h.w.leader()
		if m == nil {
			return rpctypes.ErrGRPCStopped
		}
		if quorum && leader == nil {
			return rpctypes.ErrGRPCNoLeader
		}
		return f(&pb.ResponseHeader{ClusterId: clusterID, MemberId: m.id, Revision: s.h.w.etcd.revision, RaftTerm: 7}, m)
	}
	if change != "" {
		return s.h.call(context.WithValue(ctx, requestKey{}, true), "etcd "+change, true, 1, once(ask))
	}
	s.h.w.mu.Lock()
	defer s.h.w.mu.Unlock()
	if s.h.w.dead {
		return context.Canceled
	}
	return ask()
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
	err = s.with(ctx, "", false, func(head *pb.ResponseHeader, m *member) error {
		r = &pb.StatusResponse{Header: head, Version: "3.6.8", DbSize: 1 << 20, DbSizeInUse: 1 << 19, DbSizeQuota: 8 << 30,
			RaftTerm: 7, RaftIndex: 100, RaftAppliedIndex: 100, IsLearner: m.learner}
		if l := s.h.w.leader(); l != nil {
			r.Leader = l.id
		}
		return nil
	})
	return r, err
}

func (s *etcdServer) MemberList(ctx context.Context, q *pb.MemberListRequest) (r *pb.MemberListResponse, err error) {
	err = s.with(ctx, "", q.Linearizable, func(head *pb.ResponseHeader, _ *member) error {
		r = &pb.MemberListResponse{Header: head, Members: s.list()}
		return nil
	})
	return r, err
}

func (s *etcdServer) MemberAdd(ctx context.Context, q *pb.MemberAddRequest) (r *pb.MemberAddResponse, err error) {
	err = s.with(ctx, "add "+q.PeerURLs[0], true, func(head *pb.ResponseHeader, _ *member) error {
		e := &s.h.w.etcd
		for _, m := range e.members {
			if m.peerURL == q.PeerURLs[0] {
				return rpctypes.ErrGRPCPeerURLExist
			}
			if m.learner {
				e.twoAtOnce = true
				return rpctypes.ErrGRPCTooManyLearners
			}
		}
		if !q.IsLearner {
			e.lostQuorum = append(e.lostQuorum, "a voter was added at once")
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
	err = s.with(ctx, "promote", true, func(head *pb.ResponseHeader, _ *member) error {
		for _, m := range s.h.w.etcd.members {
			if m.id != q.ID {
				continue
			}
			if m.name == "" {
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
	err = s.with(ctx, "remove", true, func(head *pb.ResponseHeader, _ *member) error {
		e := &s.h.w.etcd
		i := slices.IndexFunc(e.members, func(m *member) bool { return m.id == q.ID })
		if i < 0 {
			return rpctypes.ErrGRPCMemberNotFound
		}
		if !e.members[i].learner {
			e.lostQuorum = append(e.lostQuorum, "the voter "+e.members[i].name+" was removed")
		}
		e.members = slices.Delete(e.members, i, i+1)
		r = &pb.MemberRemoveResponse{Header: head, Members: s.list()}
		return nil
	})
	return r, err
}

func (s *etcdServer) Alarm(ctx context.Context, _ *pb.AlarmRequest) (r *pb.AlarmResponse, err error) {
	err = s.with(ctx, "", true, func(head *pb.ResponseHeader, _ *member) error { r = &pb.AlarmResponse{Header: head}; return nil })
	return r, err
}

func (s *etcdServer) HashKV(ctx context.Context, _ *pb.HashKVRequest) (r *pb.HashKVResponse, err error) {
	err = s.with(ctx, "", false, func(head *pb.ResponseHeader, _ *member) error {
		r = &pb.HashKVResponse{Header: head, Hash: 42}
		return nil
	})
	return r, err
}

func (s *etcdServer) Range(ctx context.Context, q *pb.RangeRequest) (r *pb.RangeResponse, err error) {
	err = s.with(ctx, "", !q.Serializable, func(head *pb.ResponseHeader, _ *member) error { r = &pb.RangeResponse{Header: head}; return nil })
	return r, err
}

func (s *etcdServer) Put(ctx context.Context, _ *pb.PutRequest) (r *pb.PutResponse, err error) {
	err = s.with(ctx, "", true, func(head *pb.ResponseHeader, _ *member) error { r = &pb.PutResponse{Header: head}; return nil })
	return r, err
}

func (s *etcdServer) LeaseGrant(ctx context.Context, q *pb.LeaseGrantRequest) (r *pb.LeaseGrantResponse, err error) {
	err = s.with(ctx, "", true, func(head *pb.ResponseHeader, _ *member) error {
		s.h.w.etcd.leases++
		r = &pb.LeaseGrantResponse{Header: head, ID: time.Now().UnixNano(), TTL: q.TTL}
		return nil
	})
	return r, err
}

func (s *etcdServer) LeaseRevoke(ctx context.Context, _ *pb.LeaseRevokeRequest) (r *pb.LeaseRevokeResponse, err error) {
	err = s.with(ctx, "", true, func(head *pb.ResponseHeader, _ *member) error { r = &pb.LeaseRevokeResponse{Header: head}; return nil })
	return r, err
}
