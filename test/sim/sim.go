// Package sim has hosts that exist in memory only: files, packages, systemd
// units, images and steps, behind the same interface as hosts over SSH. They
// keep state and are strict: a command that they do not know fails the test.
//
// Every call that reaches a host, and every request that goes through a tunnel
// to its etcd or its API server, may be cut (Cut), and the world can be kept as
// it is after any of them (Watch), as a kill -9 would leave it. It is made for
// testing/synctest: with Slow, hosts take the time that real ones do, which
// costs nothing where the clock is false.
package sim

import (
	"context"
	"fmt"
	"io"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/test/kubeapi"
)

// World is a set of hosts and at most one fault.
type World struct {
	// Slow makes hosts take the time that real ones take.
	Slow bool
	// MayEnd allows that the cluster loses its quorum: for a reset.
	MayEnd bool
	// Exposed counts the hand-overs of etcd's leadership in which an API server
	// could have lost a write: it was not held.
	Exposed int
	// MayLeave is the name of a voter that may be removed; "" for none.
	MayLeave string
	// Strangers answer who are none of the hosts, by their addresses with ports.
	Strangers map[string]Stranger
	// SnapshotObjects has snapshots hold what a restore onto other hosts reads.
	SnapshotObjects bool
	// Stored are the objects of the snapshot that restores are made of; nil where
	// those of now are left to stand for them.
	Stored *kubeapi.Server
	// Outside is the user's own balancer, at the endpoint's address; nil where
	// the hosts balance.
	Outside *Outside
	// API is what all API servers of the cluster serve.
	API *kubeapi.Server

	t testing.TB

	mu     sync.Mutex
	hosts  map[string]*Host
	counts map[string]int // calls, by host and name
	trace  []Call
	cut    *Cut
	watch  func(Moment)
	stop   context.CancelFunc
	dead   bool
	// faulted is set once the cut of this run has struck.
	faulted bool
	vip     string
	units   map[string]unitKind
	script  map[string]Script
	talks   map[string]Talk
	ends    map[string]time.Time // when certificates do, by what their files hold
	steps   map[string]StepScript
	temp    string
	etcd    etcdState
	audits  audit
	asleep  []*lock
	ended   bool
	going   sync.WaitGroup // what hosts do by themselves
}

// Script stands in for a shell script that the product sends, under its exact
// text. It runs under the world's lock.
type Script func(h *Host, args []string) ([]byte, error)

// Talk is what such a script does with what it is told on the way.
type Talk func(h *Host, args []string, in io.Reader, out io.Writer) error

// StepScript is a script that is sent as a step: its acts, between any two of
// which the host may lose its power.
type StepScript func(h *Host, args []string) []func() error

// New makes one bare Debian host for each host of the inventory.
func New(t testing.TB, c *inventory.Cluster) *World {
	w := &World{
		t: t, hosts: map[string]*Host{}, counts: map[string]int{}, vip: c.Spec.Endpoint.Host, units: unitKinds(),
		script: map[string]Script{}, talks: map[string]Talk{}, steps: map[string]StepScript{}, API: kubeapi.New(), ends: map[string]time.Time{},
	}
	control(w.API)
	t.Cleanup(w.end)
	for _, ih := range c.Spec.Hosts {
		w.hosts[ih.Name] = newHost(w, ih)
	}
	return w
}

// end stops what hosts still do by themselves: a bubble waits for nobody.
func (w *World) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.going.Wait()
}

// Script teaches every host a script.
func (w *World) Script(text string, s Script) { w.script[text] = s }

// Talk teaches every host a script that is talked to while it runs.
func (w *World) Talk(text string, t Talk) { w.talks[text] = t }

// StepScript teaches every host a script that is sent as a step.
func (w *World) StepScript(text string, s StepScript) { w.steps[text] = s }

// TempDir is a directory on the operator's machine, the same for all runs.
func (w *World) TempDir() string {
	if w.temp == "" {
		w.temp = w.t.TempDir()
	}
	return w.temp
}

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
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.hosts[ih.Name]
	if h.off || h.lost() {
		return nil, h.unreachable()
	}
	return &connection{Host: h}, nil
}

func (h *Host) unreachable() error {
	return &host.UnreachableError{Host: h.name, Address: h.address + ":22", Err: syscall.ETIMEDOUT}
}

// Begin starts a run of the installer: counts begin anew, and the fault, if
// any, strikes once. The context ends when the installer dies.
func (w *World) Begin(ctx context.Context, cut *Cut) context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, w.stop = context.WithCancel(ctx)
	w.counts, w.trace, w.cut, w.dead, w.faulted = map[string]int{}, nil, cut, false, false
	for _, h := range w.hosts { // an earlier run has ended, or died and its locks with it
		h.holder, h.unfollowed = nil, nil
	}
	w.expected() // what a test did to the hosts is no act of ours
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

// Votes is the member list, one "name role" for each, in the order of joining.
func (w *World) Votes() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.etcd.votes()
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
	old := w.hosts[name]
	servers, tunnels := old.servers, old.tunnels
	*old = *newHost(w, ih)
	old.servers, old.tunnels = servers, tunnels
}

// Lost is all that was deleted or overwritten although it was precious.
func (w *World) Lost() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, h := range w.sorted() {
		for _, l := range h.Lost {
			all = append(all, fmt.Sprintf("%s: %s", h.name, l))
		}
	}
	return all
}
