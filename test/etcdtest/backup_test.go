package etcdtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
)

// history makes a cluster's data: keys that were changed, deleted and made
// anew, with and without a compaction. It returns how many keys there are.
func (c *Cluster) history(t *testing.T, compact bool) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(bg, 20*time.Second)
	defer cancel()
	cl := c.client(t)
	for i := range 60 {
		_, err := cl.Put(ctx, fmt.Sprintf("/registry/pods/%d", i%20), fmt.Sprint("value ", i))
		if err != nil {
			t.Fatal(err)
		}
		if i%7 == 0 {
			r, err := cl.Delete(ctx, fmt.Sprintf("/registry/pods/%d", i%20))
			if err != nil {
				t.Fatal(err)
			}
			if compact && i == 42 { // up to the very revision of a deletion, whose record stays
				if _, err := cl.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	n, err := cl.Get(ctx, "", clientv3.WithFromKey(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return n.Count
}

// take makes a backup of the cluster from a follower, as far as etcd goes.
func take(t *testing.T, c *Cluster, m *etcd.Members, dir string) (string, backup.Manifest) {
	t.Helper()
	return takeAs(t, c, m, dir, time.Now(), func(*backup.Manifest) {})
}

// takeAs is take at another time, with another manifest.
func takeAs(t *testing.T, c *Cluster, m *etcd.Members, dir string, at time.Time, edit func(*backup.Manifest)) (string, backup.Manifest) {
	t.Helper()
	v := m.Look(bg, etcd.Options{Hash: true, Inputs: true, ReadOnly: true})
	sources, err := etcd.SnapshotSources(v)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := m.Snapshot(bg, sources[0].Host)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	draft, err := backup.In(dir, "prod").Begin(at)
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Close()
	s, err := draft.WriteSnapshot(bg, stream, sources[0].Inputs.Hash)
	if err != nil {
		t.Fatal(err)
	}
	of := backup.Manifest{Cluster: "prod", ClusterID: stream.Cluster, Snapshot: s, Quorum: true}
	edit(&of)
	path, err := draft.Commit(of)
	if err != nil {
		t.Fatal(err)
	}
	return path, backup.Read(path).Manifest
}

func TestBackupOfARealCluster(t *testing.T) {
	t.Parallel()
	for _, compact := range []bool{false, true} {
		t.Run(fmt.Sprint("compacted ", compact), func(t *testing.T) {
			t.Parallel()
			c := Start(t, 3)
			m := c.Connect()
			c.Ready(m)
			keys := c.history(t, compact)
			v := c.Ready(m)
			path, manifest := take(t, c, m, t.TempDir())
			s := manifest.Snapshot
			t.Logf("%+v, hash %+v", s.Contents, s.Hash)
			if s.Keys != keys || s.Revision < 60 || s.Hash == nil || len(s.Members) != 3 {
				t.Errorf("%+v; the cluster has %d keys", s, keys)
			}
			if (s.Compacted > 0) != compact {
				t.Errorf("compacted at %d", s.Compacted)
			}
			for _, id := range s.Members {
				if _, ok := v.Find(id, ""); !ok {
					t.Errorf("member %s is not of the cluster", id)
				}
			}
			if r, err := backup.Verify(bg, path, backup.Expected{Cluster: "prod"}); err != nil || !r.Whole {
				t.Errorf("%+v: %v", r, err)
			}
		})
	}
}

// What was compacted after the hash was told cannot be compared with it any
// more, and must not be taken for a difference.
func TestBackupOfWhatWasCompactedMeanwhile(t *testing.T) {
	t.Parallel()
	c := Start(t, 1)
	m := c.Connect()
	c.Ready(m)
	c.history(t, true)
	v := m.Look(bg, etcd.Options{Hash: true, Inputs: true, ReadOnly: true})
	told := v.Members[0].Inputs.Hash
	c.put(t, "/registry/later", "x")
	if _, err := c.client(t).Compact(bg, told.Revision+1, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	stream, err := m.Snapshot(bg, "cp-1")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	draft, err := backup.In(t.TempDir(), "prod").Begin(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Close()
	if s, err := draft.WriteSnapshot(bg, stream, told); err != nil || s.Hash != nil || s.Compacted != told.Revision+1 {
		t.Errorf("%+v: %v", s, err)
	}
}

// TestBackupOfAMemberWhoseDiskLies: the database differs from what the voters
// agree on, with a good SHA-256 over it.
func TestBackupOfAMemberWhoseDiskLies(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	c.Ready(m)
	c.history(t, false)
	path, manifest := take(t, c, m, t.TempDir())
	file := filepath.Join(path, backup.SnapshotFile)
	if _, sum, err := backup.Inspect(bg, file, manifest.Snapshot.Hash); err != nil || sum == nil || *sum != manifest.Snapshot.Hash.Sum {
		t.Fatalf("%v, %v", sum, err)
	}
	db, err := bbolt.Open(file, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket([]byte("key")).Cursor()
		for k, v := cursor.First(); k != nil; k, v = cursor.Next() {
			if bytes.Contains(v, []byte("value")) {
				return tx.Bucket([]byte("key")).Put(bytes.Clone(k), bytes.Replace(v, []byte("value"), []byte("VALUE"), 1))
			}
		}
		return errors.New("no value to change")
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, sum, err := backup.Inspect(bg, file, manifest.Snapshot.Hash); err != nil || sum == nil || *sum == manifest.Snapshot.Hash.Sum {
		t.Errorf("a changed value: %v, %v", sum, err)
	}
}

// TestDamagedPagesOfADatabase damages pages of a database behind its SHA-256,
// as a disk of the member would: reading must end in an error or in the same
// contents, never in a crash.
func TestDamagedPagesOfADatabase(t *testing.T) {
	t.Parallel()
	c := Start(t, 1)
	m := c.Connect()
	c.Ready(m)
	c.history(t, false)
	path, manifest := take(t, c, m, t.TempDir())
	good, err := os.ReadFile(filepath.Join(path, backup.SnapshotFile))
	if err != nil {
		t.Fatal(err)
	}
	at := manifest.Snapshot.Hash
	found, same := 0, 0
	for i := 4096 * 2; i < len(good); i += 97 {
		bad := bytes.Clone(good)
		bad[i] ^= 0xff
		file := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		contents, sum, err := backup.Inspect(bg, file, at)
		if err != nil || sum == nil || *sum != at.Sum || contents.Revision != manifest.Snapshot.Revision {
			found++
		} else {
			same++
		}
	}
	t.Logf("%d damaged databases were refused, %d had all keys (free pages)", found, same)
	if found == 0 || same == 0 {
		t.Errorf("%d found, %d the same", found, same)
	}
}

// large writes more than what connections hold on the way.
func (c *Cluster) large(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(bg, 30*time.Second)
	defer cancel()
	cl, block := c.client(t), strings.Repeat("x", 512<<10)
	for i := range 16 {
		if _, err := cl.Put(ctx, fmt.Sprintf("/registry/large/%d", i), block); err != nil {
			t.Fatal(err)
		}
	}
}

// during is a snapshot in the middle of which something happens.
type during struct {
	*etcd.SnapshotStream
	left int // bytes before it does
	then func()
}

func (d *during) Read(p []byte) (int, error) {
	n, err := d.SnapshotStream.Read(p)
	if d.left -= n; d.left <= 0 && d.then != nil {
		d.then()
		d.then = nil
	}
	return n, err
}

func TestBackupWhileTheLeaderChanges(t *testing.T) {
	t.Parallel()
	for _, fromLeader := range []bool{false, true} {
		t.Run(fmt.Sprint("from the leader ", fromLeader), func(t *testing.T) {
			t.Parallel()
			c := Start(t, 3)
			m := c.Connect()
			c.Ready(m)
			c.large(t)
			sources, err := etcd.SnapshotSources(m.Look(bg, etcd.Options{Hash: true, Inputs: true, ReadOnly: true}))
			if err != nil {
				t.Fatal(err)
			}
			from := sources[0]
			if fromLeader {
				from = sources[2]
			}
			stream, err := m.Snapshot(bg, from.Host)
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			moved := false
			d := &during{stream, 1 << 20, func() {
				if err := m.MoveLeader(bg, 0, nil); err != nil {
					t.Error(err)
				}
				c.put(t, "/registry/after", "the change")
				moved = true
			}}
			draft, err := backup.In(t.TempDir(), "prod").Begin(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			defer draft.Close()
			s, err := draft.WriteSnapshot(bg, d, from.Inputs.Hash)
			if err != nil || s.Hash == nil || s.Bytes < 8<<20 || !moved || stream.Leader != fromLeader {
				t.Errorf("moved %t, %+v: %v", moved, s, err)
			}
		})
	}
}

// A member that dies in the middle is an error of the source, whatever has
// come of it by then, and the next member gives a whole one.
func TestBackupFromAMemberThatDies(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	c.Ready(m)
	c.large(t)
	sources, err := etcd.SnapshotSources(m.Look(bg, etcd.Options{ReadOnly: true}))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	draft, err := backup.In(dir, "prod").Begin(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Close()
	for i, from := range sources[:2] {
		stream, err := m.Snapshot(bg, from.Host)
		if err != nil {
			t.Fatal(err)
		}
		d := &during{stream, 1 << 20, nil}
		if i == 0 {
			d.then = c.Member(from.Host).Stop
		}
		s, err := draft.WriteSnapshot(bg, d, nil)
		stream.Close()
		var local *backup.LocalError
		if errors.As(err, &local) || (err == nil) != (i == 1) || i == 1 && s.Bytes < 8<<20 {
			t.Errorf("%s: %+v: %v", from.Host, s, err)
		}
		t.Log(from.Host, err)
	}
}
