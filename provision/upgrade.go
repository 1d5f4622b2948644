package provision

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/release"
)

// UpgradeOptions say what an upgrade may do besides.
type UpgradeOptions struct {
	// DrainTimeout bounds how long the pods of one Node are asked to leave;
	// 0 means DefaultDrainTimeout.
	DrainTimeout time.Duration
	// DeleteUnmanaged lets pods go that nobody will bring back elsewhere.
	DeleteUnmanaged bool
	// WorkersAtOnce is how many workers are upgraded at a time; 0 means one.
	WorkersAtOnce int
	// AcceptConfig lets the inventory win over what kubeadm-config holds in the
	// cluster, where the two differ.
	AcceptConfig bool
	// AcceptRemoved lets clients fail that ask for what the version has no more.
	AcceptRemoved bool
	// Backup is where the snapshot from before the upgrade goes.
	Backup BackupOptions
	// Before and After are the operator's own, called with a host's name when it
	// is about to be changed and when it is back; nil for none.
	Before, After func(ctx context.Context, host string) error
}

// DefaultDrainTimeout is how long the pods of a Node may take to leave it.
const DefaultDrainTimeout = 5 * time.Minute

// upgrade is one run of `ha-install upgrade`. The inventory names the version
// to be reached, and its bundle.
type upgrade struct {
	*apply
	UpgradeOptions
	nodes map[string]nodeSeen // by host
	order []inventory.Host    // masters, the leader of etcd last
	// balancers of their own, who holds the VIP last.
	balancers []inventory.Host

	mu   sync.Mutex
	dues map[string]bool // by host; see due
}

func newUpgrade(s *Site, o UpgradeOptions) (*upgrade, error) {
	a, err := newApply(s)
	if err != nil {
		return nil, err
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = DefaultDrainTimeout
	}
	o.WorkersAtOnce = max(o.WorkersAtOnce, 1)
	return &upgrade{apply: a, UpgradeOptions: o, dues: map[string]bool{}}, nil
}

// Upgrade takes a running cluster to the version of the inventory, one master
// at a time, and then its workers. It begins where an earlier run stopped, and
// changes nothing on a cluster that has arrived. agreed is the plan that the
// operator has seen; nil agrees to any.
func Upgrade(ctx context.Context, s *Site, o UpgradeOptions, agreed *Plan, run *phase.Runner) error {
	u, err := newUpgrade(s, o)
	if err != nil {
		return err
	}
	defer u.close()
	return s.operate(ctx, "upgrade", run, func(ctx context.Context) error {
		if err := u.finishSteps(ctx, run); err != nil {
			return err
		}
		if err := u.begin(ctx); err != nil {
			return err
		}
		if agreed != nil {
			now, err := planUpgrade(ctx, s, o, phase.Planner{SkipGates: true})
			if err != nil {
				return err
			}
			if err := agreed.Moved(now); err != nil {
				return err
			}
		}
		return run.Run(ctx, u.stages())
	})
}

// PlanUpgrade says what Upgrade would do, as MakePlan does of Apply.
func PlanUpgrade(ctx context.Context, s *Site, o UpgradeOptions, tell func(string)) (Plan, error) {
	return planUpgrade(ctx, s, o, phase.Planner{Tell: tell})
}

func planUpgrade(ctx context.Context, s *Site, o UpgradeOptions, planner phase.Planner) (Plan, error) {
	view, done := s.view()
	defer done()
	u, err := newUpgrade(view, o)
	if err != nil {
		return Plan{}, err
	}
	defer u.close()
	if err := u.begin(ctx); err != nil {
		return Plan{}, err
	}
	return u.plan(ctx, planner, u.stages())
}

