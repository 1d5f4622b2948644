// Package snapdb makes snapshots as etcd streams them, of few small records, for
// tests that need the bytes and no etcd.
package snapdb

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Object is a key with its value.
type Object struct{ Key, Value []byte }

// record is the entry of a revision in the bucket of keys; each revision has a
// key of its own.
func record(revision int64) (name, value []byte) {
	return recordOf(revision, Object{fmt.Appendf(nil, "/registry/%d", revision), bytes.Repeat([]byte("x"), 200)})
}

func recordOf(revision int64, o Object) (name, value []byte) {
	name = make([]byte, 17)
	binary.BigEndian.PutUint64(name, uint64(revision))
	name[8] = '_'
	kv := mvccpb.KeyValue{Key: o.Key, Value: o.Value, CreateRevision: revision, ModRevision: revision, Version: 1}
	value, err := kv.Marshal()
	if err != nil {
		panic(err)
	}
	return name, value
}

// HashKV is what members say that hold the records up to a revision.
func HashKV(revision int64) uint32 {
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	sum.Write([]byte("key"))
	for i := range revision {
		name, value := record(i + 1)
		sum.Write(name)
		sum.Write(value)
	}
	return sum.Sum32()
}

// Database is a database with the records up to a revision, and these members.
func Database(t testing.TB, revision int64, members ...uint64) []byte {
	t.Helper()
	return DatabaseWith(t, revision, nil, members...)
}

// DatabaseWith has objects besides, each in a revision of its own after those.
func DatabaseWith(t testing.TB, revision int64, objects []Object, members ...uint64) []byte {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		buckets := map[string]*bbolt.Bucket{}
		for _, name := range []string{"key", "meta", "members"} {
			b, err := tx.CreateBucket([]byte(name))
			if err != nil {
				return err
			}
			buckets[name] = b
		}
		for i := range revision {
			name, value := record(i + 1)
			if err := buckets["key"].Put(name, value); err != nil {
				return err
			}
		}
		for i, o := range objects {
			name, value := recordOf(revision+1+int64(i), o)
			if err := buckets["key"].Put(name, value); err != nil {
				return err
			}
		}
		for _, id := range members {
			if err := buckets["members"].Put(fmt.Appendf(nil, "%x", id), []byte("{}")); err != nil {
				return err
			}
		}
		return buckets["meta"].Put([]byte("consistent_index"), make([]byte, 8))
	})
	var out bytes.Buffer
	if err == nil {
		err = db.View(func(tx *bbolt.Tx) error { _, err := tx.WriteTo(&out); return err })
	}
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Sent is a database with its SHA-256 behind it.
func Sent(database []byte) []byte {
	sum := sha256.Sum256(database)
	return append(bytes.Clone(database), sum[:]...)
}
