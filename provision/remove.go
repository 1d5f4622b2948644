package provision

import (
	"context"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
)

// RemoveOptions say which host is taken out of a cluster, and what that may cost.
type RemoveOptions struct {
	Host string // its name in the inventory, which still has it
	// DrainTimeout bounds how long its pods are asked to leave; 0 means
	// DefaultDrainTimeout.
	DrainTimeout time.Duration
	// DeleteUnmanaged lets pods go that nobody will bring back elsewhere.
	DeleteUnmanaged bool
	// Force accepts a cluster that can lose no master afterwards.
	Force bool
	// Backup is where the snapshot from before goes; of a worker none is taken.
	Backup BackupOptions
}

// removal is one run of `ha-install remove`. It works with two views of the
// cluster, on the same connections and under the same lock: one with the host
// and one without.
type removal struct {
	*apply
	RemoveOptions
	going  inventory.Host
	kept   *apply      // what stays
	member etcd.Member // the host's; ID 0 when it has none
	node   bool        // its Node is in the API
	ours   bool        // it bears the cluster's marker: what is on it is ours to clean
	done   func()
}

// Remove takes a live host out of a running cluster: its pods move elsewhere,
// the balancers forget it, etcd's member is removed by its ID before anything
// on the host is stopped, and the host is cleaned. The inventory still has the
// host; whoever applies it afterwards with the host in it joins it again. It
// needs every host, changes nothing where the host is out already, and goes on
// where an earlier run stopped. agreed is the plan that the operator has seen;
// nil agrees to any.
func Remove(ctx context.Context, s *Site, o RemoveOptions, agreed *Plan, run *phase.Runner) error {
	if err := s.RequireAll(); err != nil {
		return err
	}
	return s.operate(ctx, "remove", run, func(ctx context.Context) error {
		if err := s.finishSteps(ctx, run); err != nil {
			return err
		}
		r, err := newRemoval(ctx, s, o)
		if err != nil {
			return err
		}
		defer r.done()
		if agreed != nil {
			now, err := planRemove(ctx, s, o, phase.Planner{SkipGates: true})
			if err != nil {
				return err
			}
			if err := agreed.Moved(now); err != nil {
				return err
			}
		}
		return run.Run(ctx, r.stages())
	})
}

// PlanRemove says what Remove would do, as MakePlan does of Apply.
func PlanRemove(ctx context.Context, s *Site, o RemoveOptions, tell func(string)) (Plan, error) {
	return planRemove(ctx, s, o, phase.Planner{Tell: tell})
}

func planRemove(ctx context.Context, s *Site, o RemoveOptions, planner phase.Planner) (Plan, error) {
	if err := s.RequireAll(); err != nil {
		return Plan{}, err
	}
	view, done := s.view()
	defer done()
	r, err := newRemoval(ctx, view, o)
	if err != nil {
		return Plan{}, err
	}
	defer r.done()
	return r.plan(ctx, planner, r.stages())
}

// newRemoval looks at what there is of the host in the cluster. Its done is to
// be called at the end.
func newRemoval(ctx context.Context, s *Site, o RemoveOptions) (*removal, error) {
	if o.DrainTimeout == 0 {
		o.DrainTimeout = DefaultDrainTimeout
	}
	r := &removal{apply: &apply{Site: s}, RemoveOptions: o}
	var err error
	if r.going, err = removable(s.Cluster, o.Host); err != nil {
		return nil, err
	}
	if r.facts, err = r.survey(ctx); err != nil {
		return nil, err
	}
	if r.beginning, err = decideBeginning(s.Cluster, r.facts); err != nil {
		return nil, err
	}
	if !r.established {
		return nil, &ConflictError{What: "no master of the inventory is part of a running cluster", Why: "there is nothing to take " + o.Host + " out of",
			Run: "ha-install reset, if what is on the hosts is to go"}
	}
	r.ours = r.facts[o.Host].marker.Cluster == s.Cluster.Metadata.Name
	// What the inventory has and the cluster has not, not yet or not any more, is
	// no part of what stays.
	without, done := s.without(func(h inventory.Host) bool {
		return h.Name == o.Host || r.facts[h.Name].marker.Cluster != s.Cluster.Metadata.Name
	})
	r.kept, r.done = &apply{Site: without, facts: r.facts, beginning: r.beginning}, done
	if err := r.seeMembership(ctx); err != nil {
		done()
		return nil, err
	}
	return r, nil
}

