package host

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/sshd"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"
)

func TestUnknownHostKeyStopsBeforeAnyCommand(t *testing.T) {
	s := sshd.New(t, sshd.Options{})
	cfg := configFor(t, s, "root")
	known := cfg.KnownHosts[0]
	cfg.KnownHosts = []string{t.TempDir() + "/none"}
	_, err := Dial(testContext(t), cfg)
	var key *HostKeyError
	if !errors.As(err, &key) || key.Changed() {
		t.Fatalf("%v", err)
	}
	line, err := os.ReadFile(known)
	if err != nil {
		t.Fatal(err)
	}
	if key.Line+"\n" != string(line) || !strings.Contains(key.Error(), key.Line) || !strings.HasPrefix(key.Fingerprint, "SHA256:") {
		t.Errorf("%v\nwanted the line %s", key, line)
	}
	write(t, cfg.KnownHosts[0], key.Line+"\n") // what the error says to do
	h, err := Dial(testContext(t), configWith(cfg, s))
	if len(s.Commands()) != 1 || err != nil {
		t.Errorf("%d commands before the key was known; then %v", len(s.Commands())-1, err)
	}
	if h != nil {
		h.Close()
	}
}

func configWith(cfg Config, s *sshd.Server) Config {
	cfg.Port = s.Port()
	return cfg
}

func TestChangedHostKeyShowsBothFingerprints(t *testing.T) {
	s := sshd.New(t, sshd.Options{Shims: sshd.Shims(t)})
	cfg := configFor(t, s, "root")
	old := sshd.NewKey(t).PublicKey()
	cfg.KnownHosts = []string{s.KnownHosts(t, old)}
	_, err := Dial(testContext(t), cfg)
	var key *HostKeyError
	if !errors.As(err, &key) || !key.Changed() {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{ssh.FingerprintSHA256(old), key.Fingerprint, cfg.KnownHosts[0] + ":1", "cp-1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: wanted %s", err, want)
		}
	}
	if n := len(s.Commands()); n != 0 {
		t.Errorf("%d commands were sent", n)
	}
}

func TestPinnedHostKeys(t *testing.T) {
	mine := sshd.NewKey(t)
	s := sshd.New(t, sshd.Options{HostKeys: []ssh.Signer{mine}, Shims: sshd.Shims(t)})
	cfg := configFor(t, s, "root")
	cfg.KnownHosts = nil
	pin := func(k ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) }
	cfg.HostKeys = []string{pin(sshd.NewKey(t).PublicKey()), pin(mine.PublicKey())}
	h, err := Dial(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
	cfg.HostKeys = cfg.HostKeys[:1]
	_, err = Dial(testContext(t), cfg)
	var key *HostKeyError
	if !errors.As(err, &key) || !key.Changed() || key.Known[0].Where != "inventory" {
		t.Errorf("another key is pinned: %v", err)
	}
	cfg.HostKeys = []string{"nonsense"}
	if _, err := Dial(testContext(t), cfg); err == nil || !strings.Contains(err.Error(), "pinned host key 1") {
		t.Errorf("nonsense is pinned: %v", err)
	}
}

func TestRevokedHostKey(t *testing.T) {
	mine := sshd.NewKey(t)
	s := sshd.New(t, sshd.Options{HostKeys: []ssh.Signer{mine}})
	cfg := configFor(t, s, "root")
	write(t, cfg.KnownHosts[0], "@revoked * "+string(ssh.MarshalAuthorizedKey(mine.PublicKey()))+"127.0.0.1 "+string(ssh.MarshalAuthorizedKey(mine.PublicKey())))
	_, err := Dial(testContext(t), cfg)
	var key *HostKeyError
	if !errors.As(err, &key) || !key.Revoked {
		t.Errorf("%v", err)
	}
}

func TestSudoThatRefuses(t *testing.T) {
	for reason, message := range map[SudoReason]string{
		SudoPassword: "sudo: a password is required",
		SudoTTY:      "sudo: sorry, you must have a tty to run sudo",
		SudoDenied:   "Sorry, user ops is not allowed to execute '/usr/bin/env' as root on cp-1.",
		SudoOther:    "sudo: /etc/sudoers is world writable",
	} {
		shims := sshd.Shims(t)
		s := sshd.New(t, sshd.Options{Shims: shims})
		sshd.FailSudo(t, shims, "sudo: unable to resolve host cp-1: Name or service not known\n"+message)
		_, err := Dial(testContext(t), configFor(t, s, "ops"))
		var sudo *SudoError
		if !errors.As(err, &sudo) || sudo.Reason != reason || !strings.Contains(err.Error(), "/etc/sudoers.d/ops") {
			t.Errorf("%s: %v", reason, err)
		}
	}
}

