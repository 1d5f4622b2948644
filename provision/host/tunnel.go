package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// DialContext opens a TCP connection from the host. The connection has working
// deadlines, which SSH channels lack and gRPC and HTTP clients need.
func (h *SSH) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, fmt.Errorf("%s: dial %s: network %q cannot be tunnelled", h.cfg.Name, address, network)
	}
	var conn net.Conn
	err := h.idempotent(ctx, func(l *link) error {
		c, err := l.client.DialContext(ctx, network, address)
		if err != nil {
			return err
		}
		conn = withDeadlines(c, h.cfg.Name, address)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: dial %s: %w", h.cfg.Name, address, tunnelError(err))
	}
	return conn, nil
}

// tunnelError gives the usual refusals of a tunnel their usual names.
func tunnelError(err error) error {
	var refusal *ssh.OpenChannelError
	if !errors.As(err, &refusal) {
		return err
	}
	switch {
	case refusal.Reason == ssh.Prohibited:
		return fmt.Errorf("sshd forbids tunnels; set AllowTcpForwarding to yes or local in sshd_config: %w", err)
	case strings.Contains(refusal.Message, "Connection refused"):
		return fmt.Errorf("%w (%w)", syscall.ECONNREFUSED, err)
	default:
		return err
	}
}

// withDeadlines puts a pipe, whose ends know deadlines, between the caller and
// a channel.
func withDeadlines(channel net.Conn, via, address string) net.Conn {
	ours, inner := net.Pipe()
	t := &tunnelConn{Conn: ours, local: tunnelAddr(via), remote: tunnelAddr(address)}
	closeBoth := sync.OnceFunc(func() {
		inner.Close()
		channel.Close()
	})
	go func() {
		_, _ = io.Copy(channel, inner)
		closeBoth()
	}()
	go func() {
		_, _ = io.Copy(inner, channel)
		closeBoth()
	}()
	return t
}

type tunnelConn struct {
	net.Conn
	local, remote tunnelAddr
}

func (t *tunnelConn) LocalAddr() net.Addr  { return t.local }
func (t *tunnelConn) RemoteAddr() net.Addr { return t.remote }

// tunnelAddr is an address as seen from the host.
type tunnelAddr string

func (tunnelAddr) Network() string  { return "tcp" }
func (a tunnelAddr) String() string { return string(a) }
