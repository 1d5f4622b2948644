package etcd

import (
	"cmp"
	"slices"
	"time"
)

// Successor is the voter that would lead best besides the one that leads now: a
// healthy one, over its own host's connection, with the fastest disk; of equal ones
// the first of the inventory. ok is false when there is none.
func (v Verdict) Successor() (m Member, ok bool) {
	fit := v.only(func(m Member) bool {
		return m.Role == Voter && m.Healthy && !m.Leader && m.Host != "" && m.Via == ""
	})
	if len(fit) == 0 {
		return m, false
	}
	return slices.MinFunc(fit, func(a, b Member) int { return cmp.Compare(diskClass(a), diskClass(b)) }), true
}

// diskClass is how slow a member's disk is, in doublings from a millisecond: smaller
// differences come and go. One that is not known is the slowest.
func diskClass(m Member) int {
	d := m.FsyncP99.Duration()
	if d <= 0 {
		return 64
	}
	class := 0
	for most := time.Millisecond; d > most; most *= 2 {
		class++
	}
	return class
}
