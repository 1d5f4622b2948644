package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"filippo.io/age"

	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/units"
)

// DamageKind says what is wrong with a backup, in a stable word.
type DamageKind string

// The kinds of damage.
const (
	ManifestMissing   DamageKind = "manifest-missing"
	ManifestEdited    DamageKind = "manifest-edited" // it differs from what was written, or cannot be read
	SnapshotMissing   DamageKind = "snapshot-missing"
	SnapshotEmpty     DamageKind = "snapshot-empty"     // no byte of it is there
	SnapshotTruncated DamageKind = "snapshot-truncated" // its end is missing
	SnapshotAltered   DamageKind = "snapshot-altered"   // not the bytes that were sent: a bit, or more
	SnapshotForeign   DamageKind = "snapshot-foreign"   // whole in itself, but not the one of the manifest
	DatabaseDamaged   DamageKind = "database-damaged"   // as it was sent, and still no database
	ContentsDiffer    DamageKind = "contents-differ"    // not what the manifest, or the other voters, say
	KeysMissing       DamageKind = "keys-missing"
	KeysAltered       DamageKind = "keys-altered"
	KeysUnusable      DamageKind = "keys-unusable" // decrypted, but not this cluster's set
	OtherCluster      DamageKind = "other-cluster"
	Unreadable        DamageKind = "unreadable" // this machine's file system
)

// Damage is one thing that is wrong.
type Damage struct {
	Kind DamageKind `json:"kind"`
	What string     `json:"what"`
}

// Report is what became of a verification.
type Report struct {
	Path     string        `json:"path"`
	Whole    bool          `json:"whole"`
	Manifest *Manifest     `json:"manifest,omitempty"` // nil when there is none to be read
	Damage   []Damage      `json:"damage"`
	Opened   bool          `json:"keysOpened"` // the archive was decrypted and its CA set checked
	At       time.Time     `json:"time"`
	Took     units.Seconds `json:"tookSeconds"`
}

// DamagedError is a backup that is not whole.
type DamagedError struct{ Report Report }

func (e *DamagedError) Error() string {
	text := e.Report.Path + " is not whole"
	for _, d := range e.Report.Damage {
		text += fmt.Sprintf("\n%s: %s", d.Kind, d.What)
	}
	return text
}

// Err is nil for a whole backup, else a *DamagedError.
func (r Report) Err() error {
	if r.Whole {
		return nil
	}
	return &DamagedError{r}
}

// Expected is what a verification is told from elsewhere.
type Expected struct {
	Cluster  string         // its name; "" for any
	CASHA256 string         // as the hosts say it; "" when they were not asked
	Openers  []age.Identity // for the archive; it is only compared with its sum without
}

// verification is the note of the last time that all was found whole.
type verification struct {
	At     time.Time `json:"time"`
	Digest string    `json:"manifestSHA256"`
}

// Verify makes all checks of a backup again: the manifest is as it was written,
// the snapshot's bytes are those that etcd sent, its database can be opened and
// holds what the manifest says, the archive with the keys is there. What is
// wrong is in the report, all of it. A whole backup is noted as verified now,
// where the directory can be written to.
func Verify(ctx context.Context, dir string, want Expected) (Report, error) {
	return verifyAs(ctx, dir, filepath.Base(filepath.Clean(dir)), want)
}

// verifyAs is Verify of a backup that is to have that name.
func verifyAs(ctx context.Context, dir, name string, want Expected) (Report, error) {
	e := readAs(dir, name)
	r := Report{Path: e.Path, Damage: []Damage{}, At: time.Now().UTC().Truncate(time.Second)}
	began := time.Now()
	switch {
	case errors.Is(e.Err, fs.ErrNotExist):
		r.damage(ManifestMissing, "there is no %s: what the snapshot is of, nobody says", ManifestFile)
	case e.Err != nil:
		r.damage(ManifestEdited, "%s: %v", ManifestFile, e.Err)
	}
	m := e.Manifest
	if m.Kind == Kind {
		r.Manifest = &m
	}
	if err := r.check(ctx, dir, m, want); err != nil {
		return r, err
	}
	r.Whole = len(r.Damage) == 0
	r.Took = units.Seconds(time.Since(began))
	if r.Whole {
		note(dir, verification{r.At, m.Digest})
	}
	return r, nil
}

func (r *Report) damage(kind DamageKind, format string, args ...any) {
	r.Damage = append(r.Damage, Damage{kind, fmt.Sprintf(format, args...)})
}

// check finds damage of the files, by the manifest as far as there is one. Its
// error is the end of ctx.
func (r *Report) check(ctx context.Context, dir string, m Manifest, want Expected) error {
	if r.Manifest != nil {
		if want.Cluster != "" && m.Cluster != want.Cluster {
			r.damage(OtherCluster, "it is of cluster %s, not of %s", m.Cluster, want.Cluster)
		} else if want.CASHA256 != "" && m.CASHA256 != "" && m.CASHA256 != want.CASHA256 {
			r.damage(OtherCluster, "it is of another cluster of the name %s: its CA set is %.12s, the hosts' is %.12s", m.Cluster, m.CASHA256, want.CASHA256)
		}
	}
	c, err := r.checkSnapshot(ctx, filepath.Join(dir, SnapshotFile), m)
	if err != nil {
		return err
	}
	if c != nil && r.Manifest != nil {
		r.compare(m, *c)
	}
	r.checkArchive(filepath.Join(dir, KeysFile), m, want.Openers)
	return ctx.Err()
}

