package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
	"github.com/hinshun/vt10x"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/golden"
)

// The live view is tried in a process of its own, with a real terminal: this
// test's own binary, told by the variable which run to show.
const showVariable = "HA_INSTALL_TEST_SHOW"

func TestMain(m *testing.M) {
	if what := os.Getenv(showVariable); what != "" {
		os.Exit(showRun(what))
	}
	os.Exit(m.Run())
}

// target is one phase of a workflow.
func target(name, host string) phase.Target { return phase.Target{Phase: name, Host: host} }

// beginning is a run up to where three things are under way.
func beginning() []phase.Event {
	workflow := phase.Event{Time: at(0), Kind: phase.Workflow, Stages: []phase.Planned{
		{Phases: []phase.Target{target("preflight", "")}},
		{Parallel: true, Phases: []phase.Target{target("software", "cp-1"), target("software", "cp-2"), target("software", "lb-1")}},
		{Phases: []phase.Target{target("init", "cp-1")}},
		{Phases: []phase.Target{target("join", "cp-2")}},
	}}
	progress := event(6, phase.Progress, "software", "cp-1", "")
	progress.Transfer = &phase.Transfer{Done: 184_000_000, Total: 312_000_000, Rate: 84.2e6}
	return []phase.Event{
		workflow,
		event(0, phase.Started, "preflight", "", ""),
		event(1, phase.Notice, "preflight", "", "preflight: 3 hosts, 0 errors, 0 warnings, 69 ok (1.23s)\n"),
		event(1, phase.Skipped, "preflight", "", ""),
		event(1, phase.Started, "software", "cp-1", ""),
		event(1, phase.Started, "software", "cp-2", ""),
		event(1, phase.Started, "software", "lb-1", ""),
		event(5, phase.Skipped, "software", "lb-1", ""),
		progress,
		event(7, phase.Output, "software", "cp-2", "imported registry.k8s.io/pause:3.10.2 (1.2 MB, 100ms)"),
		event(8, phase.Started, "init", "cp-1", ""),
		event(9, phase.Waiting, "init", "cp-1", "quorum: leader and term seen unchanged for 300ms, 1s are wanted"),
	}
}

// ending is the rest of it.
func ending() []phase.Event {
	table := "QUORUM  join cp-2     cluster 14bfbf98  etcd 3.6.8  term 2  leader cp-1\n" +
		"MEMBER  ID        ROLE    STATE    RAFT/APPLIED  DB/QUOTA  LATENCY  WHY\n" +
		"cp-1    1331223d  voter*  healthy  61/61         38M/8G    4ms\n" +
		"now    voters 1  quorum 1  healthy 1  can lose 0   DEGRADED\n"
	return []phase.Event{
		sentBytes(event(10, phase.Finished, "software", "cp-1", "")),
		event(11, phase.Finished, "software", "cp-2", ""),
		event(20, phase.Notice, "init", "cp-1", table),
		event(21, phase.Finished, "init", "cp-1", ""),
		event(21, phase.Started, "join", "cp-2", ""),
		event(30, phase.Finished, "join", "cp-2", ""),
	}
}

// showRun is the process that shows a run, as the program does it.
func showRun(what string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	c := &cobra.Command{Use: "apply"}
	c.SetOut(os.Stdout)
	c.SetContext(ctx)
	f := runFlags{output: "text", progress: progressAuto}
	r, err := f.begin(c, &inventory.Cluster{Metadata: inventory.Metadata{Name: "prod"}}, "nothing to change")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	r.began, r.now = at(0), func() time.Time { return at(31) }
	for _, e := range beginning() {
		r.event(e)
	}
	switch what {
	case "whole":
		time.Sleep(300 * time.Millisecond) // for the view to be drawn
	case "interrupt":
		<-ctx.Done()
		err = fmt.Errorf("cp-1: init: %w", ctx.Err())
		r.event(phase.Event{Time: at(10), Kind: phase.Stopping, Message: "what is under way is finished first"})
		r.event(event(11, phase.Failed, "init", "cp-1", err.Error()))
		_ = r.end(c, err, func() phase.Tally { return phase.Tally{} })
		fmt.Println("interrupted")
		return exitInterrupted
	case "panic":
		time.Sleep(300 * time.Millisecond)
		panic("something broke")
	case "forever":
		time.Sleep(time.Minute)
	}
	for _, e := range ending() {
		r.event(e)
	}
	_ = r.end(c, nil, func() phase.Tally { return phase.Tally{Changed: 4, Skipped: 2} })
	fmt.Println("after")
	return 0
}

