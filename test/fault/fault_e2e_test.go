//go:build e2e

package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/fault"
	"github.com/ha-install/ha-install/test/lab"
)

// Two spares, so that these tests can run beside a cluster on the others.
const hostA, hostB = "cp-5", "w-2"

var (
	theLab *lab.Lab
	inject *fault.Injector
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctx := context.Background()
	l, err := lab.Open()
	if err == nil {
		err = l.Up(ctx, os.Stderr, hostA, hostB)
	}
	if err == nil {
		err = l.Recreate(ctx, hostA, hostB)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	theLab, inject = l, fault.New(l)
	defer l.Remove(ctx, hostA, hostB)
	return m.Run()
}

func TestPowerOffEndsAHostAndUndoBootsIt(t *testing.T) {
	before := exec1(t, hostA, "cat", "/proc/sys/kernel/random/boot_id")
	undo := must(inject.PowerOff(t.Context(), hostA))(t)
	wantState(t, hostA, lab.StateStopped)
	wantNoLogin(t, hostA)
	undoNow(t, undo)
	wantState(t, hostA, lab.StateRunning)
	if now := exec1(t, hostA, "cat", "/proc/sys/kernel/random/boot_id"); now == before {
		t.Errorf("boot ID is %s before and after the power-off", now)
	}
	undoNow(t, undo)
}

// TestAPulledPlugIsSilent: a powered-off host's connections are closed, those of
// one whose plug is pulled are not.
func TestAPulledPlugIsSilent(t *testing.T) {
	for name, row := range map[string]struct {
		fault  func(context.Context, string) (fault.Undo, error)
		silent bool
	}{
		"powered off": {inject.PowerOff, false},
		"unplugged":   {inject.Unplug, true},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.DialTimeout("tcp", address(t, hostA)+":22", 2*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.ReadAtLeast(conn, make([]byte, 256), 4); err != nil {
				t.Fatalf("read sshd's banner: %v", err)
			}
			undo := must(row.fault(t.Context(), hostA))(t)
			wantState(t, hostA, lab.StateStopped)
			conn.SetReadDeadline(time.Now().Add(time.Second))
			_, err = conn.Read(make([]byte, 1))
			if errors.Is(err, os.ErrDeadlineExceeded) != row.silent {
				t.Errorf("reading from a host that is %s: %v", name, err)
			}
			undoNow(t, undo)
			wantState(t, hostA, lab.StateRunning)
			wantBanner(t, hostB, hostA, true)
		})
	}
}

