package backup

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// partSuffix marks what is not whole yet, or not any more: a file that is being
// written, a directory that is being filled or emptied.
const partSuffix = ".part"

// Store is the directory that holds one cluster's backups, each in a directory
// of its own that appears under its name only when all in it is whole.
type Store struct{ dir string }

// In is the store of a cluster in a directory for the backups of many.
func In(dir, cluster string) Store { return Store{filepath.Join(dir, cluster)} }

// Dir is where the store lies.
func (s Store) Dir() string { return s.dir }

// SpaceError means that the operator's machine has no room for a backup.
type SpaceError struct {
	Dir    string
	Needed int64 // in bytes; 0: not known
	Free   int64
	Err    error // what the file system said; nil when it was only asked
}

func (e *SpaceError) Error() string {
	what := fmt.Sprintf("no room for a backup in %s", e.Dir)
	why := "the file system said: " + fmt.Sprint(e.Err)
	if e.Err == nil {
		why = fmt.Sprintf("it needs %d MB, %d MB are free", mega(e.Needed), mega(e.Free))
	}
	return what + "\nwhy: " + why + "; earlier backups are as they were\nrun: make room there (ha-install backup prune), or name another --directory"
}

func (e *SpaceError) Unwrap() error { return e.Err }

func mega(n int64) int64 { return (n + 1e6 - 1) / 1e6 }

// LocalError is of this machine's own file system: another source would not help.
type LocalError struct{ Err error } // *SpaceError, or what the system said

func (e *LocalError) Error() string { return e.Err.Error() }
func (e *LocalError) Unwrap() error { return e.Err }

// localError tells a full disk of this machine from everything else.
func localError(dir string, err error) error {
	var said *LocalError
	switch {
	case err == nil || errors.As(err, &said):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &LocalError{&SpaceError{Dir: dir, Err: err}}
	}
	return &LocalError{err}
}

// Room is a *SpaceError unless the store's file system has room for so many bytes.
func (s Store) Room(needed int64) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return localError(s.dir, err)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &st); err != nil {
		return localError(s.dir, &fs.PathError{Op: "statfs", Path: s.dir, Err: err})
	}
	if free := int64(st.Bavail) * int64(st.Bsize); free < needed {
		return &LocalError{&SpaceError{Dir: s.dir, Needed: needed, Free: free}}
	}
	return nil
}

// Entry is one backup of a store, as its directory says.
type Entry struct {
	Path     string
	Manifest Manifest
	// Err is why the manifest is not to be trusted; nil when it is ours.
	Err error
	// Verified is when all of it was found whole last.
	Verified time.Time
}

// List returns the store's backups, the newest first. A store that is not
// there has none.
func (s Store) List() ([]Entry, error) {
	names, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Entry
	for _, d := range names {
		if _, err := time.Parse(nameLayout, d.Name()); err == nil && d.IsDir() {
			all = append(all, Read(filepath.Join(s.dir, d.Name())))
		}
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(filepath.Base(b.Path), filepath.Base(a.Path)) })
	return all, nil
}

// Read reads the manifest of the backup in a directory.
func Read(dir string) Entry { return readAs(dir, filepath.Base(filepath.Clean(dir))) }

// readAs is Read of a backup that is to have that name.
func readAs(dir, name string) Entry {
	e := Entry{Path: filepath.Clean(dir)}
	data, err := os.ReadFile(filepath.Join(dir, ManifestFile))
	if err == nil {
		e.Manifest, err = decode(data)
	}
	if err == nil && Name(e.Manifest.Time) != name {
		err = fmt.Errorf("it is of %s: the directory was renamed", Name(e.Manifest.Time))
	}
	e.Err, e.Verified = err, e.Manifest.Time
	var v verification
	if data, err := os.ReadFile(filepath.Join(dir, verifiedFile)); err == nil && json.Unmarshal(data, &v) == nil && v.Digest == e.Manifest.Digest {
		e.Verified = v.At
	}
	return e
}

// errHeld means that another process is at work in a directory.
var errHeld = errors.New("another process is at work there")