// removable finds the host, which has to be one that a cluster can go on without.
func removable(c *inventory.Cluster, name string) (inventory.Host, error) {
	ih, ok := c.HostByName(name)
	switch {
	case !ok:
		return ih, &ConflictError{What: "the inventory has no host " + name, Why: "a host is taken out of the cluster first and out of the inventory after that",
			Run: "put its lines back, if they were deleted already, then the same command again"}
	case ih.Role == inventory.RoleLoadBalancer:
		return ih, &ConflictError{What: name + " is a balancer", Why: "it has no member of etcd and no Node",
			Run: "take it out of the inventory and power it off, when the other balancers hold the endpoint; then ha-install apply"}
	case ih.Role == inventory.RoleControlPlane && len(c.ControlPlanes()) == 1:
		return ih, &ConflictError{What: name + " is the last master", Why: "without it there is no cluster",
			Run: "ha-install reset, which takes the cluster off all its hosts"}
	}
	return ih, nil
}

// seeMembership asks etcd and the API what they have of the host.
func (r *removal) seeMembership(ctx context.Context) error {
	if r.going.Role == inventory.RoleControlPlane {
		v, err := r.members.Gate(ctx, etcd.Want{What: "look at " + r.Host, Learners: etcd.AnyLearners}, etcd.PreGateBudget)
		if err != nil {
			return err
		}
		if m, ok := v.Find(0, peerURL(r.going)); ok {
			r.member = m
		}
	}
	client, err := r.kept.anyAPI(ctx)
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Nodes().Get(ctx, r.Host, metav1.GetOptions{})
	r.node = err == nil
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// without is the site less some hosts, on the same connections and under the
// same lock. Closing it closes only what is its own.
func (s *Site) without(out func(inventory.Host) bool) (*Site, func()) {
	c := *s.Cluster
	c.Spec.Hosts = slices.DeleteFunc(slices.Clone(c.Spec.Hosts), out)
	w := newSite(&c, s.BaseDir)
	s.mu.Lock()
	for _, ih := range c.Spec.Hosts {
		if h := s.hosts[ih.Name]; h != nil {
			w.hosts[ih.Name] = h
		}
		if err := s.down[ih.Name]; err != nil {
			w.down[ih.Name] = err
		}
	}
	s.mu.Unlock()
	w.Operation, w.Operator, w.lock, w.readOnly = s.Operation, s.Operator, s.lock, s.readOnly
	w.members = w.newMembers()
	if s.readOnly {
		w.members.ReadOnly()
	}
	return w, func() { _ = w.members.Close() } // always says "context canceled"
}

func (r *removal) stages() []phase.Stage {
	if r.going.Role == inventory.RoleWorker {
		return []phase.Stage{
			phase.One(r.ready()),
			phase.One(r.drain()),
			phase.One(r.clean()),
			phase.One(r.deleteNode()),
			phase.One(r.letGo()),
			phase.One(r.kept.verify()),
		}
	}
	stages := []phase.Stage{
		phase.One(r.ready()),
		phase.One(r.kept.makeSecrets()),
		phase.One(r.snapshot()),
		phase.One(r.drain()),
	}
	if r.Cluster.Balances(r.going) {
		stages = append(stages, phase.One(r.retireBalancer()))
	}
	return append(stages,
		phase.InTurn(newcomersLast(r.kept.Cluster.Balancers(), r.facts), r.kept.balance),
		phase.One(r.removeMember()),
		phase.One(r.clean()),
		phase.One(r.deleteNode()),
		phase.One(r.forgetNames()),
		phase.One(r.letGo()),
		phase.One(r.kept.verify()),
	)
}
