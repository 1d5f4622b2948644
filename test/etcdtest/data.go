package etcdtest

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/ha-install/ha-install/provision/etcd"
)

// client is a plain client of all members.
func (c *Cluster) client(t testing.TB) *clientv3.Client {
	t.Helper()
	var endpoints []string
	for _, m := range c.Members {
		endpoints = append(endpoints, m.ClientURL)
	}
	tls, err := c.pki.client(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	cl, err := clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: tls, Logger: zap.NewNop(), MaxUnaryRetries: 5})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}

func (c *Cluster) put(t testing.TB, key, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := c.client(t).Put(ctx, key, value); err != nil {
		t.Fatal(err)
	}
}

// fill writes until etcd accepts no more.
func (c *Cluster) fill(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cl := c.client(t)
	block := string(bytes.Repeat([]byte("x"), 256<<10))
	for {
		if _, err := cl.Put(ctx, "/registry/fill", block); err != nil {
			if ctx.Err() != nil {
				t.Fatal("the quota was never reached")
			}
			return
		}
	}
}

// tamper stops a member, changes a value in its database behind its back, and
// starts it again: the same indexes, other data.
func (c *Cluster) tamper(t testing.TB, m *Member, from, to string) {
	t.Helper()
	m.etcd.Close() // cleanly, so that the value is in the database
	m.etcd = nil
	db, err := bbolt.Open(filepath.Join(m.Dir, "member", "snap", "db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	err = db.Update(func(tx *bbolt.Tx) error {
		keys := tx.Bucket([]byte("key"))
		cursor := keys.Cursor()
		for k, v := cursor.First(); k != nil; k, v = cursor.Next() {
			if bytes.Contains(v, []byte(from)) {
				changed++
				return keys.Put(bytes.Clone(k), bytes.ReplaceAll(v, []byte(from), []byte(to)))
			}
		}
		return nil
	})
	if err == nil {
		err = db.Close()
	}
	if err != nil || changed == 0 {
		t.Fatalf("tamper: %d changed: %v", changed, err)
	}
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
}

// makeRoom does what the remedy for a NOSPACE alarm says: compact, defragment
// each member, disarm.
func (c *Cluster) makeRoom(t testing.TB, m *etcd.Members) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	last, err := c.client(t).Get(ctx, "/registry/fill")
	if err != nil {
		t.Fatal(err)
	}
	revision := last.Header.Revision
	for range 2 { // the second time as after a run that was killed
		if err := m.Compact(ctx, revision); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Compact(ctx, revision+1_000_000); err == nil {
		t.Error("what is to come was compacted")
	}
	for _, one := range c.Members {
		before, err := m.Ask(ctx, one.Name)
		if err == nil {
			err = m.Defragment(ctx, one.Name)
		}
		if err != nil {
			t.Fatal(err)
		}
		if after, err := m.Ask(ctx, one.Name); err != nil || after.DBSize*2 > before.DBSize {
			t.Errorf("%s: the database had %d bytes, it has %d: %v", one.Name, before.DBSize, after.DBSize, err)
		}
	}
	for _, alarm := range m.Look(ctx, etcd.Options{ReadOnly: true}).Alarms {
		for range 2 {
			if err := m.Disarm(ctx, alarm); err != nil {
				t.Fatal(err)
			}
		}
	}
}
