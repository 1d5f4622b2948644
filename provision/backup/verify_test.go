package backup

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/test/snapdb"
)

// recipient is a Seal for a new identity, which opens it.
func recipient(t testing.TB) (Seal, age.Identity) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	s, err := SealFor([]string{id.Recipient().String()}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	return s, id
}

func TestVerifyNamesEveryDamage(t *testing.T) {
	t.Parallel()
	seal, id := recipient(t)
	change := func(name string, f func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			file := filepath.Join(dir, name)
			data, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(file, f(data), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	gone := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(i int) func([]byte) []byte {
		return func(b []byte) []byte { b = bytes.Clone(b); b[i] ^= 4; return b }
	}
	other := snapdb.Sent(database(t, 51))
	// The header page of the keys' bucket is damaged under a good SHA-256.
	broken := database(t, 50)
	for i := 2 * 4096; i < len(broken); i += 4096 {
		copy(broken[i+8:], "no page")
	}
	for _, tt := range []struct {
		name   string
		damage func(*testing.T, string)
		want   Expected
		kinds  string
		says   string
	}{
		{"nothing", func(*testing.T, string) {}, Expected{Cluster: "prod"}, "", ""},
		{"the snapshot's last bytes are gone", change(SnapshotFile, func(b []byte) []byte { return b[:len(b)-7] }), Expected{}, "snapshot-truncated", "its end is missing"},
		{"half of the snapshot is gone", change(SnapshotFile, func(b []byte) []byte { return b[:len(b)/2] }), Expected{}, "snapshot-truncated", "(50 %)"},
		{"half of it, with a trailer that fits", change(SnapshotFile, func(b []byte) []byte { return snapdb.Sent(b[:len(b)/8192*4096]) }), Expected{}, "snapshot-truncated", ""},
		{"the snapshot is empty", change(SnapshotFile, func([]byte) []byte { return nil }), Expected{}, "snapshot-empty", "no bytes"},
		{"one bit is flipped", change(SnapshotFile, flip(9000)), Expected{}, "snapshot-altered", "not those that were sent"},
		{"one bit of the trailer is flipped", change(SnapshotFile, func(b []byte) []byte { return flip(len(b) - 1)(b) }), Expected{}, "snapshot-altered", ""},
		{"something is behind it", change(SnapshotFile, func(b []byte) []byte { return append(b, 0) }), Expected{}, "snapshot-altered", "1 are more than was sent"},
		{"it is the snapshot of another time", change(SnapshotFile, func([]byte) []byte { return other }), Expected{}, "snapshot-foreign", "whole snapshot, but not the one"},
		{"there is no snapshot", gone(SnapshotFile), Expected{}, "snapshot-missing", ""},
		{"a broken database with a good SHA-256 is in its place", change(SnapshotFile, func([]byte) []byte { return snapdb.Sent(broken) }), Expected{}, "snapshot-foreign", ""},
		{"there is no manifest", gone(ManifestFile), Expected{}, "manifest-missing", ""},
		{"there is no manifest, and the snapshot is damaged", func(t *testing.T, dir string) {
			gone(ManifestFile)(t, dir)
			change(SnapshotFile, flip(9000))(t, dir)
		}, Expected{}, "manifest-missing snapshot-altered", ""},
		{"the manifest's revision was edited", change(ManifestFile, func(b []byte) []byte { return bytes.Replace(b, []byte(`"revision": 50`), []byte(`"revision": 51`), 1) }), Expected{}, "manifest-edited contents-differ", "its revision: 50, the manifest says 51"},
		{"the manifest's cluster was edited", change(ManifestFile, func(b []byte) []byte { return bytes.Replace(b, []byte(`"prod"`), []byte(`"test"`), 1) }), Expected{Cluster: "test"}, "manifest-edited", ""},
		{"the manifest was cut", change(ManifestFile, func(b []byte) []byte { return b[:len(b)/2] }), Expected{}, "manifest-edited", "cannot be read"},
		{"the manifest's digest is gone", change(ManifestFile, func(b []byte) []byte { return bytes.Replace(b, []byte("manifestSHA256"), []byte("manifestSHA255"), 1) }), Expected{}, "manifest-edited", ""},
		{"it is another cluster's", func(*testing.T, string) {}, Expected{Cluster: "test"}, "other-cluster", "of cluster prod, not of test"},
		{"it is another cluster's of the same name", func(*testing.T, string) {}, Expected{Cluster: "prod", CASHA256: strings.Repeat("0", 64)}, "other-cluster", "of another cluster of the name prod"},
		{"the keys are gone", gone(KeysFile), Expected{}, "keys-missing", ""},
		{"a bit of the keys is flipped", change(KeysFile, flip(300)), Expected{}, "keys-altered", ""},
		{"the keys were cut", change(KeysFile, func(b []byte) []byte { return b[:100] }), Expected{}, "keys-altered", "has 100 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := made(t, t.TempDir(), time.Now(), seal)
			tt.damage(t, e.Path)
			tt.want.Openers = []age.Identity{id}
			r, err := Verify(bg, e.Path, tt.want)
			if err != nil {
				t.Fatal(err)
			}
			var kinds, whats []string
			for _, d := range r.Damage {
				kinds, whats = append(kinds, string(d.Kind)), append(whats, d.What)
			}
			if got := strings.Join(kinds, " "); got != tt.kinds {
				t.Errorf("%q, want %q: %q", got, tt.kinds, whats)
			}
			if !strings.Contains(strings.Join(whats, "\n"), tt.says) {
				t.Errorf("%q does not say %q", whats, tt.says)
			}
			if r.Whole != (tt.kinds == "") || (r.Err() == nil) != r.Whole || r.Whole && !r.Opened {
				t.Errorf("%+v", r)
			}
			if again := Read(e.Path); again.Err == nil && (again.Verified.Equal(e.Manifest.Time) == r.Whole) && r.At.After(e.Manifest.Time) {
				t.Errorf("verified at %s, the backup is of %s", again.Verified, e.Manifest.Time)
			}
		})
	}
}

// A database that is broken under its own SHA-256 is refused before the backup
// has a name.
func TestABrokenDatabaseIsNoBackup(t *testing.T) {
	t.Parallel()
	good := database(t, 50)
	edit := func(f func(b []byte)) []byte { b := bytes.Clone(good); f(b); return snapdb.Sent(b) }
	sum := sha256.Sum256(good)
	for _, tt := range []struct {
		name string
		data []byte
		says string
	}{
		{"its pages are of no kind", edit(func(b []byte) {
			for i := 2 * 4096; i < len(b); i += 4096 {
				copy(b[i+8:], "no page")
			}
		}), "database is damaged"},
		{"both its heads are damaged", edit(func(b []byte) { b[30] ^= 1; b[4096+30] ^= 1 }), "database is damaged"},
		{"its end was lost on the way", append(bytes.Clone(good[:len(good)-4096]), sum[:]...), "snapshot is damaged"},
		{"nothing came", nil, "hold no database"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			d, err := In(dir, "prod").Begin(t0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = d.WriteSnapshot(bg, bytes.NewReader(tt.data), nil)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v", err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			if names, err := os.ReadDir(filepath.Join(dir, "prod")); err != nil || len(names) > 0 {
				t.Errorf("left behind: %v, %v", names, err)
			}
		})
	}
}

