package etcdtest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
)

// TestJudgeIsRightAndInTime is what a status asks, with a new view of the
// cluster as a process that has just begun: the right verdict within the time
// that it has, whatever does not answer.
func TestJudgeIsRightAndInTime(t *testing.T) {
	t.Parallel()
	const budget = 4200 * time.Millisecond
	for _, row := range []struct {
		name  string
		fault func(c *Cluster, leader, second, third *Member)
		state etcd.State
		is    etcd.MemberState // of the one or two that it hit
		hit   int
	}{
		{"all is well", func(*Cluster, *Member, *Member, *Member) {}, etcd.Pass, "", 0},
		{"a follower is off", func(c *Cluster, _, second, _ *Member) { c.PowerOff(second) }, etcd.Degraded, etcd.MemberDead, 1},
		{"the leader is off", func(c *Cluster, leader, _, _ *Member) { c.PowerOff(leader) }, etcd.Degraded, etcd.MemberDead, 1},
		{"a follower hangs", func(c *Cluster, _, second, _ *Member) { c.Net.Freeze(second) }, etcd.Degraded, etcd.MemberHung, 1},
		{"the followers are off", func(c *Cluster, _, second, third *Member) { c.PowerOff(second); c.PowerOff(third) }, etcd.NoQuorum, etcd.MemberDead, 2},
		{"two are off, the leader among them", func(c *Cluster, leader, second, _ *Member) { c.PowerOff(leader); c.PowerOff(second) }, etcd.NoQuorum, etcd.MemberDead, 2},
		{"two are off, the leader among them, just now", func(c *Cluster, leader, second, _ *Member) { c.PowerOff(leader); c.PowerOff(second) }, etcd.NoQuorum, etcd.MemberDead, 2},
		{"all are off", func(c *Cluster, leader, second, third *Member) {
			c.PowerOff(leader)
			c.PowerOff(second)
			c.PowerOff(third)
		}, etcd.Unknown, etcd.MemberUnreachable, 3},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := Start(t, 3)
			v := c.Ready(c.Connect())
			leader, others := c.Member(v.LeaderName), []*Member{}
			for _, m := range c.Members {
				if m != leader {
					others = append(others, m)
				}
			}
			row.fault(c, leader, others[0], others[1])
			if !strings.HasSuffix(row.name, "just now") {
				time.Sleep(3 * time.Second) // an election ends in it
			}
			ctx, cancel := context.WithTimeout(bg, budget)
			defer cancel()
			began := time.Now()
			v = c.Connect().Judge(ctx, etcd.Options{ReadOnly: true, Disk: true, Inputs: true})
			took := time.Since(began)
			t.Logf("%s in %s", v.State, took.Round(time.Millisecond))
			hit := 0
			for _, m := range v.Members {
				if m.State == row.is {
					hit++
				}
			}
			if v.State != row.state || hit != row.hit || took > budget+300*time.Millisecond {
				t.Errorf("%s (%v), %d are %s, in %s; want %s, %d\n%+v", v.State, v.Reasons, hit, row.is, took, row.state, row.hit, v.Members)
			}
		})
	}
}