// checkSnapshot returns what is in the snapshot; nil when it cannot be known.
func (r *Report) checkSnapshot(ctx context.Context, file string, m Manifest) (*Contents, error) {
	f, err := os.Open(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.damage(SnapshotMissing, "there is no %s", SnapshotFile)
		return nil, nil
	case err != nil:
		r.damage(Unreadable, "%v", err)
		return nil, nil
	}
	defer f.Close()
	info, err := etcd.VerifySnapshot(interruptible{ctx, f})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	wanted := m.Snapshot.Bytes // 0: not known
	switch {
	case err != nil && !errors.Is(err, etcd.ErrCorruptSnapshot):
		r.damage(Unreadable, "%v", err)
	case info.Size == 0:
		r.damage(SnapshotEmpty, "%s has no bytes, want %d", SnapshotFile, wanted)
	case info.Size < wanted:
		r.damage(SnapshotTruncated, "%s has %d bytes of %d (%d %%): its end is missing", SnapshotFile, info.Size, wanted, info.Size*100/wanted)
	case err != nil && wanted == 0:
		r.damage(SnapshotAltered, "%s: %v", SnapshotFile, err)
	case err != nil && info.Size > wanted:
		r.damage(SnapshotAltered, "%s has %d bytes, %d are more than was sent", SnapshotFile, info.Size, info.Size-wanted)
	case err != nil:
		r.damage(SnapshotAltered, "%s has all its %d bytes, but not those that were sent: their SHA-256 is not the one at its end", SnapshotFile, wanted)
	case wanted != 0 && info.SHA256 != m.Snapshot.SHA256:
		r.damage(SnapshotForeign, "%s is a whole snapshot, but not the one that the manifest is of: its SHA-256 is %.12s, not %.12s", SnapshotFile, info.SHA256, m.Snapshot.SHA256)
	default:
		return r.inspect(ctx, file, m)
	}
	return nil, nil
}

// inspect opens a database whose bytes are right.
func (r *Report) inspect(ctx context.Context, file string, m Manifest) (*Contents, error) {
	c, sum, err := Inspect(ctx, file, m.Snapshot.Hash)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		r.damage(DatabaseDamaged, "%v", err)
		return nil, nil
	case m.Snapshot.Hash != nil && sum == nil:
		r.damage(ContentsDiffer, "it does not hold revision %d, of which the voters' hash is known", m.Snapshot.Hash.Revision)
	case sum != nil && *sum != m.Snapshot.Hash.Sum:
		r.damage(ContentsDiffer, "the hash of its data at revision %d is %08x, all voters said %08x", m.Snapshot.Hash.Revision, *sum, m.Snapshot.Hash.Sum)
	}
	return &c, nil
}

// compare holds what was found against the manifest.
func (r *Report) compare(m Manifest, c Contents) {
	for _, of := range []struct {
		what       string
		seen, want int64
	}{
		{"revision", c.Revision, m.Snapshot.Revision}, {"keys", c.Keys, m.Snapshot.Keys}, {"records", c.Records, m.Snapshot.Records},
	} {
		if of.seen != of.want {
			r.damage(ContentsDiffer, "its %s: %d, the manifest says %d", of.what, of.seen, of.want)
		}
	}
	if !slices.Equal(c.Members, m.Snapshot.Members) {
		r.damage(ContentsDiffer, "its members are %v, the manifest says %v", c.Members, m.Snapshot.Members)
	}
}

// checkArchive compares the archive with its sum and, where it can be opened,
// with the cluster's CA.
func (r *Report) checkArchive(file string, m Manifest, by []age.Identity) {
	if m.Keys == nil {
		return
	}
	size, sum, err := sumOf(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.damage(KeysMissing, "there is no %s", KeysFile)
		return
	case err != nil:
		r.damage(Unreadable, "%v", err)
		return
	case size != m.Keys.Bytes:
		r.damage(KeysAltered, "%s has %d bytes, want %d", KeysFile, size, m.Keys.Bytes)
		return
	case sum != m.Keys.SHA256:
		r.damage(KeysAltered, "the SHA-256 of %s is %.12s, want %.12s", KeysFile, sum, m.Keys.SHA256)
		return
	case len(by) == 0:
		return
	}
	if _, _, err := ReadKeys(file, by, m.CASHA256, m.Time); err != nil {
		r.damage(KeysUnusable, "%s: %v", KeysFile, err)
		return
	}
	r.Opened = true
}

func sumOf(file string) (size int64, sum string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return size, hex.EncodeToString(h.Sum(nil)), err
}

// note is of use to a listing only: a directory that cannot be written to is
// no damage.
func note(dir string, v verification) {
	data, err := json.Marshal(v)
	if err != nil {
		return
	}
	name := filepath.Join(dir, verifiedFile)
	if os.WriteFile(name+partSuffix, append(data, '\n'), 0o600) == nil {
		_ = os.Rename(name+partSuffix, name)
	}
}

// interruptible ends a long read with its context.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}
