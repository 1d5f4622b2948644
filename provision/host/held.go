package host

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Epoch is Lock's.
func (d *hold) Epoch() string { return d.epoch }

// Raise is Lock's.
func (d *hold) Raise(ctx context.Context, epoch string) error {
	name := d.h.cfg.Name
	ctx, cancel := context.WithTimeout(ctx, workPatience+relock)
	defer cancel()
	d.mu.Lock()
	d.raised = epoch
	d.mu.Unlock()
	d.orders <- "raise " + epoch
	select {
	case answer := <-d.answers:
		if what, working := strings.CutPrefix(answer, "working "); working {
			return &WorkingError{Host: name, What: what}
		}
		if answer != "raised" {
			return fmt.Errorf("%s: raise the epoch: %w", name, ErrConnectionLost)
		}
	case <-ctx.Done():
		return fmt.Errorf("%s: raise the epoch: %w", name, ctx.Err())
	}
	d.h.fence.Store(&fence{dir: d.h.lockDir, epoch: epoch, before: d.hooks.Before, fenced: d.markFenced})
	return nil
}

// Fresh is Lock's. A suspended machine's monotonic clock stands still while
// the other one goes on; a clock that is set moves only that other one.
func (d *hold) Fresh() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fenced {
		return false
	}
	now := time.Now()
	awake, wall := now.Sub(d.heard), now.Round(0).Sub(d.heard.Round(0))
	return max(awake, wall) < d.h.lockExpiry-d.h.lockExpiry/beatsToExpiry
}

// Note is Lock's.
func (d *hold) Note(n int, line string, sync bool) {
	d.mu.Lock()
	d.notes = append(d.notes, note{n: n, line: line, sync: sync})
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default: // it is awake
	}
}

// Flush is Lock's.
func (d *hold) Flush(ctx context.Context) error {
	for {
		d.mu.Lock()
		left := len(d.notes)
		d.mu.Unlock()
		if left == 0 {
			return nil
		}
		if !wait(ctx, flushPoll) {
			return fmt.Errorf("%s: %d lines of the journal were not written: %w", d.h.cfg.Name, left, ctx.Err())
		}
	}
}

const flushPoll = 5 * time.Millisecond

// Release is Lock's.
func (d *hold) Release() {
	d.stop()
	<-d.ended
}
