// Package sshd is an SSH and SFTP server inside the test's process, with
// faults to order. Commands that it is sent really run, with /bin/sh, as the
// test's user; paths are the machine's own, so tests stay in temporary directories.
package sshd

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// Options vary a server. The zero value accepts its own client key for any user.
type Options struct {
	HostKeys      []ssh.Signer // default: one new ed25519 key
	Shims         string       // a directory put first in every command's PATH
	MaxSessions   int          // sessions at a time on a connection; 0: any number
	RefuseTunnels bool         // as AllowTcpForwarding no
	Greeting      string       // printed before every command's output, as a noisy .bashrc does
	// Room is how many bytes the SFTP subsystem takes before the file system is
	// full, which it does not tell before; 0: as many as there is room for.
	Room int64
	Rots bool // of each write that the SFTP subsystem takes, the disk keeps a bit otherwise
}

// Server listens on a loopback address until the test ends.
type Server struct {
	// ClientKey is accepted; KeyFile holds it.
	ClientKey ssh.Signer
	KeyFile   string
	opts      Options
	quota     quota
	listener  net.Listener
	config    *ssh.ServerConfig

	mu       sync.Mutex
	conns    map[*faultConn]bool
	accepted int
	commands []string
	budget   int64 // bytes that connections may still send; negative: no bound
	onRun    func(command string)
}

// New starts a server.
func New(t testing.TB, opts Options) *Server {
	t.Helper()
	s := &Server{opts: opts, conns: map[*faultConn]bool{}, budget: -1}
	if len(s.opts.HostKeys) == 0 {
		s.opts.HostKeys = []ssh.Signer{NewKey(t)}
	}
	s.quota.rots = opts.Rots
	s.quota.left.Store(opts.Room)
	if opts.Room == 0 {
		s.quota.left.Store(math.MaxInt64)
	}
	s.ClientKey, s.KeyFile = newKeyFile(t)
	s.config = &ssh.ServerConfig{PublicKeyCallback: s.authorize}
	for _, k := range s.opts.HostKeys {
		s.config.AddHostKey(k)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.listener = l
	go s.serve()
	t.Cleanup(s.Close)
	return s
}

// Close stops listening and drops every connection.
func (s *Server) Close() {
	s.listener.Close()
	s.Drop()
}

// Host and Port are where the server listens.
func (s *Server) Host() string { return "127.0.0.1" }

// Port is the server's TCP port.
func (s *Server) Port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// KnownHosts writes a known_hosts file that knows the server by the given
// keys, or by its own, and returns its name.
func (s *Server) KnownHosts(t testing.TB, keys ...ssh.PublicKey) string {
	t.Helper()
	if len(keys) == 0 {
		for _, k := range s.opts.HostKeys {
			keys = append(keys, k.PublicKey())
		}
	}
	var b bytes.Buffer
	for _, k := range keys {
		b.WriteString(knownhosts.Line([]string{net.JoinHostPort(s.Host(), strconv.Itoa(s.Port()))}, k) + "\n")
	}
	name := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Commands are the command lines that arrived so far.
func (s *Server) Commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.commands...)
}

// Connections counts the connections that were accepted so far.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// OnRun has f called with every command line before it runs.
func (s *Server) OnRun(f func(command string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onRun = f
}

// Drop cuts every connection, as a broken line does; new ones are welcome.
func (s *Server) Drop() {
	for _, c := range s.live() {
		c.Close()
	}
}

// DropAfter cuts the connections once they have read n more bytes in all from
// their clients. It acts once.
func (s *Server) DropAfter(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budget = n
}

// Freeze makes every present connection silent, with the line open, as a hung host does.
func (s *Server) Freeze() {
	for _, c := range s.live() {
		c.freeze()
	}
}

func (s *Server) live() []*faultConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*faultConn
	for c := range s.conns {
		out = append(out, c)
	}
	return out
}

func (s *Server) authorize(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if !bytes.Equal(key.Marshal(), s.ClientKey.PublicKey().Marshal()) {
		return nil, errors.New("not this key")
	}
	return &ssh.Permissions{}, nil
}

// NewKey makes an ed25519 key.
func NewKey(t testing.TB) ssh.Signer {
	t.Helper()
	s, _ := newKeyFile(t)
	return s
}

func newKeyFile(t testing.TB) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "test")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return signer, name
}
