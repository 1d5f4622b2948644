package provision

import (
	"context"
	"slices"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// leavesOut are the balancers that have to forget masters: where some are left
// out for good, they must get no clients should they come back and serve what
// they had.
func (r *restore) leavesOut() []inventory.Host {
	if len(r.whole.ControlPlanes()) == len(r.Cluster.ControlPlanes()) {
		return nil
	}
	return r.Cluster.Balancers()
}

// leaveOut has a balancer send clients only to the masters that take part. All
// else stays as it is: who balances has to know each other, also those that are
// away.
func (r *restore) leaveOut(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "leave-out", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			h, files, err := r.reducedFiles(ctx, ih)
			if err != nil {
				return false, err
			}
			owed, err := changes(ctx, h, "balancer", files)
			return len(owed) == 0, err
		},
		Do: func(ctx context.Context) error {
			h, files, err := r.reducedFiles(ctx, ih)
			if err != nil {
				return err
			}
			return configureBalancer(ctx, h, files)
		},
		Gate: []phase.Check{r.unitActive(ih, "haproxy")},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeReload, Name: "haproxy", Text: "sends nobody to the masters that are left out"}}, nil
		},
	}
}

// reducedFiles are a balancer's, with only the masters that take part behind HAProxy.
func (r *restore) reducedFiles(ctx context.Context, ih inventory.Host) (host.Host, []host.File, error) {
	if err := r.readOwnSecrets(ctx); err != nil {
		return nil, nil, err
	}
	h, b, err := r.balancer(ctx, ih, nil)
	if err != nil {
		return nil, nil, err
	}
	all, err := templates.BalancerFiles(r.whole, ih, b)
	if err != nil {
		return nil, nil, err
	}
	some, err := templates.BalancerFiles(r.Cluster, ih, b)
	if err != nil {
		return nil, nil, err
	}
	isHAProxy := func(f templates.File) bool { return f.Path == templates.HAProxyConfigPath }
	all[slices.IndexFunc(all, isHAProxy)] = some[slices.IndexFunc(some, isHAProxy)]
	return h, hostFiles(all), nil
}

// readOwnSecrets takes the cluster's secrets from the first master that takes part.
func (r *restore) readOwnSecrets(ctx context.Context) error {
	if r.secrets != nil {
		return nil
	}
	h, err := r.host(r.Cluster.ControlPlanes()[0].Name)
	if err != nil {
		return err
	}
	r.secrets, err = readSecrets(ctx, h, r.Cluster.Metadata.Name)
	return err
}
