//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// terminal is a run of the program by somebody who sits at a terminal.
type terminal struct {
	ptm, tty *os.File
	cmd      *exec.Cmd
	before   *unix.Termios
	read     chan struct{}

	mu     sync.Mutex
	screen bytes.Buffer
}

// atTerminal starts the program on a terminal of its own.
func atTerminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	ptm, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ptm.Close(); tty.Close() })
	if err := pty.Setsize(ptm, &pty.Winsize{Cols: 120, Rows: 40}); err != nil {
		t.Fatal(err)
	}
	x := &terminal{ptm: ptm, tty: tty, cmd: exec.Command(binary, args...), read: make(chan struct{})}
	if x.before, err = unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS); err != nil {
		t.Fatal(err)
	}
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = tty, tty, tty
	x.cmd.Env = append(os.Environ(), "TERM=xterm-256color")
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.cmd.Process.Kill() })
	go func() {
		defer close(x.read)
		_, _ = io.Copy(x, ptm) // ends with the terminal
	}()
	return x
}

// Write is what the program shows.
func (x *terminal) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.screen.Write(p)
}

func (x *terminal) shown() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.screen.String()
}

// await waits until the program has shown the text.
func (x *terminal) await(t *testing.T, text string) {
	t.Helper()
	for began := time.Now(); !strings.Contains(x.shown(), text); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("the terminal does not show %q:\n%s", text, x.shown())
		}
	}
}

func (x *terminal) types(t *testing.T, keys string) {
	t.Helper()
	if _, err := x.ptm.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// end waits for the end of the program, wants that exit code, and a terminal
// that is as it was before.
func (x *terminal) end(t *testing.T, code int) {
	t.Helper()
	err := x.cmd.Wait()
	after, ioctl := unix.IoctlGetTermios(int(x.tty.Fd()), unix.TCGETS)
	if ioctl != nil {
		t.Fatal(ioctl)
	}
	x.tty.Close()
	<-x.read
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if got != code {
		t.Errorf("exit %d, want %d\n%s", got, code, x.shown())
	}
	if *after != *x.before {
		t.Errorf("the terminal's modes are %+v, were %+v", after, x.before)
	}
	text := x.shown()
	if hidden := strings.LastIndex(text, "\x1b[?25l"); hidden >= 0 && !strings.Contains(text[hidden:], "\x1b[?25h") {
		t.Error("the cursor is left hidden")
	}
}

// askedOnTerminal has an operator at a terminal asked: the plan is shown, no
// is no, yes is done, and Ctrl-C stops at the next safe point.
func askedOnTerminal(t *testing.T) {
	const label, question = "ha-install.io/e2e-asked", "Type yes to go on: "
	path := withLabel(t, label)
	labelled := func() bool {
		return strings.Contains(kubectl(t, "get", "node", "w-1", "-o", "jsonpath={.metadata.labels}"), label)
	}
	x := atTerminal(t, "apply", path)
	x.await(t, question)
	if text := x.shown(); !strings.Contains(text, "w-1") || !strings.Contains(text, label) {
		t.Errorf("the plan does not show the label for w-1:\n%s", text)
	}
	x.types(t, "no\n")
	x.end(t, 2)
	if labelled() {
		t.Error("it went on after a no")
	}

	x = atTerminal(t, "apply", path)
	x.await(t, question)
	x.types(t, "yes\n")
	x.await(t, "\x1b[?25l") // the live view hides the cursor
	x.types(t, "\x03")
	x.end(t, 130)
	if text := x.shown(); !strings.Contains(text, "stop") {
		t.Errorf("nothing is said of the stop:\n%s", text)
	}

	x = atTerminal(t, "apply", path)
	x.await(t, question)
	x.types(t, "yes\n")
	x.end(t, 0)
	if !labelled() {
		t.Error("a yes was not done")
	}
	kubectl(t, "label", "node", "w-1", label+"-")
}

// withLabel is the lab's inventory with a label for its worker.
func withLabel(t *testing.T, label string) string {
	t.Helper()
	return writeInventory(t, nil, func(d document) {
		for _, h := range d.spec()["hosts"].([]any) {
			if h := h.(map[string]any); h["name"] == "w-1" {
				h["labels"] = map[string]any{label: "yes"}
			}
		}
	})
}
