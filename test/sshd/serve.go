package sshd

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

func (s *Server) serve() {
	for {
		raw, err := s.listener.Accept()
		if err != nil {
			return
		}
		c := &faultConn{Conn: raw, server: s, thawed: make(chan struct{})}
		s.mu.Lock()
		s.conns[c] = true
		s.accepted++
		s.mu.Unlock()
		go s.connection(c)
	}
}

func (s *Server) connection(c *faultConn) {
	defer c.Close()
	_, channels, requests, err := ssh.NewServerConn(c, s.config)
	if err != nil {
		return
	}
	go func() {
		for r := range requests {
			if r.WantReply {
				_ = r.Reply(false, nil) // as sshd answers keepalive@openssh.com
			}
		}
	}()
	var sessions atomic.Int64
	for nc := range channels {
		switch nc.ChannelType() {
		case "session":
			if n := s.opts.MaxSessions; n > 0 && int(sessions.Load()) >= n {
				_ = nc.Reject(ssh.ConnectionFailed, "open failed")
				continue
			}
			sessions.Add(1)
			go func() {
				defer sessions.Add(-1)
				s.session(nc)
			}()
		case "direct-tcpip":
			go s.tunnel(nc)
		default:
			_ = nc.Reject(ssh.UnknownChannelType, nc.ChannelType())
		}
	}
}

func (s *Server) session(nc ssh.NewChannel) {
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	for r := range requests {
		var payload struct{ Text string }
		_ = ssh.Unmarshal(r.Payload, &payload)
		switch {
		case r.Type == "exec":
			_ = r.Reply(true, nil)
			go ssh.DiscardRequests(requests)
			s.run(ch, payload.Text)
			return
		case r.Type == "subsystem" && payload.Text == "sftp":
			_ = r.Reply(true, nil)
			go ssh.DiscardRequests(requests)
			s.serveSFTP(ch)
			return
		default:
			_ = r.Reply(false, nil)
		}
	}
}

func (s *Server) serveSFTP(ch io.ReadWriteCloser) {
	if s.opts.Room > 0 || s.opts.Rots {
		server := sftp.NewRequestServer(ch, s.quota.handlers())
		_ = server.Serve()
		server.Close()
		return
	}
	if server, err := sftp.NewServer(ch); err == nil {
		_ = server.Serve()
		server.Close()
	}
}

// run runs a command line as sshd does: by the user's shell.
func (s *Server) run(ch ssh.Channel, line string) {
	s.mu.Lock()
	s.commands = append(s.commands, line)
	hook := s.onRun
	s.mu.Unlock()
	if hook != nil {
		hook(line)
	}
	_, _ = io.WriteString(ch, s.opts.Greeting)
	cmd := exec.Command("/bin/sh", "-c", s.shimmed(line))
	cmd.Env = append(os.Environ(), "PATH="+s.path())
	cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
	stdin, err := cmd.StdinPipe() // not cmd.Stdin: the end of the command would wait for the end of its input
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		_, _ = io.WriteString(ch.Stderr(), err.Error())
		exitStatus(ch, 255)
		return
	}
	go func() {
		_, _ = io.Copy(stdin, ch)
		stdin.Close()
	}()
	report(ch, cmd.Wait())
}

func (s *Server) path() string {
	path := os.Getenv("PATH")
	if s.opts.Shims != "" {
		path = s.opts.Shims + ":" + path
	}
	return path
}

// shimmed puts the shims before the search path that a command line sets.
func (s *Server) shimmed(line string) string {
	if s.opts.Shims == "" {
		return line
	}
	return strings.ReplaceAll(line, "PATH=/", "PATH="+s.opts.Shims+":/")
}

func report(ch ssh.Channel, err error) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		exitStatus(ch, 0)
		return
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		name := strings.TrimPrefix(signalNames[ws.Signal()], "SIG")
		_, _ = ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Signal     string
			CoreDumped bool
			Message    string
			Language   string
		}{Signal: name}))
		return
	}
	exitStatus(ch, uint32(exit.ExitCode()))
}

var signalNames = map[syscall.Signal]string{
	syscall.SIGKILL: "SIGKILL", syscall.SIGTERM: "SIGTERM", syscall.SIGHUP: "SIGHUP", syscall.SIGINT: "SIGINT",
}

func exitStatus(ch ssh.Channel, code uint32) {
	_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{code}))
}

func (s *Server) tunnel(nc ssh.NewChannel) {
	var to struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(nc.ExtraData(), &to); err != nil || s.opts.RefuseTunnels {
		_ = nc.Reject(ssh.Prohibited, "open failed")
		return
	}
	conn, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.ParseIP(to.Host), Port: int(to.Port)})
	if err != nil {
		_ = nc.Reject(ssh.ConnectionFailed, "connect failed: Connection refused")
		return
	}
	ch, requests, err := nc.Accept()
	if err != nil {
		conn.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	var both sync.WaitGroup
	both.Add(2)
	go func() { defer both.Done(); _, _ = io.Copy(ch, conn); _ = ch.CloseWrite() }()
	go func() { defer both.Done(); _, _ = io.Copy(conn, ch); _ = conn.CloseWrite() }()
	both.Wait()
	ch.Close()
	conn.Close()
}

// faultConn is a connection that can be cut or silenced.
type faultConn struct {
	net.Conn
	server *Server
	frozen atomic.Bool
	thawed chan struct{} // closed with the connection
	once   sync.Once
}

func (c *faultConn) freeze() { c.frozen.Store(true) }

func (c *faultConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.frozen.Load() {
		<-c.thawed
		return 0, io.EOF
	}
	if n > 0 && c.server.spend(int64(n)) {
		c.server.Drop()
		return 0, io.EOF
	}
	return n, err
}

func (c *faultConn) Write(p []byte) (int, error) {
	if c.frozen.Load() {
		<-c.thawed
		return 0, io.ErrClosedPipe
	}
	return c.Conn.Write(p)
}

func (c *faultConn) Close() error {
	c.once.Do(func() {
		close(c.thawed)
		c.server.mu.Lock()
		delete(c.server.conns, c)
		c.server.mu.Unlock()
	})
	return c.Conn.Close()
}

// spend takes n from the budget of bytes; true once, when it is used up.
func (s *Server) spend(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.budget < 0 {
		return false
	}
	if s.budget -= n; s.budget > 0 {
		return false
	}
	s.budget = -1
	return true
}
