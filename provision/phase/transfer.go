package phase

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"time"
)

// Transfer is how far the sending of bytes has got.
type Transfer struct {
	Done  int64   `json:"doneBytes"`
	Total int64   `json:"totalBytes"`
	Rate  float64 `json:"bytesPerSecond"` // on average, while something was being sent
}

// progressEvery is how often a phase reports its transfer at most.
const progressEvery = 250 * time.Millisecond

type meterKey struct{}

// meter counts what one phase sends, over several files at once.
type meter struct {
	mu          sync.Mutex
	say         func(Transfer)
	done, total int64
	open        int           // files under way
	since       time.Time     // when the first of those began
	busy        time.Duration // before that
	said        time.Time
}

func withMeter(ctx context.Context, say func(Transfer)) (context.Context, *meter) {
	m := &meter{say: say}
	return context.WithValue(ctx, meterKey{}, m), m
}

// Expect adds to what the running phase is about to send.
func Expect(ctx context.Context, bytes int64) {
	if m, ok := ctx.Value(meterKey{}).(*meter); ok {
		m.mu.Lock()
		m.total += bytes
		m.mu.Unlock()
	}
}

// Count reports what is read from r as sent by the running phase. What was
// read is taken back when r is closed before its end: it will be sent again.
func Count(ctx context.Context, r io.ReadCloser) io.ReadCloser {
	m, ok := ctx.Value(meterKey{}).(*meter)
	if !ok {
		return r
	}
	m.begin()
	return &counted{ReadCloser: r, meter: m}
}

type counted struct {
	io.ReadCloser
	meter  *meter
	mu     sync.Mutex // an upload that was given up may still read
	read   int64
	whole  bool
	closed bool
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.whole = c.whole || errors.Is(err, io.EOF)
	if !c.closed {
		c.read += int64(n)
		c.meter.add(int64(n))
	}
	return n, err
}

func (c *counted) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		back := c.read
		if c.whole {
			back = 0
		}
		c.meter.end(back)
	}
	c.mu.Unlock()
	return c.ReadCloser.Close()
}

func (m *meter) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open++; m.open == 1 {
		m.since = time.Now()
		if m.said.IsZero() {
			m.said = m.since
		}
	}
}

func (m *meter) end(back int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done -= back
	if m.open--; m.open == 0 {
		m.busy += time.Since(m.since)
	}
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += n
	if time.Since(m.said) >= progressEvery {
		m.said = time.Now()
		m.say(m.state())
	}
}

func (m *meter) state() Transfer {
	busy := m.busy
	if m.open > 0 {
		busy += time.Since(m.since)
	}
	t := Transfer{Done: m.done, Total: max(m.total, m.done)}
	if busy > 0 {
		t.Rate = math.Round(float64(m.done) / busy.Seconds())
	}
	return t
}

// sum is what was sent in all; nil when the phase sent nothing that it counts.
func (m *meter) sum() *Transfer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done == 0 {
		return nil
	}
	t := m.state()
	return &t
}
