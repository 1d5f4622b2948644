package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"
)

// Members observes and changes one cluster's members. It keeps one connection
// for each member, because gates run every few seconds. Its methods may be
// called concurrently.
type Members struct {
	targets  []Target
	before   func(context.Context) error // asked before each change; may be nil
	now      func() time.Time
	readOnly bool

	mu      sync.Mutex
	conns   map[route]*conn
	certs   map[string]cachedTLS // by host
	down    map[string]time.Time // by peer URL: since when nothing answered
	history []Sample
	closed  bool
}

// route is where a connection goes to, and through which host.
type route struct{ to, via string }

var errClosed = errors.New("etcd members: already closed")

// NewMembers prepares to talk to the members on the given hosts; it connects
// to none of them yet. before is asked before each change of membership or
// leadership, and its error is the change's; nil allows all.
func NewMembers(targets []Target, before func(context.Context) error) *Members {
	return &Members{before: before, targets: slices.Clone(targets), now: time.Now, conns: map[route]*conn{}, certs: map[string]cachedTLS{}, down: map[string]time.Time{}}
}

// ReadOnly makes every look one without the leased write. It is called before
// anything else.
func (m *Members) ReadOnly() { m.readOnly = true }

// Close ends all connections.
func (m *Members) Close() error {
	m.mu.Lock()
	conns := m.conns
	m.conns, m.closed = map[route]*conn{}, true
	m.mu.Unlock()
	for _, c := range conns {
		c.Close() // always says "context canceled"
	}
	return nil
}

// Forget drops the connections through the named host, so that the next look
// makes new ones: after its certificates or its SSH connection have changed.
func (m *Members) Forget(host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.certs, host)
	for r, c := range m.conns {
		if r.via == host {
			delete(m.conns, r)
			go c.Close()
		}
	}
}

func (m *Members) kept(r route) *conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conns[r]
}

// keep stores a connection that has answered; false when it came too late.
func (m *Members) keep(r route, c *conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	if old := m.conns[r]; old != nil && old != c {
		go old.Close()
	}
	m.conns[r] = c
	return true
}

func (m *Members) drop(r route, c *conn) {
	m.mu.Lock()
	if m.conns[r] == c {
		delete(m.conns, r)
	}
	m.mu.Unlock()
	c.Close()
}

// reach gets the status of the member at url through a host. A kept connection
// that fails is replaced by a new one once: the member may have restarted.
func (m *Members) reach(ctx context.Context, url string, via Target) (*conn, *Status, Attempt) {
	r := route{to: url, via: via.Name}
	if c := m.kept(r); c != nil {
		s, err := c.status(ctx)
		if err == nil {
			return c, s, Attempt{Via: via.Name, Outcome: Answered}
		}
		m.drop(r, c)
		if isTimeout(err) {
			return nil, nil, Attempt{Via: via.Name, Outcome: Hung, Err: "no answer in time"}
		}
	}
	cfg, err := m.clientTLS(ctx, via)
	if err != nil {
		// The certificate is read over the host's own connection; that it is
		// missing was said by a host that works.
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, Attempt{Via: via.Name, Outcome: NoCertificate, Err: err.Error()}
		}
		return nil, nil, Attempt{Via: via.Name, Outcome: VantageDown, Err: strings.TrimPrefix(reason(errors.Unwrap(err)), via.Name+": ")}
	}
	c, err := connect(ctx, url, via, cfg)
	if err != nil {
		return nil, nil, Attempt{Via: via.Name, Outcome: VantageDown, Err: reason(err)}
	}
	s, err := c.status(ctx)
	if err != nil {
		o, why := c.outcome(err)
		c.Close()
		return nil, nil, Attempt{Via: via.Name, Outcome: o, Err: why}
	}
	if !m.keep(r, c) {
		c.Close()
		return nil, nil, Attempt{Via: via.Name, Outcome: VantageDown, Err: errClosed.Error()}
	}
	return c, s, Attempt{Via: via.Name, Outcome: Answered}
}

// tlsLifetime is how long a client certificate is used before it is read again.
const tlsLifetime = time.Minute

// cachedTLS is a host's client certificate, as read at a time.
type cachedTLS struct {
	cfg *tls.Config
	at  time.Time
}

// clientTLS reads a host's client certificate over its own connection.
func (m *Members) clientTLS(ctx context.Context, t Target) (*tls.Config, error) {
	m.mu.Lock()
	c := m.certs[t.Name]
	m.mu.Unlock()
	if c.cfg != nil && m.now().Sub(c.at) < tlsLifetime {
		return c.cfg, nil
	}
	cfg, err := within(ctx, DialTimeout, t.TLS, func(*tls.Config) {})
	if err != nil {
		return nil, fmt.Errorf("%s: etcd client certificate: %w", t.Name, err)
	}
	m.mu.Lock()
	m.certs[t.Name] = cachedTLS{cfg, m.now()}
	m.mu.Unlock()
	return cfg, nil
}

// remember keeps a sample for the stability of later looks.
func (m *Members) remember(s Sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.history = append(m.history, s)
	for len(m.history) > 0 && s.At.Sub(m.history[0].At) > sampleLifetime {
		m.history = m.history[1:]
	}
}

// downSince notes whether a member answered and returns since when it has not.
func (m *Members) downSince(peerURL string, answered bool) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := normalURL(peerURL)
	if answered {
		delete(m.down, key)
		return time.Time{}
	}
	if m.down[key].IsZero() {
		m.down[key] = m.now()
	}
	return m.down[key]
}

// act makes one change within CallTimeout, if it is allowed.
func (m *Members) act(ctx context.Context, f func(context.Context) error) error {
	return m.actWithin(ctx, CallTimeout, f)
}

// actWithin is act for what takes its time.
func (m *Members) actWithin(ctx context.Context, budget time.Duration, f func(context.Context) error) error {
	if m.before != nil {
		if err := m.before(ctx); err != nil {
			return &notAllowedError{err}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	return f(ctx)
}

// notAllowedError is the answer of before: another try does not change it.
type notAllowedError struct{ error }

func (e *notAllowedError) Unwrap() error { return e.error }

func (m *Members) wasDown(peerURL string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.down[normalURL(peerURL)].IsZero()
}

func containsAny(s string, subs ...string) bool {
	return slices.ContainsFunc(subs, func(sub string) bool { return strings.Contains(s, sub) })
}

// pause waits, or returns early with the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