// What a member sends must be what the voters have agreed on.
func TestASnapshotIsHeldAgainstTheVotersHash(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		hash etcd.Hash
		says string // "" for none
		kept bool   // in the manifest
	}{
		{"the same", etcd.Hash{Revision: 50, CompactRevision: -1, Sum: snapdb.HashKV(50)}, "", true},
		{"of an earlier revision", etcd.Hash{Revision: 40, CompactRevision: -1, Sum: snapdb.HashKV(40)}, "", true},
		{"another one", etcd.Hash{Revision: 50, CompactRevision: -1, Sum: snapdb.HashKV(49)}, "all voters said", false},
		{"of a later revision, which cannot be compared", etcd.Hash{Revision: 60, CompactRevision: -1, Sum: 1}, "", false},
	} {
		d, err := In(t.TempDir(), "prod").Begin(t0)
		if err != nil {
			t.Fatal(err)
		}
		s, err := d.WriteSnapshot(bg, bytes.NewReader(snapdb.Sent(database(t, 50))), &tt.hash)
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) || (s.Hash != nil) != tt.kept {
			t.Errorf("%s: %+v: %v", tt.name, s, err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestKeysOpenOnlyForTheirs(t *testing.T) {
	t.Parallel()
	one, id := recipient(t)
	_, stranger := recipient(t)
	bySecret, err := SealFor(nil, "", passphrase(t, "correct horse\nsecond line"))
	if err != nil {
		t.Fatal(err)
	}
	knows, err := Openers("", passphrase(t, "correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	guesses, err := Openers("", passphrase(t, "wrong horse\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	set, files := keyFiles(t)
	for _, tt := range []struct {
		name string
		seal Seal
		by   []age.Identity
		ok   bool
	}{
		{"by the recipient", one, []age.Identity{id}, true},
		{"by somebody else", one, []age.Identity{stranger}, false},
		{"by one of two identities", one, []age.Identity{stranger, id}, true},
		{"by the passphrase", bySecret, knows, true},
		{"by another passphrase", bySecret, guesses, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := made(t, t.TempDir(), time.Now(), tt.seal)
			sealed, err := os.ReadFile(filepath.Join(e.Path, KeysFile))
			if err != nil || bytes.Contains(sealed, []byte("PRIVATE KEY")) {
				t.Fatalf("the archive is not encrypted: %v", err)
			}
			got, err := OpenKeys(filepath.Join(e.Path, KeysFile), tt.by)
			if (err == nil) != tt.ok {
				t.Fatal(err)
			}
			for _, f := range files {
				if tt.ok && !bytes.Equal(got[f.Path], f.Content) {
					t.Errorf("%s is not what was put in", f.Path)
				}
			}
			if _, _, err := keysIn(got, set.Fingerprint(), time.Now()); tt.ok && err != nil {
				t.Error("it is no CA set")
			}
			if _, _, err := keysIn(got, strings.Repeat("0", 64), time.Now()); tt.ok && err == nil {
				t.Error("it is taken for another cluster's")
			}
			if m := e.Manifest.Keys; len(m.SealedFor) != 1 || m.SealedFor[0] == "" || strings.Contains(m.SealedFor[0], "horse") {
				t.Errorf("%+v", m)
			}
		})
	}
	for name, f := range map[string]func() (Seal, error){
		"a recipient that is none":  func() (Seal, error) { return SealFor([]string{"age1nobody"}, "", "") },
		"a secret key as recipient": func() (Seal, error) { return SealFor([]string{id.(*age.X25519Identity).String()}, "", "") },
		"a passphrase and recipients": func() (Seal, error) {
			return SealFor([]string{id.(*age.X25519Identity).Recipient().String()}, "", passphrase(t, "x"))
		},
		"an empty passphrase":      func() (Seal, error) { return SealFor(nil, "", passphrase(t, "\n")) },
		"a file that is not there": func() (Seal, error) { return SealFor(nil, filepath.Join(t.TempDir(), "none"), "") },
	} {
		if s, err := f(); err == nil || !s.None() {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), "AGE-SECRET-KEY-1") {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
}
