package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
)

// Draft is a backup that is being made. Until Commit it lies in a hidden
// directory that is held by a lock, which ends with the process.
type Draft struct {
	Time  time.Time // what the backup will be named after
	store Store
	dir   string
	lock  *os.File
}

// Begin makes the directory of a new backup, of the given time or, if there are
// some of that second and those after it already, of the next second: names grow, and
// what was made last sorts last, also when some between them were removed.
func (s Store) Begin(at time.Time) (*Draft, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, localError(s.dir, err)
	}
	at = at.UTC().Truncate(time.Second)
	there, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, localError(s.dir, err)
	}
	const ahead = time.Minute // beyond it is what another clock has made
	for limit, i := at.Add(ahead), 0; i < len(there); i++ {
		if t, err := time.Parse(nameLayout, there[i].Name()); err == nil && !t.Before(at) && t.Before(limit) {
			at = t.Add(time.Second)
		}
	}
	for range 60 {
		d := &Draft{Time: at, store: s, dir: filepath.Join(s.dir, "."+Name(at)+partSuffix)}
		at = at.Add(time.Second)
		if _, err := os.Lstat(d.final()); err == nil {
			continue
		}
		err := os.Mkdir(d.dir, 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, localError(s.dir, err)
		}
		if d.lock, err = hold(d.dir); err == nil {
			return d, nil
		}
		if !errors.Is(err, errHeld) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s: a minute's names for a backup are all taken", s.dir)
}

func (d *Draft) final() string { return filepath.Join(d.store.dir, Name(d.Time)) }

// Dir is where the draft lies.
func (d *Draft) Dir() string { return d.dir }

// Create begins one of the draft's files anew, 0600, under a provisional name.
func (d *Draft) Create(name string) (*File, error) {
	path := filepath.Join(d.dir, name)
	f, err := os.OpenFile(path+partSuffix, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, localError(d.store.dir, err)
	}
	return &File{f: f, path: path, store: d.store.dir}, nil
}

// File is a file of a draft that is being written.
type File struct {
	f     *os.File
	path  string
	store string
	err   error
}

// Write keeps its first error, so that one can tell it from its source's.
func (f *File) Write(p []byte) (int, error) {
	n, err := f.f.Write(p)
	if err != nil && f.err == nil {
		f.err = localError(f.store, err)
	}
	return n, err
}

// Err is the first error of a Write.
func (f *File) Err() error { return f.err }

// Path is where the bytes lie until Keep.
func (f *File) Path() string { return f.path + partSuffix }

// Sync has the bytes on the disk, and ends the writing.
func (f *File) Sync() error {
	err := f.err
	if err == nil {
		err = f.f.Sync()
	}
	if closing := f.f.Close(); err == nil {
		err = closing
	}
	return localError(f.store, err)
}

// Keep gives the file its name, after Sync.
func (f *File) Keep() error { return localError(f.store, os.Rename(f.Path(), f.path)) }

// Close gives the file up; after Sync it does nothing.
func (f *File) Close() { _ = f.f.Close() }

// Commit writes the manifest, and lets the backup appear under its name.
func (d *Draft) Commit(m Manifest) (string, error) {
	m.Time = d.Time
	data, err := m.encode()
	if err != nil {
		return "", err
	}
	f, err := d.Create(ManifestFile)
	if err != nil {
		return "", err
	}
	defer f.Close()
	_, _ = f.Write(data) // Sync says what went wrong
	if err := f.Sync(); err != nil {
		return "", err
	}
	if err := f.Keep(); err != nil {
		return "", err
	}
	if err := syncDir(d.dir); err != nil {
		return "", err
	}
	if err := os.Rename(d.dir, d.final()); err != nil {
		return "", localError(d.store.dir, err)
	}
	return d.final(), syncDir(d.store.dir)
}

// Close gives the draft up and removes it; after Commit it only ends the lock.
func (d *Draft) Close() error {
	defer d.lock.Close()
	return removeOurs(d.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// WriteSnapshot takes a snapshot from r into the draft, and proves it before it
// bears its name: its bytes are those that were sent, they are on the disk, and
// they are a database that can be read (see Inspect). With agreed, on which all
// voters agree, it also has their hash. The error is a *LocalError when it is of
// this machine; any other is of the source.
func (d *Draft) WriteSnapshot(ctx context.Context, r io.Reader, agreed *etcd.Hash) (Snapshot, error) {
	f, err := d.Create(SnapshotFile)
	if err != nil {
		return Snapshot{}, err
	}
	defer f.Close()
	info, err := etcd.VerifySnapshot(io.TeeReader(r, f))
	if f.Err() != nil {
		err = f.Err()
	}
	if err != nil {
		return Snapshot{}, err
	}
	if err := f.Sync(); err != nil {
		return Snapshot{}, err
	}
	if err := sameBytes(ctx, f.Path(), info); err != nil {
		return Snapshot{}, localError(d.store.dir, err)
	}
	s := Snapshot{Bytes: info.Size, SHA256: info.SHA256}
	var sum *uint32
	if s.Contents, sum, err = Inspect(ctx, f.Path(), agreed); err != nil {
		return Snapshot{}, err
	}
	if sum != nil {
		if *sum != agreed.Sum {
			return Snapshot{}, fmt.Errorf("the hash of its data at revision %d is %08x, all voters said %08x: the database on the member's disk differs from what it serves", agreed.Revision, *sum, agreed.Sum)
		}
		s.Hash = agreed
	}
	return s, f.Keep()
}

// sameBytes reads back what was written.
func sameBytes(ctx context.Context, file string, sent etcd.SnapshotInfo) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := etcd.VerifySnapshot(interruptible{ctx, f})
	if err == nil && info != sent {
		err = errors.New("what was written is not what is read back")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
