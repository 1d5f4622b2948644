package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

const (
	actPoll    = 500 * time.Millisecond
	moveBudget = 2 * time.Second
)

// Do gates an operation and performs it: the look, the projection and the
// change are never further apart than MaxAge. It returns the verdict that the
// decision was made on.
func (m *Members) Do(ctx context.Context, op Operation, w Want, budget time.Duration) (Verdict, error) {
	w.Op = &op
	v, err := m.Gate(ctx, w, budget)
	if err != nil {
		return v, err
	}
	if age := m.now().Sub(v.At); age > MaxAge {
		return v, fmt.Errorf("%s: the last look is %s old, %s are allowed", op, shortDuration(age), shortDuration(MaxAge))
	}
	target, _ := v.Find(op.ID, op.PeerURL)
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	switch op.Kind {
	case OpAddLearner:
		_, err = m.AddLearner(ctx, op.PeerURL, op.Host)
	case OpPromote:
		err = m.Promote(ctx, target.ID)
	case OpRemoveLearner, OpRemoveDead, OpRemoveLive:
		err = m.remove(ctx, target.ID, func(ctx context.Context) error {
			_, err := m.Gate(ctx, w, budget)
			return err
		})
	default:
		err = fmt.Errorf("%s: not a change of membership", op)
	}
	return v, err
}

// AddLearner lists a newcomer as a learner and returns its entry. A learner
// that is listed already is success; a voter is not, for kubeadm would start
// it on an empty directory, and it would crash. Until ctx ends it waits while
// etcd says that a voter was disconnected in the last five seconds.
func (m *Members) AddLearner(ctx context.Context, peerURL, name string) (Listed, error) {
	var found Listed
	err := m.change(ctx, "add learner "+name, 0, func(ctx context.Context, list []Listed) (bool, error) {
		for _, l := range list {
			if !hasURL(l.PeerURLs, peerURL) {
				continue
			}
			if !l.Learner {
				return false, fmt.Errorf("%s is listed already, as voter %s", peerURL, l.ID)
			}
			found = l
			return true, nil
		}
		return false, nil
	}, func(ctx context.Context, c *conn) error {
		_, err := c.MemberAddAsLearner(ctx, []string{peerURL})
		return err
	}, nil)
	return found, err
}

// Promote makes a learner a voter. Until ctx ends it retries while the learner
// is not in sync with the leader.
func (m *Members) Promote(ctx context.Context, id MemberID) error {
	return m.change(ctx, "promote "+id.String(), 0, func(_ context.Context, list []Listed) (bool, error) {
		i := slices.IndexFunc(list, func(l Listed) bool { return l.ID == id })
		if i < 0 {
			return false, errors.New("it is not in the member list")
		}
		return !list[i].Learner, nil
	}, func(ctx context.Context, c *conn) error {
		_, err := c.MemberPromote(ctx, uint64(id))
		return err
	}, nil)
}

// Remove takes a member off the list, by ID. If it leads, leadership is moved
// first. A member that is not listed is success.
func (m *Members) Remove(ctx context.Context, id MemberID) error { return m.remove(ctx, id, nil) }

func (m *Members) remove(ctx context.Context, id MemberID, again func(context.Context) error) error {
	if id == 0 {
		return errors.New("remove: no member ID")
	}
	return m.change(ctx, "remove "+id.String(), id, func(_ context.Context, list []Listed) (bool, error) {
		return !slices.ContainsFunc(list, func(l Listed) bool { return l.ID == id }), nil
	}, func(ctx context.Context, c *conn) error {
		if s, err := c.status(ctx); err == nil && s.Leader == id {
			// Removing a leader is right too, but costs an election. A ghost
			// that leads may be out of reach for the transfer.
			moving, cancel := context.WithTimeout(ctx, moveBudget)
			_ = m.MoveLeader(moving, 0, nil)
			cancel()
		}
		_, err := c.MemberRemove(ctx, uint64(id))
		return err
	}, again)
}

