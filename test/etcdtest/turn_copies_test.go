package etcdtest

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/schedule"
	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/sshd"
)

const copyDir = "/var/backups/ha-install"

// copied is a schedule whose backups go to an SFTP server and to the other masters,
// each of which listens as systemd has it listen.
type copied struct {
	*turns
	at   string // the directory on the server
	sftp string // its place

	mu   sync.Mutex
	deaf map[string]bool // masters that nobody reaches
}

func copiesOf(t *testing.T, c *Cluster, server *sshd.Server) *copied {
	t.Helper()
	at := t.TempDir()
	s := &copied{turns: scheduleOf(t, c), at: at, sftp: "sftp://backup@nas" + at, deaf: map[string]bool{}}
	known := server.KnownHosts(t)
	address := map[string]string{}
	for _, m := range c.Members {
		turn := s.of[m.Name]
		for name, from := range map[string]string{"server.crt": c.pki.cert, "server.key": c.pki.key} {
			content, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(filepath.Join(turn.Root, templates.PKIDir, "etcd", name), content, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		turn.Config.Copies = []templates.ScheduledCopy{
			{To: s.sftp, Server: &templates.CopyServer{Address: server.Host(), Port: server.Port(), User: "backup", IdentityFiles: []string{server.KeyFile}, KnownHosts: known}},
			{To: "masters://" + copyDir},
		}
		turn.Receiver = func(name string) string { return address[name] }
		s.of[m.Name] = turn
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		address[m.Name] = l.Addr().String()
		go s.receive(l, m.Name)
	}
	return s
}

func (s *copied) receive(l net.Listener, name string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		deaf := s.deaf[name]
		s.mu.Unlock()
		if deaf {
			conn.Close()
			continue
		}
		go func() { _ = s.of[name].Receive(bg, conn) }()
	}
}

func (s *copied) hear(name string, hears bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf[name] = !hears
}

// wholeIn are the whole copies in a directory, by name, the newest first.
func wholeIn(t *testing.T, dir string) []string {
	t.Helper()
	all, err := backup.In(dir, "prod").List()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range all {
		r, err := backup.Verify(bg, e.Path, backup.Expected{Cluster: "prod"})
		if err != nil || !r.Whole {
			t.Errorf("%s: %+v, %v", e.Path, r.Damage, err)
			continue
		}
		names = append(names, filepath.Base(e.Path))
	}
	return names
}

func (s *copied) onMaster(name string) []string {
	s.t.Helper()
	return wholeIn(s.t, filepath.Join(s.of[name].Root, copyDir))
}

// makes has a master make the backup of a new period, named after another second of the
// real clock than what was made before.
func (s *copied) makes(name string) (string, error) {
	s.t.Helper()
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
	s.now = s.now.Truncate(s.every).Add(s.every + s.every/2) // late: nobody waits, and a quarter more is still the same period
	outcome, err := s.take(name)
	path, made := strings.CutPrefix(outcome, "made ")
	if !made {
		s.t.Fatalf("%s: %q, %v", name, outcome, err)
	}
	return filepath.Base(path), err
}

func (s *copied) state(name string) schedule.State {
	s.t.Helper()
	st, err := schedule.ReadState(s.of[name].State)
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// TestScheduledBackupsAreCopied: to all places, each at once; what failed is told, kept
// in mind, and mended by a later look; the places keep so many of their own.
func TestScheduledBackupsAreCopied(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	c.Ready(c.Connect())
	c.history(t, false)
	s := copiesOf(t, c, sshd.New(t, sshd.Options{}))
	// An operator's own, older than all, at a place: retention does not touch it.
	theirs, _ := take(t, c, c.Connect(), s.at)

	s.hear("cp-3", false)
	name, err := s.makes("cp-1")
	const onThree = "masters://" + copyDir + " on cp-3"
	if err == nil || !strings.Contains(err.Error(), "1 of 3 copies") || !strings.Contains(err.Error(), onThree) {
		t.Errorf("with a deaf master: %v", err)
	}
	if !slices.Contains(wholeIn(t, s.at), name) || !slices.Equal(s.onMaster("cp-2"), []string{name}) || len(s.onMaster("cp-3")) != 0 || len(s.onMaster("cp-1")) != 0 {
		t.Errorf("%s lies at %q, %q, %q", name, wholeIn(t, s.at), s.onMaster("cp-2"), s.onMaster("cp-3"))
	}
	st := s.state("cp-1")
	if st.Err == "" || st.Sent == nil || st.Sent.Backup != name || !st.Sent.At(name, s.sftp) || st.Sent.At(name, onThree) || len(st.Sent.Copies) != 3 {
		t.Errorf("%+v", st.Sent)
	}
	// All masters know where it lies, and where not, also when its own is gone.
	if _, err := s.take("cp-2"); err != nil {
		t.Error(err)
	}
	if last := s.state("cp-2").Last; last == nil || last.Host != "cp-1" || len(last.Copies) != 3 || last.Copies[2].Place != onThree || last.Copies[2].Err == "" {
		t.Errorf("on record: %+v", last)
	}
	// At once it is not tried again, nor is what went well forgotten.
	s.hear("cp-3", true)
	if _, err := s.take("cp-1"); err != nil || len(s.onMaster("cp-3")) != 0 {
		t.Errorf("%v, cp-3 has %q", err, s.onMaster("cp-3"))
	}
	if st := s.state("cp-1"); st.Err != "" || st.Sent.At(name, onThree) {
		t.Errorf("%+v", st)
	}
	s.now = s.now.Add(s.every / 4)
	if _, err := s.take("cp-1"); err != nil || !slices.Equal(s.onMaster("cp-3"), []string{name}) {
		t.Errorf("%v, cp-3 has %q", err, s.onMaster("cp-3"))
	}
	if st := s.state("cp-1"); st.Sent == nil || !st.Sent.At(name, onThree) {
		t.Errorf("%+v", st.Sent)
	}

	// A place that is none any more is neither tried nor told of.
	gone := s.of["cp-1"]
	gone.Config.Copies = gone.Config.Copies[:1]
	s.of["cp-1"], gone = gone, s.of["cp-1"]
	if _, err := s.take("cp-1"); err != nil || len(s.state("cp-1").Sent.Copies) != 1 {
		t.Errorf("%v, %+v", err, s.state("cp-1").Sent)
	}
	s.of["cp-1"] = gone

	names := []string{name}
	for _, by := range []string{"cp-1", "cp-2", "cp-1", "cp-1"} {
		name, err := s.makes(by)
		if err != nil {
			t.Fatalf("%s: %v", by, err)
		}
		names = append([]string{name}, names...)
	}
	if at := wholeIn(t, s.at); len(at) != 3 || !slices.Equal(at[:2], names[:2]) || at[2] != filepath.Base(theirs) {
		t.Errorf("the server keeps %q of %q, and %s of an operator", at, names, filepath.Base(theirs))
	}
	if at := s.onMaster("cp-3"); !slices.Equal(at, names[:2]) {
		t.Errorf("cp-3 keeps %q of %q", at, names)
	}
	if at := s.onMaster("cp-1"); len(at) != 1 {
		t.Errorf("cp-1 keeps %q, cp-2 has made one", at)
	}
}

// TestTheTurnEndsBeforeCopies: a server that takes its time holds no lease, and a
// period has one backup all the same.
func TestTheTurnEndsBeforeCopies(t *testing.T) {
	t.Parallel()
	c := Start(t, 1)
	c.Ready(c.Connect())
	c.history(t, false)
	server := sshd.New(t, sshd.Options{})
	s := copiesOf(t, c, server)
	cfg, err := c.pki.client(bg)
	if err != nil {
		t.Fatal(err)
	}
	records, err := schedule.Open(bg, c.Members[0].ClientURL, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer records.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	turn := s.of["cp-1"]
	turn.Config.Copies[0].Server.Address, turn.Config.Copies[0].Server.Port = "127.0.0.1", l.Addr().(*net.TCPAddr).Port
	ctx, cancel := context.WithCancel(bg)
	ended := make(chan error, 1)
	go func() {
		_, err := turn.Take(ctx, &phase.Runner{})
		ended <- err
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if view, err := records.Look(bg); err != nil || view.Holder != "" || view.Last == nil {
		t.Errorf("while it is sent: %+v, %v", view, err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if s.whole() != 1 {
		t.Error("the backup is gone")
	}
}
