package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// environment is set for every command, so that it does not depend on sshd,
// PAM, sudo's secure_path or the user's locale.
const (
	searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin"
	locale     = "LC_ALL=C"
)

// stderrKept is how much of a failed command's standard error an error shows.
const stderrKept = 4 << 10

// Query runs a command that changes nothing, as root, and returns its standard
// output. It runs again on a new connection when the old one was lost.
func (h *SSH) Query(ctx context.Context, argv ...string) ([]byte, error) {
	var out []byte
	err := h.idempotent(ctx, func(l *link) (err error) {
		out, err = h.exec(ctx, l, execution{argv: argv})
		return err
	})
	if err != nil {
		return nil, h.named(argv, err)
	}
	return out, nil
}

// Run runs a command as root and returns its standard output. It is sent once:
// when the connection is lost under it, the error is ErrConnectionLost.
func (h *SSH) Run(ctx context.Context, cmd Command) ([]byte, error) {
	sent, how := false, fencedWork
	if cmd.Stdin != nil {
		how = fencedFed
	}
	var out []byte
	err := h.idempotent(ctx, func(l *link) (err error) {
		out, err = h.exec(ctx, l, execution{argv: cmd.Argv, env: cmd.Env, stdin: cmd.Stdin, stdout: cmd.Stdout, sent: &sent, fenced: how})
		if err != nil && sent && ctx.Err() == nil && lost(l, err) {
			return fmt.Errorf("%w: %w", ErrConnectionLost, err)
		}
		return err
	})
	if err != nil {
		return nil, h.named(cmd.Argv, err)
	}
	return out, nil
}

// named puts host and command before errors that do not carry them.
func (h *SSH) named(argv []string, err error) error {
	var run *RunError
	var sudo *SudoError
	var away *UnreachableError
	var key *HostKeyError
	var auth *AuthError
	var fenced *FencedError
	var missing *ssh.ExitMissingError
	if errors.As(err, &missing) && !errors.Is(err, ErrConnectionLost) {
		return &RunError{Host: h.cfg.Name, Argv: argv, Code: -1}
	}
	if errors.As(err, &run) || errors.As(err, &sudo) || errors.As(err, &away) || errors.As(err, &key) || errors.As(err, &auth) || errors.As(err, &fenced) {
		return err
	}
	return fmt.Errorf("%s: %s: %w", h.cfg.Name, Quote(argv), err)
}

// execution is one command on one session.
type execution struct {
	argv   []string
	env    map[string]string
	stdin  io.Reader
	stdout io.Writer // default: returned by exec
	stderr io.Writer // in addition to what an error keeps
	sent   *bool     // set when the command may have reached the host
	fenced string    // how it changes the host; "" when it does not
}

// commandLine is what sshd hands to the user's login shell.
func (h *SSH) commandLine(argv []string, env map[string]string) (string, error) {
	if len(argv) == 0 {
		return "", errors.New("no command")
	}
	var full []string
	if h.cfg.sudo() {
		full = append(full, "sudo", "-n", "--")
	}
	full = append(full, "env", searchPath, locale)
	names := make([]string, 0, len(env))
	for name := range env {
		if name == "" || strings.ContainsAny(name, "=-") {
			return "", fmt.Errorf("bad name of an environment variable: %q", name)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		full = append(full, name+"="+env[name])
	}
	if strings.Contains(argv[0], "=") {
		return "", fmt.Errorf("a command cannot have '=' in its name: %q", argv[0]) // env would take it for a setting
	}
	full = append(full, argv...)
	for _, a := range full {
		if strings.IndexByte(a, 0) >= 0 {
			return "", errors.New("an argument holds a NUL byte")
		}
	}
	return Quote(full), nil
}

// exec runs one command on the given connection and waits for its end or for
// ctx, whose end closes the session.
func (h *SSH) exec(ctx context.Context, l *link, x execution) (result []byte, err error) {
	defer h.traced(ctx, &x, &result, &err)()
	var under *fence
	if x.fenced != "" {
		under = h.fence.Load()
	}
	if err := under.ask(ctx); err != nil {
		return nil, err
	}
	line, err := h.commandLine(under.wrap(x.fenced, x.argv), x.env)
	if err != nil {
		return nil, err
	}
	s, release, err := l.newSession(ctx)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	errs := &tail{max: stderrKept}
	gate := &gate{}
	defer gate.shut()
	s.Stdout, s.Stderr = gate.to(&out), gate.to(errs)
	if x.stdout != nil {
		s.Stdout = gate.to(x.stdout)
	}
	if x.stderr != nil {
		s.Stderr = gate.to(io.MultiWriter(errs, x.stderr))
	}
	if err := feed(s, x.stdin); err != nil {
		release()
		return nil, err
	}
	if x.sent != nil {
		*x.sent = true
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(line); release() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		go func() { // may block when the peer hangs
			_ = s.Signal(ssh.SIGTERM) // reaches what runs as the same user; closing stops the rest at its next write
			release()
		}()
		return nil, ctx.Err()
	case <-l.done:
		select {
		case err = <-ended: // it may have ended just before
		case <-time.After(lostGrace):
			err = fmt.Errorf("%w: %w", io.EOF, l.cause)
		}
	}
	if err != nil {
		gate.shut()
		return nil, under.refusal(h.cfg.Name, h.runError(x.argv, errs.String(), err))
	}
	return out.Bytes(), nil
}

// feed copies stdin beside the session: the session's own copying would make
// the end of the command wait for the end of its input.
func feed(s *ssh.Session, stdin io.Reader) error {
	if stdin == nil {
		return nil
	}
	w, err := s.StdinPipe()
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(w, stdin) // a command that reads no further is no error by itself
		w.Close()
	}()
	return nil
}

// gate lets a session's goroutines write until the caller has gone.
type gate struct {
	mu     sync.Mutex
	closed bool
}

func (g *gate) shut() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
}

func (g *gate) to(w io.Writer) io.Writer { return &gated{g, w} }

type gated struct {
	*gate
	w io.Writer
}

func (g *gated) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return 0, io.ErrClosedPipe
	}
	return g.w.Write(p)
}

// runError turns the library's account of a command's end into ours.
func (h *SSH) runError(argv []string, stderr string, err error) error {
	var exit *ssh.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	stderr = withoutNoise(stderr)
	if h.cfg.sudo() && strings.HasPrefix(stderr, "sudo: ") {
		if e := sudoError(h.cfg.Name, h.cfg.User, stderr); e != nil {
			return e
		}
	}
	e := &RunError{Host: h.cfg.Name, Argv: argv, Code: exit.ExitStatus(), Signal: exit.Signal(), Stderr: stderr}
	if e.Signal != "" {
		e.Code = -1
	}
	return e
}
