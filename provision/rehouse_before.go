package provision

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
)

// atOnceKnocked is how many ports one host tries at a time.
const atOnceKnocked = 32

// kubeletPort is where every kubelet answers its API server.
const kubeletPort = "10250"

// stillThere refuses while anything of the cluster before is open to one of the
// new masters: a member or an API server, and there would be two clusters with one
// identity; or a kubelet, which would end its pods when their Node is taken out, or
// go on with them beside those that are made anew.
func (r *rehousing) stillThere(ctx context.Context) error {
	masters, err := r.reached(ctx, formerly(r.Cluster, r.source.m), "2379", "2380", apiPort)
	if err != nil {
		return err
	}
	kubelets, err := r.reached(ctx, elsewhereThan(r.Cluster, r.then.kubelets), kubeletPort)
	if err != nil {
		return err
	}
	var all []error
	if len(masters) > 0 {
		all = append(all, &ConflictError{
			What: "masters of the cluster in the backup still serve",
			Why:  strings.Join(masters, "; ") + ": clients would be told two truths by two clusters with the same CA",
			Run:  "power them off for good, or restore onto them: ha-install restore with their inventory",
		})
	}
	if len(kubelets) > 0 {
		all = append(all, &ConflictError{
			What: "Nodes of the cluster in the backup still run, and are not in the inventory",
			Why: strings.Join(kubelets, "; ") + ": their Nodes and pods are taken out of the API. What runs there would go on beside what is made anew, or, " +
				"where their kubelets find the new cluster, be ended with what only it has on its disks",
			Run: "save what their disks have, then power them off for good; or install them anew and put them into the inventory; then the same command again. " +
				"A kubelet of another cluster, at an address that this one had: stop it until the restore is done",
		})
	}
	return phase.Join(all...)
}

// reached are those of the addresses and ports that are open to a master.
func (r *rehousing) reached(ctx context.Context, addresses []string, ports ...string) ([]string, error) {
	var mu sync.Mutex
	var seen []string
	err := r.onAll(ctx, r.Cluster.ControlPlanes(), func(ctx context.Context, ih inventory.Host, h host.Host) error {
		var all errgroup.Group
		all.SetLimit(atOnceKnocked)
		for _, address := range addresses {
			for _, port := range ports {
				all.Go(func() error {
					if at := net.JoinHostPort(address, port); answer(ctx, h, at) == isOpen {
						mu.Lock()
						defer mu.Unlock()
						seen = append(seen, ih.Name+" reaches "+at)
					}
					return nil
				})
			}
		}
		_ = all.Wait() // knocking has no errors
		return ctx.Err()
	})
	slices.Sort(seen)
	return seen, err
}
