package etcdtest

import (
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// Cut parts a member from all others, both ways: its clients still reach it.
func (c *Cluster) Cut(t testing.TB, m *Member) {
	t.Helper()
	c.eachOther(m, func(a, b *Member) { a.etcd.Server.CutPeer(types.ID(b.ID())) })
}

// Mend takes Cut back.
func (c *Cluster) Mend(m *Member) {
	c.eachOther(m, func(a, b *Member) { a.etcd.Server.MendPeer(types.ID(b.ID())) })
}

// eachOther calls f for the member and each of the others, in both orders.
func (c *Cluster) eachOther(m *Member, f func(a, b *Member)) {
	for _, o := range c.Members {
		if o != m && o.etcd != nil {
			f(m, o)
			f(o, m)
		}
	}
}

// Mute lets a member hear the others, but nothing of what it says reaches them.
func (m *Member) Mute() { m.etcd.Server.PauseSending() }

// Unmute takes Mute back.
func (m *Member) Unmute() { m.etcd.Server.ResumeSending() }