func (u *upgrade) stages() []phase.Stage {
	c := u.Cluster
	stages := []phase.Stage{
		phase.One(u.preflight()),
		phase.One(u.ready()),
		// Masters in turn here too: they serve while their disks and cores unpack.
		phase.InTurn(c.ControlPlanes(), u.stage),
		phase.InTurn(c.ControlPlanes(), u.images),
		phase.AtOnce(c.Workers(), u.stage),
		phase.AtOnce(c.Workers(), u.images),
		phase.One(u.makeSecrets()),
		phase.One(u.rememberExisting()),
		phase.AtOnce(c.ControlPlanes(), u.keepFiles),
		phase.One(u.backup()),
		phase.One(u.readmitWell()),
	}
	for _, ih := range u.order {
		stages = append(stages, u.masterInTurn(ih))
	}
	stages = append(stages, phase.One(u.addon(kube.CoreDNS)), phase.One(u.addon(kube.KubeProxy)), phase.One(u.config()), phase.One(u.sweepTokens()), phase.One(u.network()))
	stages = append(stages, phase.InTurn(u.balancers, u.packages))
	for batch := range slices.Chunk(c.Workers(), u.WorkersAtOnce) {
		stages = append(stages, u.eachAnnounced("before-host", u.Before, batch), phase.AtOnce(batch, u.drain), phase.AtOnce(batch, u.packages), phase.AtOnce(batch, u.worker),
			phase.AtOnce(batch, u.uncordon), u.eachAnnounced("after-host", u.After, batch))
	}
	return append(stages, phase.AtOnce(c.Nodes(), u.tidy), phase.One(u.verify()), phase.One(u.dataPath()))
}

// masterInTurn is all that happens to one master, before the next one is touched.
func (u *upgrade) masterInTurn(ih inventory.Host) phase.Stage {
	return phase.Stage{Phases: slices.Concat(u.announce("before-host", u.Before, ih),
		[]phase.Phase{u.drain(ih), u.packages(ih), u.master(ih), u.readmit(ih), u.uncordon(ih)}, u.announce("after-host", u.After, ih))}
}

// announce is the operator's own program for a host that has something to be
// exchanged; no phase where none was given.
func (u *upgrade) announce(name string, hook func(context.Context, string) error, ih inventory.Host) []phase.Phase {
	if hook == nil {
		return nil
	}
	return []phase.Phase{{
		Name: name, Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			due, err := u.due(ctx, ih)
			return !due && !u.nodes[ih.Name].begun(u.Cluster.Spec.Kubernetes.Version), err
		},
		Do: func(ctx context.Context) error { return hook(ctx, ih.Name) },
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeRun, Name: "the program of --" + name, Text: "with " + ih.Name + " as its argument, on this machine"}}, nil
		},
	}}
}

func (u *upgrade) eachAnnounced(name string, hook func(context.Context, string) error, hosts []inventory.Host) phase.Stage {
	var s phase.Stage
	for _, ih := range hosts {
		s.Phases = append(s.Phases, u.announce(name, hook, ih)...)
	}
	return s
}

// readmitWell is for what a run that broke off has left out of the balancers, but
// for a master that is down: it comes back in its own turn.
func (u *upgrade) readmitWell() phase.Phase {
	well := slices.DeleteFunc(u.Cluster.ControlPlanes(), func(ih inventory.Host) bool { return u.nodes[ih.Name].out != nil })
	return u.readmitting(well)
}

// minor says whether the upgrade leads to another minor version: what runs
// pods on a Node has to be empty for that.
func (u *upgrade) minor(ih inventory.Host) bool {
	is, err := release.Parse(u.nodes[ih.Name].kubelet)
	to, err2 := release.Parse(u.Cluster.Spec.Kubernetes.Version)
	return err != nil || err2 != nil || is.Minor != to.Minor
}

func fewMasters(c *inventory.Cluster) error {
	if n := len(c.ControlPlanes()); n < hardenFrom {
		return &ConflictError{
			What: fmt.Sprintf("an upgrade without an outage needs three masters or more, the cluster has %d", n),
			Why:  "while one master is restarted the others have to hold quorum and answer",
			Run:  "add masters to the inventory and run ha-install apply first; or reset the trial cluster and make it anew",
		}
	}
	return nil
}
