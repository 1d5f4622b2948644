package provision

import (
	"context"
	"fmt"
	"slices"
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
	facts   map[string]hostFacts
	onto    *rehousing // what the cluster is made anew from; nil for a plain apply
	beginning
	forecast
}

func newApply(s *Site) (*apply, error) {
	if err := s.RequireAll(); err != nil {
		return nil, err
	}
	a := &apply{Site: s}
	return a, a.openBundle()
}

func (a *apply) close() {
	if a.bundle != nil {
		_ = a.bundle.Close() // it was only read
	}
}

// Apply brings the hosts to what the inventory says: from bare hosts to a
// verified cluster, or from a half-done run to its end, or nothing at all.
// It needs every host.
func Apply(ctx context.Context, s *Site, run *phase.Runner) error {
	return ApplyPlan(ctx, s, nil, run)
}

// ApplyPlan is Apply for a plan that was agreed to: a *MovedError, before
// anything is changed, when another one would be made now. nil agrees to any.
func ApplyPlan(ctx context.Context, s *Site, agreed *Plan, run *phase.Runner) error {
	a, err := newApply(s)
	if err != nil {
		return err
	}
	defer a.close()
	if err := a.schedulable(); err != nil {
		return err
	}
	return s.operate(ctx, "apply", run, func(ctx context.Context) error {
		if err := a.finishSteps(ctx, run); err != nil {
			return err
		}
		if err := a.findFirst(ctx); err != nil {
			return err
		}
		if agreed != nil {
			now, err := makePlan(ctx, s, phase.Planner{SkipGates: true})
			if err != nil {
				return err
			}
			if err := agreed.Moved(now); err != nil {
				return err
			}
		}
		return run.Run(ctx, a.stages())
	})
}

func (a *apply) stages() []phase.Stage {
	c := a.Cluster
	all, masters, workers := c.Spec.Hosts, c.ControlPlanes(), c.Workers()
	running, bare := a.divide(c.Nodes())
	stages := []phase.Stage{phase.One(a.preflight())}
	if a.established {
		stages = append(stages, phase.One(a.agree()))
	}
	stages = append(stages,
		phase.AtOnce(all, a.claim))
	stages = append(stages, a.onto.begun()...)
	stages = append(stages,
		phase.Together(phase.AtOnce(all, a.software), phase.One(a.makeSecrets())),
		phase.AtOnce(bare, a.configure),
		phase.InTurn(running, a.reconfigure),
		phase.AtOnce(c.Nodes(), a.images),
		phase.AtOnce(masters, a.pushSecrets),
		phase.AtOnce(masters, a.enrol),
		phase.AtOnce(append(workers, notNodes(all)...), a.enrol),
	)
	stages = append(stages, a.balancing()...)
	if !a.established {
		stages = append(stages, a.onto.seeded()...)
		stages = append(stages,
			phase.Together(phase.One(a.onto.initialise(a.initialise())), phase.AtOnce(a.joiners(), a.prepare)),
			phase.One(a.establish(a.first)))
		if a.external() {
			stages = append(stages, phase.One(a.checkBalancer()))
		}
	} else {
		stages = append(stages, phase.AtOnce(a.joiners(), a.prepare))
	}
	stages = append(stages, a.onto.settled()...)
	stages = append(stages,
		phase.InTurn(a.joiners(), a.join),
		phase.AtOnce(masters, a.establish))
	if a.established { // an earlier run may have broken off between harden and readmit
		stages = append(stages, phase.One(a.readmitAll()))
	}
	if len(masters) >= hardenFrom {
		stages = append(stages, phase.One(a.rememberExisting()), a.hardenInTurn(masters))
	}
	stages = append(stages,
		phase.One(a.network()),
		phase.AtOnce(workers, a.joinWorker),
		phase.AtOnce(c.Nodes(), a.labels),
		phase.One(a.sweepTokens()),
		phase.One(a.verify()),
		phase.One(a.dataPath()),
	)
	return slices.Concat(stages, a.scheduling(), a.onto.ended())
}

func notNodes(hosts []inventory.Host) []inventory.Host {
	return slices.DeleteFunc(slices.Clone(hosts), func(h inventory.Host) bool { return h.Role != inventory.RoleLoadBalancer })
}

// newcomersLast puts the hosts that balance already before those that do not
// yet: a newcomer whom the holder of the VIP does not know as a peer would hear
// no announcement, and take the address too.
func newcomersLast(balancers []inventory.Host, facts map[string]hostFacts) []inventory.Host {
	ordered := slices.Clone(balancers)
	slices.SortStableFunc(ordered, func(a, b inventory.Host) int {
		switch x, y := facts[a.Name].balances, facts[b.Name].balances; {
		case x == y:
			return 0
		case x:
			return -1
		}
		return 1
	})
	return ordered
}

// divide parts the hosts that the cluster relies on from those that it does
// not yet: the first are changed one at a time.
func (a *apply) divide(nodes []inventory.Host) (running, bare []inventory.Host) {
	for _, h := range nodes {
		f := a.facts[h.Name]
		// A master that was only prepared has its kubeconfigs and no kubelet yet.
		if f.marker.Established || h.Role == inventory.RoleWorker && f.node {
			running = append(running, h)
		} else {
			bare = append(bare, h)
		}
	}
	return running, bare
}

func (a *apply) openBundle() (err error) {
	a.bundle, err = OpenBundle(a.Site)
	return err
}

// OpenBundle opens the inventory's bundle and checks that it is of the wanted
// version; nil without an error when software is found installed.
func OpenBundle(s *Site) (*bundle.Bundle, error) {
	spec := s.Cluster.Spec
	if spec.Software.Source != inventory.SourceBundle {
		return nil, nil
	}
	b, err := bundle.Open(s.path(spec.Software.Bundle))
	if err != nil {
		return nil, err
	}
	if v := b.Manifest().KubernetesVersion; v != spec.Kubernetes.Version {
		b.Close()
		return nil, fmt.Errorf("the bundle %s holds Kubernetes %s, the inventory wants %s", spec.Software.Bundle, v, spec.Kubernetes.Version)
	}
	return b, nil
}

// joiners are the masters that join, or have joined: all but the one that the
// cluster is made on, and all of them once it is established.
func (a *apply) joiners() []inventory.Host {
	var joiners []inventory.Host
	for _, h := range a.Cluster.ControlPlanes() {
		if a.established || h.Name != a.first.Name {
			joiners = append(joiners, h)
		}
	}
	return joiners
}
