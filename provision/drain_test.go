package provision

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/haproxy"
	"github.com/ha-install/ha-install/test/sim"
)

// drained is a world whose first balancer sends nobody new to cp-2.
func drained(t *testing.T, w *sim.World, c *inventory.Cluster) {
	t.Helper()
	ih, _ := c.HostByName("lb-1")
	h, err := w.Dial(t.Context(), c, ih, "")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := apiServers.Drain(t.Context(), h, "cp-2", drainExpiry); err != nil {
		t.Fatal(err)
	}
}

func TestApplyReadmitsWhatAnEarlierRunLeftOut(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Slow = true
		running(t, w, c, dirs[0])
		drained(t, w, c)
		soften(w, "cp-1") // would have a second one drained
		tally, err := applyAll(t.Context(), w, withoutCA(c), dirs[1], nil, nil)
		if err != nil || tally.Changed != 3 { // readmit, harden, readmit
			t.Errorf("%d phases changed something, error %v", tally.Changed, err)
		}
		if out := append(w.Drained(), w.Broken()...); len(out) > 0 {
			t.Errorf("%q", out)
		}
	})
}

func TestStatusSaysWhatIsDrained(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Slow = true
		running(t, w, c, dirs[0])
		drained(t, w, c)
		problems := func() string {
			site := ConnectSoon(w.Begin(context.Background(), nil), c, "", w.Dial)
			defer site.Close()
			return strings.Join(TakeStatus(context.Background(), site).Problems, "\n")
		}
		if said := problems(); !strings.Contains(said, "lb-1: backend cp-2 is DRAINED") || strings.Contains(said, "lb-2") {
			t.Errorf("problems:\n%s", said)
		}
		time.Sleep(drainExpiry)
		if said := problems(); said != "" {
			t.Errorf("after %s:\n%s", drainExpiry, said)
		}
	})
}

// TestNobodyLeavesWhileAnotherIsDown: a master's API server is not taken out
// while those of the others do not all serve.
func TestNobodyLeavesWhileAnotherIsDown(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Slow = true
		running(t, w, c, dirs[0])
		delete(w.Host("cp-2").Files, "/etc/kubernetes/manifests/kube-apiserver.yaml")
		site := Connect(w.Begin(t.Context(), nil), c, "", w.Dial)
		defer site.Close()
		cp1, _ := c.HostByName("cp-1")
		err := site.leave(t.Context(), cp1)
		if err == nil || !strings.Contains(err.Error(), "on lb-1, cp-2 is DOWN") || !strings.Contains(err.Error(), "run: ha-install status") {
			t.Errorf("error %v", err)
		}
		if out := w.Drained(); len(out) > 0 {
			t.Errorf("drained: %q", out)
		}
	})
}

// TestTheLeaderHandsOnBeforeItLeaves and comes back where it left.
func TestTheLeaderHandsOnBeforeItLeaves(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Slow = true
		running(t, w, c, dirs[0])
		site := Connect(w.Begin(t.Context(), nil), c, "", w.Dial)
		defer site.Close()
		leader := leaderOf(t, site)
		ih, _ := c.HostByName(leader)
		if err := site.leave(t.Context(), ih); err != nil {
			t.Fatal(err)
		}
		if now := leaderOf(t, site); now == leader || now == "" {
			t.Errorf("%s left, %q leads now", leader, now)
		}
		if out := w.Drained(); !slices.Equal(out, []string{"lb-1 " + leader, "lb-2 " + leader}) {
			t.Errorf("drained: %q", out)
		}
		if err := site.enable(t.Context(), ih); err != nil || len(w.Drained()) > 0 {
			t.Errorf("%v, drained: %q", err, w.Drained())
		}
		views, err := site.askBalancers(t.Context())
		if server, _ := views["lb-2"].Server(leader); err != nil || server.State != haproxy.Up {
			t.Errorf("%v, %+v", err, server)
		}
	})
}

// TestNoAPIServerWritesWhileEtcdHasNoLeader: all are held for a hand-over and go
// on after it; when one is late, all are asked again; a host that cannot be told or
// is always late costs its own courtesy and no more.
func TestNoAPIServerWritesWhileEtcdHasNoLeader(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Slow = true
		running(t, w, c, dirs[0])
		slow := 0 // so many lines reach cp-2 late
		handOn := func(exposed int) {
			t.Helper()
			site := Connect(w.Begin(t.Context(), nil), c, "", w.Dial)
			defer site.Close()
			leader := leaderOf(t, site)
			ih, _ := c.HostByName(leader)
			before := w.Exposed
			if err := site.handOn(t.Context(), ih); err != nil {
				t.Fatal(err)
			}
			if now := leaderOf(t, site); now == leader || w.Exposed-before != exposed {
				t.Errorf("%s handed on to %s, with writes that may be lost %d times, want %d", leader, now, w.Exposed-before, exposed)
			}
			if held := w.Held(); len(held) > 0 && slow == 0 {
				t.Errorf("still held: %q", held)
			}
		}
		handOn(0)
		w.Talk(holdScript, func(h *sim.Host, args []string, in io.Reader, out io.Writer) error {
			if h == w.Host("cp-2") {
				in = behind{in, &slow}
			}
			return h.Hold(args[1], in, out)
		})
		slow = 1
		handOn(0)
		slow = 100
		handOn(1)
		time.Sleep(time.Minute) // cp-2 hears of it all
		w.Talk(holdScript, func(h *sim.Host, args []string, in io.Reader, out io.Writer) error {
			if h == w.Host("cp-2") {
				return errors.New("it does not answer")
			}
			return h.Hold(args[1], in, out)
		})
		handOn(1)
	})
}

// behind reads so many times later than a hand-over waits.
type behind struct {
	io.Reader
	times *int
}

func (l behind) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if *l.times > 0 && err == nil {
		*l.times--
		time.Sleep(holdBudget + holdMost)
	}
	return n, err
}

func leaderOf(t *testing.T, s *Site) string {
	t.Helper()
	site := TakeStatus(t.Context(), s)
	return site.Quorum.LeaderName
}
