package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/templates"
)

var (
	bg = context.Background()
	t0 = time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)
)

// database is the smallest that etcd would start from: so many revisions of
// two keys, and two members.
func database(t testing.TB, revisions int) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "db")
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		keys, err := tx.CreateBucket(keyBucket)
		if err != nil {
			return err
		}
		for i := range revisions {
			name := make([]byte, recordLen)
			binary.BigEndian.PutUint64(name, uint64(i+1))
			name[8] = '_'
			kv := mvccpb.KeyValue{Key: fmt.Appendf(nil, "/registry/%d", i%2), Value: bytes.Repeat([]byte("x"), 200)}
			value, err := kv.Marshal()
			if err != nil {
				return err
			}
			if err := keys.Put(name, value); err != nil {
				return err
			}
		}
		meta, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		if err := meta.Put(consistentKey, make([]byte, 8)); err != nil {
			return err
		}
		members, err := tx.CreateBucket(memberBucket)
		if err != nil {
			return err
		}
		for _, id := range []string{"a1", "b2"} {
			if err := members.Put([]byte(id), []byte("{}")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := db.View(func(tx *bbolt.Tx) error { _, err := tx.WriteTo(&out); return err }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// sent is a database as etcd streams it.
func sent(db []byte) []byte {
	sum := sha256.Sum256(db)
	return append(bytes.Clone(db), sum[:]...)
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
	snapshot, err := d.WriteSnapshot(bg, bytes.NewReader(sent(database(t, 50))), nil)
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