func TestSudoRefusedInTheMiddle(t *testing.T) {
	shims := sshd.Shims(t)
	h, _ := dial(t, sshd.Options{Shims: shims}, "ops")
	sshd.FailSudo(t, shims, "sudo: a password is required")
	_, err := h.Query(testContext(t), "true")
	var sudo *SudoError
	if !errors.As(err, &sudo) {
		t.Errorf("%v", err)
	}
}

func TestNoisyLoginShellIsNamed(t *testing.T) {
	s := sshd.New(t, sshd.Options{Shims: sshd.Shims(t), Greeting: "Welcome!\n"})
	_, err := Dial(testContext(t), configFor(t, s, "ops"))
	if err == nil || !strings.Contains(err.Error(), "Welcome!") || !strings.Contains(err.Error(), "start-up files") {
		t.Errorf("%v", err)
	}
}

func TestKeyThatIsNotAccepted(t *testing.T) {
	s := sshd.New(t, sshd.Options{})
	other := sshd.New(t, sshd.Options{})
	cfg := configFor(t, s, "ops")
	cfg.IdentityFiles = []Identity{{Path: other.KeyFile}, {Path: "/none"}, {Path: lockedKey(t)}}
	_, err := Dial(testContext(t), cfg)
	var auth *AuthError
	if !errors.As(err, &auth) || auth.User != "ops" || len(auth.Tried) != 1 || len(auth.Skipped) != 1 {
		t.Fatalf("%v", err)
	}
	if !strings.Contains(err.Error(), "ssh-add") || !strings.Contains(err.Error(), other.KeyFile) {
		t.Errorf("%v", err)
	}
}

func lockedKey(t *testing.T) string {
	t.Helper()
	name := t.TempDir() + "/locked"
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", name)
	return name
}

func TestIdentityOfTheInventoryMustBeThere(t *testing.T) {
	s := sshd.New(t, sshd.Options{})
	cfg := configFor(t, s, "root")
	cfg.IdentityFiles = []Identity{{Path: "/none/id", Required: true}}
	if _, err := Dial(testContext(t), cfg); err == nil || !strings.Contains(err.Error(), "/none/id") {
		t.Errorf("%v", err)
	}
}

func TestAgentHoldsTheKey(t *testing.T) {
	s := sshd.New(t, sshd.Options{Shims: sshd.Shims(t)})
	raw, err := os.ReadFile(s.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParseRawPrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", t.TempDir()+"/agent")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(ring, c); c.Close() }()
		}
	}()
	cfg := configFor(t, s, "root")
	cfg.IdentityFiles, cfg.AgentSocket = nil, l.Addr().String()
	h, err := Dial(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
	cfg.IdentitiesOnly = true
	var auth *AuthError
	if _, err := Dial(testContext(t), cfg); !errors.As(err, &auth) {
		t.Errorf("identities only: %v", err)
	}
	write(t, s.KeyFile+"-half.pub", string(ssh.MarshalAuthorizedKey(s.ClientKey.PublicKey())))
	cfg.IdentityFiles = []Identity{{Path: s.KeyFile + "-half"}}
	if h, err = Dial(testContext(t), cfg); err != nil {
		t.Fatalf("the public half selects the agent's key: %v", err)
	}
	h.Close()
}

func TestBastion(t *testing.T) {
	jump := sshd.New(t, sshd.Options{})
	s := sshd.New(t, sshd.Options{Shims: sshd.Shims(t)})
	cfg := configFor(t, s, "root")
	way := configFor(t, jump, "jumper")
	way.Name = "bastion " + way.Address
	cfg.Bastion = &way
	h, err := Dial(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if out := must[[]byte](t)(h.Query(testContext(t), "echo", "hi")); string(out) != "hi\n" {
		t.Errorf("%q", out)
	}
	if jump.Connections() != 1 || s.Connections() != 1 || len(jump.Commands()) != 0 {
		t.Errorf("bastion: %d connections, %v; host: %d", jump.Connections(), jump.Commands(), s.Connections())
	}
	jump.Drop()
	must[[]byte](t)(h.Query(testContext(t), "true"))
	way.KnownHosts = []string{jump.KnownHosts(t, sshd.NewKey(t).PublicKey())}
	_, err = Dial(testContext(t), cfg)
	var key *HostKeyError
	var bastion *BastionError
	if !errors.As(err, &key) || !errors.As(err, &bastion) || !strings.HasPrefix(err.Error(), cfg.Name+": bastion 127.0.0.1: host key of 127.0.0.1:") {
		t.Errorf("a bastion with another key: %v", err)
	}
}

func TestQueryGoesOverToANewConnection(t *testing.T) {
	h, s := dial(t, sshd.Options{}, "root")
	s.Drop()
	if out := must[[]byte](t)(h.Query(testContext(t), "echo", "hi")); string(out) != "hi\n" {
		t.Errorf("%q", out)
	}
	var once sync.Once
	s.OnRun(func(string) { once.Do(s.Drop) })
	if out := must[[]byte](t)(h.Query(testContext(t), "echo", "again")); string(out) != "again\n" {
		t.Errorf("%q", out)
	}
	if s.Connections() != 3 {
		t.Errorf("%d connections", s.Connections())
	}
}

func TestRunIsSentOnce(t *testing.T) {
	h, s := dial(t, sshd.Options{}, "root")
	s.Drop()
	must[[]byte](t)(h.Run(testContext(t), Command{Argv: []string{"true"}})) // not sent before the drop was seen
	s.OnRun(func(string) { s.Drop() })
	before := len(s.Commands())
	_, err := h.Run(testContext(t), Command{Argv: []string{"touch", "/dev/null"}})
	if !errors.Is(err, ErrConnectionLost) || !strings.Contains(err.Error(), "touch") {
		t.Errorf("%v", err)
	}
	if n := len(s.Commands()) - before; n != 1 {
		t.Errorf("it was sent %d times", n)
	}
}

func TestHungPeerIsGivenUp(t *testing.T) {
	h, s := dial(t, sshd.Options{}, "root") // keep-alive every 200 ms
	s.OnRun(func(string) { s.Freeze(); s.OnRun(nil) })
	began := time.Now()
	must[[]byte](t)(h.Query(testContext(t), "true"))
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	if s.Connections() != 2 {
		t.Errorf("%d connections", s.Connections())
	}
}

func TestContextEndsACommand(t *testing.T) {
	h, s := dial(t, sshd.Options{}, "root")
	for _, hung := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(testContext(t), 200*time.Millisecond)
		began := time.Now()
		if hung {
			s.Freeze()
		}
		_, err := h.Query(ctx, "sleep", "30")
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "cp-1: ") {
			t.Errorf("hung %v: %v", hung, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("hung %v: it took %s", hung, took)
		}
	}
}