func TestHangKeepsPortsOpenAndAnswersNothing(t *testing.T) {
	undo := must(inject.Hang(t.Context(), hostA))(t)
	wantState(t, hostA, lab.StateFrozen)
	conn, err := net.DialTimeout("tcp", address(t, hostA)+":22", 2*time.Second)
	if err != nil {
		t.Fatalf("port 22 of a hung host: %v; want an open port", err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a hung sshd sent its banner")
	}
	undoNow(t, undo)
	wantLogin(t, hostA)
	undoNow(t, undo)
}

func TestCutDropsOnePortBothWaysAndUndoHeals(t *testing.T) {
	undo := must(inject.Cut(t.Context(), hostA, hostB, 22))(t)
	wantBanner(t, hostA, hostB, false)
	wantBanner(t, hostB, hostA, false)
	wantPing(t, hostA, hostB, true)
	wantLogin(t, hostA)
	undoNow(t, undo)
	wantBanner(t, hostA, hostB, true)
	wantBanner(t, hostB, hostA, true)
	undoNow(t, undo)
}

func TestCutOfEverythingStopsPingsToo(t *testing.T) {
	undo := must(inject.Cut(t.Context(), hostA, hostB, 0))(t)
	wantPing(t, hostA, hostB, false)
	undoNow(t, undo)
	wantPing(t, hostA, hostB, true)
}

func TestCutOneWayLetsTheOtherDirectionThrough(t *testing.T) {
	undo := must(inject.CutOneWay(t.Context(), hostA, hostB, 0))(t)
	defer undoNow(t, undo)
	before := received(t, hostA)
	exec1(t, hostB, "sh", "-c", "ping -q -c 3 -i 0.2 -W 1 "+address(t, hostA)+" || true")
	if now := received(t, hostA); now < before+3 {
		t.Errorf("%s received %d echo requests from %s, want 3: only its own packets are cut", hostA, now-before, hostB)
	}
	wantPing(t, hostB, hostA, false) // the replies are lost
}

func TestOperatorCanBeCutOffFromSSH(t *testing.T) {
	undo := must(inject.Cut(t.Context(), fault.Operator, hostA, 22))(t)
	wantNoLogin(t, hostA)
	wantBanner(t, hostB, hostA, true)
	undoNow(t, undo)
	wantLogin(t, hostA)
}

func TestLoseDropsSomeOfThePacketsAndUndoHeals(t *testing.T) {
	undo := must(inject.Lose(t.Context(), hostA, hostB, 0.5))(t)
	const sent = 60
	answered := exec1(t, hostA, "sh", "-c", fmt.Sprintf("ping -q -c %d -i 0.02 -W 1 %s | grep -o '[0-9]* received' || true", sent, address(t, hostB)))
	var n int
	if _, err := fmt.Sscan(answered, &n); err != nil {
		t.Fatalf("ping said %q: %v", answered, err)
	}
	if n == 0 || n > sent/2 { // a quarter of the round trips is left
		t.Errorf("%d of %d pings were answered, want some of them", n, sent)
	}
	undoNow(t, undo)
	wantPing(t, hostA, hostB, true)
	undoNow(t, undo)
	if _, err := inject.Lose(t.Context(), hostA, hostB, 1); err == nil {
		t.Errorf("Lose took a share of 1: that is a cut")
	}
}

func TestReadOnlyKeepsWhatIsThereAndTakesNothing(t *testing.T) {
	const dir = "/var/lib/frozen"
	exec1(t, hostA, "sh", "-c", "mkdir -p "+dir+" && echo precious >"+dir+"/file")
	undo := must(inject.ReadOnly(t.Context(), hostA, dir))(t)
	if got := exec1(t, hostA, "cat", dir+"/file"); got != "precious" {
		t.Errorf("the read-only file system holds %q, want a copy of what it hides", got)
	}
	if _, err := theLab.Exec(t.Context(), hostA, "touch", dir+"/more"); err == nil || !strings.Contains(err.Error(), "Read-only file system") {
		t.Errorf("touch: %v, want it refused", err)
	}
	undoNow(t, undo)
	exec1(t, hostA, "touch", dir+"/more")
	undoNow(t, undo)
}

func TestShrinkAndFillLeaveNoSpaceAndUndoRestores(t *testing.T) {
	const dir = "/var/lib/victim"
	exec1(t, hostA, "sh", "-c", "mkdir -p "+dir+" && echo precious >"+dir+"/file")
	unshrink := must(inject.Shrink(t.Context(), hostA, dir, 8<<20))(t)
	if got := exec1(t, hostA, "cat", dir+"/file"); got != "precious" {
		t.Errorf("the small file system holds %q, want a copy of what it hides", got)
	}
	unfill := must(inject.Fill(t.Context(), hostA, dir, 0))(t)
	if _, err := theLab.Exec(t.Context(), hostA, "sh", "-c", "head -c 100000 /dev/zero >"+dir+"/more"); err == nil {
		t.Errorf("a write to a full file system worked")
	}
	undoNow(t, unfill)
	exec1(t, hostA, "sh", "-c", "head -c 100000 /dev/zero >"+dir+"/more")
	undoNow(t, unshrink)
	if got := exec1(t, hostA, "ls", dir); got != "file" {
		t.Errorf("after undo %s holds %q, want what it held before", dir, got)
	}
	undoNow(t, unshrink)
	if _, err := inject.Fill(t.Context(), hostA, dir, 0); err == nil {
		t.Errorf("Fill took space of the machine's own disk")
	}
}

func TestDropSSHEndsSessionsAndSparesTheListener(t *testing.T) {
	ended := make(chan error, 1)
	cmd := exec.CommandContext(t.Context(), "ssh", "-F", "none", "-i", theLab.Key(), "-o", "UserKnownHostsFile="+theLab.KnownHosts(),
		"vagrant@"+address(t, hostA), "echo started; sleep 61")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, len("started"))); err != nil {
		t.Fatalf("start a session: %v", err)
	}
	go func() { ended <- cmd.Wait() }()
	if n, err := inject.DropSSH(t.Context(), hostA); err != nil || n == 0 {
		t.Fatalf("DropSSH = %d, %v", n, err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Errorf("ssh ended with success, want a lost connection")
		}
	case <-time.After(5 * time.Second):
		t.Errorf("the session is alive 5 s after DropSSH")
	}
	wantLogin(t, hostA)
	if n, err := inject.Kill(t.Context(), hostA, "KILL", "^sleep 61"); n != 1 || err != nil {
		t.Errorf("the session's command: Kill = %d, %v; want it alive after the drop", n, err)
	}
}

