package etcdtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Network is what Members dial through. A test can take a host's connection
// down, or freeze a member: its port accepts, its answers do not come.
type Network struct {
	mu     sync.Mutex
	down   map[string]bool          // vantage points whose SSH fails
	frozen map[string]chan struct{} // by address; closed when it thaws
	loss   float64
	off    map[string]bool // hosts and addresses that do not answer at all
	ended  map[string]bool // addresses whose member has stopped
	open   map[*freezable]bool
}

// retransmission is what a lost packet costs: TCP's shortest wait for an answer.
const retransmission = 200 * time.Millisecond

// Lose makes that part of what members answer come a retransmission late, or
// two when that is lost too, and so on.
func (n *Network) Lose(part float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = part
}

func newNetwork() *Network {
	return &Network{down: map[string]bool{}, frozen: map[string]chan struct{}{}, off: map[string]bool{}, ended: map[string]bool{}, open: map[*freezable]bool{}}
}

// PowerOff stops a member and its host: nobody who dials either gets an answer.
func (c *Cluster) PowerOff(m *Member) {
	m.Stop()
	c.Net.mu.Lock()
	defer c.Net.mu.Unlock()
	c.Net.off[m.Name], c.Net.off[address(m)] = true, true
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

// end drops a member's connections and refuses new ones, or accepts them again.
func (n *Network) end(m *Member, ended bool) {
	n.mu.Lock()
	var drop []*freezable
	n.ended[address(m)] = ended
	for f := range n.open {
		if ended && f.addr == address(m) {
			drop = append(drop, f)
		}
	}
	n.mu.Unlock()
	for _, f := range drop {
		f.Close()
	}
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
		down, ended, off := n.down[via], n.ended[addr], n.off[via] || n.off[addr]
		n.mu.Unlock()
		if off {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		if down {
			return nil, errors.New("dial tcp: no route to host")
		}
		if ended {
			return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		f := &freezable{Conn: c, n: n, addr: addr, closed: make(chan struct{})}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.open[f] = true
		return f, nil
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
	ice, loss := f.n.frozen[f.addr], f.n.loss
	f.n.mu.Unlock()
	for loss > 0 && rand.Float64() < loss {
		select {
		case <-time.After(retransmission):
		case <-f.closed:
			return 0, net.ErrClosed
		}
	}
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
	f.once.Do(func() {
		close(f.closed)
		f.n.mu.Lock()
		defer f.n.mu.Unlock()
		delete(f.n.open, f)
	})
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
