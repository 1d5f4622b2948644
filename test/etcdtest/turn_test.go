package etcdtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/schedule"
	"github.com/ha-install/ha-install/templates"
)

// turns are the masters' turns to make scheduled backups, each with files of its own.
// Their clock stands still until a test moves it.
type turns struct {
	t     *testing.T
	c     *Cluster
	now   time.Time
	every time.Duration
	of    map[string]provision.Turn
}

func scheduleOf(t *testing.T, c *Cluster) *turns {
	t.Helper()
	every := time.Hour
	s := &turns{t: t, c: c, now: time.Now().UTC().Truncate(every), every: every, of: map[string]provision.Turn{}}
	key, err := x509.MarshalECPrivateKey(c.pki.clientCert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(c.pki.ca)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.Members {
		root := t.TempDir()
		dir := filepath.Join(root, templates.PKIDir, "etcd")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o600); err != nil {
			t.Fatal(err)
		}
		writePEM(t, filepath.Join(dir, "healthcheck-client.crt"), "CERTIFICATE", c.pki.clientCert.Certificate[0])
		writePEM(t, filepath.Join(dir, "healthcheck-client.key"), "EC PRIVATE KEY", key)
		s.of[m.Name] = provision.Turn{
			Config: templates.BackupConfig{Cluster: "prod", Every: every, Keep: 2, Directory: filepath.Join(root, "backups")},
			State:  filepath.Join(root, "state.json"), Root: root, Endpoint: m.ClientURL, Now: func() time.Time { return s.now },
		}
	}
	return s
}

// take is one look of a master.
func (s *turns) take(name string) (string, error) {
	ctx, cancel := context.WithTimeout(bg, 40*time.Second)
	defer cancel()
	return s.of[name].Take(ctx, &phase.Runner{})
}

