package fidelity

import (
	"context"
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// care are claims about what makes room in etcd's databases.
func care() []Claim {
	return []Claim{
		{"what is compacted is compacted once, and what is to come not yet", []string{"etcd compact"}, func(ctx context.Context, s *Scene) string {
			c := s.etcd(ctx)
			now, err := c.Status(ctx, c.Endpoints()[0])
			if err != nil {
				return seen(err)
			}
			_, first := c.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical())
			_, second := c.Compact(ctx, now.Header.Revision)
			_, future := c.Compact(ctx, now.Header.Revision+1_000_000)
			return strings.Join([]string{refused(first), refused(second), refused(future)}, ", ")
		}, "done, compacted, future revision"},
		{"a member that is defragmented has no free room of note, and answers", []string{"etcd defragment"}, func(ctx context.Context, s *Scene) string {
			c := s.etcd(ctx)
			_, end := c.Defragment(ctx, c.Endpoints()[0])
			now, err := c.Status(ctx, c.Endpoints()[0])
			if err != nil {
				return seen(err)
			}
			return fmt.Sprint(seen(end), " ", now.DbSize >= now.DbSizeInUse, " ", now.DbSize-now.DbSizeInUse < 4<<20)
		}, "done true true"},
		{"an alarm that is not raised can be taken back", []string{"etcd disarm"}, func(ctx context.Context, s *Scene) string {
			c := s.etcd(ctx)
			now, err := c.Status(ctx, c.Endpoints()[0])
			if err != nil {
				return seen(err)
			}
			_, end := c.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: now.Header.MemberId, Alarm: pb.AlarmType_NOSPACE})
			return seen(end)
		}, "done"},
	}
}
