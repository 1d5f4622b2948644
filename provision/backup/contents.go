package backup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime/debug"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/ha-install/ha-install/provision/etcd"
)

// Contents is what was read out of a snapshot's database.
type Contents struct {
	Revision int64 `json:"revision"` // the newest
	Keys     int64 `json:"keys"`     // that exist at that revision
	Records  int64 `json:"records"`  // of all revisions that it holds
	// Compacted is the revision below which it holds no history.
	Compacted int64           `json:"compacted"`
	Members   []etcd.MemberID `json:"members"` // by its own list, sorted
}

// The buckets and keys of etcd's database that are read here
// (server/storage/schema and server/storage/mvcc).
var (
	keyBucket     = []byte("key")
	metaBucket    = []byte("meta")
	memberBucket  = []byte("members")
	compactedKey  = []byte("scheduledCompactRev")
	consistentKey = []byte("consistent_index")
)

// A record's name in the bucket of keys: two big-endian numbers with a byte
// between them, and a mark where the key was deleted.
const (
	recordLen  = 8 + 1 + 8
	deletedLen = recordLen + 1
)

// errNoDatabase means that a snapshot's bytes are as they were sent, and still
// no database that etcd could be started from.
var errNoDatabase = errors.New("its database is damaged")

// Inspect proves a snapshot by opening its database as etcd does, read-only,
// and reading all of it: every bucket and every record can be read, each key's
// records are in the order of their revisions. It starts no etcd, does not look
// at pages that nothing lies on (bbolt's own check of those ends the process on
// some damage), and does not say whether the values make sense to Kubernetes.
//
// With at, the database's HashKV at that revision is computed as well, nil when
// it cannot be: the history of that time was compacted since.
func Inspect(ctx context.Context, file string, at *etcd.Hash) (c Contents, sum *uint32, err error) {
	// A damaged page can lead outside of the file, which is a fault of memory
	// for whoever reads it, or to what bbolt panics on.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errNoDatabase, r)
		}
	}()
	db, err := bbolt.Open(file, 0o400, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return c, nil, fmt.Errorf("%w: %w", errNoDatabase, err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		if err := c.readBuckets(ctx, tx); err != nil {
			return err
		}
		newest, err := c.readKeys(ctx, tx, at)
		if err != nil {
			return err
		}
		if at != nil && at.Revision <= c.Revision && c.Compacted <= max(at.CompactRevision, 0) { // etcd says -1 for never
			sum, err = hashAt(ctx, tx, newest, *at)
		}
		return err
	})
	return c, sum, err
}

// readBuckets reads all that are not keys, and keeps what is of use.
func (c *Contents) readBuckets(ctx context.Context, tx *bbolt.Tx) error {
	for _, name := range [][]byte{keyBucket, metaBucket, memberBucket} {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("%w: it has no bucket %q", errNoDatabase, name)
		}
	}
	if v := tx.Bucket(metaBucket).Get(consistentKey); len(v) != 8 {
		return fmt.Errorf("%w: it does not say up to which entry of the log it is", errNoDatabase)
	}
	if v := tx.Bucket(metaBucket).Get(compactedKey); len(v) >= recordLen {
		c.Compacted = int64(binary.BigEndian.Uint64(v))
	}
	err := tx.Bucket(memberBucket).ForEach(func(k, _ []byte) error {
		var id etcd.MemberID
		if err := id.UnmarshalText(k); err != nil {
			return fmt.Errorf("%w: its member list: %w", errNoDatabase, err)
		}
		c.Members = append(c.Members, id)
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(c.Members)
	return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if bytes.Equal(name, keyBucket) {
			return ctx.Err()
		}
		return b.ForEach(func(_, _ []byte) error { return nil })
	})
}

// revision is where in etcd's history a record stands.
type revision struct{ main, sub int64 }

// parseRecord takes a record's name apart.
func parseRecord(k []byte) (r revision, deleted bool, err error) {
	deleted = len(k) == deletedLen
	if len(k) != recordLen && !deleted || k[8] != '_' || deleted && k[recordLen] != 't' {
		return r, false, fmt.Errorf("%w: %q is no revision", errNoDatabase, k)
	}
	return revision{int64(binary.BigEndian.Uint64(k)), int64(binary.BigEndian.Uint64(k[9:]))}, deleted, nil
}

// state is a key's newest record.
type state struct {
	at      revision // up to the revision of a hash that is wanted
	deleted bool     // then
	gone    bool     // at the end
}

// newest are the keys with their newest records.
type newest map[string]state

// readKeys reads every record of every key.
func (c *Contents) readKeys(ctx context.Context, tx *bbolt.Tx, at *etcd.Hash) (newest, error) {
	keys := newest{}
	var last revision
	err := tx.Bucket(keyBucket).ForEach(func(k, v []byte) error {
		r, deleted, err := parseRecord(k)
		if err != nil {
			return err
		}
		if c.Records++; c.Records%10_000 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if r.main < last.main || r.main == last.main && r.sub <= last.sub && c.Records > 1 {
			return fmt.Errorf("%w: revision %d after %d", errNoDatabase, r.main, last.main)
		}
		last = r
		var kv mvccpb.KeyValue
		if err := kv.Unmarshal(v); err != nil {
			return fmt.Errorf("%w: the record of revision %d: %w", errNoDatabase, r.main, err)
		}
		s := keys[string(kv.Key)]
		if s.gone = deleted; at != nil && r.main <= at.Revision {
			s.at, s.deleted = r, deleted
		}
		keys[string(kv.Key)] = s
		return nil
	})
	c.Revision = last.main
	for _, s := range keys {
		if !s.gone {
			c.Keys++
		}
	}
	if err == nil && c.Records == 0 {
		err = fmt.Errorf("%w: it holds no keys", errNoDatabase)
	}
	return keys, err
}

// hashAt is etcd's HashKV: a CRC over all records up to a revision but those
// that the compaction may have removed, which are all below it that are not a
// key's newest. Members of a cluster that hold the same data say the same.
func hashAt(ctx context.Context, tx *bbolt.Tx, keys newest, at etcd.Hash) (*uint32, error) {
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	_, _ = sum.Write(keyBucket) // never fails
	kept := map[revision]bool{}
	for _, s := range keys {
		if s.at != (revision{}) && !s.deleted && s.at.main <= at.CompactRevision {
			kept[s.at] = true
		}
	}
	records := 0
	err := tx.Bucket(keyBucket).ForEach(func(k, v []byte) error {
		if records++; records%10_000 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		r, _, err := parseRecord(k)
		if err != nil || r.main > at.Revision || r.main <= at.CompactRevision && !kept[r] {
			return err
		}
		_, _ = sum.Write(k)
		_, _ = sum.Write(v)
		return nil
	})
	if err != nil {
		return nil, err
	}
	result := sum.Sum32()
	return &result, nil
}
