package etcdtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/schedule"
)

// mark has a master belong to a cluster with that CA set.
func (s *turns) mark(name, ca string) {
	s.t.Helper()
	file := filepath.Join(s.of[name].Root, "var/lib/ha-install/cluster.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"cluster":"prod","caSHA256":"`+ca+`"}`), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// records are those of the cluster.
func (s *turns) records() *schedule.Records {
	s.t.Helper()
	cfg, err := s.c.pki.client(bg)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := schedule.Open(bg, s.c.Members[0].ClientURL, cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(r.Close)
	return r
}

// record puts a backup on record, as one made in a turn.
func (s *turns) record(n schedule.Note) {
	s.t.Helper()
	r := s.records()
	v, err := r.Look(bg)
	if err != nil {
		s.t.Fatal(err)
	}
	turn, working, err := r.Take(bg, v)
	if err != nil {
		s.t.Fatal(err)
	}
	defer turn.End(bg)
	if err := turn.Record(working, n); err != nil {
		s.t.Fatal(err)
	}
}

// there are the names of a master's backups, the newest first.
func (s *turns) there(name string) (names []string) {
	s.t.Helper()
	all, err := backup.In(s.of[name].Config.Directory, "prod").List()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, filepath.Base(e.Path))
	}
	return names
}

// TestABackupSoonAfterARestore: what a restored etcd has on record, and what lies on the
// masters, is of the cluster before by its ID. It stays until its time to go has come.
func TestABackupSoonAfterARestore(t *testing.T) {
	t.Parallel()
	c := Start(t, 1)
	m := c.Connect()
	c.Ready(m)
	c.history(t, false)
	s := scheduleOf(t, c)
	s.now = time.Now().UTC()
	s.mark("cp-1", "ca")
	const before etcd.MemberID = 0xbefe
	dir := s.of["cp-1"].Config.Directory
	of := func(m *backup.Manifest) { m.ClusterID, m.CASHA256 = before, "ca" }
	older, _ := takeAs(t, c, m, dir, s.now.Truncate(s.every).Add(-s.every), of)
	newer, _ := takeAs(t, c, m, dir, s.now.Truncate(s.every), of)
	s.record(schedule.Note{ClusterID: before, Period: s.now.Truncate(s.every), Time: s.now, Host: "lost-1", Path: newer})
	outcome, err := s.take("cp-1")
	if err != nil || !strings.HasPrefix(outcome, "made ") || outcome == "made "+newer {
		t.Fatalf("%q, %v", outcome, err)
	}
	v, err := s.records().Look(bg)
	if err != nil || v.Last == nil || v.Last.ClusterID != v.Cluster || v.Last.Host != "cp-1" {
		t.Errorf("on record: %+v, %v", v.Last, err)
	}
	if again, err := s.take("cp-1"); err != nil || strings.HasPrefix(again, "made ") {
		t.Errorf("again in the same period: %q, %v", again, err)
	}
	// Two are to be kept, whichever cluster ID they have.
	if got := s.there("cp-1"); len(got) != 2 || got[1] != filepath.Base(newer) || s.whole() != 2 {
		t.Errorf("left: %q; before there were %q, %q", got, older, newer)
	}
}

// TestABackupOfANamesakeIsLeftAlone: a cluster that was reset leaves its backups, and
// the next one of its name on the same master has the same cluster ID.
func TestABackupOfANamesakeIsLeftAlone(t *testing.T) {
	t.Parallel()
	c := Start(t, 1)
	m := c.Connect()
	c.Ready(m)
	c.history(t, false)
	s := scheduleOf(t, c)
	s.now = time.Now().UTC()
	s.mark("cp-1", "this one's")
	dir := s.of["cp-1"].Config.Directory
	var others []string
	for i := range 3 {
		path, _ := takeAs(t, c, m, dir, s.now.Add(-time.Duration(i)*time.Second), func(m *backup.Manifest) { m.CASHA256 = "the other's" })
		others = append(others, path)
	}
	for range 3 {
		outcome, err := s.take("cp-1")
		if err != nil || !strings.HasPrefix(outcome, "made ") {
			t.Fatalf("%q, %v", outcome, err)
		}
		for _, other := range others {
			if outcome == "made "+other {
				t.Errorf("%s was adopted", other)
			}
		}
		s.now = s.now.Add(s.every)
	}
	for _, other := range others {
		if backup.Read(other).Err != nil {
			t.Errorf("%s was removed", other)
		}
	}
	if got := s.there("cp-1"); len(got) != len(others)+2 {
		t.Errorf("left: %q, want two of this cluster beside %q", got, others)
	}
}

// TestClocksFarApart: each makes its own, once in a period, and puts it on record once.
func TestClocksFarApart(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	c.Ready(c.Connect())
	c.history(t, false)
	s := scheduleOf(t, c)
	s.every = 24 * time.Hour // backups are named after the real clock, which goes on
	s.now = time.Now().UTC().Truncate(s.every).Add(s.every - time.Minute)
	for name, turn := range s.of {
		if turn.Config.Every = s.every; name != "cp-1" {
			turn.Now = func() time.Time { return s.now.Add(-3 * s.every) }
		}
		s.of[name] = turn
	}
	times := map[string]int{}
	for range 4 {
		for _, name := range []string{"cp-1", "cp-2", "cp-3"} {
			outcome, err := s.take(name)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if strings.HasPrefix(outcome, "made ") {
				times[name]++
			}
		}
	}
	if times["cp-1"] != 1 || times["cp-2"]+times["cp-3"] != 1 {
		t.Errorf("so many made, or read through and put on record: %v", times)
	}
}