func TestKillSaysWhenItHitNothing(t *testing.T) {
	if n, err := inject.Kill(t.Context(), hostA, "KILL", "^no-such-process$"); err == nil || !strings.Contains(err.Error(), "no process matches") {
		t.Errorf("Kill = %d, %v; want an error", n, err)
	}
}

// writer syncs a file over and over again, and says how often in another one.
const writer = `use IO::Handle; open(my $f, ">", "/root/written"); while (1) { print $f "x"; $f->flush; $f->sync; $n++; open(my $c, ">", "/run/synced.new"); print $c $n; close $c; rename "/run/synced.new", "/run/synced"; }`

func TestSlowDiskDelaysEachFsyncAndUndoEndsThat(t *testing.T) {
	if _, err := inject.SlowDisk(t.Context(), hostA, "perl", time.Second); err == nil {
		t.Error("a fault that hit nothing is no error")
	}
	exec1(t, hostA, "systemd-run", "--quiet", "--collect", "--unit", "writer", "perl", "-e", writer)
	defer exec1(t, hostA, "systemctl", "stop", "writer")
	synced := func() (n int) {
		out := exec1(t, hostA, "sh", "-c", "cat /run/synced; sleep 2; echo; cat /run/synced")
		var from, to int
		if _, err := fmt.Sscan(out, &from, &to); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		return to - from
	}
	exec1(t, hostA, "sh", "-c", "until [ -s /run/synced ]; do sleep 0.1; done")
	const slow = 8 // of 2 s, at 300 ms and more each, and some to spare
	before := synced()
	undo := must(inject.SlowDisk(t.Context(), hostA, "perl", 300*time.Millisecond))(t)
	during := synced()
	undoNow(t, undo)
	after := synced()
	t.Logf("fsyncs in 2 s: %d, slowed down %d, afterwards %d", before, during, after)
	if before <= slow || during > slow || during == 0 || after <= slow {
		t.Errorf("%d fsyncs in 2 s, slowed down %d, afterwards %d; want more than %d, at most that, and more again", before, during, after, slow)
	}
}

func TestHealTakesBackEverything(t *testing.T) {
	must(inject.Cut(t.Context(), hostA, hostB, 22))(t)
	must(inject.Shrink(t.Context(), hostA, "/var/lib/victim2", 1<<20))(t)
	must(inject.Hang(t.Context(), hostA))(t)
	must(inject.PowerOff(t.Context(), hostB))(t)
	if err := fault.New(only(t, hostA, hostB)).Heal(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantBanner(t, hostA, hostB, true)
	if out := exec1(t, hostA, "cat", "/proc/self/mounts"); strings.Contains(out, "victim2") {
		t.Errorf("a small file system is still mounted:\n%s", out)
	}
}