func TestUnreachableHost(t *testing.T) {
	s := sshd.New(t, sshd.Options{})
	cfg := configFor(t, s, "root")
	s.Close()
	_, err := Dial(testContext(t), cfg)
	var away *UnreachableError
	if !errors.As(err, &away) || !strings.HasPrefix(err.Error(), "cp-1: connect to 127.0.0.1:") {
		t.Errorf("%v", err)
	}
}

func TestCommandThatReadsNoInputEndsAnyway(t *testing.T) {
	h, _ := dial(t, sshd.Options{}, "root")
	r, w := io.Pipe()
	defer w.Close()
	must[[]byte](t)(h.Run(testContext(t), Command{Argv: []string{"true"}, Stdin: r}))
}

func TestSecretsGoThroughStdin(t *testing.T) {
	h, s := dial(t, sshd.Options{}, "root")
	out := must[[]byte](t)(h.Run(testContext(t), Command{Argv: []string{"cat"}, Stdin: strings.NewReader("hunter2")}))
	if string(out) != "hunter2" || strings.Contains(strings.Join(s.Commands(), "\n"), "hunter2") {
		t.Errorf("%q, %q", out, s.Commands())
	}
}

func TestReadOnlyRefusesEveryChange(t *testing.T) {
	h, s := dial(t, sshd.Options{}, "root")
	r, ctx := ReadOnly(h), testContext(t)
	before := len(s.Commands())
	_, run := r.Run(ctx, Command{Argv: []string{"true"}})
	_, upload := r.Upload(ctx, File{Path: "/none"})
	_, all := UploadAll(ctx, r, []File{{Path: "/none"}})
	_, aside := r.MoveAside(ctx, "/none")
	_, step := r.Step(ctx, Step{ID: "x", Argv: []string{"true"}})
	for _, err := range []error{run, upload, all, aside, step} {
		var refused *ReadOnlyError
		if !errors.As(err, &refused) {
			t.Errorf("%v", err)
		}
	}
	if n := len(s.Commands()) - before; n != 0 {
		t.Errorf("%d commands were sent", n)
	}
	must[[]byte](t)(r.Query(ctx, "true"))
}

func TestHostCertificateOfAKnownAuthority(t *testing.T) {
	ca, mine := sshd.NewKey(t), sshd.NewKey(t)
	cert := &ssh.Certificate{Key: mine.PublicKey(), CertType: ssh.HostCert, ValidBefore: ssh.CertTimeInfinity, ValidPrincipals: []string{"127.0.0.1"}}
	if err := cert.SignCert(bytes.NewReader(make([]byte, 64)), ca); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(cert, mine)
	if err != nil {
		t.Fatal(err)
	}
	s := sshd.New(t, sshd.Options{HostKeys: []ssh.Signer{signer}, Shims: sshd.Shims(t)})
	cfg := configFor(t, s, "root")
	address := []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port()))}
	for name, line := range map[string]string{
		"by its authority":           "@cert-authority " + knownhosts.Line(address, ca.PublicKey()),
		"by the key within it alone": knownhosts.Line(address, mine.PublicKey()),
	} {
		write(t, cfg.KnownHosts[0], line+"\n")
		h, err := Dial(testContext(t), cfg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		h.Close()
	}
}
