package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path/filepath"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"go.etcd.io/bbolt"
)

// record is one entry of the history that all members hold: there is one key
// for each revision.
func record(revision int64) (name, value []byte) {
	name = make([]byte, 17)
	binary.BigEndian.PutUint64(name, uint64(revision))
	name[8] = '_'
	kv := mvccpb.KeyValue{Key: fmt.Appendf(nil, "/registry/%d", revision), Value: []byte("x"), CreateRevision: revision, ModRevision: revision, Version: 1}
	value, err := kv.Marshal()
	if err != nil {
		panic(err)
	}
	return name, value
}

// HashKV is of the same records that a snapshot holds.
func (s *etcdServer) HashKV(ctx context.Context, q *pb.HashKVRequest) (r *pb.HashKVResponse, err error) {
	err = s.with(ctx, "hash", false, false, func(head *pb.ResponseHeader, _ *member) error {
		sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
		sum.Write([]byte("key"))
		upTo := s.h.w.etcd.revision
		if q.Revision != 0 {
			upTo = min(upTo, q.Revision)
		}
		for i := range upTo {
			name, value := record(i + 1)
			sum.Write(name)
			sum.Write(value)
		}
		r = &pb.HashKVResponse{Header: head, Hash: sum.Sum32(), CompactRevision: -1}
		return nil
	})
	return r, err
}

// pieceSize is how much of a snapshot goes out in one message; the host may be
// struck between any two.
const pieceSize = 16 << 10

// Snapshot streams a real database with its SHA-256.
func (s *etcdServer) Snapshot(_ *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	var data []byte
	for i := 0; i == 0 || i < len(data); i += pieceSize {
		var r *pb.SnapshotResponse
		err := s.with(stream.Context(), "snapshot", false, false, func(_ *pb.ResponseHeader, m *member) error {
			if i == 0 {
				data = s.database()
			}
			end := min(i+pieceSize, len(data))
			r = &pb.SnapshotResponse{Blob: data[i:end], RemainingBytes: uint64(len(data) - end), Version: "3.6.8"}
			return nil
		})
		if err == nil {
			err = stream.Send(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// database is what etcd's file would be; the world is locked.
func (s *etcdServer) database() []byte {
	w := s.h.w
	file := filepath.Join(w.t.TempDir(), "db")
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		panic(err)
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
		for i := range max(w.etcd.revision, 1) { // a database of nothing is none
			name, value := record(i + 1)
			if err := buckets["key"].Put(name, value); err != nil {
				return err
			}
		}
		for _, m := range w.etcd.members {
			if err := buckets["members"].Put(fmt.Appendf(nil, "%x", m.id), []byte("{}")); err != nil {
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
		panic(err)
	}
	sum := sha256.Sum256(out.Bytes())
	return append(out.Bytes(), sum[:]...)
}
