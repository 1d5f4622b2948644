package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// scripted is a cluster of one member whose answers to changes are scripted:
// each change is made or not, whatever is said of it.
type scripted struct {
	pb.UnimplementedClusterServer
	pb.UnimplementedMaintenanceServer

	mu      sync.Mutex
	members []*pb.Member
	made    []bool  // by attempt: whether it takes effect; the last one repeats
	said    []error // by attempt
	tries   int
}

func (s *scripted) change(f func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := min(s.tries, len(s.made)-1)
	if s.tries++; s.made[i] {
		f()
	}
	return s.said[i]
}

func (s *scripted) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{Header: &pb.ResponseHeader{ClusterId: 9, MemberId: 1}, Leader: 1, RaftTerm: 2, Version: "3.6.8"}, nil
}

func (s *scripted) MemberList(context.Context, *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &pb.MemberListResponse{Members: slices.Clone(s.members)}, nil
}

func (s *scripted) MemberAdd(_ context.Context, r *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	err := s.change(func() {
		s.members = append(s.members, &pb.Member{ID: 2, PeerURLs: r.PeerURLs, IsLearner: r.IsLearner})
	})
	return &pb.MemberAddResponse{Member: &pb.Member{ID: 2}}, err
}

func (s *scripted) MemberRemove(_ context.Context, r *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	err := s.change(func() {
		s.members = slices.DeleteFunc(s.members, func(m *pb.Member) bool { return m.ID == r.ID })
	})
	return &pb.MemberRemoveResponse{}, err
}

func (s *scripted) MemberPromote(_ context.Context, r *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	err := s.change(func() {
		s.members = []*pb.Member{s.members[0], {ID: r.ID, Name: "cp-2", PeerURLs: s.members[1].PeerURLs}}
	})
	return &pb.MemberPromoteResponse{}, err
}

// serve returns the installer's view of the scripted cluster.
func (s *scripted) serve(t *testing.T) *Members {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterClusterServer(server, s)
	pb.RegisterMaintenanceServer(server, s)
	go func() { _ = server.Serve(l) }() // ends with the test
	t.Cleanup(server.Stop)
	m := NewMembers([]Target{{
		Name: "cp-1", PeerURL: peerURL(1), ClientURL: "http://" + l.Addr().String(), Dial: (&net.Dialer{}).DialContext,
		TLS: func(context.Context) (*tls.Config, error) { return nil, nil },
	}}, nil)
	t.Cleanup(func() { m.Close() })
	return m
}

// TestTheListDecidesWhatBecameOfAChange loses answers: whatever was said of a
// change, what the member list shows afterwards is what counts.
func TestTheListDecidesWhatBecameOfAChange(t *testing.T) {
	lost := status.Error(codes.Unavailable, "the leader went away")
	first := &pb.Member{ID: 1, Name: "cp-1", PeerURLs: []string{peerURL(1)}}
	second := func(learner bool) []*pb.Member {
		return []*pb.Member{first, {ID: 2, Name: "cp-2", PeerURLs: []string{peerURL(2)}, IsLearner: learner}}
	}
	add := func(ctx context.Context, m *Members) error {
		_, err := m.AddLearner(ctx, peerURL(2), "cp-2")
		return err
	}
	remove := func(ctx context.Context, m *Members) error { return m.Remove(ctx, 2) }
	promote := func(ctx context.Context, m *Members) error { return m.Promote(ctx, 2) }
	for _, row := range []struct {
		name    string
		members []*pb.Member
		made    []bool
		said    []error
		do      func(context.Context, *Members) error
		tries   int
		fails   error // nil: it succeeds
	}{
		{"added, and the answer was lost", []*pb.Member{first}, []bool{true}, []error{lost}, add, 1, nil},
		{"removed, and the answer was lost", second(false), []bool{true}, []error{lost}, remove, 1, nil},
		{"promoted, and the answer was lost", second(true), []bool{true}, []error{lost}, promote, 1, nil},
		{"not added, and the answer was lost: once more", []*pb.Member{first}, []bool{false, true}, []error{lost, nil}, add, 2, nil},
		{"not removed, and the answer was lost: once more", second(false), []bool{false, true}, []error{lost, nil}, remove, 2, nil},
		{"not promoted, not in sync: until it is", second(true), []bool{false, false, true}, []error{rpctypes.ErrGRPCMemberNotLearner, lost, nil}, promote, 3, nil},
		{"an answer of success that is not in the list is none", []*pb.Member{first}, []bool{false, true}, []error{nil, nil}, add, 2, nil},
		{"already so: nothing is asked", second(true), []bool{true}, []error{nil}, add, 0, nil},
		{"refused for good, and not there", []*pb.Member{first}, []bool{false}, []error{rpctypes.ErrGRPCTooManyLearners}, add, 1, rpctypes.ErrTooManyLearners},
		{"never, as long as there is time", []*pb.Member{first}, []bool{false}, []error{lost}, add, -1, context.DeadlineExceeded},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := &scripted{members: slices.Clone(row.members), made: row.made, said: row.said}
			budget := 20 * time.Second
			if row.tries < 0 {
				budget = 1200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), budget)
			defer cancel()
			err := row.do(ctx, s.serve(t))
			if !errors.Is(err, row.fails) {
				t.Errorf("error %v, want %v", err, row.fails)
			}
			if row.tries >= 0 && s.tries != row.tries || s.tries == 0 && row.tries < 0 {
				t.Errorf("asked %d times, want %d", s.tries, row.tries)
			}
		})
	}
}