// screen is a terminal with a run on it.
type screen struct {
	t    *testing.T
	cmd  *exec.Cmd
	ptm  *os.File
	tty  *os.File
	vt   vt10x.Terminal
	mu   sync.Mutex
	raw  []byte
	gone chan struct{}
	was  unix.Termios
}

func show(t *testing.T, what string, cols, rows int, env ...string) *screen {
	t.Helper()
	ptm, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, ptm: ptm, tty: tty, vt: vt10x.New(vt10x.WithSize(cols, rows)), gone: make(chan struct{})}
	t.Cleanup(func() { ptm.Close(); tty.Close() })
	if err := pty.Setsize(ptm, &pty.Winsize{Cols: uint16(cols), Rows: uint16(rows)}); err != nil {
		t.Fatal(err)
	}
	s.was = s.settings()
	if _, err := tty.WriteString("$ ha-install apply\n"); err != nil { // what was there before must stay
		t.Fatal(err)
	}
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append([]string{showVariable + "=" + what, "TERM=xterm-256color", "LC_ALL=C.UTF-8", "TZ=" + os.Getenv("TZ")}, env...)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = tty, tty, tty
	s.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.gone)
		buf := make([]byte, 4096)
		for {
			n, err := ptm.Read(buf)
			s.mu.Lock()
			s.raw = append(s.raw, buf[:n]...)
			_, _ = s.vt.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) settings() unix.Termios {
	s.t.Helper()
	t, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
	if err != nil {
		s.t.Fatal(err)
	}
	return *t
}

// text is the screen without what is blank at the ends.
func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for line := range strings.Lines(s.vt.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
}

// await waits until the screen shows the text.
func (s *screen) await(want string) {
	s.t.Helper()
	defer func() {
		if s.t.Failed() {
			_ = s.cmd.Process.Kill()
		}
	}()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if strings.Contains(s.text(), want) {
			return
		}
	}
	s.t.Fatalf("the screen never shows %q:\n%s", want, s.text())
}

// end waits for the process and checks that the terminal is as it was.
func (s *screen) end(code int) {
	s.t.Helper()
	hung := time.AfterFunc(10*time.Second, func() { _ = s.cmd.Process.Kill() })
	err := s.cmd.Wait()
	hung.Stop()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || s.cmd.ProcessState.ExitCode() != code {
		s.t.Errorf("ended with %v, wanted exit code %d", err, code)
	}
	if diff := cmp.Diff(s.was, s.settings()); diff != "" {
		s.t.Errorf("the terminal's settings were changed (-before +after):\n%s", diff)
	}
	s.tty.Close()
	<-s.gone
	if !s.vt.CursorVisible() {
		s.t.Error("the cursor is hidden")
	}
	modes := map[string]string{"25": "h"} // as a terminal begins
	for _, m := range regexp.MustCompile(`\x1b\[([?>=]?[0-9;]+)([hlu])`).FindAllSubmatch(s.raw, -1) {
		modes[strings.TrimPrefix(string(m[1]), "?")] = string(m[2])
	}
	if diff := cmp.Diff(map[string]string{"25": "h"}, modes); diff != "" {
		s.t.Errorf("modes are left behind, or were ever set (-wanted +are):\n%s", diff)
	}
	for _, query := range []string{"\x1b[c", "\x1b[6n", "$p", "\x1b]11;?", "\x1b[>"} {
		if strings.Contains(string(s.raw), query) {
			s.t.Errorf("the terminal was asked %q: its answer would end up in the shell", query)
		}
	}
}

func TestLiveViewOnATerminal(t *testing.T) {
	s := show(t, "whole", 100, 30)
	s.await("━━━━━━━━━━━─────────  184 MB of 312 MB, 84 MB/s")
	for _, want := range []string{"apply prod  2 of 6 steps", "then join", "imported registry.k8s.io/pause:3.10.2", "waiting for quorum: leader and term"} {
		if !strings.Contains(s.text(), want) {
			t.Errorf("%q is not on the screen:\n%s", want, s.text())
		}
	}
	s.end(0)
	golden.Check(t, "live-100x30.txt", []byte(s.text()))
	if !strings.Contains(string(s.raw), "\x1b[32mok") {
		t.Error("nothing is coloured")
	}
}

