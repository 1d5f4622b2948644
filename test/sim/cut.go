package sim

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/ha-install/ha-install/provision/host"
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

// Fault is what happens at a Cut.
type Fault int

// The faults. Hosts that go away come back by themselves.
const (
	Dies     Fault = iota // the installer: nothing reaches any host afterwards
	Fails                 // this call alone; of a step, the waiting for it
	Loses                 // the connection to the host, for some time
	Reboots               // the host loses its power and starts again
	EtcdDies              // the host's etcd, until its kubelet starts it again
	Isolates              // the host's etcd is cut off from the others for some time
	Breaks                // the host's disk takes no more writes
	Slays                 // the shell of a step, with all that it runs: no trap is heard
)

func (f Fault) String() string {
	return [...]string{"the installer dies", "one call fails", "the connection is lost", "the host reboots", "its etcd dies", "its etcd is cut off", "the disk is read-only from", "the step is killed"}[f]
}

// How long faults last.
const (
	bootTime     = 15 * time.Second
	lossTime     = 20 * time.Second
	etcdBackOff  = 10 * time.Second
	isolation    = 20 * time.Second
	electionTime = time.Second
	etcdRestart  = 2 * time.Second // a static pod's container, by its kubelet
	actTime      = time.Second     // one act of a step
	connected    = 5 * time.Second // what etcd wants of its voters before it adds a member
)

// Cut is one fault at the Nth call (from 1) of that name to a host.
type Cut struct {
	Host  string
	Name  string
	Nth   int
	When  When
	Fault Fault
	// Victim is the host that suffers it; the one that is called when empty.
	Victim string
}

func (c Cut) String() string {
	at := ""
	if c.Victim != "" {
		at = c.Victim + ": "
	}
	return fmt.Sprintf("%s%s %s call %d of %q to %s", at, c.Fault, c.When, c.Nth, c.Name, c.Host)
}

// Call is one remote call that was made, a request through a tunnel, or one
// act of a step.
type Call struct {
	Host   string
	Name   string
	Nth    int // from 1, by host and name
	Writes bool
	Parts  int // what can be half done has more than one
}

// Moment is a point at which the world has just changed: Part of Parts of a
// call has had its effect. Keep gives the world as it is then, and must be
// called before Watch's function returns.
type Moment struct {
	Call
	Part int
	Keep func() *State
}

func (m Moment) String() string {
	return fmt.Sprintf("the installer dies after part %d of %d of call %d of %q to %s", m.Part, m.Parts, m.Nth, m.Name, m.Host)
}

// Watch calls f at every Moment of the runs that follow, under the world's lock.
func (w *World) Watch(f func(Moment)) { w.watch = f }

// after is how long something takes, or no time at all.
func (w *World) after(d time.Duration) time.Duration {
	if w.Slow {
		return d
	}
	return 0
}

// call accounts for one remote call and makes its effect, all of it or as much
// as the cut lets through: part is asked for each of its parts in turn.
func (h *Host) call(ctx context.Context, name string, writes bool, parts int, part func(i int) error) error {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	err := h.reach(ctx)
	if err == nil {
		err = h.fenced(ctx, name, writes)
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", h.name, name, err)
	}
	return h.account(name, writes, parts, part)
}

// claim is call for what takes the lock itself.
func (h *Host) claim(ctx context.Context, name string, take func() error) error {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if err := h.reach(ctx); err != nil {
		return fmt.Errorf("%s: %s: %w", h.name, name, err)
	}
	return h.account(name, true, 1, once(take))
}

// reach says why nothing can be asked of the host now.
func (h *Host) reach(ctx context.Context) error {
	switch {
	case h.w.dead:
		return context.Canceled
	case ctx.Err() != nil:
		return ctx.Err()
	case h.off || h.lost():
		return h.unreachable()
	}
	return nil
}

// lost says that the connection to the host is.
func (h *Host) lost() bool { return time.Now().Before(h.lostUntil) }

// served is call for a request that comes through a tunnel.
func (h *Host) served(ctx context.Context, name string, writes bool, serve func() error) error {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.w.dead || h.off {
		return context.Canceled
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return h.account(name, writes, 1, once(serve))
}

// account is call under the lock.
func (h *Host) account(name string, writes bool, parts int, part func(i int) error) error {
	w := h.w
	w.counts[h.name+" "+name]++
	c := Call{h.name, name, w.counts[h.name+" "+name], writes, parts}
	w.trace = append(w.trace, c)
	cut := w.strikes(c)
	upTo := parts
	if cut != nil {
		upTo = map[When]int{Before: 0, Half: parts / 2, After: parts}[cut.When]
		if cut.Fault == Breaks {
			h.ReadOnly = true
		}
	}
	if cut != nil && cut.Victim != "" && cut.Victim != h.name {
		victim := *cut
		victim.Host, victim.Victim, cut = cut.Victim, "", nil
		if victim.When == Before {
			_ = w.hosts[victim.Host].suffer(victim) // the call itself is not disturbed
		} else {
			defer func() { _ = w.hosts[victim.Host].suffer(victim) }()
		}
		upTo = parts
	}
	if writes && h.ReadOnly {
		return fmt.Errorf("%s: %s: %w", h.name, name, syscall.EROFS)
	}
	for i := range upTo {
		if err := part(i); err != nil {
			return err
		}
		if writes {
			w.changed(c, i+1)
		}
	}
	if cut != nil {
		return h.suffer(*cut)
	}
	return nil
}

// strikes takes the cut that is due at a call.
func (w *World) strikes(c Call) *Cut {
	if w.cut == nil || w.cut.Host != c.Host || w.cut.Name != c.Name || w.cut.Nth != c.Nth {
		return nil
	}
	cut := w.cut
	w.cut = nil
	return cut
}

// changed looks at the world after each effect.
func (w *World) changed(c Call, part int) {
	w.inspect(fmt.Sprintf("%q on %s", c.Name, c.Host))
	if w.watch != nil {
		w.watch(Moment{c, part, w.freeze})
	}
}

// suffer is what becomes of the host, and the error of the call.
func (h *Host) suffer(cut Cut) error {
	lost := fmt.Errorf("%s: %s: %w", h.name, cut.Name, host.ErrConnectionLost)
	h.w.faulted = true
	switch cut.Fault {
	case Dies:
		h.w.dead = true
		h.w.stop()
	case Loses:
		h.lostUntil = time.Now().Add(lossTime)
		h.closeTunnels()
	case Reboots:
		h.powerOff()
	case EtcdDies:
		h.etcdBack, h.unheard = time.Now().Add(etcdBackOff), true
		h.closeTunnels()
	case Isolates:
		h.isolated, h.isolatedUntil = time.Now(), time.Now().Add(isolation)
		if cut.When == After { // its answer comes all the same
			return nil
		}
	case Slays:
		return errSlain
	case Breaks:
		return fmt.Errorf("%s: %s: %w", h.name, cut.Name, syscall.EROFS)
	}
	h.w.expected() // what the fault costs in votes is no act of ours
	return lost
}

// once is the effect of a call that is made whole or not at all.
func once(f func() error) func(int) error { return func(int) error { return f() } }
