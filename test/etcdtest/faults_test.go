package etcdtest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
)

var bg = context.Background()

func row(t *testing.T, v etcd.Verdict, name string) etcd.Member {
	t.Helper()
	for _, m := range v.Members {
		if m.Name == name || m.Host == name {
			return m
		}
	}
	t.Fatalf("no row for %s in %v", name, v.Members)
	return etcd.Member{}
}

// eventually looks until the verdict is as wanted.
func eventually(t *testing.T, m *etcd.Members, within time.Duration, what string, ok func(etcd.Verdict) bool) etcd.Verdict {
	t.Helper()
	began := time.Now()
	for {
		v := m.Look(bg, etcd.Options{})
		if ok(v) {
			t.Logf("%s: after %s", what, time.Since(began).Round(time.Millisecond))
			return v
		}
		if time.Since(began) > within {
			t.Fatalf("%s: not within %s; now %s %v %+v", what, within, v.State, v.Reasons, v.Members)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Etcd is killed on one master, then on a second one: steps that would cost
// another vote are refused with the numbers.
func TestFault4EtcdKilled(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	c.Ready(m)

	c.Member("cp-3").Stop()
	v := eventually(t, m, 10*time.Second, "one dead: DEGRADED", func(v etcd.Verdict) bool { return v.State == etcd.Degraded })
	if r := row(t, v, "cp-3"); r.State != etcd.MemberDead || r.Healthy || !strings.Contains(r.Why, "2379 refused from") || !strings.Contains(r.Why, "cp-3") {
		t.Errorf("cp-3: %+v", r)
	}
	restart := etcd.Operation{Kind: etcd.OpRestart, Host: "cp-2", PeerURL: c.Member("cp-2").PeerURL}
	_, err := m.Gate(bg, etcd.Want{Op: &restart}, 8*time.Second)
	var q *etcd.QuorumError
	if !errors.As(err, &q) || !errors.Is(err, context.DeadlineExceeded) || q.Decision == nil || q.Decision.After.Healthy != 1 {
		t.Errorf("restarting a healthy one of two: %v", err)
	}
	t.Logf("\n%v", err)

	c.Member("cp-2").Stop()
	v = eventually(t, m, 10*time.Second, "two dead: NO QUORUM", func(v etcd.Verdict) bool { return v.State == etcd.NoQuorum })
	if v.Voters != 3 || v.Quorum != 2 || v.Proven {
		t.Errorf("%+v", v.Numbers)
	}
	began := time.Now()
	v = m.Look(bg, etcd.Options{})
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("a look without quorum took %s", took)
	}
	if _, err := m.Gate(bg, etcd.Want{}, time.Second); !errors.As(err, &q) || q.Verdict.State != etcd.NoQuorum {
		t.Errorf("gate without quorum: %v", err)
	}
}

func TestFault23HungMemberIsFoundAndDelaysNobody(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	c.Ready(m)
	c.Net.Freeze(c.Member("cp-2"))
	for _, which := range []string{"on an open connection", "on a new connection"} {
		began := time.Now()
		v := m.Look(bg, etcd.Options{})
		took := time.Since(began)
		t.Logf("hung %s: found in %s: %s", which, took, row(t, v, "cp-2").Why)
		if took > 7*time.Second {
			t.Errorf("took %s", took)
		}
		if r := row(t, v, "cp-2"); r.State != etcd.MemberHung {
			t.Errorf("cp-2: %s %s", r.State, r.Why)
		}
		if v.State != etcd.Degraded || v.Healthy != 2 {
			t.Errorf("%s %s %v", v.State, v.Numbers, v.Reasons)
		}
	}
	c.Net.Thaw(c.Member("cp-2"))
	eventually(t, m, 5*time.Second, "thawed", func(v etcd.Verdict) bool { return v.State == etcd.Pass })
}

func TestSSHDownIsNotEtcdDown(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	c.Ready(m)
	m.Forget("cp-3")
	c.Net.SSHDown("cp-3", true)
	v := m.Look(bg, etcd.Options{})
	r := row(t, v, "cp-3")
	if v.State != etcd.Pass || !r.Healthy || r.Via == "" || !strings.Contains(r.Why, "ssh: ") {
		t.Errorf("%s, cp-3: %+v", v.State, r)
	}
	c.Member("cp-3").Stop() // now the host is off
	m.Forget(r.Via)
	v = eventually(t, m, 5*time.Second, "powered off", func(v etcd.Verdict) bool { return row(t, v, "cp-3").State == etcd.MemberDead })
	r = row(t, v, "cp-3")
	if !r.HostDown || !strings.Contains(r.Why, "ssh: ") || !strings.Contains(r.Why, "2379 refused from cp-1, cp-2") {
		t.Errorf("cp-3: %+v", r)
	}
	restart := etcd.Operation{Kind: etcd.OpRestart, PeerURL: c.Member("cp-2").PeerURL}
	began := time.Now()
	if _, err := m.Gate(bg, etcd.Want{Op: &restart}, time.Minute); err == nil || time.Since(began) > 6*time.Second {
		t.Errorf("host gone: refused after %s: %v", time.Since(began), err)
	}

	for _, h := range c.Members {
		c.Net.SSHDown(h.Name, true)
		m.Forget(h.Name)
	}
	if v := m.Look(bg, etcd.Options{}); v.State != etcd.Unknown || v.Voters != 3 {
		t.Errorf("nothing reachable: %s %s", v.State, v.Numbers)
	}
}

func TestForeignCertificateIsSaidSo(t *testing.T) {
	t.Parallel()
	c := Start(t, 1)
	stranger := newPKI(t)
	target := c.Target(c.Members[0])
	target.TLS = stranger.client
	m := etcd.NewMembers([]etcd.Target{target}, nil)
	defer m.Close()
	began := time.Now()
	v := m.Look(bg, etcd.Options{})
	r := row(t, v, "cp-1")
	if r.State != etcd.MemberUnverified || !strings.Contains(r.Why, "certificate") || v.State != etcd.Unknown || time.Since(began) > 4*time.Second {
		t.Errorf("%s, %s %s, after %s", v.State, r.State, r.Why, time.Since(began))
	}
	t.Log(v.State, r.Why)
}

func TestAnotherClusterOnAHostIsSplit(t *testing.T) {
	t.Parallel()
	c := Start(t, 1)
	stranger := c.Add("cp-2")
	if err := stranger.StartAlone(); err != nil {
		t.Fatal(err)
	}
	m := c.Connect()
	began := time.Now()
	v, err := m.Gate(bg, etcd.Want{}, time.Minute)
	var q *etcd.QuorumError
	if !errors.As(err, &q) || v.State != etcd.Split || time.Since(began) > 10*time.Second {
		t.Fatalf("%s after %s: %v", v.State, time.Since(began), err)
	}
	t.Log(err)
}

// The etcd of one master comes back with its data of before a restore: it merges with
// nobody, serves nobody, and is told from one that hangs.
func TestFault12AMemberOfBeforeARestoreIsForeign(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	was := c.Ready(m).ClusterID
	before := c.Anew("restored")
	is := c.Ready(m).ClusterID
	if was == is {
		t.Fatalf("both are cluster %s", is)
	}
	old := c.Member("cp-3")
	old.Stop()
	old.Dir, before["cp-3"] = before["cp-3"], old.Dir
	if err := old.Restart(); err != nil {
		t.Fatal(err)
	}
	v := eventually(t, m, 15*time.Second, "foreign", func(v etcd.Verdict) bool { return row(t, v, "cp-3").State == etcd.MemberForeign })
	if r := row(t, v, "cp-3"); r.Healthy || !strings.Contains(r.Why, was.String()) {
		t.Errorf("cp-3: %+v", r)
	}
	if v.State != etcd.Degraded || v.Healthy != 2 || v.ClusterID != is {
		t.Errorf("%s, %v, cluster %s: %v", v.State, v.Numbers, v.ClusterID, v.Reasons)
	}
	began := time.Now()
	var q *etcd.QuorumError
	if _, err := m.Gate(bg, etcd.Want{AllHealthy: true}, time.Minute); !errors.As(err, &q) || time.Since(began) > 20*time.Second || !strings.Contains(q.Run, "replace INVENTORY cp-3") {
		t.Errorf("a gate that no waiting opens: after %s, %v", time.Since(began), err)
	}
	// With its own data again it is one of them, and all have the same.
	old.Stop()
	old.Dir = before["cp-3"]
	if err := old.Restart(); err != nil {
		t.Fatal(err)
	}
	if v := c.Ready(m); v.ClusterID != is {
		t.Errorf("cluster %s, want %s", v.ClusterID, is)
	}
}

func TestFault24NoSpaceAlarm(t *testing.T) {
	t.Parallel()
	c := Start(t, 3, WithQuota(2<<20))
	m := c.Connect()
	c.Ready(m)
	c.fill(t)
	v := eventually(t, m, 5*time.Second, "NOSPACE", func(v etcd.Verdict) bool { return len(v.Alarms) > 0 })
	t.Logf("%s %v\n%v", v.State, v.Reasons, v.Warnings)
	if v.State == etcd.Pass || v.State == etcd.Split {
		t.Errorf("state %s", v.State)
	}
	for _, a := range v.Alarms {
		r, ok := v.Find(a.Member, "")
		if !ok || r.Healthy {
			t.Errorf("the alarm of %s is on %+v", a.Member, r)
		}
	}
	one := v.Alarms[0].Member
	bearer, _ := v.Find(one, "")
	for _, op := range []etcd.Operation{
		{Kind: etcd.OpRestart, PeerURL: c.Member("cp-2").PeerURL},
		{Kind: etcd.OpAddLearner, Host: "cp-4", PeerURL: "https://127.0.0.1:1", HostEmpty: true},
		{Kind: etcd.OpRemoveLive, PeerURL: c.Member("cp-3").PeerURL},
	} {
		err := etcd.Project(v, op).Err(v)
		if err == nil || !strings.Contains(err.Error(), "alarm") || !strings.Contains(err.Error(), "ha-install etcd alarms disarm") {
			t.Errorf("%s under an alarm: %v", op, err)
		}
	}
	if all := strings.Join(append(v.Warnings, v.Reasons...), "\n"); !strings.Contains(all, bearer.Name) || !strings.Contains(all, "NOSPACE alarm of member "+one.String()) {
		t.Errorf("%s (%s) is not named:\n%s", bearer.Name, one, all)
	}
	if err := etcd.Project(v, etcd.Operation{Kind: etcd.OpDefragment, PeerURL: bearer.PeerURL}).Err(v); err == nil || !strings.Contains(err.Error(), "ha-install etcd alarms disarm") {
		t.Errorf("to defragment its bearer alone: %v", err)
	}
	// What is done about it has gates that take everything into account but this.
	despite := etcd.Want{AllHealthy: true, NoSpace: true, Op: &etcd.Operation{Kind: etcd.OpDefragment, PeerURL: bearer.PeerURL}}
	if now, err := m.Gate(bg, despite, 10*time.Second); err != nil || !strings.Contains(strings.Join(now.Warnings, "\n"), "no write is accepted") {
		t.Errorf("%v, warnings %q", err, now.Warnings)
	}
	if _, err := m.Gate(bg, etcd.Want{AllHealthy: true}, time.Second); err == nil {
		t.Error("a gate that does not know of the alarm passes")
	}
	c.makeRoom(t, m)
	if now := c.Ready(m); now.State != etcd.Pass || len(now.Alarms) != 0 {
		t.Errorf("after the remedy that was shown: %s, alarms %v", now.State, now.Alarms)
	}
}

func TestFault25DivergedData(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	c.Ready(m)
	c.put(t, "/registry/a", "truth")
	if _, err := m.HashKVAll(bg); err != nil {
		t.Fatal(err)
	}
	c.tamper(t, c.Member("cp-2"), "truth", "lies!")
	eventually(t, m, 10*time.Second, "tampered member is back", func(v etcd.Verdict) bool { return v.State == etcd.Pass })
	ctx, cancel := context.WithTimeout(bg, 10*time.Second)
	defer cancel()
	v, err := m.HashKVAll(ctx)
	if err == nil || v.State != etcd.Split || row(t, v, "cp-2").State != etcd.MemberDiverged || row(t, v, "cp-1").State != etcd.MemberHealthy {
		t.Fatalf("%s: %v", v.State, err)
	}
	t.Log(err)
	if text := err.Error(); !strings.Contains(text, "cp-2") || strings.Contains(text, "cp-1") || strings.Contains(text, "cp-3") {
		t.Errorf("the odd one is not the one that is named: %s", text)
	}
	for _, d := range etcd.Projections(v) {
		d.Op.Force = true
		if forced := etcd.Project(v, d.Op); d.Allowed || forced.Allowed || !forced.Definite {
			t.Errorf("%s: allowed %t, forced %t, definite %t", d.Op, d.Allowed, forced.Allowed, forced.Definite)
		}
	}
	// A gate that compares data does not pass, and does not wait either.
	began := time.Now()
	if _, err := m.Gate(bg, etcd.Want{Hash: true}, time.Minute); err == nil || time.Since(began) > 20*time.Second {
		t.Errorf("the gate after %s: %v", time.Since(began), err)
	}
}
