package copies

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/test/snapdb"
	"github.com/ha-install/ha-install/test/sshd"
)

var bg = context.Background()

var aday = time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)

// made makes a whole backup of cluster prod in a directory, of so many bytes or more.
func made(t testing.TB, dir string, at time.Time, bytesAtLeast int) backup.Entry {
	t.Helper()
	d, err := backup.In(dir, "prod").Begin(at)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	revision := max(int64(50), int64(bytesAtLeast/500)) // a record is a little more
	s, err := d.WriteSnapshot(bg, bytes.NewReader(snapdb.Sent(snapdb.Database(t, revision, 1))), nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Bytes < int64(bytesAtLeast) {
		t.Fatalf("the snapshot has %d bytes, want %d", s.Bytes, bytesAtLeast)
	}
	path, err := d.Commit(backup.Manifest{Cluster: "prod", Quorum: true, Verdict: etcd.Pass, Snapshot: s})
	if err != nil {
		t.Fatal(err)
	}
	return backup.Read(path)
}

// sftpAt is a place on a server that is known by its key.
func sftpAt(t testing.TB, s *sshd.Server, dir string) inventory.BackupCopy {
	t.Helper()
	off := false
	return inventory.BackupCopy{
		To:  fmt.Sprintf("sftp://backup@%s:%d%s", s.Host(), s.Port(), dir),
		SSH: inventory.SSH{KnownHosts: []string{s.KnownHosts(t)}, IdentityFiles: []string{s.KeyFile}, Agent: &off},
	}
}

func opens(t testing.TB, c inventory.BackupCopy) *Place {
	t.Helper()
	p, err := Open(bg, c, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// roundTrip sends a backup to a place, lists it, has it fetched elsewhere, and
// removes it; it is the same for all kinds of places.
func roundTrip(t *testing.T, p *Place, size int) {
	e := made(t, t.TempDir(), aday, size)
	if there, err := p.Send(bg, e); err != nil || there {
		t.Fatalf("there %v, %v", there, err)
	}
	if there, err := p.Send(bg, e); err != nil || !there {
		t.Errorf("sent again: there %v, %v", there, err)
	}
	newer := made(t, t.TempDir(), aday.Add(time.Hour), 0)
	if _, err := p.Send(bg, newer); err != nil {
		t.Fatal(err)
	}
	found, err := p.List(bg, "prod")
	if err != nil || len(found) != 2 || found[0].Manifest.Digest != newer.Manifest.Digest || found[1].Manifest.Digest != e.Manifest.Digest {
		t.Fatalf("%+v, %v", found, err)
	}
	for _, c := range found {
		if err := c.Check(bg); err != nil {
			t.Error(err)
		}
	}
	if other, err := p.List(bg, "test"); err != nil || len(other) != 0 {
		t.Errorf("another cluster's: %v, %v", other, err)
	}
	here := t.TempDir()
	for range 2 { // the second time it is here
		r, err := p.Fetch(bg, found[1].Dir, here, backup.Expected{Cluster: "prod"})
		if err != nil || !r.Whole || r.Path != filepath.Join(here, "prod", backup.Name(aday)) {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	// Another backup of the same name is never written over.
	second := made(t, t.TempDir(), aday.Add(time.Hour), size)
	if second.Manifest.Digest != newer.Manifest.Digest {
		if _, err := p.Send(bg, second); err == nil || !strings.Contains(err.Error(), "another backup") {
			t.Errorf("%v", err)
		}
	}
	if err := found[1].Remove(bg); err != nil {
		t.Error(err)
	}
	if left, err := p.List(bg, "prod"); err != nil || len(left) != 1 || left[0].Dir != found[0].Dir {
		t.Errorf("%+v, %v", left, err)
	}
}

func TestSFTP(t *testing.T) {
	s := sshd.New(t, sshd.Options{})
	roundTrip(t, opens(t, sftpAt(t, s, t.TempDir()+"/a/b")), 1<<20)
	if len(s.Commands()) > 0 {
		t.Errorf("commands were run there: %q", s.Commands())
	}
}

// TestOnHost is a directory on a host of the cluster, over its own connection, which
// "backup create" opens for reading.
func TestOnHost(t *testing.T) {
	s := sshd.New(t, sshd.Options{Shims: sshd.Shims(t)})
	h, err := host.Dial(bg, host.Config{Name: "cp-1", Address: s.Host(), Port: s.Port(), User: "root",
		IdentityFiles: []host.Identity{{Path: s.KeyFile, Required: true}}, KnownHosts: []string{s.KnownHosts(t)}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	dir := t.TempDir()
	p, err := OnHost(bg, inventory.BackupCopy{To: "masters://" + dir}, host.ReadOnly(h))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if want := "masters://" + dir + " on cp-1"; p.String() != want {
		t.Errorf("%s, want %s", p, want)
	}
	roundTrip(t, p, 1<<20)
	if s.Connections() != 1 {
		t.Errorf("%d connections, want the host's own", s.Connections())
	}
}

// TestSFTPCut cuts the line at several points of a sending; nothing appears under
// the name of the backup, and the next attempt clears up and finishes.
func TestSFTPCut(t *testing.T) {
	s := sshd.New(t, sshd.Options{})
	dir := t.TempDir()
	e := made(t, t.TempDir(), aday, 1<<20)
	for _, after := range []int64{6_000, 300_000, 1_000_000} {
		p := opens(t, sftpAt(t, s, dir))
		s.DropAfter(after)
		_, err := p.Send(bg, e)
		if err == nil || !strings.Contains(err.Error(), p.String()) {
			t.Errorf("after %d bytes: %v", after, err)
		}
		t.Logf("after %d bytes: %v", after, err)
		if found, err := os.ReadDir(filepath.Join(dir, "prod")); err == nil {
			for _, d := range found {
				if d.Name() != "."+backup.Name(aday)+partSuffix {
					t.Errorf("after %d bytes there is %s", after, d.Name())
				}
			}
		}
	}
	p := opens(t, sftpAt(t, s, dir))
	if _, err := p.Send(bg, e); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(dir, "prod"))
	if err != nil || len(left) != 1 || left[0].Name() != backup.Name(aday) {
		t.Errorf("%v, %v", left, err)
	}
}

// TestSFTPFetchCut cuts the line while a copy comes: nothing appears here.
func TestSFTPFetchCut(t *testing.T) {
	s := sshd.New(t, sshd.Options{})
	p := opens(t, sftpAt(t, s, t.TempDir()))
	e := made(t, t.TempDir(), aday, 1<<20)
	if _, err := p.Send(bg, e); err != nil {
		t.Fatal(err)
	}
	here := t.TempDir()
	p = opens(t, sftpAt(t, s, strings.TrimSuffix(p.files.(*server).root, "/")))
	s.DropAfter(1500)
	if _, err := p.Fetch(bg, "prod/"+backup.Name(aday), here, backup.Expected{}); err == nil {
		t.Error("a copy came over a line that was cut")
	}
	if left, err := os.ReadDir(filepath.Join(here, "prod")); err == nil && len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestSFTPDiskFull(t *testing.T) {
	s := sshd.New(t, sshd.Options{Room: 200_000})
	dir := t.TempDir()
	p := opens(t, sftpAt(t, s, dir))
	_, err := p.Send(bg, made(t, t.TempDir(), aday, 1<<20))
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "prod")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSFTPHostKeyIsVerified(t *testing.T) {
	s := sshd.New(t, sshd.Options{})
	for name, known := range map[string]string{"changed": s.KnownHosts(t, sshd.NewKey(t).PublicKey()), "unknown": filepath.Join(t.TempDir(), "none")} {
		c := sftpAt(t, s, t.TempDir())
		c.SSH.KnownHosts = []string{known}
		p, err := Open(bg, c, t.TempDir())
		var key *host.HostKeyError
		if p != nil || !errors.As(err, &key) || key.Changed() != (name == "changed") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSFTPDamage flips a byte in a copy: it is found by reading, never fetched,
// and not written over.
func TestSFTPDamage(t *testing.T) {
	s := sshd.New(t, sshd.Options{})
	dir := t.TempDir()
	p := opens(t, sftpAt(t, s, dir))
	e := made(t, t.TempDir(), aday, 0)
	if _, err := p.Send(bg, e); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "prod", backup.Name(aday), backup.SnapshotFile)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := p.List(bg, "prod")
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	if err := found[0].Check(bg); !IsDamage(err) {
		t.Errorf("read: %v", err)
	}
	if _, err := p.Send(bg, e); err == nil || !strings.Contains(err.Error(), "damaged, and was left") {
		t.Errorf("sent again: %v", err)
	}
	var damaged *backup.DamagedError
	if _, err := p.Fetch(bg, found[0].Dir, t.TempDir(), backup.Expected{}); !errors.As(err, &damaged) || damaged.Report.Damage[0].Kind != backup.SnapshotAltered {
		t.Errorf("fetched: %v", err)
	}
}

// TestSFTPRots sends to a disk that keeps other bytes than it was given: it is found
// when the copy is read back, and none appears.
func TestSFTPRots(t *testing.T) {
	s := sshd.New(t, sshd.Options{Rots: true})
	dir := t.TempDir()
	p := opens(t, sftpAt(t, s, dir))
	if _, err := p.Send(bg, made(t, t.TempDir(), aday, 0)); err == nil || !strings.Contains(err.Error(), "is not there what it is here, read back") {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "prod")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestSFTPOtherContents puts the snapshot of another backup, whole in itself, into a copy.
func TestSFTPOtherContents(t *testing.T) {
	s := sshd.New(t, sshd.Options{})
	dir := t.TempDir()
	p := opens(t, sftpAt(t, s, dir))
	if _, err := p.Send(bg, made(t, t.TempDir(), aday, 0)); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(made(t, t.TempDir(), aday, 1<<20).Path, backup.SnapshotFile)
	if err := os.Rename(other, filepath.Join(dir, "prod", backup.Name(aday), backup.SnapshotFile)); err != nil {
		t.Fatal(err)
	}
	found, err := p.List(bg, "prod")
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	if err := found[0].Check(bg); !IsDamage(err) || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("read: %v", err)
	}
}

// TestSFTPSweeps removes what a dead run left a day ago, and nothing younger.
func TestSFTPSweeps(t *testing.T) {
	s := sshd.New(t, sshd.Options{})
	dir := t.TempDir()
	names := []string{".2026-11-20T00-00-00Z.part", ".2026-11-21T00-00-00Z.part", ".mine.part"}
	for i, name := range names {
		d := filepath.Join(dir, "prod", name)
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, backup.SnapshotFile), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if then := time.Now().Add(-25 * time.Hour); i != 1 {
			if err := os.Chtimes(d, then, then); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := opens(t, sftpAt(t, s, dir)).Send(bg, made(t, t.TempDir(), aday, 0)); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "prod", ".*.part"))
	if err != nil || len(left) != 2 || filepath.Base(left[0]) != names[1] || filepath.Base(left[1]) != names[2] {
		t.Errorf("%v, %v", left, err)
	}
}
