package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
)

// mostManifest bounds what is read of a manifest from elsewhere.
const mostManifest = 1 << 20

// IsName reports whether a directory of that name can be a backup.
func IsName(name string) bool {
	_, err := time.Parse(nameLayout, name)
	return err == nil
}

// Parts are the files that a copy of the backup has. The manifest is the last:
// as long as it is not there, nobody takes the others for a backup.
func (m Manifest) Parts() []string {
	if m.Keys == nil {
		return []string{SnapshotFile, ManifestFile}
	}
	return []string{SnapshotFile, KeysFile, ManifestFile}
}

// Bytes is what the parts take but for the manifest's own few.
func (m Manifest) Bytes() int64 {
	if m.Keys == nil {
		return m.Snapshot.Bytes
	}
	return m.Snapshot.Bytes + m.Keys.Bytes
}

// ReadManifest reads the manifest of a backup of that name, and returns its
// bytes, too.
func ReadManifest(r io.Reader, name string) (Manifest, []byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, mostManifest))
	if err != nil {
		return Manifest{}, nil, err
	}
	m, err := decode(data)
	if err == nil && Name(m.Time) != name {
		err = fmt.Errorf("it is of %s: it was renamed", Name(m.Time))
	}
	return m, data, err
}

// Size is how long a part is; of the manifest itself it does not say.
func (m Manifest) Size(part string) int64 {
	switch {
	case part == SnapshotFile:
		return m.Snapshot.Bytes
	case part == KeysFile && m.Keys != nil:
		return m.Keys.Bytes
	}
	return 0
}

// ParseManifest reads a manifest that comes from elsewhere.
func ParseManifest(data []byte) (Manifest, error) {
	if len(data) > mostManifest {
		return Manifest{}, fmt.Errorf("it has %d bytes, want %d at most", len(data), mostManifest)
	}
	return decode(data)
}

// Check reads a part to its end, and wants it to be, byte for byte, the one that
// the manifest was made with. It opens no database: the bytes are those that
// were proved when the backup was taken.
func (m Manifest) Check(ctx context.Context, part string, r io.Reader) error {
	r = interruptible{ctx, r}
	switch part {
	case SnapshotFile:
		info, err := etcd.VerifySnapshot(r)
		if err == nil && (info.Size != m.Snapshot.Bytes || info.SHA256 != m.Snapshot.SHA256) {
			err = fmt.Errorf("%d bytes of SHA-256 %.12s, want %d of %.12s", info.Size, info.SHA256, m.Snapshot.Bytes, m.Snapshot.SHA256)
		}
		return err
	case KeysFile:
		h := sha256.New()
		n, err := io.Copy(h, r)
		if sum := hex.EncodeToString(h.Sum(nil)); err == nil && (n != m.Keys.Bytes || sum != m.Keys.SHA256) {
			err = fmt.Errorf("%d bytes of SHA-256 %.12s, want %d of %.12s", n, sum, m.Keys.Bytes, m.Keys.SHA256)
		}
		return err
	default:
		seen, _, err := ReadManifest(r, Name(m.Time))
		if err == nil && seen.Digest != m.Digest {
			err = errors.New("it is the manifest of another backup")
		}
		return err
	}
}

// ErrThere means that a backup of the name is there already.
var ErrThere = errors.New("a backup of that name is there already")

// Receive begins a backup that comes from elsewhere, under the name that it has
// there. What a run left that died while it received the same is removed.
func (s Store) Receive(m Manifest) (*Draft, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, localError(s.dir, err)
	}
	d := &Draft{Time: m.Time, store: s, dir: filepath.Join(s.dir, "."+Name(m.Time)+partSuffix)}
	if _, err := os.Lstat(d.final()); err == nil {
		return nil, fmt.Errorf("%s: %w", d.final(), ErrThere)
	}
	if left, err := hold(d.dir); err == nil {
		err = removeOurs(d.dir)
		left.Close()
		if err != nil {
			return nil, err
		}
	}
	err := os.Mkdir(d.dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s: %w", d.dir, errHeld)
	}
	if err == nil {
		d.lock, err = hold(d.dir)
	}
	if err != nil {
		return nil, localError(s.dir, err)
	}
	return d, nil
}

// Take writes one part of the draft from r.
func (d *Draft) Take(ctx context.Context, part string, r io.Reader) error {
	f, err := d.Create(part)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, interruptible{ctx, r}); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Keep()
}

// TakeBytes is Take of what is in memory.
func (d *Draft) TakeBytes(ctx context.Context, part string, data []byte) error {
	return d.Take(ctx, part, bytes.NewReader(data))
}

// Accept makes all checks of Verify on what was received, and lets it appear
// under its name when it is whole.
func (d *Draft) Accept(ctx context.Context, want Expected) (Report, error) {
	r, err := verifyAs(ctx, d.dir, Name(d.Time), want)
	if err != nil || !r.Whole {
		return r, err
	}
	if err := errors.Join(syncDir(d.dir), os.Rename(d.dir, d.final())); err != nil {
		return r, localError(d.store.dir, err)
	}
	r.Path = d.final()
	return r, syncDir(d.store.dir)
}
