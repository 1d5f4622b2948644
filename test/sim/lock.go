package sim

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/ha-install/ha-install/provision/host"
)

// connection is one run's way to a host: what it changes is checked against
// the epoch that it has raised, as on a real host.
type connection struct {
	*Host
	lock *lock
}

// lock is a host.Lock.
type lock struct {
	c      *connection
	who    host.Holder
	hooks  host.LockHooks
	began  time.Time
	found  string
	raised string
	asleep bool // no heartbeat is acknowledged
}

// Lock is host.Locker's.
func (c *connection) Lock(ctx context.Context, who host.Holder, hooks host.LockHooks) (host.Lock, error) {
	h := c.Host
	l := &lock{c: c, who: who, hooks: hooks, began: time.Now()}
	err := h.claim(ctx, "lock", func() error {
		if h.holder != nil {
			return &host.BusyError{Host: h.name, Holder: h.holder.who, Age: time.Since(h.holder.began)}
		}
		h.holder, l.found = l, h.Epoch
		return nil
	})
	if err != nil {
		l.Release() // a session that was cut ends
		return nil, err
	}
	return l, nil
}

// Holder is host.Locker's.
func (c *connection) Holder(ctx context.Context) (by *host.BusyError, err error) {
	err = c.call(ctx, "who holds the lock", false, 1, once(func() error {
		if h := c.holder; h != nil {
			by = &host.BusyError{Host: c.name, Holder: h.who, Age: time.Since(h.began)}
		}
		return nil
	}))
	return by, err
}

// ReadFile is host.Reader's; the journals are not among the host's files, so
// that two worlds can be compared.
func (c *connection) ReadFile(ctx context.Context, path string) (data []byte, err error) {
	id, found := strings.CutPrefix(path, host.JournalDir+"/")
	if !found {
		return c.Host.ReadFile(ctx, path)
	}
	err = c.call(ctx, "read "+path, false, 1, once(func() error {
		lines, ok := c.Journals[strings.TrimSuffix(id, ".jsonl")]
		if !ok {
			return fmt.Errorf("%s: %s: %w", c.name, path, fs.ErrNotExist)
		}
		data = []byte(strings.Join(lines, "\n") + "\n")
		return nil
	}))
	return data, err
}

// Epoch is host.Lock's.
func (l *lock) Epoch() string { return l.found }

// Raise is host.Lock's.
func (l *lock) Raise(ctx context.Context, epoch string) error {
	h := l.c.Host
	return h.claim(ctx, "raise", func() error {
		if h.holder != l {
			h.w.t.Errorf("sim: %s: the epoch is raised by one who does not hold the host", h.name)
		}
		h.Epoch, h.by, l.raised, l.c.lock = epoch, l.who, epoch, l
		return nil
	})
}

// Fresh is host.Lock's.
func (l *lock) Fresh() bool {
	l.c.w.mu.Lock()
	defer l.c.w.mu.Unlock()
	return !l.asleep && l.c.holder == l && !l.c.off && !l.c.lost()
}

// Note is host.Lock's.
func (l *lock) Note(n int, line string, _ bool) {
	w := l.c.w
	w.mu.Lock()
	dead := w.dead
	if !dead {
		l.c.Journals[l.who.Operation] = append(l.c.Journals[l.who.Operation], line)
	}
	w.mu.Unlock()
	if !dead && l.hooks.Noted != nil {
		go l.hooks.Noted(n) // as a real host does, from elsewhere
	}
}

// Flush is host.Lock's.
func (l *lock) Flush(context.Context) error { return nil }

// Release is host.Lock's.
func (l *lock) Release() {
	l.c.w.mu.Lock()
	defer l.c.w.mu.Unlock()
	if l.c.holder == l {
		l.c.holder = nil
	}
}

// Freeze has every operation that runs now sleep: its locks expire.
func (w *World) Freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.hosts {
		if h.holder != nil {
			h.holder.asleep = true
			w.asleep = append(w.asleep, h.holder)
			h.holder = nil
		}
	}
}

// Wake has those that sleep ask for their locks again, as a lost connection
// does: who finds another epoch is told, who finds the host held stays stale.
func (w *World) Wake() {
	w.mu.Lock()
	sleepers := w.asleep
	w.asleep = nil
	var late []*lock
	for _, l := range sleepers {
		switch h := l.c.Host; {
		case h.Epoch != l.raised:
			late = append(late, l)
		case h.holder == nil:
			h.holder, l.asleep = l, false
		}
	}
	w.mu.Unlock()
	for _, l := range late {
		l.markFenced(&host.FencedError{Host: l.c.name, By: l.c.by})
	}
}

// markFenced tells the operation, which may ask the world, which may be locked.
func (l *lock) markFenced(e *host.FencedError) {
	if f := l.hooks.Fenced; f != nil {
		go f(e)
	}
}

// Close ends the connection, and with it the lock.
func (c *connection) Close() error {
	if c.lock != nil {
		c.lock.Release()
	}
	return c.Host.Close()
}

type lockKey struct{}

// under is asked before a change, and marks it as made under the lock.
func (c *connection) under(ctx context.Context) (context.Context, error) {
	if c.lock == nil {
		return ctx, nil
	}
	if f := c.lock.hooks.Before; f != nil {
		if err := f(ctx); err != nil {
			return nil, err
		}
	}
	return context.WithValue(ctx, lockKey{}, c.lock), nil
}

// fenced is the check that a host makes with each change. A change without a
// lock, while another holds the host, is a defect of ours.
func (h *Host) fenced(ctx context.Context, name string, writes bool) error {
	l, _ := ctx.Value(lockKey{}).(*lock)
	switch {
	case !writes:
	case l == nil && h.holder != nil:
		h.w.t.Errorf("sim: %s: %s: a change without the lock, which %s holds", h.name, name, h.holder.who.Operation)
	case l != nil && h.Epoch != l.raised:
		e := &host.FencedError{Host: h.name, By: h.by}
		l.markFenced(e)
		return e
	}
	return nil
}

// Run is host.Writer's.
func (c *connection) Run(ctx context.Context, cmd host.Command) ([]byte, error) {
	ctx, err := c.under(ctx)
	if err != nil {
		return nil, err
	}
	return c.Host.Run(ctx, cmd)
}

// Upload is host.Writer's.
func (c *connection) Upload(ctx context.Context, f host.File) (bool, error) {
	changed, err := c.UploadAll(ctx, []host.File{f})
	return len(changed) > 0, err
}

// UploadAll is Upload for many files.
func (c *connection) UploadAll(ctx context.Context, files []host.File) ([]string, error) {
	ctx, err := c.under(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: upload: %w", c.name, err)
	}
	return c.Host.UploadAll(ctx, files)
}

// MoveAside is host.Writer's.
func (c *connection) MoveAside(ctx context.Context, path string) (string, error) {
	ctx, err := c.under(ctx)
	if err != nil {
		return "", err
	}
	return c.Host.MoveAside(ctx, path)
}

// Step is host.Writer's.
func (c *connection) Step(ctx context.Context, s host.Step) (host.StepResult, error) {
	ctx, err := c.under(ctx)
	if err != nil {
		return host.StepResult{}, err
	}
	return c.Host.Step(ctx, s)
}
