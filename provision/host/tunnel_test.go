package host

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/sshd"
)

func TestTunnelHasDeadlines(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	h, s := dial(t, sshd.Options{}, "root")
	conn := must[net.Conn](t)(h.DialContext(testContext(t), "tcp", l.Addr().String()))
	defer conn.Close()
	if conn.RemoteAddr().String() != l.Addr().String() {
		t.Errorf("remote address %s", conn.RemoteAddr())
	}
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("0123456789"), 1<<17)
	go func() { _, _ = conn.Write(big) }()
	got := make([]byte, len(big))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, big) {
		t.Errorf("%v; equal %v", err, bytes.Equal(got, big))
	}
	s.Drop()
	if _, err := conn.Read(got); err == nil {
		t.Error("a read on a dropped connection succeeded")
	}
}

func TestTunnelRefused(t *testing.T) {
	h, _ := dial(t, sshd.Options{RefuseTunnels: true}, "root")
	if _, err := h.DialContext(testContext(t), "tcp", "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "AllowTcpForwarding") {
		t.Errorf("%v", err)
	}
}
