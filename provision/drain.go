package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/haproxy"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
)

const (
	// drainExpiry is after how long a balancer takes a drain back by itself:
	// longer than a restart and its gate may last. Early would do no harm: the
	// balancer's own check is asked as ever.
	drainExpiry = restartGate + 5*time.Minute
	// leaveBudget is for the others to be up on all balancers: two checks of a
	// server that has just come back, and some patience.
	leaveBudget = 30 * time.Second
	moveBudget  = 10 * time.Second
	// steadyFor is how often in a row an API server that has just started has to
	// say that it is ready.
	steadyFor = 2
)

// leave prepares a master for the restart of its API server or its etcd, so
// that nobody notices: etcd's leadership is handed on, and no balancer sends it
// anybody new. It is refused unless every other master is served by every
// balancer. Who is connected stays until the API server says goodbye; readmit
// is the way back.
func (s *Site) leave(ctx context.Context, ih inventory.Host) error {
	if err := s.handOn(ctx, ih); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, leaveBudget)
	defer cancel()
	var last error
	err := phase.Wait(waiting, phase.Check{Name: "the balancers to have all other masters", Run: func(ctx context.Context) error {
		views, err := s.askBalancers(ctx)
		if err == nil {
			err = haproxy.MayDrain(views, ih.Name)
		}
		if err == nil || last == nil || ctx.Err() == nil { // a question that the deadline cut off says nothing
			last = err
		}
		return last
	}})
	if err != nil {
		return fmt.Errorf("%s stays where it is: %w\nrun: ha-install status shows what each balancer sees; bring back what is down there, and run the same command again", ih.Name, err)
	}
	return s.onAll(ctx, s.Cluster.Balancers(), func(ctx context.Context, _ inventory.Host, h host.Host) error {
		return apiServers.Drain(ctx, h, ih.Name, drainExpiry)
	})
}

// enable has all balancers send clients to a master again, as soon as their
// own checks agree.
func (s *Site) enable(ctx context.Context, ih inventory.Host) error {
	return s.onAll(ctx, s.Cluster.Balancers(), func(ctx context.Context, _ inventory.Host, h host.Host) error {
		return apiServers.Enable(ctx, h, ih.Name)
	})
}

// askBalancers is the backend as the HAProxy of each balancer sees it.
func (s *Site) askBalancers(ctx context.Context) (map[string]haproxy.View, error) {
	var mu sync.Mutex
	views := map[string]haproxy.View{}
	err := s.onAll(ctx, s.Cluster.Balancers(), func(ctx context.Context, ih inventory.Host, h host.Host) error {
		v, err := apiServers.Look(ctx, h)
		if err == nil {
			mu.Lock()
			views[ih.Name] = v
			mu.Unlock()
		}
		return err
	})
	return views, err
}

// keptOut are the masters, of those given, that any balancer sends nobody to
// by order.
func (s *Site) keptOut(ctx context.Context, masters []inventory.Host) ([]inventory.Host, error) {
	views, err := s.askBalancers(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(masters), func(ih inventory.Host) bool {
		for _, v := range views {
			if server, _ := v.Server(ih.Name); server.Out() {
				return false
			}
		}
		return true
	}), nil
}

// readmit puts a master behind the balancers again, when its API server says
// over the master's own connection that it is ready, and goes on saying so.
func (a *apply) readmit(ih inventory.Host) phase.Phase {
	p := a.readmitting([]inventory.Host{ih})
	p.Host = ih.Name
	p.Gate, p.GateTimeout = []phase.Check{a.served(ih)}, restartGate
	p.After = []string{"init", "balancer", "join", "readmit", "harden-etcd", "upgrade", "renew", "defragment"} // a balancer that is to come keeps nobody out
	p.Foresee = func(_ context.Context, pending []string) (phase.State, []phase.Change, error) {
		leaves := slices.ContainsFunc(pending, func(id string) bool {
			return id == ih.Name+": harden-etcd" || id == ih.Name+": upgrade" || id == ih.Name+": renew" || id == ih.Name+": defragment"
		})
		if a.established && leaves && len(a.Cluster.Balancers()) > 0 {
			return phase.ToChange, []phase.Change{a.readmission(ih)}, nil
		}
		return phase.AlreadyDone, nil, nil
	}
	return p
}

// readmitAll is readmit for whatever a run that broke off has left out.
func (a *apply) readmitAll() phase.Phase {
	p := a.readmitting(a.Cluster.ControlPlanes())
	p.After = []string{"balancer", "join"}
	p.Foresee = func(context.Context, []string) (phase.State, []phase.Change, error) {
		return phase.AlreadyDone, nil, nil
	}
	return p
}

func (a *apply) readmitting(masters []inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "readmit",
		Done: func(ctx context.Context) (bool, error) {
			out, err := a.keptOut(ctx, masters)
			return len(out) == 0, err
		},
		Do: func(ctx context.Context) error {
			out, err := a.keptOut(ctx, masters)
			if err != nil {
				return err
			}
			for _, ih := range out {
				if err := a.awaitSteady(ctx, ih); err != nil {
					return err
				}
				if err := a.enable(ctx, ih); err != nil {
					return err
				}
			}
			return nil
		},
		Explain: func(ctx context.Context) ([]phase.Change, error) {
			out, err := a.keptOut(ctx, masters)
			var changes []phase.Change
			for _, ih := range out {
				changes = append(changes, a.readmission(ih))
			}
			return changes, err
		},
	}
}

// balancerNames are the balancers in a sentence.
func (a *apply) balancerNames() string {
	var names []string
	for _, ih := range a.Cluster.Balancers() {
		names = append(names, ih.Name)
	}
	return strings.Join(names, ", ")
}

func (a *apply) readmission(ih inventory.Host) phase.Change {
	return phase.Change{Kind: changeRun, Name: "HAProxy of " + a.balancerNames(), Text: "sends clients to " + ih.Name + " again, when its API server is ready"}
}

// awaitSteady waits for a master's own API server to be ready several times in
// a row: one that has just started may still go again.
func (s *Site) awaitSteady(ctx context.Context, ih inventory.Host) error {
	ctx, cancel := context.WithTimeout(ctx, restartGate)
	defer cancel()
	ready, times := s.apiReady(ih), 0
	return phase.Wait(ctx, phase.Check{Name: ready.Name, Run: func(ctx context.Context) error {
		if err := ready.Run(ctx); err != nil {
			times = 0
			return err
		}
		if times++; times < steadyFor {
			return errors.New("it has only just become ready")
		}
		return nil
	}})
}

// served wants every balancer to send clients to the master.
func (s *Site) served(ih inventory.Host) phase.Check {
	return phase.Check{Name: "the balancers to serve " + ih.Name, Run: func(ctx context.Context) error {
		views, err := s.askBalancers(ctx)
		if err != nil {
			return err
		}
		for _, name := range sortedKeys(views) {
			if server, _ := views[name].Server(ih.Name); server.State != haproxy.Up {
				return fmt.Errorf("on %s it is %s", name, server)
			}
		}
		return nil
	}}
}
