package etcdtest

import (
	"context"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
)

// The leader is killed at several moments around a change of membership. What
// became of the request nobody knows: the change has to list again, and decide
// by what is there. Either it is done, once, or it is an error and not done.
func TestFault21LeaderDiesDuringAChange(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]inFlight{"add": {prepare: nothing, change: add, done: listed},
		"remove": {prepare: addFirst, change: remove, done: notListed}, "promote": {prepare: joinFirst, change: promote, done: voter}} {
		for _, after := range []time.Duration{0, 3 * time.Millisecond} {
			t.Run(name+" after "+after.String(), func(t *testing.T) {
				t.Parallel()
				change.run(t, after)
			})
		}
	}
}

// inFlight is a change of one newcomer's membership.
type inFlight struct {
	prepare func(*testing.T, *Cluster, *etcd.Members, *Member) etcd.MemberID
	change  func(context.Context, *etcd.Members, *Member, etcd.MemberID) error
	done    func([]etcd.Listed, *Member) bool
}

func (f inFlight) run(t *testing.T, after time.Duration) {
	c := Start(t, 3)
	c.Ready(c.Connect())
	time.Sleep(5 * time.Second) // etcd refuses an add until all voters have been connected for 5 s
	newcomer := c.Add("cp-4")
	m := c.Connect()
	id := f.prepare(t, c, m, newcomer)
	v := c.Ready(m)
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		time.Sleep(after)
		c.Member(v.LeaderName).Stop()
	}()
	// With a voter dead etcd may refuse an add for ever; then it must be an
	// error, and the list must say so.
	ctx, cancel := context.WithTimeout(bg, 8*time.Second)
	defer cancel()
	err := f.change(ctx, m, newcomer, id)
	<-killed
	list := listOf(t, m)
	t.Logf("%v; then listed: %v", err, list)
	if done := f.done(list, newcomer); done != (err == nil) {
		t.Errorf("done %t, error %v", done, err)
	}
	n := 0
	for _, l := range list {
		if l.PeerURLs[0] == newcomer.PeerURL {
			n++
		}
	}
	if n > 1 || len(list)-n != 3 {
		t.Errorf("%d times the newcomer, %d others", n, len(list)-n)
	}
	if err == nil {
		again, cancel := context.WithTimeout(bg, 10*time.Second)
		defer cancel()
		if err := f.change(again, m, newcomer, id); err != nil {
			t.Errorf("once more is no success: %v", err)
		}
	}
}

func nothing(*testing.T, *Cluster, *etcd.Members, *Member) etcd.MemberID { return 0 }

func addFirst(t *testing.T, _ *Cluster, m *etcd.Members, h *Member) etcd.MemberID {
	t.Helper()
	ctx, cancel := context.WithTimeout(bg, 20*time.Second)
	defer cancel()
	l, err := m.AddLearner(ctx, h.PeerURL, h.Name)
	if err != nil {
		t.Fatal(err)
	}
	return l.ID
}

// joinFirst brings a learner up until it has caught up.
func joinFirst(t *testing.T, c *Cluster, m *etcd.Members, h *Member) etcd.MemberID {
	t.Helper()
	id := addFirst(t, c, m, h)
	if err := h.Join(listOf(t, m)); err != nil {
		t.Fatal(err)
	}
	eventually(t, m, 30*time.Second, "the learner has caught up", func(v etcd.Verdict) bool { return row(t, v, h.Name).State == etcd.MemberLearner })
	return id
}

func add(ctx context.Context, m *etcd.Members, h *Member, _ etcd.MemberID) error {
	_, err := m.AddLearner(ctx, h.PeerURL, h.Name)
	return err
}

func remove(ctx context.Context, m *etcd.Members, _ *Member, id etcd.MemberID) error {
	return m.Remove(ctx, id)
}

func promote(ctx context.Context, m *etcd.Members, _ *Member, id etcd.MemberID) error {
	return m.Promote(ctx, id)
}

func find(list []etcd.Listed, h *Member) (etcd.Listed, bool) {
	for _, l := range list {
		if l.PeerURLs[0] == h.PeerURL {
			return l, true
		}
	}
	return etcd.Listed{}, false
}

func listed(list []etcd.Listed, h *Member) bool {
	_, ok := find(list, h)
	return ok
}

func notListed(list []etcd.Listed, h *Member) bool { return !listed(list, h) }

func voter(list []etcd.Listed, h *Member) bool {
	l, ok := find(list, h)
	return ok && !l.Learner
}
