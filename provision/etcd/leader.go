package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// MoveLeader hands leadership to the given voter; with 0, to the most advanced
// voter that does not lead now. A member that leads already is success. hold, if
// there is one, is called right before etcd is asked, and what it returns when
// etcd has answered: in between there is no leader.
func (m *Members) MoveLeader(ctx context.Context, to MemberID, hold func() (release func())) error {
	var last error
	var from MemberID
	for {
		seen := m.answering(ctx, nil)
		leader := slices.IndexFunc(seen, seenMember.leads)
		switch {
		case leader < 0:
			last = errors.New("no leader answers")
		case seen[leader].status.MemberID == to, to == 0 && from != 0 && seen[leader].status.MemberID != from:
			return nil
		default:
			lead := seen[leader]
			if from == 0 {
				from = lead.status.MemberID
			}
			next := to
			if next == 0 {
				next = mostAdvanced(seen, lead.status.MemberID)
			}
			if next == 0 {
				return fmt.Errorf("move leader: no other voter answers")
			}
			if hold == nil {
				hold = func() func() { return func() {} }
			}
			release := hold()
			last = m.act(ctx, func(ctx context.Context) error {
				_, err := lead.conn.maint.MoveLeader(ctx, uint64(next))
				return err
			})
			release()
			if last == nil {
				continue // see it
			}
			if definiteRefusal(last) {
				return fmt.Errorf("move leader to %s: %w", to, last)
			}
		}
		if err := pause(ctx, actPoll); err != nil {
			return fmt.Errorf("move leader to %s: %w (%w)", to, last, err)
		}
	}
}

func mostAdvanced(seen []seenMember, except MemberID) MemberID {
	var best *Status
	for _, s := range seen {
		if s.status.MemberID == except || s.status.Learner {
			continue
		}
		if best == nil || s.status.AppliedIndex > best.AppliedIndex {
			best = s.status
		}
	}
	if best == nil {
		return 0
	}
	return best.MemberID
}

// HashKVAll compares the data of all voters at one revision, within ctx. It
// returns nil only when every voter was asked and all are equal; a difference
// is a *QuorumError whose verdict is SPLIT.
func (m *Members) HashKVAll(ctx context.Context) (Verdict, error) {
	for {
		v := m.Look(ctx, Options{Hash: true, ReadOnly: true})
		switch {
		case v.State == Split:
			r := byState(v)
			return v, &QuorumError{What: "compare data", Reason: r.reason, Run: r.run, Verdict: v}
		case v.State.HasQuorum() && v.Healthy == v.Voters:
			return v, nil
		}
		if err := pause(ctx, actPoll); err != nil {
			return v, &QuorumError{What: "compare data", Reason: "not every voter could be asked", Verdict: v, Err: err}
		}
	}
}
