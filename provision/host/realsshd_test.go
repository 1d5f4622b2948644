package host

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/sshd"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// openSSH starts OpenSSH's sshd for the test, on loopback, with keys of its own.
func openSSH(t testing.TB, settings ...string) Config {
	t.Helper()
	binary := "/usr/sbin/sshd" // wants to be called by its full path
	if found, err := exec.LookPath("sshd"); err == nil {
		binary = found
	}
	dir := t.TempDir()
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir+"/host")
	run(t, "ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", dir+"/host_ecdsa")
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir+"/id")
	port := freePort(t)
	config := []string{
		"ListenAddress 127.0.0.1", fmt.Sprint("Port ", port), "HostKey " + dir + "/host", "HostKey " + dir + "/host_ecdsa",
		"AuthorizedKeysFile " + dir + "/id.pub", "StrictModes no", "UsePAM no", "PidFile none", "PasswordAuthentication no",
		"SetEnv HOME=" + dir, // the start-up files of whoever runs the test are no part of it
	}
	if os.Getuid() != 0 {
		config = append(config, "ForceCommand "+asIfRoot(t, dir))
	} else if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // where sshd as root changes its root to
		t.Fatal(err)
	}
	config = append(config, settings...)
	write(t, dir+"/config", strings.Join(config, "\n")+"\n")
	cmd := exec.Command(binary, "-D", "-e", "-f", dir+"/config")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("sshd: %s", log.String())
		}
	})
	awaitPort(t, port)
	key := readPublic(dir + "/host.pub")
	write(t, dir+"/known_hosts", knownhosts.Line([]string{fmt.Sprintf("127.0.0.1:%d", port)}, key)+"\n")
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	off := false
	return Config{
		Name: "cp-1", Address: "127.0.0.1", Port: port, User: me.Username, Sudo: &off,
		IdentityFiles: []Identity{{Path: dir + "/id", Required: true}}, KnownHosts: []string{dir + "/known_hosts"},
	}
}

// asIfRoot writes a command for ForceCommand that puts the shims before every search path.
func asIfRoot(t testing.TB, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "force")
	write(t, name, "#!/bin/sh\nexec /bin/sh -c \"$(printf %s \"$SSH_ORIGINAL_COMMAND\" | sed 's#PATH=/#PATH="+sshd.Shims(t)+":/#')\"\n")
	if err := os.Chmod(name, 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

func run(t testing.TB, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
}

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func awaitPort(t testing.TB, port int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestOpenSSHCommandsFilesAndTunnels(t *testing.T) {
	ctx := testContext(t)
	h, err := Dial(ctx, openSSH(t))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	argv := []string{"printf", `%s|`, "a b", `'"\$x`, "", "new\nline", "é", "*"}
	if out := must[[]byte](t)(h.Query(ctx, argv...)); string(out) != strings.Join(argv[2:], "|")+"|" {
		t.Errorf("%q", out)
	}
	_, err = h.Run(ctx, Command{Argv: []string{"sh", "-c", "cat >&2; echo $X; exit 3"}, Stdin: strings.NewReader("oops"), Env: map[string]string{"X": "y"}})
	var failed *RunError
	if !errors.As(err, &failed) || failed.Code != 3 || failed.Stderr != "oops" {
		t.Errorf("%v", err)
	}
	dir := t.TempDir()
	var files []File
	for i := range 12 {
		files = append(files, File{Path: fmt.Sprintf("%s/new/f%d", dir, i), Mode: 0o600, Content: bytes.Repeat([]byte{byte(i)}, i*10000)})
	}
	if changed, err := h.UploadAll(ctx, files); err != nil || len(changed) != 12 {
		t.Fatalf("%d, %v", len(changed), err)
	}
	for _, f := range files {
		wantFile(t, f.Path, string(f.Content), 0o600)
	}
	if changed, err := h.UploadAll(ctx, files); err != nil || len(changed) != 0 {
		t.Errorf("again: %v, %v", changed, err)
	}
	conn, err := h.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(h.cfg.Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	banner := make([]byte, 4)
	if _, err := conn.Read(banner); err != nil || string(banner) != "SSH-" {
		t.Errorf("%q %v", banner, err)
	}
}

func TestOpenSSHHasManySessionsButPermitsFew(t *testing.T) {
	for _, limit := range []int{10, 2} {
		h, err := Dial(testContext(t), openSSH(t, fmt.Sprint("MaxSessions ", limit)))
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		ended := make(chan error)
		for range 25 {
			go func() {
				_, err := h.Query(testContext(t), "sleep", "0.05")
				ended <- err
			}()
		}
		for range 25 {
			if err := <-ended; err != nil {
				t.Errorf("MaxSessions %d: %v", limit, err)
			}
		}
	}
}

func TestOpenSSHForbidsTunnels(t *testing.T) {
	h, err := Dial(testContext(t), openSSH(t, "AllowTcpForwarding no"))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := h.DialContext(testContext(t), "tcp", "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "AllowTcpForwarding") {
		t.Errorf("%v", err)
	}
}

func TestOpenSSHKnownByOneKeyTypeOnly(t *testing.T) {
	cfg := openSSH(t)
	hostKey := func(name string) ssh.PublicKey {
		return readPublic(filepath.Join(filepath.Dir(cfg.KnownHosts[0]), name))
	}
	address := []string{fmt.Sprintf("127.0.0.1:%d", cfg.Port)}
	for _, name := range []string{"host.pub", "host_ecdsa.pub"} {
		write(t, cfg.KnownHosts[0], knownhosts.Line(address, hostKey(name))+"\n")
		h, err := Dial(testContext(t), cfg)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		h.Close()
	}
	run(t, "ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", cfg.KnownHosts[0]+"_rsa")
	write(t, cfg.KnownHosts[0], knownhosts.Line(address, readPublic(cfg.KnownHosts[0]+"_rsa.pub"))+"\n")
	_, err := Dial(testContext(t), cfg)
	var key *HostKeyError
	if !errors.As(err, &key) || !key.Changed() || key.Fingerprint != ssh.FingerprintSHA256(hostKey("host.pub")) ||
		key.Known[0].Where != cfg.KnownHosts[0]+":1" {
		t.Errorf("a host that is known by a type it has not: %v", err)
	}
}

func BenchmarkOpenSSHUpload(b *testing.B) {
	h, err := Dial(testContext(b), openSSH(b))
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	content := make([]byte, 128<<20)
	if _, err := rand.Read(content); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		content[0]++
		if _, err := h.Upload(testContext(b), File{Path: b.TempDir() + "/big", Mode: 0o644, Content: content}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenSSHCat(b *testing.B) {
	h, err := Dial(testContext(b), openSSH(b))
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	content := make([]byte, 128<<20)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		if _, err := h.Run(testContext(b), Command{Argv: []string{"sh", "-c", "cat >" + b.TempDir() + "/big"}, Stdin: bytes.NewReader(content)}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenSSHSFTPOnly(b *testing.B) {
	h, err := Dial(testContext(b), openSSH(b))
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	content := make([]byte, 128<<20)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		l := must[*link](b)(h.link(testContext(b)))
		if err := h.send(testContext(b), l, []File{{Path: b.TempDir() + "/big", Content: content}}); err != nil {
			b.Fatal(err)
		}
	}
}
