package provision

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestHoldScript has the script itself hold a process of its own: as often as it is
// told, and never longer than it may, whoever dies.
func TestHoldScript(t *testing.T) {
	t.Parallel()
	const address, most = "192.0.2.77", 2 * time.Second
	api := filepath.Join(t.TempDir(), "kube-apiserver")
	if err := os.WriteFile(api, []byte("#!/bin/sh\nread -r never\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	held := exec.CommandContext(t.Context(), api, "--advertise-address="+address)
	never, err := held.StdinPipe()
	if err == nil {
		err = held.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Process.Kill(); never.Close(); _ = held.Wait() }()
	stopped := func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", held.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')'):], []byte(") T"))
	}
	// A process that is told stands a moment later.
	becomes := func(want bool, most time.Duration, after string) {
		t.Helper()
		for end := time.Now().Add(most); stopped() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: stopped: %v", after, !want)
			}
		}
	}
	type script struct {
		*exec.Cmd
		in    io.WriteCloser
		lines *bufio.Scanner
	}
	begin := func(address string) script {
		t.Helper()
		c := exec.CommandContext(t.Context(), "sh", "-c", holdScript, "sh", address, fmt.Sprint(most.Seconds()))
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		return script{c, in, bufio.NewScanner(out)}
	}
	says := func(s script, line string) {
		t.Helper()
		if !s.lines.Scan() || s.lines.Text() != line {
			t.Fatalf("it says %q, want %q", s.lines.Text(), line)
		}
	}
	tell := func(s script, line string, want bool) {
		t.Helper()
		fmt.Fprintln(s.in, line)
		says(s, line)
		becomes(want, most/2, line)
	}
	hold := func() script {
		t.Helper()
		s := begin(address)
		says(s, "ready")
		if stopped() {
			t.Fatal("stopped before a word")
		}
		tell(s, "hold 1", true)
		return s
	}

	s := hold()
	tell(s, "go on 1", false)
	time.Sleep(most / 2)
	tell(s, "hold 2", true)
	time.Sleep(most * 3 / 4)
	if !stopped() {
		t.Error("the limit of the first time cut the second short")
	}
	s.in.Close()
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
	becomes(false, most/2, "the end of its input")

	s = hold()
	becomes(false, 2*most, "its time is over")
	s.in.Close()
	if err := s.Wait(); err != nil {
		t.Error(err)
	}

	s = hold()
	if err := syscall.Kill(-s.Process.Pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	becomes(false, 2*most, "the script was killed, all of it")
	s.in.Close()
	_ = s.Wait()

	s = begin("192.0.2.78")
	if s.lines.Scan() || stopped() {
		t.Errorf("nothing to hold: it says %q, stopped: %v", s.lines.Text(), stopped())
	}
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
}
