package backup

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/snapdb"
)

func TestABackupIsPrivateAndAppearsWhole(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "backups")
	seal, _ := recipient(t)
	e := made(t, dir, t0, seal)
	if want := filepath.Join(dir, "prod", "2026-11-23T04-05-06Z"); e.Path != want {
		t.Errorf("%s, want %s", e.Path, want)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want || strings.HasSuffix(path, partSuffix) {
			t.Errorf("%s: %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	// Two in the same second are two.
	if again := made(t, dir, t0, Seal{}); filepath.Base(again.Path) != "2026-11-23T04-05-07Z" {
		t.Error(again.Path)
	}
	all, err := In(dir, "prod").List()
	if err != nil || len(all) != 2 || all[0].Path < all[1].Path || all[0].Err != nil {
		t.Errorf("%v, %+v", err, all)
	}
	// The first one goes: one more of that second is not older than the other.
	if err := In(dir, "prod").Remove(all[1]); err != nil {
		t.Error(err)
	}
	if third := made(t, dir, t0, Seal{}); filepath.Base(third.Path) != "2026-11-23T04-05-08Z" {
		t.Error(third.Path)
	}
	if none, err := In(dir, "other").List(); err != nil || len(none) != 0 {
		t.Errorf("%v, %v", none, err)
	}
}

// died leaves what a process leaves that is killed while it makes a backup.
func died(t *testing.T, s Store, at time.Time) string {
	t.Helper()
	d, err := s.Begin(at)
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.Create(SnapshotFile)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("half a snapshot")); err != nil {
		t.Fatal(err)
	}
	f.Close()
	d.lock.Close() // with the process
	return d.Dir()
}

func TestSweepTakesWhatTheDeadHaveLeftAndNothingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := In(dir, "prod")
	whole := made(t, dir, t0, Seal{})
	left := died(t, s, t0.Add(time.Hour))
	strange := died(t, s, t0.Add(2*time.Hour))
	if err := os.WriteFile(filepath.Join(strange, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	working, err := s.Begin(t0.Add(3 * time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	defer working.Close()
	for _, name := range []string{".mine.part", "mine", ".2026-11-23T04-05-06Z", "2026-11-23.part"} {
		if err := os.Mkdir(filepath.Join(s.Dir(), name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w, err := s.Sweep()
	if err != nil {
		t.Fatal(err)
	}
	is := func(got []string, want string) bool { return len(got) == 1 && got[0] == want }
	if !is(w.Removed, left) || !is(w.Held, working.Dir()) || !is(w.Strange, strange) {
		t.Errorf("%+v", w)
	}
	names, err := os.ReadDir(s.Dir())
	if err != nil || len(names) != 7 {
		t.Errorf("%v: %v", names, err)
	}
	if _, err := os.Stat(filepath.Join(strange, SnapshotFile+partSuffix)); err != nil {
		t.Errorf("a file was removed beside a strange one: %v", err)
	}
	if r, err := Verify(bg, whole.Path, Expected{}); err != nil || !r.Whole {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAFullDiskIsOurOwn(t *testing.T) {
	t.Parallel()
	full := &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	var space *SpaceError
	var local *LocalError
	err := localError("/backups/prod", full)
	if !errors.As(err, &space) || !errors.As(err, &local) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"no room for a backup in /backups/prod", "earlier backups are as they were", "run: make room"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if err := localError("x", errors.New("stale handle")); !errors.As(err, &local) {
		t.Errorf("%v", err)
	}
	s := In(t.TempDir(), "prod")
	if err := s.Room(1); err != nil {
		t.Error(err)
	}
	if err := s.Room(1 << 60); !errors.As(err, &space) || space.Free <= 0 || space.Needed != 1<<60 {
		t.Errorf("%v", err)
	}
	// /dev/full takes no byte: what is written there is told from what is read.
	d, err := s.Begin(t0)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := os.Symlink("/dev/full", filepath.Join(d.Dir(), SnapshotFile+partSuffix)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteSnapshot(bg, bytes.NewReader(snapdb.Sent(database(t, 50))), nil); !errors.As(err, &space) || !errors.As(err, &local) {
		t.Errorf("%v", err)
	}
}

func TestPrune(t *testing.T) {
	t.Parallel()
	now := t0
	day := 24 * time.Hour
	const (
		damaged = 1 << iota
		edited
		foreign
	)
	row := func(age time.Duration, how int) Entry {
		e := Entry{Path: Name(now.Add(-age)), Manifest: Manifest{Cluster: "prod", Time: now.Add(-age)}}
		switch how {
		case edited:
			e.Err = errEdited
		case foreign:
			e.Manifest.Cluster = "test"
		case damaged:
			e.Manifest.Program = "damaged"
		}
		return e
	}
	for _, tt := range []struct {
		name string
		all  []Entry // the newest first
		rule Rule
		want string // one letter for each: k stays, r goes
	}{
		{"the two newest of four stay", []Entry{row(1, 0), row(2, 0), row(3, 0), row(4, 0)}, Rule{Keep: 2}, "kkrr"},
		{"fewer than are to be kept", []Entry{row(1, 0)}, Rule{Keep: 2}, "k"},
		{"those of the last week stay", []Entry{row(1*day, 0), row(6*day, 0), row(8*day, 0)}, Rule{Younger: 7 * day}, "kkr"},
		{"either rule keeps", []Entry{row(1*day, 0), row(8*day, 0), row(9*day, 0), row(10*day, 0)}, Rule{Keep: 3, Younger: 7 * day}, "kkkr"},
		{"all are old: the newest stays", []Entry{row(20*day, 0), row(30*day, 0)}, Rule{Younger: 7 * day}, "kr"},
		{"a damaged one is not counted", []Entry{row(1, damaged), row(2, 0), row(3, 0), row(4, 0)}, Rule{Keep: 2}, "kkkr"},
		{"an old damaged one goes", []Entry{row(1, 0), row(2, damaged), row(3, 0)}, Rule{Keep: 1}, "krr"},
		{"the last whole one stays, however old", []Entry{row(1*day, damaged), row(2*day, damaged), row(30*day, 0), row(31*day, 0)}, Rule{Younger: 7 * day}, "kkkr"},
		{"none is whole: all stay", []Entry{row(20*day, damaged), row(30*day, damaged)}, Rule{Keep: 1}, "kk"},
		{"whose manifest was edited is not ours to remove", []Entry{row(1, 0), row(2, edited), row(3, 0)}, Rule{Keep: 1}, "kkr"},
		{"another cluster's stays", []Entry{row(1, 0), row(2, foreign), row(3, 0)}, Rule{Keep: 1}, "kkr"},
		{"another cluster's is not counted", []Entry{row(1, foreign), row(2, 0), row(3, 0)}, Rule{Keep: 1}, "kkr"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			for _, f := range Decide(tt.all, "prod", tt.rule, now, func(e Entry) bool { return e.Manifest.Program != "damaged" }) {
				if f.Why == "" {
					t.Errorf("%s: no word why", f.Path)
				}
				if got += "k"; f.Remove {
					got = got[:len(got)-1] + "r"
				}
			}
			if got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestRemoveTakesABackupAndNothingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := In(dir, "prod")
	one, two := made(t, dir, t0, Seal{}), made(t, dir, t0.Add(time.Hour), Seal{})
	notes := filepath.Join(two.Path, "notes.txt")
	if err := os.WriteFile(notes, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(two); err == nil || !strings.Contains(err.Error(), "notes.txt") {
		t.Errorf("%v", err)
	}
	if r, err := Verify(bg, two.Path, Expected{}); err != nil || !r.Whole {
		t.Errorf("%+v, %v", r, err)
	}
	if err := s.Remove(one); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(one.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(filepath.Join(two.Path, ManifestFile), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(Read(two.Path)); err == nil {
		t.Error("one that nothing proves to be ours was removed")
	}
}