// hold takes the lock of a directory; it ends with the process, or with Close.
func hold(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errHeld // who removed it held it
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errHeld
		}
		return nil, &fs.PathError{Op: "lock", Path: dir, Err: err}
	}
	// It may have been removed before the lock was ours.
	var now, locked syscall.Stat_t
	if syscall.Stat(dir, &now) != nil || syscall.Fstat(int(f.Fd()), &locked) != nil || now.Ino != locked.Ino {
		f.Close()
		return nil, errHeld
	}
	return f, nil
}

// Swept is what was found of other runs.
type Swept struct {
	Removed []string // left by runs that died
	Held    []string // of runs that are at work now
	Strange []string // named like ours, with files in it that are not; left alone
}

// Named is the backup of a name, and whether something bears that name.
func (s Store) Named(name string) (Entry, bool) {
	dir := filepath.Join(s.dir, name)
	if _, err := os.Lstat(dir); err != nil {
		return Entry{}, false
	}
	return Read(dir), true
}

// SweepOlder is Sweep of what nobody has touched for so long: where others fill
// directories over a network, the lock does not tell whether they are at work.
func (s Store) SweepOlder(age time.Duration) error {
	_, err := s.sweep(func(d fs.DirEntry) bool {
		info, err := d.Info()
		return err == nil && time.Since(info.ModTime()) > age
	})
	return err
}

// Sweep removes what runs have left that died while they made or removed a
// backup: only files that bear names of ours, only in directories that nobody
// holds.
func (s Store) Sweep() (Swept, error) { return s.sweep(func(fs.DirEntry) bool { return true }) }

func (s Store) sweep(may func(fs.DirEntry) bool) (Swept, error) {
	var w Swept
	names, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return w, err
	}
	for _, d := range names {
		name := strings.TrimSuffix(strings.TrimPrefix(d.Name(), "."), partSuffix)
		if _, err := time.Parse(nameLayout, name); err != nil || d.Name() != "."+name+partSuffix || !d.IsDir() || !may(d) {
			continue
		}
		dir := filepath.Join(s.dir, d.Name())
		lock, err := hold(dir)
		if errors.Is(err, errHeld) {
			w.Held = append(w.Held, dir)
			continue
		}
		if err != nil {
			return w, err
		}
		err = removeOurs(dir)
		lock.Close()
		var strange *strangeError
		switch {
		case errors.As(err, &strange):
			w.Strange = append(w.Strange, dir)
		case err != nil:
			return w, err
		default:
			w.Removed = append(w.Removed, dir)
		}
	}
	return w, nil
}

// strangeError means that a directory has files that are not a backup's.
type strangeError struct {
	dir  string
	name string
}

func (e *strangeError) Error() string {
	return fmt.Sprintf("%s: %s in it is no file of a backup; it was left", e.dir, e.name)
}

// removeOurs removes a directory with a backup's files in it and nothing else;
// where there is something else, nothing is removed. One that is gone is no error.
func removeOurs(dir string) error {
	err := onlyOurs(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range ours {
		for _, name := range []string{name, name + partSuffix} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return os.Remove(dir)
}

var ours = []string{ManifestFile, SnapshotFile, KeysFile, verifiedFile}

// Files are the names of all that may lie in a backup, the manifest first: what has
// none is no backup.
func Files() []string { return slices.Clone(ours) }

// onlyOurs is a *strangeError where something else lies.
func onlyOurs(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, d := range names {
		if !slices.Contains(ours, strings.TrimSuffix(d.Name(), partSuffix)) || !d.Type().IsRegular() {
			return &strangeError{dir, d.Name()}
		}
	}
	return nil
}

// Find returns the backups in a directory, which is one itself, or a cluster's
// store, or what has a store for each cluster; each cluster's newest first.
func Find(dir string) ([]Entry, error) {
	for _, name := range []string{ManifestFile, SnapshotFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return []Entry{Read(dir)}, nil
		}
	}
	all, err := Store{filepath.Clean(dir)}.List()
	if err != nil || len(all) > 0 {
		return all, err
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, d := range names {
		if !d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			continue
		}
		more, err := In(dir, d.Name()).List()
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}
