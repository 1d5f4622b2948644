package provision

import (
	"context"
	"fmt"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/bundle"
	"github.com/ha-install/ha-install/provision/phase"
)

// How long a gate may take, from quorum.md: a join pulls up a whole column, a
// restart one static pod.
const (
	joinGate    = 8 * time.Minute
	restartGate = 5 * time.Minute
)

// apply is one run of `ha-install apply`.
type apply struct {
	*Site
	bundle  *bundle.Bundle // nil when software is found installed
	secrets *secrets       // filled by the phase "secrets"
	first   inventory.Host // where the cluster begins, or began
	exists  bool           // an etcd member or its manifest was found on a master
}

// Apply brings the hosts to what the inventory says: from bare hosts to a
// verified cluster, or from a half-done run to its end, or nothing at all.
// It needs every host.
func Apply(ctx context.Context, s *Site, run *phase.Runner) error {
	if err := s.RequireAll(); err != nil {
		return err
	}
	a := &apply{Site: s}
	if err := a.openBundle(); err != nil {
		return err
	}
	if a.bundle != nil {
		defer a.bundle.Close()
	}
	if err := a.findFirst(ctx); err != nil {
		return err
	}
	if err := a.sameVersion(ctx); err != nil {
		return err
	}
	return run.Run(ctx, a.stages())
}

func (a *apply) stages() []phase.Stage {
	c := a.Cluster
	all, masters, workers := c.Spec.Hosts, c.ControlPlanes(), c.Workers()
	nodes := c.Nodes()
	stages := []phase.Stage{
		phase.One(a.preflight()),
		phase.AtOnce(all, a.claim),
		phase.Together(phase.AtOnce(all, a.software), phase.One(a.makeSecrets())),
		phase.AtOnce(nodes, a.configure),
		phase.AtOnce(nodes, a.images),
		phase.AtOnce(masters, a.pushSecrets),
		phase.InTurn(c.Balancers(), a.balance),
		phase.Together(phase.One(a.initialise()), phase.AtOnce(a.joiners(), a.prepare)),
		phase.InTurn(a.joiners(), a.join),
	}
	if len(masters) >= hardenFrom {
		stages = append(stages, phase.One(a.rememberExisting()), phase.InTurn(masters, a.harden))
	}
	return append(stages,
		phase.One(a.network()),
		phase.AtOnce(workers, a.joinWorker),
		phase.AtOnce(nodes, a.labels),
		phase.One(a.sweepTokens()),
		phase.One(a.verify()),
		phase.One(a.dataPath()),
	)
}

func (a *apply) openBundle() error {
	if a.Cluster.Spec.Software.Source != inventory.SourceBundle {
		return nil
	}
	b, err := bundle.Open(a.path(a.Cluster.Spec.Software.Bundle))
	if err != nil {
		return err
	}
	if v := b.Manifest().KubernetesVersion; v != a.Cluster.Spec.Kubernetes.Version {
		b.Close()
		return fmt.Errorf("the bundle %s holds Kubernetes %s, the inventory wants %s", a.Cluster.Spec.Software.Bundle, v, a.Cluster.Spec.Kubernetes.Version)
	}
	a.bundle = b
	return nil
}

// joiners are the masters other than the first, in the inventory's order.
func (a *apply) joiners() []inventory.Host {
	var rest []inventory.Host
	for _, h := range a.Cluster.ControlPlanes() {
		if h.Name != a.first.Name {
			rest = append(rest, h)
		}
	}
	return rest
}
