package boot

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// process is a component that runs until it is stopped, or this program is gone.
type process struct {
	name  string
	log   string
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // how it ended, after ended
}

// start runs a program of the scratch directory, with its output in a log there.
func start(in *scratch, name string, args ...string) (*process, error) {
	p := &process{name: name, log: in.at(name + ".log"), ended: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(in.at(name), args...)
	p.cmd.Dir, p.cmd.Env = in.path, []string{"PATH=/usr/bin:/bin", "HOME=" + in.path, "TMPDIR=" + in.path}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// A group of its own, so that Ctrl-C reaches this program alone; and killed
	// with it, whatever ends it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The kernel means the thread that started it: that one has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.ended)
		}
		out.Close()
	}()
	if err := <-started; err != nil {
		return nil, &Error{Component: name, Err: err}
	}
	return p, nil
}

// wait is for a program that ends by itself.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.ended:
		if p.err != nil {
			return p.failed(p.err)
		}
		return nil
	case <-ctx.Done():
		p.stop()
		return ctx.Err()
	}
}

// patience is how long a component may take to stop by itself.
const patience = 5 * time.Second

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-p.ended:
		return
	case <-t.C:
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
}

func (p *process) failed(err error) error {
	return &Error{Component: p.name, Err: err, Log: lastLines(p.log, 12)}
}

// longest is what is shown of a line.
const longest = 400

// lastLines is the end of a file, of which long lines are cut.
func lastLines(file string, n int) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	lines = lines[max(0, len(lines)-n):]
	for i, line := range lines {
		if len(line) > longest {
			line = line[:longest] + "..."
		}
		lines[i] = "  " + line
	}
	return strings.Join(lines, "\n")
}

// freePorts are addresses on loopback that nobody listens on.
func freePorts(n int) ([]string, error) {
	var addresses []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close() // all at the end, or one would be given twice
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}
