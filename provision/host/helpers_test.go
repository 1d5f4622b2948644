package host

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/sshd"
)

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// configFor reaches a server as the user, with root or through the sudo shim.
func configFor(t testing.TB, s *sshd.Server, user string) Config {
	t.Helper()
	return Config{
		Name: "cp-1", Address: s.Host(), Port: s.Port(), User: user,
		IdentityFiles: []Identity{{Path: s.KeyFile, Required: true}},
		KnownHosts:    []string{s.KnownHosts(t)},
		KeepAlive:     200 * time.Millisecond, ConnectTimeout: 5 * time.Second,
	}
}

// dial connects to a new server; its steps stay in a temporary directory.
func dial(t testing.TB, opts sshd.Options, user string) (*SSH, *sshd.Server) {
	t.Helper()
	if opts.Shims == "" {
		opts.Shims = sshd.Shims(t)
	}
	s := sshd.New(t, opts)
	h, err := Dial(testContext(t), configFor(t, s, user))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	inTemporary(t, h)
	return h, s
}

// inTemporary has a host keep what it keeps in a new directory.
func inTemporary(t testing.TB, h *SSH) {
	t.Helper()
	dir := t.TempDir()
	h.stepsDir, h.lockDir, h.journalDir = filepath.Join(dir, "steps"), filepath.Join(dir, "lock"), filepath.Join(dir, "journal")
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
