package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// careBudget bounds a compaction or a defragmentation: both rewrite the database,
// 8 GB at the most that etcd's own advice allows.
const careBudget = 10 * time.Minute

// Defragment has the member on a host of the inventory write its database anew,
// without the room that was freed in it. It answers nobody meanwhile.
func (m *Members) Defragment(ctx context.Context, host string) error {
	at := slices.IndexFunc(m.targets, func(t Target) bool { return t.Name == host })
	if at < 0 {
		return fmt.Errorf("%s: not a master of the inventory", host)
	}
	a := m.try(ctx, m.targets[at].ClientURL, m.targets[at])
	if a.conn == nil {
		return fmt.Errorf("%s: defragment: etcd: %s", host, a.attempt.Err)
	}
	err := m.actWithin(ctx, careBudget, func(ctx context.Context) error {
		_, err := a.conn.maint.Defragment(ctx, "")
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: defragment: %w", host, err)
	}
	return nil
}

// Compact forgets every revision before the given one that is not a key's last,
// and waits until that is done on the member that was asked. One that was compacted
// already is success.
func (m *Members) Compact(ctx context.Context, revision int64) error {
	c, _, err := m.quorate(ctx, 0, nil)
	if err == nil {
		err = m.actWithin(ctx, careBudget, func(ctx context.Context) error {
			_, err := c.Client.Compact(ctx, revision, clientv3.WithCompactPhysical())
			return err
		})
	}
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("compact to revision %d: %w", revision, err)
	}
	return nil
}

// Disarm takes an alarm back. etcd raises it again with the next write when its
// cause is still there.
func (m *Members) Disarm(ctx context.Context, alarm Alarm) error {
	c, _, err := m.quorate(ctx, 0, nil)
	if err == nil {
		err = m.act(ctx, func(ctx context.Context) error {
			_, err := c.maint.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: uint64(alarm.Member), Alarm: pb.AlarmType(pb.AlarmType_value[alarm.Kind])})
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("disarm %s of member %s: %w", alarm.Kind, alarm.Member, err)
	}
	return nil
}