// change makes one change of membership: list, act if it is not already so,
// and whatever the answer was, list again and decide by what is there. A
// request whose leader died in flight may have been done or not. The member
// that is to go is not asked: etcd 3.6 panics on a Status after its removal. again
// is asked before another try, and its error is the change's: the member that did
// not answer may be a vote that is missing now. nil allows all.
func (m *Members) change(ctx context.Context, what string, going MemberID, done func(context.Context, []Listed) (bool, error), act func(context.Context, *conn) error, again func(context.Context) error) error {
	var last error
	tried := false
	l := lister{m: m, going: going}
	for {
		list, err := l.list(ctx)
		if err == nil {
			ok, err := done(ctx, list)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			if ok {
				return nil
			}
			if tried && again != nil {
				if err := again(ctx); err != nil {
					return fmt.Errorf("%s: %w", what, errors.Join(last, err))
				}
			}
			tried = true
			last = m.act(ctx, func(ctx context.Context) error { return act(ctx, l.conn) })
			if last == nil {
				continue // see it in the list
			}
			if definiteRefusal(last) {
				return fmt.Errorf("%s: %w", what, last)
			}
			l.conn = nil // it may be the one that went away
		} else {
			last = err
		}
		if err := pause(ctx, actPoll); err != nil {
			return fmt.Errorf("%s: %w (%w)", what, last, err)
		}
	}
}

// lister reads the member list, staying with a connection that works.
type lister struct {
	m     *Members
	conn  *conn
	going MemberID // a member not to be asked
	skip  []string // its peer URLs, once they are known
}

func (l *lister) list(ctx context.Context) ([]Listed, error) {
	if l.conn != nil {
		if list, err := l.conn.list(ctx, false); err == nil {
			return list, nil
		}
	}
	c, list, err := l.m.quorate(ctx, l.going, l.skip)
	l.conn = c
	for _, o := range list {
		if o.ID == l.going {
			l.skip = o.PeerURLs
		}
	}
	return list, err
}

// namePoll is how often AwaitName asks.
const namePoll = 100 * time.Millisecond

// AwaitName waits until the others know the member's name: it runs, and its
// word has gone through quorum. The member itself is not asked.
func (m *Members) AwaitName(ctx context.Context, id MemberID) error {
	l := lister{m: m, going: id}
	for {
		list, err := l.list(ctx)
		if slices.ContainsFunc(list, func(o Listed) bool { return o.ID == id && o.Name != "" }) {
			return nil
		}
		if pausing := pause(ctx, namePoll); pausing != nil {
			return fmt.Errorf("waiting for member %s to start: %w", id, errors.Join(pausing, err))
		}
	}
}

// definiteRefusal tells answers that another try cannot change.
func definiteRefusal(err error) bool {
	var forbidden *notAllowedError
	if errors.As(err, &forbidden) {
		return true
	}
	for _, e := range []error{rpctypes.ErrTooManyLearners, rpctypes.ErrMemberBadURLs, rpctypes.ErrPermissionDenied} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// quorate finds a member that reads the list through quorum, the leader if it
// can, but not the one that is going unless it is the only one.
func (m *Members) quorate(ctx context.Context, going MemberID, skip []string) (*conn, []Listed, error) {
	seen := m.answering(ctx, skip)
	rank := func(s seenMember) int {
		switch s.status.MemberID {
		case going:
			return 2
		case s.status.Leader:
			return 0
		}
		return 1
	}
	slices.SortStableFunc(seen, func(x, y seenMember) int { return cmp.Compare(rank(x), rank(y)) })
	err := errors.New("no voter answers")
	for _, s := range seen {
		if s.status.Learner {
			continue
		}
		var list []Listed
		if list, err = s.conn.list(ctx, false); err == nil {
			return s.conn, list, nil
		}
	}
	return nil, nil, fmt.Errorf("member list: %w", err)
}

// seenMember is a member that answered just now.
type seenMember struct {
	target Target
	conn   *conn
	status *Status
}

// leads says that the member takes itself for the leader.
func (s seenMember) leads() bool { return s.status.Leader == s.status.MemberID }

// answering asks all targets for their status, as Observe does but no more;
// those at the peer URLs to skip are left alone.
func (m *Members) answering(ctx context.Context, skip []string) []seenMember {
	ctx, cancel := context.WithTimeout(ctx, observeBudget)
	defer cancel()
	found := make([]seenMember, len(m.targets))
	var wg sync.WaitGroup
	for i, t := range m.targets {
		if hasURL(skip, t.PeerURL) {
			continue
		}
		wg.Go(func() {
			c, s := m.find(ctx, t, &View{Host: t.Name})
			found[i] = seenMember{t, c, s}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(found, func(s seenMember) bool { return s.conn == nil })
}
