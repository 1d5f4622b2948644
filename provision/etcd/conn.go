package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// conn is one connection to one member, from one vantage point. Only a
// connection that has answered is kept.
type conn struct {
	*clientv3.Client
	// maint shares the connection; clientv3's own Maintenance dials anew for
	// every Status and HashKV.
	maint clientv3.Maintenance

	mu      sync.Mutex
	dialErr error
	dialled bool // a TCP connection was made
}

// connect prepares a connection; nothing is sent before the first request.
func connect(ctx context.Context, to string, via Target, cfg *tls.Config) (*conn, error) {
	var err error
	c := &conn{}
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		nc, err := within(ctx, DialTimeout, func(ctx context.Context) (net.Conn, error) {
			return via.Dial(ctx, "tcp", addr)
		}, func(nc net.Conn) { nc.Close() })
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil, err // gRPC gave this attempt up for another one; it says nothing
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.dialErr, c.dialled = err, c.dialled || err == nil
		return nc, err
	}
	c.Client, err = clientv3.New(clientv3.Config{
		Endpoints:       []string{to},
		TLS:             cfg,
		Logger:          zap.NewNop(),
		MaxUnaryRetries: 1, // a gate polls by itself and wants to see every failure
		Context:         context.WithoutCancel(ctx),
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(dial),
			// clientv3 makes every request wait for a connection; we want to
			// know at once why there is none.
			grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				return next(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...)
			}),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second},
				MinConnectTimeout: DialTimeout, // covers the TLS handshake
			}),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("%s: etcd client: %w", via.Name, err)
	}
	c.maint = clientv3.NewMaintenanceFromMaintenanceClient(pb.NewMaintenanceClient(c.ActiveConnection()), c.Client)
	return c, nil
}

// within runs f for at most d, also when f is slow to notice that its context
// has ended; a result that comes too late is given to discard.
func within[T any](ctx context.Context, d time.Duration, f func(context.Context) (T, error), discard func(T)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		defer cancel()
		v, err := f(ctx)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done: // both at once: the answer counts
		return r.value, r.err
	default:
	}
	go func() {
		if r := <-done; r.err == nil {
			discard(r.value)
		}
	}()
	var none T
	return none, ctx.Err()
}

// status asks the member about itself.
func (c *conn) status(ctx context.Context) (*Status, error) {
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	r, err := c.maint.Status(ctx, "")
	if err != nil {
		return nil, err
	}
	return &Status{
		ClusterID: MemberID(r.Header.ClusterId), MemberID: MemberID(r.Header.MemberId),
		Leader: MemberID(r.Leader), Term: r.RaftTerm, RaftIndex: r.RaftIndex, AppliedIndex: r.RaftAppliedIndex,
		Revision: r.Header.Revision, DBSize: r.DbSize, DBInUse: r.DbSizeInUse, DBQuota: r.DbSizeQuota,
		Version: r.Version, Learner: r.IsLearner, Errors: r.Errors,
	}, nil
}

// list reads the member list, through quorum unless local.
func (c *conn) list(ctx context.Context, local bool) ([]Listed, error) {
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	var opts []clientv3.OpOption
	if local {
		opts = append(opts, clientv3.WithSerializable())
	} else {
		ctx = clientv3.WithRequireLeader(ctx) // without a leader, fail at once instead of at the deadline
	}
	r, err := c.MemberList(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return listed(r.Members), nil
}

func listed(members []*pb.Member) []Listed {
	out := make([]Listed, 0, len(members))
	for _, m := range members {
		out = append(out, Listed{ID: MemberID(m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, Learner: m.IsLearner})
	}
	return out
}

// outcome explains why the member did not answer.
func (c *conn) outcome(err error) (Outcome, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dialled {
		if c.dialErr == nil {
			return TimedOut, "no connection in time"
		}
		return classifyDial(c.dialErr), reason(c.dialErr)
	}
	if c.dialErr != nil { // it was connected once; reconnecting failed
		return classifyDial(c.dialErr), reason(c.dialErr)
	}
	if isTimeout(err) {
		return Hung, "no answer in time"
	}
	return Rejected, reason(err)
}

func isTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	s, ok := status.FromError(err)
	if !ok {
		return false
	}
	// A handshake that hangs comes back as Unavailable with the cause in its text.
	return s.Code() == codes.DeadlineExceeded || s.Code() == codes.Canceled ||
		s.Code() == codes.Unavailable && containsAny(s.Message(), "context deadline exceeded", "i/o timeout")
}

// lateText is the reason of whatever did not come in time.
const lateText = "timeout"

// reason is an error's text without the noise of the transport.
func reason(err error) string {
	if errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded {
		return lateText
	}
	msg := err.Error()
	if s, ok := status.FromError(err); ok {
		msg = s.Message()
	}
	if _, after, found := strings.Cut(msg, "authentication handshake failed: "); found {
		msg = strings.TrimSuffix(after, `"`)
	}
	return msg
}
