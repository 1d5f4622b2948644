package etcdtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
)

// TestGrowToThree is what apply does: one member at a time, learner first,
// under the gate.
func TestGrowToThree(t *testing.T) {
	t.Parallel()
	c := Start(t, 1)
	for n, name := range []string{"cp-2", "cp-3"} {
		h := c.Add(name)
		m := c.Connect()
		ctx, cancel := context.WithTimeout(bg, 30*time.Second)
		defer cancel()
		began := time.Now()
		add := etcd.Operation{Kind: etcd.OpAddLearner, Host: name, PeerURL: h.PeerURL, HostEmpty: true}
		if _, err := m.Do(ctx, add, etcd.Want{Voters: n + 1, AllHealthy: true}, 30*time.Second); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: added after %s", name, time.Since(began))
		l, err := m.AddLearner(ctx, h.PeerURL, name)
		if err != nil || !l.Learner {
			t.Fatalf("adding again is not success: %v %v", l, err)
		}
		if _, err := m.Gate(ctx, etcd.Want{Voters: n + 1}, 20*time.Second); err == nil {
			t.Fatal("the gate passed a learner")
		}
		v := m.Look(ctx, etcd.Options{})
		if r := row(t, v, name); r.State != etcd.MemberUnnamed || v.Voters != n+1 || v.Learners != 1 {
			t.Errorf("listed, not started: %+v", r)
		}
		if err := h.Join(listOf(t, m)); err != nil {
			t.Fatal(err)
		}
		promote := etcd.Operation{Kind: etcd.OpPromote, PeerURL: h.PeerURL}
		if _, err := m.Do(ctx, promote, etcd.Want{Voters: n + 1, Learners: etcd.AnyLearners}, 20*time.Second); err != nil {
			t.Fatal(err)
		}
		if err := m.Promote(ctx, l.ID); err != nil {
			t.Errorf("promoting a voter is not success: %v", err)
		}
		if _, err := m.Gate(ctx, etcd.Want{Voters: n + 2, AllHealthy: true, Hash: true}, 20*time.Second); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: voter after %s", name, time.Since(began))
	}
}

func listOf(t *testing.T, m *etcd.Members) []etcd.Listed {
	t.Helper()
	for range 50 {
		for _, v := range m.Observe(bg, etcd.Options{ReadOnly: true}).Views {
			if v.Agreed != nil {
				return v.Agreed
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("no member list")
	return nil
}

func TestFault9GhostVoterIsRefusedAtOnceAndRemovedByID(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	all := c.Connect()
	c.Ready(all)
	ghost := c.Member("cp-3")
	id := ghost.ID()
	m := etcd.NewMembers([]etcd.Target{c.Target(c.Member("cp-1")), c.Target(c.Member("cp-2"))}, nil)
	defer m.Close()
	began := time.Now()
	v, err := m.Gate(bg, etcd.Want{}, time.Minute)
	var q *etcd.QuorumError
	if !errors.As(err, &q) || time.Since(began) > 10*time.Second {
		t.Fatalf("after %s: %v", time.Since(began), err)
	}
	t.Logf("\n%v", err)
	if r, _ := v.Find(id, ""); !r.Ghost || !r.Healthy || v.Voters != 3 || v.Healthy != 3 {
		t.Errorf("a live ghost: %+v, %s", r, v.Numbers)
	}
	op := etcd.Operation{Kind: etcd.OpRemoveLive, ID: id}
	if _, err := m.Do(bg, op, etcd.Want{}, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	ghost.Stop()
	if err := m.Remove(bg, id); err != nil {
		t.Errorf("removing again is not success: %v", err)
	}
	if _, err := m.Gate(bg, etcd.Want{Voters: 2, AllHealthy: true}, 20*time.Second); err != nil {
		t.Error(err)
	}
}

// TestChangesAskBefore has a run that has lost its lock: it may look, and
// change nothing.
func TestChangesAskBefore(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	c.Ready(c.Connect())
	lost := errors.New("the lock is another's")
	m := etcd.NewMembers(c.Targets(), func(context.Context) error { return lost })
	defer m.Close()
	v, err := m.Gate(bg, etcd.Want{Voters: 3, AllHealthy: true}, time.Minute)
	if err != nil {
		t.Fatalf("looking is free: %v", err)
	}
	ctx, cancel := context.WithTimeout(bg, 10*time.Second)
	defer cancel()
	_, adding := m.AddLearner(ctx, "https://127.0.0.9:2380", "cp-9")
	for what, err := range map[string]error{"add": adding, "remove": m.Remove(ctx, c.Member("cp-2").ID()), "move the leader": m.MoveLeader(ctx, 0, nil)} {
		if !errors.Is(err, lost) || ctx.Err() != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if after, err := m.Gate(bg, etcd.Want{Voters: 3, AllHealthy: true}, time.Minute); err != nil || after.LeaderID != v.LeaderID {
		t.Errorf("something was changed: %v", err)
	}
}

func TestLeaderIsMovedAndRemoved(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	v := c.Ready(m)
	for range 2 {
		before := v.LeaderID
		began := time.Now()
		if err := m.MoveLeader(bg, 0, nil); err != nil {
			t.Fatal(err)
		}
		t.Logf("leader moved in %s", time.Since(began))
		if v = c.Ready(m); v.LeaderID == before {
			t.Error("the leader is the same")
		}
	}
	op := etcd.Operation{Kind: etcd.OpRemoveLive, ID: v.LeaderID}
	if _, err := m.Do(bg, op, etcd.Want{}, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, h := range c.Members {
		if h.ID() == v.LeaderID {
			h.Stop()
			break
		}
	}
	eventually(t, m, 10*time.Second, "two voters", func(v etcd.Verdict) bool { return v.Voters == 2 && v.Healthy == 2 })
}

func TestSnapshotOfARealMember(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	v := c.Ready(m)
	c.put(t, "/registry/a", "b")
	sources, err := etcd.SnapshotSources(v)
	if err != nil || len(sources) != 3 || !sources[2].Leader {
		t.Fatalf("%v: %+v", err, sources)
	}
	var b bytes.Buffer
	info := snapshot(t, m, sources[0].Host, &b)
	if info.Size != int64(b.Len()) {
		t.Errorf("%+v", info)
	}
	if _, err := etcd.VerifySnapshot(io.LimitReader(&b, info.Size/2)); !errors.Is(err, etcd.ErrCorruptSnapshot) {
		t.Errorf("half a snapshot: %v", err)
	}
	// Without quorum a snapshot still works.
	c.Member("cp-2").Stop()
	c.Member("cp-3").Stop()
	snapshot(t, m, "cp-1", io.Discard)
}

// snapshot takes one from a member, and checks it.
func snapshot(t *testing.T, m *etcd.Members, host string, w io.Writer) etcd.SnapshotInfo {
	t.Helper()
	s, err := m.Snapshot(bg, host)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	info, err := etcd.VerifySnapshot(io.TeeReader(s, w))
	if err != nil || s.Host != host || s.Version != "3.6.8" || s.Size <= 0 || s.Cluster == 0 {
		t.Errorf("%+v: %v", s, err)
	}
	return info
}
