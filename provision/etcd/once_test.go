package etcd

import (
	"context"
	"errors"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// writing takes the probe's write, and fails in the call that it is told to.
type writing struct {
	clientv3.KV
	clientv3.Lease
	fails string
}

func (w writing) answer(call string) error {
	if w.fails == call {
		return errors.New("no leader")
	}
	return nil
}

func (w writing) Grant(context.Context, int64) (*clientv3.LeaseGrantResponse, error) {
	return &clientv3.LeaseGrantResponse{}, w.answer("grant")
}

func (w writing) Put(context.Context, string, string, ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	return &clientv3.PutResponse{}, w.answer("put")
}

func (w writing) Revoke(context.Context, clientv3.LeaseID) (*clientv3.LeaseRevokeResponse, error) {
	return &clientv3.LeaseRevokeResponse{}, w.answer("revoke")
}

// Each of its three calls goes through quorum; the last one is the newest news of it.
func TestAWriteFailsWithAnyOfItsCalls(t *testing.T) {
	for _, call := range []string{"", "grant", "put", "revoke"} {
		w := writing{fails: call}
		c := &conn{Client: &clientv3.Client{KV: w, Lease: w}}
		if got, want := c.write(t.Context()).Err, map[bool]string{true: "", false: "no leader"}[call == ""]; got != want {
			t.Errorf("%q fails: the write says %q, want %q", call, got, want)
		}
	}
}