// all has all masters look at once, as timers that were started together do.
func (s *turns) all(names ...string) map[string]string {
	s.t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	said := map[string]string{}
	for _, name := range names {
		wg.Go(func() {
			outcome, err := s.take(name)
			if err != nil {
				outcome = "error: " + err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			said[name] = outcome
		})
	}
	wg.Wait()
	return said
}

// whole counts the whole backups of all masters.
func (s *turns) whole() int {
	s.t.Helper()
	n := 0
	for name, turn := range s.of {
		all, err := backup.In(turn.Config.Directory, "prod").List()
		if err != nil {
			s.t.Fatal(err)
		}
		for _, e := range all {
			r, err := backup.Verify(bg, e.Path, backup.Expected{Cluster: "prod"})
			if err != nil || !r.Whole {
				s.t.Errorf("%s: %+v: %v", name, r, err)
			}
			n++
		}
		if left, _ := filepath.Glob(filepath.Join(turn.Config.Directory, "prod", ".*")); len(left) > 0 {
			s.t.Errorf("%s: left behind: %q", name, left)
		}
	}
	return n
}

func made(said map[string]string) (names []string) {
	for name, outcome := range said {
		if strings.HasPrefix(outcome, "made ") {
			names = append(names, name)
		}
	}
	return names
}

func TestEachPeriodHasOneBackup(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	c.Ready(c.Connect())
	c.history(t, false)
	s := scheduleOf(t, c)
	s.now = s.now.Add(s.every - time.Minute) // late: nobody waits for anybody any more
	said := s.all("cp-1", "cp-2", "cp-3")
	first := made(said)
	if len(first) != 1 || s.whole() != 1 {
		t.Fatalf("%d backups: %q", s.whole(), said)
	}
	if said := s.all("cp-1", "cp-2", "cp-3"); len(made(said)) != 0 || !strings.Contains(said["cp-1"], "has its backup, on "+first[0]) {
		t.Errorf("again in the same period: %q", said)
	}
	for name, turn := range s.of {
		state, err := schedule.ReadState(turn.State)
		if err != nil || state.Err != "" || state.Last == nil || state.Last.Host != first[0] {
			t.Errorf("%s knows %+v, %v", name, state, err)
		}
	}
	// One is down when its turn comes; the next one follows after the grace, not before.
	s.now = s.now.Truncate(s.every).Add(s.every)
	turn, up := "", []string{}
	for _, m := range c.Members {
		d := schedule.Decide(schedule.Facts{Now: s.now, Every: s.every, Grace: time.Minute, Self: m.Name, Masters: []string{"cp-1", "cp-2", "cp-3"}})
		if d.Kind == schedule.Make {
			turn = m.Name
		} else {
			up = append(up, m.Name)
		}
	}
	c.Member(turn).Stop()
	eventuallyQuorum(t, s, up[0])
	if said := s.all(up...); len(made(said)) != 0 || !strings.Contains(said[up[0]], "it is the turn of "+turn) {
		t.Errorf("%s is down: %q", turn, said)
	}
	s.now = s.now.Add(s.of[turn].Config.Grace())
	if said := s.all(up...); len(made(said)) != 1 || s.whole() != 2 {
		t.Errorf("%s is down, after the grace: %q", turn, said)
	}
	if _, err := s.take(turn); err == nil {
		t.Error("a master whose etcd is down has taken a turn")
	}
	if state, err := schedule.ReadState(s.of[turn].State); err != nil || state.Err == "" || state.Last == nil {
		t.Errorf("%s knows %+v, %v", turn, state, err)
	}
}

// eventuallyQuorum waits until a master can look through quorum.
func eventuallyQuorum(t *testing.T, s *turns, name string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(bg, 5*time.Second)
		err := s.of[name].Check(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestABackupThatIsNotOnRecordIsAdopted(t *testing.T) {
	t.Parallel()
	c := Start(t, 1)
	m := c.Connect()
	c.Ready(m)
	c.history(t, false)
	s := scheduleOf(t, c)
	s.now = time.Now().UTC()
	path, _ := take(t, c, m, s.of["cp-1"].Config.Directory) // and killed before it was put on record
	if outcome, err := s.take("cp-1"); err != nil || outcome != "made "+path || s.whole() != 1 {
		t.Errorf("%q, %v", outcome, err)
	}
}

func TestOnlySoManyAreKept(t *testing.T) {
	t.Parallel()
	c := Start(t, 1)
	c.Ready(c.Connect())
	c.history(t, false)
	s := scheduleOf(t, c)
	last := ""
	for range 4 { // each named after the real clock, a second later than the one before at least
		outcome, err := s.take("cp-1")
		if err != nil || !strings.HasPrefix(outcome, "made ") {
			t.Fatalf("%q, %v", outcome, err)
		}
		last = strings.TrimPrefix(outcome, "made ")
		s.now = s.now.Add(2 * s.every)
	}
	if n := s.whole(); n != 2 {
		t.Errorf("%d are kept, want 2", n)
	}
	if backup.Read(last).Err != nil {
		t.Error("the newest is gone")
	}
}

// TestAFrozenMasterLosesItsTurn has one silent until its lease is over: another takes
// the turn, and what the first one does when it wakes up changes nothing.
func TestAFrozenMasterLosesItsTurn(t *testing.T) {
	t.Parallel()
	c := Start(t, 1)
	c.Ready(c.Connect())
	cfg, err := c.pki.client(bg)
	if err != nil {
		t.Fatal(err)
	}
	r, err := schedule.Open(bg, c.Members[0].ClientURL, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	look := func() schedule.View {
		v, err := r.Look(bg)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	before := look()
	first, working, err := r.Take(bg, before)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Take(bg, before); !errors.Is(err, schedule.ErrTaken) {
		t.Errorf("a second turn at once: %v", err)
	}
	if err := first.Held(working); err != nil {
		t.Error(err)
	}
	first.End(bg) // as its lease does
	if err := first.Held(bg); !errors.Is(err, schedule.ErrLost) {
		t.Errorf("held after its end: %v", err)
	}
	second, working, err := r.Take(bg, look())
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Record(bg, schedule.Note{Host: "cp-1"}); !errors.Is(err, schedule.ErrLost) {
		t.Errorf("the first one's record: %v", err)
	}
	if err := second.Record(working, schedule.Note{ClusterID: before.Cluster, Host: "cp-2"}); err != nil {
		t.Error(err)
	}
	if v := look(); v.Last == nil || v.Last.Host != "cp-2" || v.Holder != "" {
		t.Errorf("%+v", v)
	}
	if _, _, err := r.Take(bg, before); !errors.Is(err, schedule.ErrTaken) {
		t.Errorf("a turn on what was seen before the record: %v", err)
	}
}
