package provision

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// Reset takes the cluster off its hosts: workers, then masters, then what
// balances, be it on the masters themselves. Keys, manifests and etcd's data are moved aside on each host, so
// that a cluster that was reset by mistake can be brought back. Hosts that
// bear no marker of this cluster are left alone.
func Reset(ctx context.Context, s *Site, run *phase.Runner) error {
	if err := s.RequireAll(); err != nil {
		return err
	}
	return s.operate(ctx, "reset", run, func(ctx context.Context) error { return s.reset(ctx, run) })
}

func (s *Site) reset(ctx context.Context, run *phase.Runner) error {
	if err := s.finishSteps(ctx, run); err != nil {
		return err
	}
	clusters, err := s.markers(ctx)
	if err != nil {
		return err
	}
	ours := func(hosts []inventory.Host) []inventory.Host {
		var kept []inventory.Host
		for _, h := range hosts {
			if clusters[h.Name] == s.Cluster.Metadata.Name {
				kept = append(kept, h)
			}
		}
		return kept
	}
	c := s.Cluster
	return run.Run(ctx, []phase.Stage{
		phase.AtOnce(ours(c.Workers()), s.resetNode),
		phase.AtOnce(ours(c.ControlPlanes()), s.resetNode),
		phase.AtOnce(ours(mayBalance(c)), s.resetBalancer),
		phase.AtOnce(ours(c.Spec.Hosts), s.disown),
	})
}

// mayBalance are the hosts that balance, and those that still may from before
// the inventory had it otherwise.
func mayBalance(c *inventory.Cluster) []inventory.Host {
	return slices.DeleteFunc(slices.Clone(c.Spec.Hosts), func(h inventory.Host) bool { return h.Role != inventory.RoleLoadBalancer && !c.Balances(h) })
}

func (s *Site) resetNode(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "reset", Host: ih.Name,
		Do: func(ctx context.Context) error {
			h, err := s.host(ih.Name)
			if err != nil {
				return err
			}
			if err := endSchedule(ctx, h); err != nil {
				return err
			}
			if err := cleanNode(ctx, h); err != nil {
				return err
			}
			// The next cluster may have another pod network: the runtime takes
			// the first file that it finds, and nodes would be Ready without one.
			if err := keepEntries(ctx, h, templates.CNIConfigDir); err != nil {
				return err
			}
			// What an upgrade kept is of this cluster: the next one keeps its own.
			if err := keep(ctx, h, beforeUpgrade); err != nil {
				return err
			}
			return endUnits(ctx, h, []string{"systemctl", "disable"}, "kubelet.service")
		},
	}
}

func (s *Site) resetBalancer(ih inventory.Host) phase.Phase {
	name := "reset"
	if ih.Role != inventory.RoleLoadBalancer {
		name = "reset-balancer" // the other one is the master's
	}
	return phase.Phase{
		Name: name, Host: ih.Name,
		Do: func(ctx context.Context) error {
			h, err := s.host(ih.Name)
			if err != nil {
				return err
			}
			return endBalancer(ctx, h)
		},
	}
}

// disown removes the marker and what we kept beside it; last, so that a reset
// that broke off can be repeated. The records of steps stay.
func (s *Site) disown(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "disown", Host: ih.Name,
		Do: func(ctx context.Context) error {
			h, err := s.host(ih.Name)
			if err != nil {
				return err
			}
			_, err = h.Run(ctx, host.Command{Argv: []string{"rm", "-rf", markerFile, stateDir + "/kubeadm", stateDir + "/manifests", stateDir + "/owed", restoreFile, restoreDir}})
			return err
		},
	}
}

// markers reads which cluster each host belongs to; hosts of none have no entry.
func (s *Site) markers(ctx context.Context) (map[string]string, error) {
	var mu sync.Mutex
	clusters := map[string]string{}
	err := s.onAll(ctx, s.Cluster.Spec.Hosts, func(ctx context.Context, ih inventory.Host, h host.Host) error {
		m, err := readMarker(ctx, h)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		clusters[ih.Name] = m.Cluster
		return err
	})
	return clusters, err
}
