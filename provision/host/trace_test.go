package host

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ha-install/ha-install/test/sshd"
)

// gathered collects traces.
type gathered struct {
	mu     sync.Mutex
	traces []Trace
}

func (g *gathered) context(t *testing.T) context.Context {
	return WithTracer(testContext(t), func(tr Trace) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.traces = append(g.traces, tr)
	})
}

func (g *gathered) find(t *testing.T, what string) Trace {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, tr := range g.traces {
		if strings.Contains(strings.Join(tr.Argv, " "), what) {
			return tr
		}
	}
	t.Fatalf("nothing was traced with %q: %v", what, g.traces)
	return Trace{}
}

func TestEveryCommandIsTracedWithoutItsContent(t *testing.T) {
	h, _ := dial(t, sshd.Options{}, "root")
	var g gathered
	ctx := g.context(t)
	const secret = "s3cr3t-content"
	if _, err := h.Run(ctx, Command{Argv: []string{"cat"}, Stdin: strings.NewReader(secret), Env: map[string]string{"TOKEN": secret}}); err != nil {
		t.Fatal(err)
	}
	if tr := g.find(t, "cat"); tr.Host != "cp-1" || tr.In != int64(len(secret)) || tr.Out != int64(len(secret)) || tr.Code != 0 || tr.Err != nil || tr.Took <= 0 || tr.Began.IsZero() {
		t.Errorf("%+v", tr)
	}
	if _, err := h.Query(ctx, "sh", "-c", "exit 7"); err == nil {
		t.Error("exit 7 is no error")
	}
	if tr := g.find(t, "exit 7"); tr.Code != 7 || tr.Err != nil {
		t.Errorf("%+v", tr)
	}
	name := filepath.Join(t.TempDir(), "ca.key")
	if _, err := h.Upload(ctx, File{Path: name, Mode: 0o600, Content: []byte(secret), Secret: true}); err != nil {
		t.Fatal(err)
	}
	if tr := g.find(t, "upload "+name); tr.In != int64(len(secret)) || tr.Code != 0 {
		t.Errorf("%+v", tr)
	}
	if all := fmt.Sprintf("%+v", g.traces); strings.Contains(all, secret) {
		t.Errorf("a secret is in the traces: %s", all)
	}
	if _, err := h.Query(testContext(t), "true"); err != nil { // nobody listens
		t.Error(err)
	}
}

func TestALostCommandIsTracedWithItsReason(t *testing.T) {
	h, _ := dial(t, sshd.Options{}, "root")
	var g gathered
	ctx, cancel := context.WithCancel(g.context(t))
	cancel()
	if _, err := h.Query(ctx, "sleep", "60"); err == nil {
		t.Error("no error")
	}
	if tr := g.find(t, "sleep"); tr.Code != -1 || tr.Err == nil {
		t.Errorf("%+v", tr)
	}
}
