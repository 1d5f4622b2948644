package etcd

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"
)

// TestHostsThatNeverAnswer: neither a certificate nor a connection may hold a
// look up, even when whoever makes them does not heed the context.
func TestHostsThatNeverAnswer(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	noTLS := func(context.Context) (*tls.Config, error) { <-end; return nil, net.ErrClosed }
	yesTLS := func(context.Context) (*tls.Config, error) { return &tls.Config{}, nil }
	dial := func(context.Context, string, string) (net.Conn, error) { <-end; return nil, net.ErrClosed }
	m := NewMembers([]Target{
		{Name: "cp-1", PeerURL: peerURL(1), ClientURL: "https://127.0.0.1:2379", Dial: dial, TLS: noTLS},
		{Name: "cp-2", PeerURL: peerURL(2), ClientURL: "https://127.0.0.1:2379", Dial: dial, TLS: yesTLS},
	}, nil)
	defer m.Close()
	began := time.Now()
	v := m.Look(context.Background(), Options{})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a look took %s", took)
	}
	if v.State != Unknown || v.Voters != 2 || v.Healthy != 0 {
		t.Errorf("%s %s %v", v.State, v.Numbers, v.Reasons)
	}
	for _, r := range v.Members {
		if r.State != MemberUnreachable || !strings.HasPrefix(r.Why, "ssh: timeout") || !r.HostDown {
			t.Errorf("%s: %s, %s", r.Name, r.State, r.Why)
		}
	}
}

func TestAClosedSetOfMembersAnswersNothing(t *testing.T) {
	m := NewMembers(nil, nil)
	m.Close()
	if v := m.Look(context.Background(), Options{}); v.State != Unknown {
		t.Errorf("nothing to look at: %s", v.State)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := m.Remove(ctx, 5); err == nil || !strings.Contains(err.Error(), "no voter answers") {
		t.Errorf("remove: %v", err)
	}
	if err := m.Remove(ctx, 0); err == nil {
		t.Error("member 0 was removed")
	}
}
