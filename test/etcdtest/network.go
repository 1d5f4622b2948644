package etcdtest

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Network is what Members dial through. A test can take a host's connection
// down, or freeze a member: its port accepts, its answers do not come.
type Network struct {
	mu     sync.Mutex
	down   map[string]bool          // vantage points whose SSH fails
	frozen map[string]chan struct{} // by address; closed when it thaws
}

func newNetwork() *Network {
	return &Network{down: map[string]bool{}, frozen: map[string]chan struct{}{}}
}

// SSHDown makes every dial from the host fail, or work again.
func (n *Network) SSHDown(host string, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[host] = down
}

// Freeze stops all answers of a member, also on connections that are open.
func (n *Network) Freeze(m *Member) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.frozen[address(m)] = make(chan struct{})
}

// Thaw lets a frozen member answer again.
func (n *Network) Thaw(m *Member) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ch := n.frozen[address(m)]; ch != nil {
		close(ch)
		delete(n.frozen, address(m))
	}
}

func address(m *Member) string { return strings.TrimPrefix(m.ClientURL, "https://") }

func (n *Network) dialer(via string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		n.mu.Lock()
		down := n.down[via]
		n.mu.Unlock()
		if down {
			return nil, errors.New("dial tcp: no route to host")
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &freezable{Conn: c, n: n, addr: addr, closed: make(chan struct{})}, nil
	}
}

// freezable holds back what it read while its address is frozen.
type freezable struct {
	net.Conn
	n      *Network
	addr   string
	once   sync.Once
	closed chan struct{}
}

func (f *freezable) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	f.n.mu.Lock()
	ice := f.n.frozen[f.addr]
	f.n.mu.Unlock()
	if ice != nil {
		select {
		case <-ice:
		case <-f.closed:
			return 0, net.ErrClosed
		}
	}
	return n, err
}

func (f *freezable) Close() error {
	f.once.Do(func() { close(f.closed) })
	return f.Conn.Close()
}

// nextPort counts up below the range from which the kernel takes ports for
// outgoing connections, from a start of this process's own.
var nextPort atomic.Int32

func init() { nextPort.Store(10_000 + int32(os.Getpid()%400)*50) }

// freePort is an address that nobody listens on, and that nobody is given again.
func freePort(t testing.TB) string {
	t.Helper()
	for range 1000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(nextPort.Add(1))))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		return addr
	}
	t.Fatal("no free port")
	return ""
}
