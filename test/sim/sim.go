// Package sim has hosts that exist in memory only: files, packages, systemd
// units, images and steps, behind the same interface as hosts over SSH. They
// keep state and are strict: a command that they do not know fails the test.
// A Cut stops the installer at one remote call, as kill -9 or a lost
// connection would, so that a test can try every such point.
package sim

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/test/kubeapi"
)

// When says how much of the call at a Cut takes effect.
type When int

// The ways in which a call can be cut.
const (
	Before When = iota // the command never reached the host
	Half               // it did a part of its work
	After              // it did its work, the answer was lost
)

func (w When) String() string { return [...]string{"before", "half way through", "after"}[w] }

// Cut is one fault: the Nth call (from 1) to a host. With Once only that call
// fails; without it nothing reaches any host afterwards.
type Cut struct {
	Host string
	Call int
	When When
	Once bool
}

func (c Cut) String() string {
	what := "the installer dies"
	if c.Once {
		what = "one call fails"
	}
	return fmt.Sprintf("%s %s call %d to %s", what, c.When, c.Call, c.Host)
}

// Call is one remote call that was made.
type Call struct {
	Host   string
	Number int // from 1, by host
	Name   string
	Writes bool
	Parts  int // what can be half done has more than one
}

// World is a set of hosts and at most one fault.
type World struct {
	t testing.TB

	mu     sync.Mutex
	hosts  map[string]*Host
	counts map[string]int
	trace  []Call
	cut    *Cut
	stop   context.CancelFunc
	dead   bool
	vip    string
	units  map[string]unitKind
	script map[string]Script
	etcd   etcdState
	turn   int // of the balancer
	asleep []*lock

	// API is what all API servers of the cluster serve.
	API *kubeapi.Server
}

// Script stands in for a shell script that the product sends, under its exact
// text. It runs under the world's lock.
type Script func(h *Host, args []string) ([]byte, error)

// New makes one bare Debian host for each host of the inventory.
func New(t testing.TB, c *inventory.Cluster) *World {
	w := &World{t: t, hosts: map[string]*Host{}, counts: map[string]int{}, vip: c.Spec.Endpoint.Host, units: unitKinds(), script: map[string]Script{}, API: kubeapi.New()}
	control(w.API)
	for _, ih := range c.Spec.Hosts {
		w.hosts[ih.Name] = newHost(w, ih)
	}
	return w
}

// Script teaches every host a script.
func (w *World) Script(text string, s Script) { w.script[text] = s }

// Host is the host of that name, for a test to look at and to prepare.
func (w *World) Host(name string) *Host {
	h, ok := w.hosts[name]
	if !ok {
		w.t.Fatalf("sim: no host %s", name)
	}
	return h
}

// Dial is a provision.Dial.
func (w *World) Dial(_ context.Context, _ *inventory.Cluster, ih inventory.Host, _ string) (host.Host, error) {
	return &connection{Host: w.hosts[ih.Name]}, nil
}

// Begin starts a run of the installer: counts begin anew, and the fault, if
// any, strikes once. The context ends when the installer dies.
func (w *World) Begin(ctx context.Context, cut *Cut) context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, w.stop = context.WithCancel(ctx)
	w.counts, w.trace, w.cut, w.dead = map[string]int{}, nil, cut, false
	for _, h := range w.hosts { // an earlier run has ended, or died and its locks with it
		h.holder = nil
	}
	return ctx
}

// Struck says whether the cut of this run was reached.
func (w *World) Struck() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut == nil
}

// Trace is every call of the run so far.
func (w *World) Trace() []Call {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Call(nil), w.trace...)
}

// call accounts for one remote call and makes its effect, all of it or as much
// as the cut lets through: part is asked for each of its parts in turn.
func (h *Host) call(ctx context.Context, name string, writes bool, parts int, part func(i int) error) error {
	w := h.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return fmt.Errorf("%s: %s: %w", h.name, name, context.Canceled)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %s: %w", h.name, name, err)
	}
	w.counts[h.name]++
	w.trace = append(w.trace, Call{h.name, w.counts[h.name], name, writes, parts})
	upTo := parts
	struck := w.cut != nil && w.cut.Host == h.name && w.cut.Call == w.counts[h.name]
	if struck {
		switch w.cut.When {
		case Before:
			upTo = 0
		case Half:
			upTo = parts / 2
		}
		if !w.cut.Once {
			w.dead = true
			w.stop()
		}
		w.cut = nil
	}
	err := h.fenced(ctx, name, writes)
	for i := 0; i < upTo && err == nil; i++ {
		err = part(i)
	}
	if struck {
		return fmt.Errorf("%s: %s: %w", h.name, name, host.ErrConnectionLost)
	}
	return err
}

// once is the effect of a call that is made whole or not at all.
func once(f func() error) func(int) error { return func(int) error { return f() } }

// Votes is the member list, one "name role" for each, in the order of joining.
func (w *World) Votes() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var votes []string
	for _, m := range w.etcd.members {
		role := "voter"
		if m.learner {
			role = "learner"
		}
		votes = append(votes, m.name+" "+role)
	}
	return votes
}

// Broken is what no run may ever do to the members.
func (w *World) Broken() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	broken := append([]string{}, w.etcd.lostQuorum...)
	if w.etcd.twoAtOnce {
		broken = append(broken, "a second learner was asked for")
	}
	return broken
}

// AddGhost lists a voter that is on no host.
func (w *World) AddGhost(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.etcd.members = append(w.etcd.members, &member{id: 0xdead<<48 | 1, name: "ghost", peerURL: "https://" + address + ":2380"})
}

// Wipe makes a host bare again, as one that was set up anew under its old name.
func (w *World) Wipe(c *inventory.Cluster, name string) {
	ih, _ := c.HostByName(name)
	w.mu.Lock()
	defer w.mu.Unlock()
	servers := w.hosts[name].servers
	*w.hosts[name] = *newHost(w, ih)
	w.hosts[name].servers = servers
}
