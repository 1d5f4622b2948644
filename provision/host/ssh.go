package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// SSH is a Host over one multiplexed connection, which it opens anew when it
// was lost. It is safe for concurrent use.
type SSH struct {
	cfg Config
	// Where things are kept, and for how long; fields for tests.
	stepsDir, lockDir, journalDir string
	lockExpiry                    time.Duration

	fence atomic.Pointer[fence] // what changes are made under; nil for none

	mu      sync.Mutex
	cur     *link
	dialing chan struct{} // closed when the dial under way has ended
	closed  bool
	facts   Facts
}

var _ Host = (*SSH)(nil)

// Facts are what connecting learns about a host on the side.
type Facts struct {
	BootID     string // changes with every boot, of a container, too
	Kernel     string // "6.1.0-18-amd64"
	Arch       string // as uname says: "x86_64"
	SFTPServer string // path of sshd's sftp-server; "" when there is none
}

var errClosed = errors.New("the host is closed")

// Dial connects, verifies the host's key and makes sure of root. Its errors
// are *HostKeyError, *AuthError, *UnreachableError, *SudoError, or about the
// configuration.
func Dial(ctx context.Context, cfg Config) (*SSH, error) {
	h := &SSH{cfg: cfg.withDefaults(), stepsDir: defaultStepsDir, lockDir: LockDir, journalDir: JournalDir, lockExpiry: LockExpiry}
	l, err := h.link(ctx)
	if err != nil {
		return nil, err
	}
	if h.facts, err = h.probe(ctx, l); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// Name is the host's name in the inventory.
func (h *SSH) Name() string { return h.cfg.Name }

// Facts are what the first connection found.
func (h *SSH) Facts() Facts { return h.facts }

// Close ends the connection and everything on it; steps go on.
func (h *SSH) Close() error {
	h.mu.Lock()
	h.closed = true
	l := h.cur
	h.cur = nil
	h.mu.Unlock()
	if l != nil {
		l.shut(errClosed)
	}
	return nil
}

// link is the live connection; callers at the same time share one dial.
func (h *SSH) link(ctx context.Context) (*link, error) {
	for {
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			return nil, fmt.Errorf("%s: %w", h.cfg.Name, errClosed)
		}
		if h.cur != nil && !h.cur.dead() {
			l := h.cur
			h.mu.Unlock()
			return l, nil
		}
		if under := h.dialing; under != nil {
			h.mu.Unlock()
			select {
			case <-under:
				continue
			case <-ctx.Done():
				return nil, &UnreachableError{Host: h.cfg.Name, Address: h.cfg.Address, Err: ctx.Err()}
			}
		}
		ended := make(chan struct{})
		h.dialing = ended
		h.mu.Unlock()
		return h.dial(ctx, ended)
	}
}

func (h *SSH) dial(ctx context.Context, ended chan struct{}) (*link, error) {
	l, err := open(ctx, h.cfg)
	h.mu.Lock()
	h.dialing = nil
	close(ended)
	if err == nil && h.closed {
		err = fmt.Errorf("%s: %w", h.cfg.Name, errClosed)
	}
	if err == nil {
		h.cur = l
	}
	h.mu.Unlock()
	if err != nil {
		if l != nil {
			l.shut(errClosed)
		}
		return nil, err
	}
	return l, nil
}

// reconnects bounds how often one call goes over to a new connection.
const reconnects = 3

// idempotent runs op, again on a new connection when the one it used was lost.
// A connection that cannot be made is not tried again: that costs a timeout,
// and the caller may have other ways to look at the host.
func (h *SSH) idempotent(ctx context.Context, op func(*link) error) error {
	var err error
	for range reconnects {
		var l *link
		if l, err = h.link(ctx); err != nil {
			return err
		}
		if err = op(l); err == nil || ctx.Err() != nil || !lost(l, err) {
			return err
		}
	}
	return err
}

// lost says that err is the connection's fault, not the command's, and that
// trying again is a way out.
func lost(l *link, err error) bool {
	var run *RunError
	var fenced *FencedError
	if errors.As(err, &run) || errors.As(err, &fenced) || errors.Is(err, ErrConnectionLost) {
		return false
	}
	if l.dead() {
		return true
	}
	var refused *ssh.OpenChannelError
	var sudo *SudoError
	if errors.As(err, &refused) || errors.As(err, &sudo) {
		return false
	}
	// a channel may learn of the end a moment before the connection does, and
	// the library has no one error for it
	t := time.NewTimer(lostGrace)
	defer t.Stop()
	select {
	case <-l.done:
		return true
	case <-t.C:
		return false
	}
}

const lostGrace = 200 * time.Millisecond