func TestADumbTerminalGetsPlainLines(t *testing.T) {
	s := show(t, "whole", 100, 30, "TERM=dumb")
	s.end(0)
	if strings.Contains(string(s.raw), "\x1b") || !strings.Contains(s.text(), "done: 4 steps changed something") {
		t.Errorf("%q", s.raw)
	}
}

func TestLiveViewOnASmallTerminal(t *testing.T) {
	s := show(t, "whole", 44, 8, "NO_COLOR=1")
	s.await("cp-2")
	s.end(0)
	golden.Check(t, "live-44x8.txt", []byte(s.text()))
	if regexp.MustCompile(`\x1b\[[0-9;]*[1-9][0-9;]*m`).Match(s.raw) {
		t.Error("NO_COLOR is set, and there are colours")
	}
}

func TestLiveViewFollowsTheTerminalsSize(t *testing.T) {
	s := show(t, "forever", 100, 30)
	s.await("184 MB of 312 MB, 84 MB/s")
	s.mu.Lock()
	s.vt.Resize(40, 12)
	s.mu.Unlock()
	if err := pty.Setsize(s.ptm, &pty.Winsize{Cols: 40, Rows: 12}); err != nil {
		t.Fatal(err)
	}
	s.await("…")
	if err := pty.Setsize(s.ptm, &pty.Winsize{Cols: 100, Rows: 30}); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.vt.Resize(100, 30)
	s.mu.Unlock()
	s.await("184 MB of 312 MB, 84 MB/s")
	if err := s.cmd.Process.Kill(); err != nil { // nothing can restore the terminal now
		t.Fatal(err)
	}
	s.end(-1)
}

func TestLiveViewLeavesCtrlCToTheProgram(t *testing.T) {
	s := show(t, "interrupt", 100, 30)
	s.await("184 MB of 312 MB")
	if _, err := s.ptm.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	s.end(exitInterrupted)
	got := strings.ReplaceAll(s.text(), "^C", "")
	golden.Check(t, "live-interrupted.txt", []byte(got))
}

func TestLiveViewLeavesTheTerminalAfterAPanic(t *testing.T) {
	s := show(t, "panic", 100, 50)
	s.end(2)
	if !strings.Contains(string(s.raw), "something broke") {
		t.Errorf("the panic is not shown:\n%s", s.text())
	}
}

// TestLiveContentFitsTheScreen draws the same moment at several sizes.
func TestLiveContentFitsTheScreen(t *testing.T) {
	for _, size := range []struct{ w, h int }{{120, 30}, {80, 24}, {50, 6}, {30, 4}, {10, 2}} {
		m := newLiveModel(runHead{Command: "apply", Cluster: "prod", Time: at(0)}, false, size.w != 80)
		m.Update(tea.WindowSizeMsg{Width: size.w, Height: size.h})
		for _, e := range beginning() {
			m.Update(liveEvent{event: e})
		}
		m.Update(liveTick(at(12)))
		got := m.content()
		lines := strings.Split(got, "\n")
		if len(lines) > size.h {
			t.Errorf("%d rows on a screen of %d", len(lines), size.h)
		}
		for _, line := range lines {
			if n := len([]rune(line)); n >= size.w {
				t.Errorf("%q is %d wide on a screen of %d", line, n, size.w)
			}
		}
		golden.Check(t, fmt.Sprintf("live-moment-%dx%d.txt", size.w, size.h), []byte(got))
	}
}

func TestLiveIsRefusedWhereItCannotBe(t *testing.T) {
	file := writeInventory(t, nil)
	for want, args := range map[string][]string{
		"standard output is no terminal":              {"apply", "--progress", "live", file},
		"exclude each other":                          {"apply", "--progress", "live", "-o", "json", file},
		"--progress fast: want auto or live or plain": {"apply", "--progress", "fast", file},
	} {
		if code, _, errOut := run(t, "", args...); code != exitUsage || !strings.Contains(errOut, want) {
			t.Errorf("%q: exit code %d, %s", args, code, errOut)
		}
	}
}
