package provision

import (
	"context"
	"sync"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
)

// finishSteps waits for what a run that was killed has left running: steps go
// on without their installer. Nothing may be looked at or decided before: a
// kubeadm reset that is still under way takes away what is put in place now.
func (s *Site) finishSteps(ctx context.Context, run *phase.Runner) error {
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
