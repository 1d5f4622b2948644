package backup

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/snapdb"
)

var (
	bg = context.Background()
	t0 = time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)
)

// database is one of so many revisions, and two members.
func database(t testing.TB, revisions int64) []byte {
	return snapdb.Database(t, revisions, 0xa1, 0xb2)
}

var caSet = sync.OnceValues(func() (*pki.CASet, error) { return pki.New(time.Now()) })

func keyFiles(t testing.TB) (*pki.CASet, []templates.File) {
	t.Helper()
	set, err := caSet()
	if err != nil {
		t.Fatal(err)
	}
	return set, append(set.Files(), templates.EncryptionFile([]byte("kind: EncryptionConfiguration\n")))
}

// passphrase is a file with one.
func passphrase(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// made makes a whole backup with sealed keys, unless the Seal is none.
func made(t testing.TB, dir string, at time.Time, s Seal) Entry {
	t.Helper()
	d, err := In(dir, "prod").Begin(at)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	snapshot, err := d.WriteSnapshot(bg, bytes.NewReader(snapdb.Sent(database(t, 50))), nil)
	if err != nil {
		t.Fatal(err)
	}
	set, files := keyFiles(t)
	m := Manifest{Cluster: "prod", CASHA256: set.Fingerprint(), Snapshot: snapshot, Quorum: true, Verdict: etcd.Pass}
	if !s.None() {
		k, err := d.WriteKeys(files, s)
		if err != nil {
			t.Fatal(err)
		}
		m.Keys = &k
		m.Time = time.Now()
	}
	path, err := d.Commit(m)
	if err != nil {
		t.Fatal(err)
	}
	e := Read(path)
	if e.Err != nil {
		t.Fatal(e.Err)
	}
	return e
}
