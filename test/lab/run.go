package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// RunError is a command that ended with a non-zero status.
type RunError struct {
	Argv   []string
	Code   int
	Stderr string
}

func (e *RunError) Error() string {
	return fmt.Sprintf("%s: exit %d: %s", strings.Join(e.Argv, " "), e.Code, e.Stderr)
}

// Run runs a command on the machine itself and returns its standard output.
// A non-zero exit is a *RunError.
func Run(ctx context.Context, argv ...string) ([]byte, error) {
	return run(ctx, nil, nil, argv...)
}

func run(ctx context.Context, env []string, stdin io.Reader, argv ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = stdin
	// A killed lxc-attach may leave a child that holds the pipes open.
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		return stdout.Bytes(), fmt.Errorf("%s: %w", strings.Join(argv, " "), context.Cause(ctx))
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return stdout.Bytes(), &RunError{Argv: argv, Code: exit.ExitCode(), Stderr: lastLines(stderr.String(), 20)}
	}
	return nil, fmt.Errorf("%s: %w", argv[0], err)
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Exec runs a command as root inside a host, past the network and sshd, and
// returns its standard output. A non-zero exit is a *RunError.
func (l *Lab) Exec(ctx context.Context, host string, argv ...string) ([]byte, error) {
	return l.attach(ctx, host, nil, argv...)
}

// Send writes what it reads to a file inside a host, the way Exec goes.
func (l *Lab) Send(ctx context.Context, host, path string, content io.Reader) error {
	_, err := l.attach(ctx, host, content, "sh", "-c", `mkdir -p "$(dirname "$1")" && cat >"$1"`, "sh", path)
	return err
}

func (l *Lab) attach(ctx context.Context, host string, stdin io.Reader, argv ...string) ([]byte, error) {
	h, err := l.Host(host)
	if err != nil {
		return nil, err
	}
	attach := []string{
		"lxc-attach", "--name", h.Container(), "--clear-env",
		"--set-var", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"--set-var", "HOME=/root", "--",
	}
	out, err := run(ctx, nil, stdin, append(attach, argv...)...)
	if err != nil {
		return out, fmt.Errorf("%s: %w", host, err)
	}
	return out, nil
}

// PID is the host's init as the machine sees it; its namespaces are the host's.
func (l *Lab) PID(ctx context.Context, host string) (string, error) {
	h, err := l.Host(host)
	if err != nil {
		return "", err
	}
	out, err := Run(ctx, "lxc-info", "--name", h.Container(), "--pid", "--no-humanize")
	if err != nil {
		return "", fmt.Errorf("%s: find its init: %w", host, err)
	}
	pid := strings.TrimSpace(string(out))
	if pid == "" || pid == "-1" {
		return "", fmt.Errorf("%s: it is not running", host)
	}
	return pid, nil
}

// Await asks check every 100 ms until it returns nil; its last error is part
// of the error when the deadline comes first. What completes "waiting for ...".
func Await(ctx context.Context, what string, limit time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last seen: %w", what, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
