package provision

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/phase"
)

var routerIDLine = regexp.MustCompile(`(?m)^\s*virtual_router_id (\d+)$`)

// routerIDIn is what a configuration of keepalived announces; 0 for none.
func routerIDIn(config []byte) int {
	m := routerIDLine.FindSubmatch(config)
	if m == nil {
		return 0
	}
	id, err := strconv.Atoi(string(m[1]))
	if err != nil {
		return 0
	}
	return id
}

// announcers are the hosts of this cluster that keepalived is configured on,
// the one to keep the VIP first: who holds it, with the inventory's router ID
// rather than with another one.
func announcers(c *inventory.Cluster, facts map[string]hostFacts) []inventory.Host {
	all := slices.DeleteFunc(slices.Clone(c.Spec.Hosts), func(h inventory.Host) bool {
		f := facts[h.Name]
		return !f.balances || f.marker.Cluster != c.Metadata.Name
	})
	rank := func(h inventory.Host) int {
		switch f := facts[h.Name]; {
		case !f.holdsVIP:
			return 2
		case f.routerID != c.Spec.LoadBalancer.VirtualRouterID:
			return 1
		}
		return 0
	}
	slices.SortStableFunc(all, func(a, b inventory.Host) int { return cmp.Compare(rank(a), rank(b)) })
	return all
}

// misnumbered are those of the hosts with another router ID than the inventory's.
func misnumbered(c *inventory.Cluster, facts map[string]hostFacts, hosts []inventory.Host) []inventory.Host {
	return slices.DeleteFunc(slices.Clone(hosts), func(h inventory.Host) bool {
		return facts[h.Name].routerID == c.Spec.LoadBalancer.VirtualRouterID
	})
}

// renumbering has the router ID change where the VIP is, while the others are
// silent: two that announce different IDs do not hear each other, and both would
// hold the VIP. It returns the balancers in the order in which they are to be
// configured, which starts them again.
func (a *apply) renumbering(balancers []inventory.Host) ([]phase.Stage, []inventory.Host) {
	all := announcers(a.Cluster, a.facts)
	if len(misnumbered(a.Cluster, a.facts, all)) == 0 {
		return nil, balancers
	}
	keeper := all[0]
	ordered := slices.Clone(balancers)
	if i := slices.IndexFunc(ordered, func(h inventory.Host) bool { return h.Name == keeper.Name }); i > 0 {
		ordered = slices.Insert(slices.Delete(ordered, i, i+1), 0, keeper)
	}
	silence := func(ih inventory.Host) phase.Phase { return a.silence(ih, keeper) }
	return []phase.Stage{phase.InTurn(misnumbered(a.Cluster, a.facts, all[1:]), silence)}, ordered
}

// silence ends keepalived on a host until it is configured anew.
func (a *apply) silence(ih, keeper inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "silence", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			h, err := a.host(ih.Name)
			if err != nil {
				return false, err
			}
			up, err := active(ctx, h, "keepalived")
			return !up, err
		},
		Needs: []phase.Check{a.notMovedTo(ih, keeper)},
		Do: func(ctx context.Context) error {
			h, err := a.host(ih.Name)
			if err != nil {
				return err
			}
			// Disabled, too: it must not announce the old ID again when the host reboots.
			return runAll(ctx, h, []string{"systemctl", "disable", "--now", "keepalived.service"})
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeRun, Name: "keepalived of " + ih.Name, Text: "stops, until " + keeper.Name + ", which holds the VIP, has the new router ID"}}, nil
		},
	}
}

// notMovedTo wants the VIP not to have moved to a host that is about to give it up.
func (a *apply) notMovedTo(ih, keeper inventory.Host) phase.Check {
	vip := a.Cluster.Spec.LoadBalancer.VIP
	return phase.Check{Name: vip + " to stay on " + keeper.Name, Run: func(ctx context.Context) error {
		var held [2]bool
		for i, name := range []string{ih.Name, keeper.Name} {
			h, err := a.host(name)
			if err != nil {
				return err
			}
			if held[i], err = holds(ctx, h, vip); err != nil {
				return err
			}
		}
		if held[0] && !held[1] {
			return fmt.Errorf("it has moved to %s; run the same command again", ih.Name)
		}
		return nil
	}}
}
