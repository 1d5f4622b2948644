package host

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// Trace is what became of one command or file that was sent to a host. It
// holds sizes of what went in and came out, never the content.
type Trace struct {
	Host string
	// Argv is the command as it was asked for, without the environment; of a
	// file, "upload" and its path.
	Argv    []string
	Began   time.Time
	Took    time.Duration
	In, Out int64 // bytes
	Code    int   // exit code; -1 when there is none
	// Err says why there is no exit code.
	Err error
}

type tracerKey struct{}

// WithTracer has everything that is done to a host in the name of the context
// told to f, from several goroutines at once.
func WithTracer(ctx context.Context, f func(Trace)) context.Context {
	return context.WithValue(ctx, tracerKey{}, f)
}

func tracer(ctx context.Context) func(Trace) {
	f, _ := ctx.Value(tracerKey{}).(func(Trace))
	return f
}

// traced counts what goes through x and returns what reports its end.
func (h *SSH) traced(ctx context.Context, x *execution, out *[]byte, err *error) func() {
	report := tracer(ctx)
	if report == nil {
		return func() {}
	}
	t := Trace{Host: h.cfg.Name, Argv: x.argv, Began: time.Now()}
	var fed, read atomic.Int64
	if x.stdin != nil {
		x.stdin = &countingReader{x.stdin, &fed}
	}
	if x.stdout != nil {
		x.stdout = &countingWriter{x.stdout, &read}
	}
	return func() {
		t.Took, t.In, t.Out = time.Since(t.Began), fed.Load(), read.Load()+int64(len(*out))
		var run *RunError
		if errors.As(*err, &run) {
			t.Code = run.Code
		} else if *err != nil {
			t.Code, t.Err = -1, *err
		}
		report(t)
	}
}

// tracedPut reports a file that was sent, or was not.
func (h *SSH) tracedPut(ctx context.Context, f File, began time.Time, err error) {
	if report := tracer(ctx); report != nil {
		t := Trace{Host: h.cfg.Name, Argv: []string{"upload", f.Path}, Began: began, Took: time.Since(began), In: f.Size}
		if err != nil {
			t.Code, t.Err = -1, err
		}
		report(t)
	}
}

type countingReader struct {
	io.Reader
	n *atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

type countingWriter struct {
	io.Writer
	n *atomic.Int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n.Add(int64(n))
	return n, err
}
