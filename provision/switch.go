package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// balancing sets up the hosts that balance. Where others did until now, the VIP
// is handed over: who holds it gets to know those that will, they come up beside
// him as his peers, and only then he gives it up, announcing that at once.
func (a *apply) balancing() []phase.Stage {
	stages, balancers := a.renumbering(newcomersLast(a.Cluster.Balancers(), a.facts))
	left := leaving(a.Cluster, a.facts)
	if len(left) == 0 {
		return append(stages, phase.InTurn(balancers, a.balance))
	}
	return append(stages,
		phase.InTurn(left, a.introduce),
		phase.InTurn(balancers, a.balance),
		phase.InTurn(left, a.retire),
		phase.InTurn(balancers, a.forget),
	)
}

// introduce has a host that is to give up the VIP announce it to those that
// will hold it: they would take it beside him otherwise.
func (a *apply) introduce(ih inventory.Host) phase.Phase {
	wanted := func(ctx context.Context) (host.Host, []host.File, error) {
		h, b, err := a.balancer(ctx, ih, leaving(a.Cluster, a.facts))
		if err != nil {
			return nil, nil, err
		}
		f, err := templates.KeepalivedFile(a.Cluster, ih, b)
		return h, hostFiles([]templates.File{f}), err
	}
	return phase.Phase{
		Name: "introduce", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			h, files, err := wanted(ctx)
			if err != nil {
				return false, err
			}
			if up, err := active(ctx, h, "keepalived"); err != nil || !up {
				return !up, err // it announces nothing
			}
			owed, err := changes(ctx, h, "introduce", files)
			return len(owed) == 0, err
		},
		Do: func(ctx context.Context) error {
			h, files, err := wanted(ctx)
			if err != nil {
				return err
			}
			if _, err := owe(ctx, h, "introduce", files); err != nil {
				return err
			}
			if err := testKeepalived(ctx, h, files); err != nil {
				return err
			}
			if err := putFiles(ctx, h, files); err != nil {
				return err
			}
			return settle(ctx, h, "introduce", []string{"systemctl", "reload-or-restart", "keepalived.service"})
		},
		Gate: []phase.Check{a.oneHolder()},
		Explain: func(ctx context.Context) ([]phase.Change, error) {
			h, files, err := wanted(ctx)
			if err != nil {
				return nil, err
			}
			explained, err := a.explainFiles(ctx, h, files)
			return append(explained, phase.Change{Kind: changeReload, Name: "keepalived"}), err
		},
	}
}

// retire ends the balancer of a host whose place others have taken.
func (a *apply) retire(ih inventory.Host) phase.Phase {
	needs, gate := []phase.Check{a.oneHolder()}, []phase.Check{a.oneHolder()}
	if a.established {
		for _, master := range a.Cluster.ControlPlanes() {
			if a.facts[master.Name].marker.Established {
				gate = append(gate, a.endpointFrom(master))
			}
		}
	}
	return phase.Phase{
		Name: "retire", Host: ih.Name, Needs: needs, Gate: gate,
		Done: func(ctx context.Context) (bool, error) {
			h, err := a.host(ih.Name)
			if err != nil {
				return false, err
			}
			seen, err := h.Stat(ctx, templates.KeepalivedPath)
			return len(seen) == 0, err
		},
		Do: func(ctx context.Context) error {
			h, err := a.host(ih.Name)
			if err != nil {
				return err
			}
			return endBalancer(ctx, h)
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeClean, Name: ih.Name, Text: "its balancer: keepalived gives the VIP up and is disabled, as HAProxy is; their files are moved aside"}}, nil
		},
	}
}

// forget takes the hosts that balance no more from the peers of those that do.
func (a *apply) forget(ih inventory.Host) phase.Phase {
	p := a.balanceWith("forget", ih, nil)
	p.After = []string{"balancer"}
	p.Gate = append(p.Gate, a.oneHolder())
	p.Foresee = func(context.Context, []string) (phase.State, []phase.Change, error) {
		return phase.ToChange, []phase.Change{
			{Kind: changeFile, Name: templates.KeepalivedPath, Text: "without the hosts that balance no more"}, {Kind: changeReload, Name: "keepalived"},
		}, nil
	}
	return p
}

// endBalancer ends keepalived first: it gives the VIP up while HAProxy still
// serves. Its configuration goes last, by which a later run knows what is left to do.
func endBalancer(ctx context.Context, h host.Host) error {
	if err := endUnits(ctx, h, []string{"systemctl", "disable", "--now"}, "keepalived.service", "haproxy.service"); err != nil {
		return err
	}
	for _, p := range []string{templates.HAProxyConfigPath, templates.HAProxyCAPath, templates.KeepalivedPath} {
		if _, err := h.MoveAside(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// oneHolder wants the VIP on exactly one host.
func (a *apply) oneHolder() phase.Check {
	vip := a.Cluster.Spec.LoadBalancer.VIP
	return phase.Check{Name: "one host to hold " + vip, Run: func(ctx context.Context) error {
		hosts := append(a.Cluster.Balancers(), leaving(a.Cluster, a.facts)...)
		held := make([]bool, len(hosts))
		err := a.onAll(ctx, hosts, func(ctx context.Context, ih inventory.Host, h host.Host) (err error) {
			held[slices.IndexFunc(hosts, func(o inventory.Host) bool { return o.Name == ih.Name })], err = holds(ctx, h, vip)
			return err
		})
		if err != nil {
			return err
		}
		var holders []string
		for i, h := range hosts {
			if held[i] {
				holders = append(holders, h.Name)
			}
		}
		switch len(holders) {
		case 0:
			return errors.New("no host holds it")
		case 1:
			return nil
		}
		return fmt.Errorf("%s hold it", strings.Join(holders, ", "))
	}}
}
