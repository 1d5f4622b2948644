package provision

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/bundle"
	"github.com/ha-install/ha-install/provision/haproxy"
	"github.com/ha-install/ha-install/provision/phase"
)

// olderScript prints which packages a host has in an older version than the one
// named after each, as dpkg orders versions.
const olderScript = `while [ $# -gt 1 ]; do
	is=$(dpkg-query -W -f '${Version}' "$1" 2>/dev/null) && [ -n "$is" ] && dpkg --compare-versions "$is" lt "$2" && echo "$1"
	shift 2
done
exit 0
`

// olderPackages are those of the bundle that a host has in an older version. A
// newer one, of the distribution's own updates, stays.
func (u *upgrade) olderPackages(ctx context.Context, ih inventory.Host) ([]bundle.Item, error) {
	if u.bundle == nil {
		return nil, nil
	}
	argv := []string{"sh", "-c", olderScript, "sh"}
	items := map[string]bundle.Item{}
	for _, item := range u.bundle.For(u.Cluster.SoftwareRoles(ih)...) {
		if item.Kind == bundle.KindPackage {
			items[item.Package.Name] = item
		}
	}
	for _, name := range sortedKeys(items) {
		argv = append(argv, name, items[name].Package.Version)
	}
	h, err := u.host(ih.Name)
	if err != nil {
		return nil, err
	}
	out, err := h.Query(ctx, argv...)
	if err != nil {
		return nil, err
	}
	var older []bundle.Item
	for name := range strings.FieldsSeq(string(out)) {
		older = append(older, items[name])
	}
	return older, nil
}

// packages brings a host's packages to the bundle's versions. A balancer gives
// the VIP away first: dpkg starts HAProxy anew.
func (u *upgrade) packages(ih inventory.Host) phase.Phase {
	p := phase.Phase{
		Name: "packages", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			older, err := u.olderPackages(ctx, ih)
			if err != nil || len(older) > 0 || !u.Cluster.Balances(ih) {
				return err == nil && len(older) == 0, err
			}
			return u.balancerRuns(ctx, ih) // a run that broke off may have left it silent
		},
		Do: func(ctx context.Context) error {
			older, err := u.olderPackages(ctx, ih)
			if err != nil {
				return err
			}
			h, err := u.host(ih.Name)
			if err != nil {
				return err
			}
			phase.Expect(ctx, sizes(older))
			if !u.Cluster.Balances(ih) {
				return u.installPackages(ctx, h, older)
			}
			if len(older) > 0 {
				if err := runAll(ctx, h, []string{"systemctl", "stop", "keepalived.service"}); err != nil {
					return err
				}
				if err := u.installPackages(ctx, h, older); err != nil {
					return err
				}
			}
			return runAll(ctx, h, []string{"systemctl", "start", "haproxy.service", "keepalived.service"})
		},
		Explain: func(ctx context.Context) ([]phase.Change, error) {
			older, err := u.olderPackages(ctx, ih)
			var changes []phase.Change
			for _, item := range older {
				changes = append(changes, phase.Change{Kind: changePackage, Name: item.Package.Name, Text: item.Package.Version, Bytes: item.Size})
			}
			switch {
			case !u.Cluster.Balances(ih):
			case len(older) > 0:
				changes = append(changes, phase.Change{Kind: changeRestart, Name: "haproxy, keepalived", Text: "when another balancer holds " + u.Cluster.Spec.LoadBalancer.VIP})
			default:
				changes = append(changes, phase.Change{Kind: changeStart, Name: "haproxy, keepalived"})
			}
			return changes, err
		},
	}
	if u.Cluster.Balances(ih) {
		if len(u.Cluster.Balancers()) > 1 {
			p.Needs = []phase.Check{u.othersBalance(ih)}
		}
		p.Undo = func(ctx context.Context) error {
			h, err := u.host(ih.Name)
			if err != nil {
				return err
			}
			return runAll(ctx, h, []string{"systemctl", "start", "haproxy.service", "keepalived.service"})
		}
		p.Gate = []phase.Check{u.unitActive(ih, "haproxy"), u.unitActive(ih, "keepalived"), u.balances(ih)}
		p.GateTimeout = restartGate
	}
	return p
}

// balancerRuns says whether a balancer's daemons run.
func (u *upgrade) balancerRuns(ctx context.Context, ih inventory.Host) (bool, error) {
	h, err := u.host(ih.Name)
	if err != nil {
		return false, err
	}
	for _, unit := range balancerUnits {
		if up, err := active(ctx, h, unit.name); !up || err != nil {
			return false, err
		}
	}
	return true, nil
}

// othersBalance wants another balancer that can take the VIP.
func (u *upgrade) othersBalance(ih inventory.Host) phase.Check {
	return phase.Check{Name: "another balancer beside " + ih.Name, Run: func(ctx context.Context) error {
		var seen []error
		for _, other := range u.Cluster.Balancers() {
			if other.Name == ih.Name {
				continue
			}
			err := u.unitActive(other, "keepalived").Run(ctx)
			if err == nil {
				err = u.balances(other).Run(ctx)
			}
			if err == nil {
				return nil
			}
			seen = append(seen, err)
		}
		return fmt.Errorf("none can take %s: %w", u.Cluster.Spec.LoadBalancer.VIP, phase.Join(seen...))
	}}
}

// balances wants a balancer to serve every master but those that were down
// before: their own turn brings them back.
func (u *upgrade) balances(ih inventory.Host) phase.Check {
	return phase.Check{Name: ih.Name + " to balance", Run: func(ctx context.Context) error {
		h, err := u.host(ih.Name)
		if err != nil {
			return err
		}
		view, err := apiServers.Look(ctx, h)
		if err != nil {
			return err
		}
		for _, master := range u.Cluster.ControlPlanes() {
			if server, _ := view.Server(master.Name); server.State != haproxy.Up && u.nodes[master.Name].out == nil {
				return fmt.Errorf("on %s, %s is %s", ih.Name, master.Name, server)
			}
		}
		return nil
	}}
}

// holderLast orders balancers so that the VIP moves once.
func (u *upgrade) holderLast(ctx context.Context) ([]inventory.Host, error) {
	held := map[string]bool{}
	if u.Cluster.Spec.LoadBalancer.VIP == "" {
		return u.Cluster.Balancers(), nil
	}
	for _, ih := range u.Cluster.Balancers() {
		h, err := u.host(ih.Name)
		if err != nil {
			return nil, err
		}
		if held[ih.Name], err = holds(ctx, h, u.Cluster.Spec.LoadBalancer.VIP); err != nil {
			return nil, err
		}
	}
	all := u.Cluster.Balancers()
	slices.SortStableFunc(all, func(a, b inventory.Host) int {
		switch {
		case held[a.Name] == held[b.Name]:
			return 0
		case held[a.Name]:
			return 1
		}
		return -1
	})
	return all, nil
}
