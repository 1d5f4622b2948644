package provision

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
)

// finishSteps waits for what a run that was killed has left running: steps go
// on without their installer. Nothing may be looked at or decided before: a
// kubeadm reset that is still under way takes away what is put in place now.
func (s *Site) finishSteps(ctx context.Context, run *phase.Runner) error {
	running, err := s.runningSteps(ctx)
	if err != nil || len(running) == 0 {
		return err
	}
	var hosts []inventory.Host
	for _, ih := range s.Cluster.Spec.Hosts {
		if len(running[ih.Name]) > 0 {
			hosts = append(hosts, ih)
		}
	}
	return run.Run(ctx, []phase.Stage{phase.AtOnce(hosts, func(ih inventory.Host) phase.Phase {
		return phase.Phase{
			Name: "earlier-steps", Host: ih.Name,
			Do: func(ctx context.Context) error {
				h, err := s.host(ih.Name)
				if err != nil {
					return err
				}
				phase.Tell(ctx, ih.Name+": waiting for what an earlier run has begun")
				return kube.AwaitSteps(ctx, h, running[ih.Name], sayIn(ctx))
			},
		}
	})})
}

// runningSteps are the IDs of the steps that are under way, by host.
func (s *Site) runningSteps(ctx context.Context) (map[string][]string, error) {
	var mu sync.Mutex
	running := map[string][]string{}
	err := s.onAll(ctx, s.Cluster.Spec.Hosts, func(ctx context.Context, ih inventory.Host, h host.Host) error {
		ids, err := kube.RunningSteps(ctx, h)
		mu.Lock()
		defer mu.Unlock()
		if len(ids) > 0 {
			running[ih.Name] = ids
		}
		return err
	})
	return running, err
}

// stepPoll is how often AwaitSteps looks again.
const stepPoll = time.Second

// AwaitSteps waits, without touching them, for steps that a run has left under
// way: what they are changing can not be planned. tell is given what is waited
// for, once. A host that is away is for the plan to complain about.
func AwaitSteps(ctx context.Context, s *Site, tell func(string)) error {
	if s.RequireAll() != nil {
		return nil
	}
	told := false
	for {
		running, err := s.runningSteps(ctx)
		if err != nil || len(running) == 0 {
			return err
		}
		if !told {
			told = true
			for _, name := range slices.Sorted(maps.Keys(running)) {
				tell(name + ": waiting for what an earlier run has begun: " + strings.Join(running[name], ", "))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(stepPoll):
		}
	}
}
