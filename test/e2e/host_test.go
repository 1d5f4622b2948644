//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/test/lab"
)

// hostUnderTest is a spare of the lab: what happens to it harms no cluster.
const hostUnderTest = "w-2"

func hostLab(t *testing.T) *lab.Lab {
	t.Helper()
	l, err := lab.Open()
	if err != nil {
		t.Fatal(err)
	}
	state, err := l.State(hostContext(t, 10*time.Second), hostUnderTest)
	if err != nil {
		t.Fatal(err)
	}
	if state != lab.StateRunning {
		if err := l.Up(hostContext(t, 3*time.Minute), os.Stderr, hostUnderTest); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func hostContext(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// hostConfig reaches the host as the product does, as a user with sudo,
// through a line that the test can cut.
func hostConfig(t *testing.T, l *lab.Lab) (host.Config, *line) {
	t.Helper()
	machine, err := l.Host(hostUnderTest)
	if err != nil {
		t.Fatal(err)
	}
	cut := newLine(t, net.JoinHostPort(machine.Address, "22"))
	return host.Config{
		Name: hostUnderTest, Address: "127.0.0.1", Port: cut.port(), HostKeyAlias: machine.Address,
		User: "vagrant", KnownHosts: []string{l.KnownHosts()},
		IdentityFiles: []host.Identity{{Path: l.Key(), Required: true}},
	}, cut
}

func hostDial(t *testing.T, l *lab.Lab) (*host.SSH, *line) {
	t.Helper()
	cfg, cut := hostConfig(t, l)
	h, err := host.Dial(hostContext(t, 30*time.Second), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h, cut
}

func hostStep(name string, argv ...string) host.Step {
	id := "e2e-" + name + "-" + strings.ReplaceAll(time.Now().UTC().Format("20060102-150405.000"), ".", "-")
	return host.Step{ID: id, Argv: argv}
}

func TestHostStepSurvivesADroppedConnection(t *testing.T) {
	h, cut := hostDial(t, hostLab(t))
	var lines []string
	s := hostStep("drop", "sh", "-c", `for i in 1 2 3 4 5 6; do echo "$i $HOME %n"; sleep 0.5; done; exit 5`)
	s.Output = func(text string) {
		if lines = append(lines, text); len(lines)%2 == 0 {
			cut.drop()
		}
	}
	began := time.Now()
	res, err := h.Step(hostContext(t, time.Minute), s)
	var run *host.RunError
	if !errors.As(err, &run) || run.Code != 5 || res.Code != 5 || res.Attached {
		t.Fatalf("%+v, %v", res, err)
	}
	if got := strings.Join(lines, ","); got != "1 /root %n,2 /root %n,3 /root %n,4 /root %n,5 /root %n,6 /root %n" {
		t.Errorf("lines %q", got)
	}
	t.Logf("a step of 3.0 s took %s over %d connections", time.Since(began).Round(10*time.Millisecond), cut.count())
	if cut.count() < 3 {
		t.Errorf("%d connections: the drops did not happen", cut.count())
	}
}

func TestHostStepOutlivesItsWaiter(t *testing.T) {
	l := hostLab(t)
	first, _ := hostDial(t, l)
	s := hostStep("outlive", "sh", "-c", "echo begun; sleep 3; echo ended")
	waiting := s
	waiting.Output = func(string) { first.Close() }
	if _, err := first.Step(hostContext(t, 20*time.Second), waiting); err == nil {
		t.Fatal("a closed host gave a result")
	}
	second, _ := hostDial(t, l)
	res, err := second.Step(hostContext(t, 20*time.Second), s)
	if err != nil || !res.Attached || string(res.Output) != "begun\nended\n" || res.Ended.Sub(res.Began) < 2*time.Second {
		t.Errorf("%+v, %v", res, err)
	}
	again, err := second.Step(hostContext(t, 20*time.Second), s)
	if err != nil || !again.Attached || !again.Ended.Equal(res.Ended) {
		t.Errorf("asked again: %+v, %v", again, err)
	}
}

func TestHostStepKilledLeavesAResult(t *testing.T) {
	l := hostLab(t)
	h, _ := hostDial(t, l)
	for _, signal := range []string{"KILL", "TERM"} {
		s := hostStep("kill", "sh", "-c", "echo begun; exec sleep 60")
		s.Output = func(string) {
			if _, err := l.Exec(hostContext(t, 10*time.Second), hostUnderTest, "systemctl", "kill", "-s", signal, "ha-install-"+s.ID); err != nil {
				t.Error(err)
			}
		}
		_, err := h.Step(hostContext(t, 20*time.Second), s)
		var run *host.RunError
		if !errors.As(err, &run) || run.Signal != signal {
			t.Errorf("%s: %v", signal, err)
		}
	}
}

func TestHostStepEndedByAPowerCycle(t *testing.T) {
	l := hostLab(t)
	h, _ := hostDial(t, l)
	s := hostStep("reboot", "sh", "-c", "echo begun; sleep 600")
	off := make(chan error, 1)
	s.Output = func(string) {
		go func() {
			ctx := hostContext(t, time.Minute)
			off <- errors.Join(l.PowerOff(ctx, hostUnderTest), l.PowerOn(ctx, hostUnderTest))
		}()
	}
	_, err := h.Step(hostContext(t, 2*time.Minute), s)
	var reboot *host.RebootError
	if !errors.As(err, &reboot) || reboot.Before != h.Facts().BootID {
		t.Errorf("%v", err)
	}
	if err := <-off; err != nil {
		t.Error(err)
	}
	if out, err := h.Query(hostContext(t, 20*time.Second), "id", "-u"); err != nil || string(out) != "0\n" {
		t.Errorf("after the reboot: %q, %v", out, err)
	}
}

func TestHostFullDisk(t *testing.T) {
	l := hostLab(t)
	h, _ := hostDial(t, l)
	ctx := hostContext(t, time.Minute)
	const dir = "/mnt/small"
	if _, err := l.Exec(ctx, hostUnderTest, "sh", "-c", "mkdir -p "+dir+" && mount -t tmpfs -o size=4m tmpfs "+dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := l.Exec(hostContext(t, 10*time.Second), hostUnderTest, "umount", dir); err != nil {
			t.Error(err)
		}
	})
	small := host.File{Path: dir + "/f", Mode: 0o600, Content: []byte("small")}
	if _, err := h.Upload(ctx, small); err != nil {
		t.Fatal(err)
	}
	big := small
	big.Content = bytes.Repeat([]byte("x"), 8<<20)
	_, err := h.Upload(ctx, big)
	var full *host.NoSpaceError
	if !errors.As(err, &full) || full.Path != big.Path || full.Free == 0 || full.Free > 4<<20 {
		t.Fatalf("%v", err)
	}
	t.Log(err)
	if got, err := h.ReadFile(ctx, small.Path); err != nil || string(got) != "small" {
		t.Errorf("the file before it: %.20q, %v", got, err)
	}
	if left, err := h.Query(ctx, "ls", "-A", dir); err != nil || string(left) != "f\n" {
		t.Errorf("left: %q, %v", left, err)
	}
}

func TestHostUploadSpeed(t *testing.T) {
	h, _ := hostDial(t, hostLab(t))
	ctx := hostContext(t, 2*time.Minute)
	content := make([]byte, 64<<20)
	if _, err := rand.Read(content); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := h.Upload(ctx, host.File{Path: "/var/tmp/e2e-speed", Mode: 0o644, Content: content}); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("64 MiB as root through sudo, verified and flushed: %s, %.0f MB/s", took.Round(time.Millisecond), 64*1.048576/took.Seconds())
	if _, err := h.Run(ctx, host.Command{Argv: []string{"rm", "/var/tmp/e2e-speed"}}); err != nil {
		t.Error(err)
	}
}

func TestHostTunnel(t *testing.T) {
	h, _ := hostDial(t, hostLab(t))
	ctx := hostContext(t, 20*time.Second)
	conn, err := h.DialContext(ctx, "tcp", "127.0.0.1:22")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	banner := make([]byte, 8)
	if _, err := io.ReadFull(conn, banner); err != nil || string(banner) != "SSH-2.0-" {
		t.Errorf("%q, %v", banner, err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: h.DialContext}, Timeout: 5 * time.Second}
	if _, err := client.Get("http://127.0.0.1:1/"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a closed port: %v", err)
	}
}

func TestHostSaysWhatIsWrongWithSudo(t *testing.T) {
	l := hostLab(t)
	cfg, _ := hostConfig(t, l)
	exec := func(script string) {
		t.Helper()
		if _, err := l.Exec(hostContext(t, 10*time.Second), hostUnderTest, "sh", "-c", script); err != nil {
			t.Fatal(err)
		}
	}
	exec("cp -a /etc/sudoers.d /etc/sudoers.kept")
	restore := "chmod 4755 /usr/bin/sudo.kept 2>/dev/null && mv /usr/bin/sudo.kept /usr/bin/sudo; rm -rf /etc/sudoers.d && cp -a /etc/sudoers.kept /etc/sudoers.d"
	t.Cleanup(func() { exec(restore + " && rm -rf /etc/sudoers.kept") })
	for reason, change := range map[host.SudoReason]string{
		host.SudoPassword: "rm -f /etc/sudoers.d/*; echo 'vagrant ALL=(ALL) ALL' >/etc/sudoers.d/v",
		host.SudoDenied:   "rm -f /etc/sudoers.d/*; printf 'Defaults:vagrant !authenticate\\nvagrant ALL=(ALL) /bin/true\\n' >/etc/sudoers.d/v",
		host.SudoTTY:      "echo 'Defaults requiretty' >/etc/sudoers.d/zz",
		host.SudoMissing:  "mv /usr/bin/sudo /usr/bin/sudo.kept",
	} {
		exec(change)
		_, err := host.Dial(hostContext(t, 30*time.Second), cfg)
		var sudo *host.SudoError
		if !errors.As(err, &sudo) || sudo.Reason != reason {
			t.Errorf("%s: %v", reason, err)
		} else {
			t.Log(err)
		}
		exec(restore)
	}
}

func TestHostKeyIsVerifiedThroughSSHD(t *testing.T) {
	l := hostLab(t)
	cfg, _ := hostConfig(t, l)
	cfg.KnownHosts = nil
	_, err := host.Dial(hostContext(t, 30*time.Second), cfg)
	var unknown *host.HostKeyError
	if !errors.As(err, &unknown) || unknown.Changed() || !strings.HasPrefix(unknown.Fingerprint, "SHA256:") {
		t.Errorf("%v", err)
	}
}

// line is a TCP line to a host that can be cut.
type line struct {
	listener net.Listener
	mu       sync.Mutex
	conns    []net.Conn
	n        int
}

func newLine(t *testing.T, to string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &line{listener: l}
	t.Cleanup(func() { l.Close(); x.drop() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go x.carry(c, to)
		}
	}()
	return x
}

func (x *line) port() int { return x.listener.Addr().(*net.TCPAddr).Port }

func (x *line) carry(c net.Conn, to string) {
	d, err := net.DialTimeout("tcp", to, 5*time.Second)
	if err != nil {
		c.Close()
		return
	}
	x.mu.Lock()
	x.conns = append(x.conns, c, d)
	x.n++
	x.mu.Unlock()
	go func() { _, _ = io.Copy(d, c); d.Close(); c.Close() }()
	_, _ = io.Copy(c, d)
	d.Close()
	c.Close()
}

func (x *line) drop() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.conns {
		c.Close()
	}
	x.conns = nil
}

func (x *line) count() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.n
}
