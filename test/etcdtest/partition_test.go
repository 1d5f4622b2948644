package etcdtest

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
)

// A leader that is cut off keeps calling itself the leader for a while. The
// gate must not pass before the others have a leader of their own, for longer
// than an election takes, and nothing may be done that needs the one cut off.
func TestFault7LeaderIsCutOff(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	before := c.Ready(m)
	old := c.Member(before.LeaderName)
	c.Cut(t, old)
	began := time.Now()
	v, err := m.Gate(bg, etcd.Want{What: "after the cut"}, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("gate passed %s after the cut: leader %s at term %d (was %s at %d), stable for %s",
		time.Since(began).Round(time.Millisecond), v.LeaderName, v.Term, before.LeaderName, before.Term, v.StableFor)
	if v.LeaderID == before.LeaderID || v.Term <= before.Term || v.StableFor.Duration() < etcd.ElectionTimeout {
		t.Errorf("leader %s at term %d, stable for %s", v.LeaderName, v.Term, v.StableFor)
	}
	if r := row(t, v, old.Name); r.Healthy || v.State != etcd.Degraded || v.Healthy != 2 {
		t.Errorf("%s, %s; %s is %s", v.State, v.Numbers, old.Name, r.State)
	}
	for _, h := range c.Members {
		op := etcd.Operation{Kind: etcd.OpRestart, Host: h.Name, PeerURL: h.PeerURL}
		if d := etcd.Project(v, op); d.Allowed != (h == old) {
			t.Errorf("%s: allowed %t: %s", op, d.Allowed, d.Reason)
		}
	}
	remove := etcd.Operation{Kind: etcd.OpRemoveDead, ID: before.LeaderID, Fenced: true}
	if d := etcd.Project(v, remove); d.Allowed || !strings.Contains(d.Reason, "does not prove it dead") {
		t.Errorf("removing the one cut off: allowed %t: %s", d.Allowed, d.Reason)
	}
	c.Mend(old)
	if now := c.Ready(m); now.Healthy != 3 || now.State != etcd.Pass {
		t.Errorf("mended: %s %s", now.State, now.Numbers)
	}
}

// The leader moves although nothing is wrong: the next step waits until the new
// one has stayed for as long as an election takes.
func TestFault7GateWaitsForAStableTerm(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	before := c.Ready(m)
	if err := m.MoveLeader(bg, 0, nil); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	v, err := m.Gate(bg, etcd.Want{AllHealthy: true}, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if v.LeaderID == before.LeaderID || v.StableFor.Duration() < etcd.ElectionTimeout || time.Since(began) < etcd.ElectionTimeout {
		t.Errorf("leader %s (was %s), stable for %s, passed after %s", v.LeaderName, before.LeaderName, v.StableFor, time.Since(began))
	}
}

// Both followers are cut off: the old leader alone is the minority.
func TestFault7MinorityIsNotServed(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	before := c.Ready(m)
	for _, h := range c.Members {
		c.Cut(t, h)
	}
	v := eventually(t, m, 20*time.Second, "nobody hears anybody: NO QUORUM", func(v etcd.Verdict) bool { return v.State == etcd.NoQuorum })
	if v.Healthy != 0 || v.Voters != 3 {
		t.Errorf("%s", v.Numbers)
	}
	for _, op := range []etcd.Operation{{Kind: etcd.OpRestart, ID: before.LeaderID}, {Kind: etcd.OpRemoveDead, ID: before.LeaderID, Fenced: true}, {Kind: etcd.OpSnapshot}} {
		op.Force = true
		if d := etcd.Project(v, op); d.Allowed {
			t.Errorf("%s is allowed without quorum", op)
		}
	}
}

func TestFault11TwoOfThreeLost(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	before := c.Ready(m)
	c.Member("cp-1").Stop()
	c.Member("cp-2").Stop()
	v := eventually(t, m, 10*time.Second, "two lost", func(v etcd.Verdict) bool { return v.State == etcd.NoQuorum })
	for _, op := range []etcd.Operation{
		{Kind: etcd.OpRemoveDead, Host: "cp-1", PeerURL: c.Member("cp-1").PeerURL, Fenced: true, Force: true},
		{Kind: etcd.OpAddLearner, Host: "cp-4", PeerURL: "https://127.0.0.1:1", HostEmpty: true, Force: true},
		{Kind: etcd.OpRestart, Host: "cp-3", PeerURL: c.Member("cp-3").PeerURL, Force: true},
	} {
		_, err := m.Do(bg, op, etcd.Want{}, time.Second)
		var q *etcd.QuorumError
		if !errors.As(err, &q) || q.Verdict.State != etcd.NoQuorum || !strings.Contains(err.Error(), "voters 3, quorum 2, healthy 0") {
			t.Errorf("%s: %v", op, err)
		}
	}
	after := m.Look(bg, etcd.Options{ReadOnly: true})
	if len(after.Members) != len(before.Members) || after.Voters != 3 || after.ClusterID != v.ClusterID {
		t.Errorf("something was changed: %+v", after.Numbers)
	}
	snapshot(t, m, "cp-3", io.Discard)
	for _, name := range []string{"cp-1", "cp-2"} {
		if err := c.Member(name).Restart(); err != nil {
			t.Fatal(err)
		}
	}
	if now := c.Ready(m); now.State != etcd.Pass {
		t.Errorf("all back: %s", now.State)
	}
}

// Half a member: it hears the leader and follows it, but what it says does not
// get out, so that nothing it is asked through quorum can be answered.
func TestFault28OneWayCut(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	before := c.Ready(m)
	follower := c.Member("cp-1")
	if before.LeaderName == follower.Name {
		follower = c.Member("cp-2")
	}
	follower.Mute()
	v := eventually(t, m, 15*time.Second, "a mute follower", func(v etcd.Verdict) bool {
		return v.State == etcd.Degraded && !row(t, v, follower.Name).Healthy
	})
	r := row(t, v, follower.Name)
	t.Logf("%s: %s %s", r.Name, r.State, r.Why)
	if v.Healthy != 2 || r.State == etcd.MemberDead || r.State == etcd.MemberHealthy {
		t.Errorf("%s; %s is %s", v.Numbers, r.Name, r.State)
	}
	restart := etcd.Operation{Kind: etcd.OpRestart, PeerURL: c.Member(before.LeaderName).PeerURL}
	if _, err := m.Gate(bg, etcd.Want{Op: &restart}, 3*time.Second); err == nil {
		t.Error("a restart of the leader is allowed beside a mute follower")
	}
	follower.Unmute()
	if now := c.Ready(m); now.State != etcd.Pass {
		t.Errorf("heard again: %s", now.State)
	}
}

// Three in ten packets between us and the members are lost. The gate may take
// longer, but what it passes is true, and a member that dies is still found.
func TestFault28ThirtyPercentLoss(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	c.Net.Lose(0.3)
	m := c.Connect()
	began := time.Now()
	v := c.Ready(m)
	t.Logf("gate with 30 %% loss: %s, %s", time.Since(began).Round(time.Millisecond), v.State)
	if v.Healthy != 3 || v.State != etcd.Pass {
		t.Errorf("%s %s", v.State, v.Numbers)
	}
	c.Member("cp-2").Stop()
	v = eventually(t, m, 20*time.Second, "one dies", func(v etcd.Verdict) bool { return v.State == etcd.Degraded })
	if r := row(t, v, "cp-2"); r.Healthy {
		t.Errorf("cp-2 is %s", r.State)
	}
	ctx, cancel := context.WithTimeout(bg, 4*time.Second)
	defer cancel()
	if _, err := m.Gate(ctx, etcd.Want{AllHealthy: true}, 4*time.Second); err == nil {
		t.Error("a gate for all voters passed with one dead")
	}
}
