package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// link is one live SSH connection to a host, with all that hangs on it.
type link struct {
	client   *ssh.Client
	sessions *limiter
	closers  []func()      // bastion first
	done     chan struct{} // closed when the connection is gone
	once     sync.Once
	cause    error // why, readable after done

	sftpMu sync.Mutex
	sftp   *sftpSession
}

// open connects, through the bastions, and verifies every host on the way.
func open(ctx context.Context, cfg Config) (*link, error) {
	cfg = cfg.withDefaults()
	address := net.JoinHostPort(cfg.Address, fmt.Sprint(cfg.Port))
	verify, err := newVerifier(cfg)
	if err != nil {
		return nil, err
	}
	ids, err := loadIdentities(cfg)
	if err != nil {
		return nil, err
	}
	defer ids.close()
	var last error
	for attempt := range dropAttempts {
		if attempt > 0 && !wait(ctx, dropPause) {
			break
		}
		l, err := openOnce(ctx, cfg, address, verify, ids)
		if err == nil {
			return l, nil
		}
		last = err
		if errors.Is(err, errKeyType) && !verify.any {
			verify.any = true // look at the key that is there, to report it
			continue
		}
		if !droppedEarly(err) {
			break
		}
	}
	return nil, last
}

// sshd drops connections unseen when too many are logging in at once
// (MaxStartups); such a drop is worth another try.
const (
	dropAttempts = 3
	dropPause    = 500 * time.Millisecond
)

// errKeyType means that the host has no key of a type that is on record for it.
var errKeyType = errors.New("no host key of a known type")

func droppedEarly(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func openOnce(ctx context.Context, cfg Config, address string, verify *verifier, ids *identities) (*link, error) {
	l := &link{sessions: newLimiter(maxSessions), done: make(chan struct{})}
	raw, err := l.dialTCP(ctx, cfg, address)
	if err != nil {
		l.shut(err)
		return nil, err
	}
	watched := &watchedConn{Conn: raw}
	watched.touch()
	client, err := handshake(ctx, cfg, watched, address, verify, ids)
	if err != nil {
		raw.Close()
		l.shut(err)
		return nil, err
	}
	l.client = client
	go func() { l.shut(client.Wait()) }()
	go l.keepAlive(watched, cfg.KeepAlive)
	return l, nil
}

// dialTCP reaches the host's sshd, directly or through its bastion.
func (l *link) dialTCP(ctx context.Context, cfg Config, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	if cfg.Bastion == nil {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, &UnreachableError{Host: cfg.Name, Address: address, Err: err}
		}
		return conn, nil
	}
	b, err := open(ctx, *cfg.Bastion)
	if err != nil {
		return nil, &BastionError{Host: cfg.Name, Err: err}
	}
	l.closers = append(l.closers, func() { b.shut(net.ErrClosed) })
	conn, err := b.client.DialContext(ctx, "tcp", address)
	if err != nil {
		err = fmt.Errorf("through bastion %s: %w", cfg.Bastion.Address, tunnelError(err))
		return nil, &UnreachableError{Host: cfg.Name, Address: address, Err: err}
	}
	return withDeadlines(conn, "", address), nil
}

// handshake makes an SSH connection of a TCP one, within the connect timeout.
func handshake(ctx context.Context, cfg Config, conn net.Conn, address string, verify *verifier, ids *identities) (*ssh.Client, error) {
	cc := &ssh.ClientConfig{
		User: cfg.User,
		// all keys in one method: the library tries each kind of method once
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(ids.signers...)},
		HostKeyCallback:   verify.check,
		HostKeyAlgorithms: verify.algorithms(),
		ClientVersion:     "SSH-2.0-ha-install",
	}
	deadline := time.Now().Add(cfg.ConnectTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, &UnreachableError{Host: cfg.Name, Address: address, Err: err}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	c, chans, reqs, err := ssh.NewClientConn(conn, address, cc)
	if !stop() && err == nil { // cancelled at the last moment
		c.Close()
		err = ctx.Err()
	}
	if err != nil {
		return nil, handshakeError(ctx, cfg, address, verify, ids, err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		c.Close()
		return nil, &UnreachableError{Host: cfg.Name, Address: address, Err: err}
	}
	return ssh.NewClient(c, chans, reqs), nil
}

// handshakeError says which of the things that go wrong it was.
func handshakeError(ctx context.Context, cfg Config, address string, verify *verifier, ids *identities, err error) error {
	var key *HostKeyError
	var algo *ssh.AlgorithmNegotiationError
	switch {
	case errors.As(err, &key):
		return key
	case errors.As(err, &algo) && strings.Contains(algo.What, "host key"):
		return &UnreachableError{Host: cfg.Name, Address: address, Err: fmt.Errorf("%w: %w", errKeyType, err)}
	case ctx.Err() != nil:
		return &UnreachableError{Host: cfg.Name, Address: address, Err: ctx.Err()}
	case strings.Contains(err.Error(), "unable to authenticate"):
		return &AuthError{Host: cfg.Name, User: cfg.User, Address: address, Tried: ids.tried, Skipped: ids.skipped, Err: err}
	default:
		return &UnreachableError{Host: cfg.Name, Address: address, Err: err}
	}
}

// shut closes the connection and all that hangs on it; only the first cause counts.
func (l *link) shut(cause error) {
	l.once.Do(func() {
		if cause == nil {
			cause = io.EOF
		}
		l.cause = cause
		close(l.done)
		if l.client != nil {
			l.client.Close()
		}
		for i := len(l.closers) - 1; i >= 0; i-- {
			l.closers[i]()
		}
	})
}

func (l *link) dead() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// keepAlive gives the connection up when the peer was silent for two and a
// half intervals, although asked. Any byte counts as a sign of life: on a slow
// line an answer waits behind the data that fills it.
func (l *link) keepAlive(conn *watchedConn, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	var asking atomic.Bool
	for {
		select {
		case <-l.done:
			return
		case <-t.C:
		}
		if silent := conn.silence(); silent > every*5/2 {
			l.shut(fmt.Errorf("no sign of life for %s", silent.Round(time.Second)))
			return
		}
		if asking.CompareAndSwap(false, true) {
			go func() {
				// an answer of "unknown request" is an answer
				_, _, _ = l.client.SendRequest("keepalive@openssh.com", true, nil)
				asking.Store(false)
			}()
		}
	}
}

// watchedConn knows when it last read something.
type watchedConn struct {
	net.Conn
	last atomic.Int64
}

func (c *watchedConn) touch() { c.last.Store(time.Now().UnixNano()) }

func (c *watchedConn) silence() time.Duration { return time.Since(time.Unix(0, c.last.Load())) }

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.touch()
	}
	return n, err
}

// wait pauses; false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
