package host

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// maxSessions stays below the ten that sshd permits on one connection (its
// MaxSessions); tunnels do not count there.
const maxSessions = 8

var errTooFewSessions = errors.New("sshd permits too few sessions on one connection: MaxSessions must be 3 or more")

// limiter bounds sessions and learns the server's own bound from its refusals.
type limiter struct {
	mu    sync.Mutex
	limit int
	used  int
	kept  int           // of those in use, the ones that last as long as the connection
	freed chan struct{} // closed and renewed when a place is free
}

func newLimiter(n int) *limiter { return &limiter{limit: n, freed: make(chan struct{})} }

func (l *limiter) acquire(ctx context.Context) error {
	for {
		l.mu.Lock()
		if l.kept >= l.limit {
			l.mu.Unlock()
			return errTooFewSessions
		}
		if l.used < l.limit {
			l.used++
			l.mu.Unlock()
			return nil
		}
		freed := l.freed
		l.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// keep says of a place that it is taken for long; the function that it returns, no more.
func (l *limiter) keep() func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.kept--
	}
}

func (l *limiter) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free()
}

func (l *limiter) free() {
	l.used--
	close(l.freed)
	l.freed = make(chan struct{})
}

// refused gives back a place that the server would not grant and lowers the
// limit to what it did grant; false when that leaves nothing to wait for.
func (l *limiter) refused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free()
	if l.used <= l.kept {
		return false
	}
	l.limit = min(l.limit, l.used)
	return true
}

// A server under load refuses for a while what it has to give: it takes a
// place back only some time after the session on it has ended.
const (
	reapPause = 50 * time.Millisecond
	reapTries = 100
)

// newSession opens a session, within the limit; release must be called when it is over.
func (l *link) newSession(ctx context.Context) (s *ssh.Session, release func(), err error) {
	for try := 0; ; try++ {
		if err := l.sessions.acquire(ctx); err != nil {
			return nil, nil, err
		}
		s, err := l.openSession(ctx)
		if err == nil {
			return s, sync.OnceFunc(func() { s.Close(); l.sessions.release() }), nil
		}
		var refusal *ssh.OpenChannelError
		if !errors.As(err, &refusal) {
			l.sessions.release()
			return nil, nil, err
		}
		if l.sessions.refused() {
			continue
		}
		if try >= reapTries || !wait(ctx, reapPause) {
			return nil, nil, errors.Join(errTooFewSessions, err)
		}
	}
}

// openSession does not outlast ctx, although the library's call may.
func (l *link) openSession(ctx context.Context) (*ssh.Session, error) {
	type opened struct {
		s   *ssh.Session
		err error
	}
	ch := make(chan opened, 1)
	go func() {
		s, err := l.client.NewSession()
		ch <- opened{s, err}
	}()
	select {
	case o := <-ch:
		return o.s, o.err
	case <-ctx.Done():
		go func() {
			if o := <-ch; o.s != nil {
				o.s.Close()
			}
		}()
		return nil, ctx.Err()
	}
}
