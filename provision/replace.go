package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
)

// ReplaceOptions say which master is lost, and what comes in its place.
type ReplaceOptions struct {
	Lost inventory.Host
	// With is the name of the host that comes in its place: another one of the
	// inventory or, under its own name, the same one, installed anew or without
	// its data.
	With string
	// Backup is where the snapshot from before goes.
	Backup BackupOptions
}

// sameHost says that the lost master comes back under its name.
func (o ReplaceOptions) sameHost() bool { return o.With == o.Lost.Name }

// ReplaceTarget finds the lost master in an inventory and returns the cluster as
// it is to be, to which the Site for Replace is connected. with names the host
// that comes in its place; "" is the lost one's own name. With another host the
// cluster has the lost one no more: it is never asked anything but whether it
// is dead.
func ReplaceTarget(c *inventory.Cluster, lost, with string) (*inventory.Cluster, ReplaceOptions, error) {
	o := ReplaceOptions{With: with}
	if with == "" {
		o.With = lost
	}
	var found bool
	if o.Lost, found = c.HostByName(lost); !found || o.Lost.Role != inventory.RoleControlPlane {
		return nil, o, &ConflictError{What: "the inventory has no master " + lost, Why: "a lost master is told by its addresses, which are in its lines",
			Run: "leave its lines in the inventory until it has been replaced; a worker is replaced by ha-install remove and apply"}
	}
	if o.sameHost() {
		return c, o, nil
	}
	if ih, there := c.HostByName(with); !there || ih.Role != inventory.RoleControlPlane {
		return nil, o, &ConflictError{What: "the inventory has no master " + with, Why: "what comes in the place of " + lost + " has to be described there, as one more master",
			Run: "add its lines with role control-plane, leave those of " + lost + ", then the same command again"}
	}
	return withoutHost(c, lost), o, nil
}

// replacement is one run of `ha-install replace`: what the lost master left is
// removed through those that stay, then the other one joins as in an apply.
type replacement struct {
	*apply // of the cluster as it is to be
	ReplaceOptions
	kept   *apply        // the masters and other hosts that are part of the cluster and were not lost
	member etcd.Member   // of the lost master; ID 0 when it has none
	node   bool          // its Node is in the API
	fenced bool          // nothing of the cluster is on the host that comes under its name
	sick   bool          // there is a data directory on it, and no etcd that runs
	begun  bool          // an earlier run has begun to remove a member
	noted  etcd.MemberID // which; 0 when it has ended, or was made by an older version
	ended  bool          // that run came to its end
	done   func()
}

// Replace puts a host in the place of a master that is lost for good: dead as
// seen from everywhere, or, under its own name, installed anew or without its
// data. The lost one's member is removed by its ID, under the gate, before
// another one is added. It is refused when the master is seen by anybody, or
// when quorum is not there. s is connected to the hosts of ReplaceTarget, and
// needs all of them. A run that broke off is gone on with.
func Replace(ctx context.Context, s *Site, o ReplaceOptions, agreed *Plan, run *phase.Runner) error {
	if err := o.reachable(s); err != nil {
		return err
	}
	return s.operate(ctx, "replace", run, func(ctx context.Context) error {
		if err := s.finishSteps(ctx, run); err != nil {
			return err
		}
		r, err := newReplacement(ctx, s, o)
		if err != nil {
			return err
		}
		defer r.close()
		if agreed != nil {
			now, err := planReplace(ctx, s, o, phase.Planner{SkipGates: true})
			if err != nil {
				return err
			}
			if err := agreed.Moved(now); err != nil {
				return err
			}
		}
		if err := run.Run(ctx, r.removal()); err != nil {
			return err
		}
		// What was known of a host that was cleaned is not so any more.
		s.forget(o.With)
		if err := r.findFirst(ctx); err != nil {
			return err
		}
		return run.Run(ctx, append(r.stages(), phase.One(r.end())))
	})
}

// PlanReplace says what Replace would do, as MakePlan does of Apply; how the
// other host joins is told in one step.
func PlanReplace(ctx context.Context, s *Site, o ReplaceOptions, tell func(string)) (Plan, error) {
	return planReplace(ctx, s, o, phase.Planner{Tell: tell})
}

func planReplace(ctx context.Context, s *Site, o ReplaceOptions, planner phase.Planner) (Plan, error) {
	if err := o.reachable(s); err != nil {
		return Plan{}, err
	}
	view, done := s.view()
	defer done()
	r, err := newReplacement(ctx, view, o)
	if err != nil {
		return Plan{}, err
	}
	defer r.close()
	return r.plan(ctx, planner, append(r.removal(), phase.One(r.joinAsPlanned())))
}

// reachable wants a connection to every host of the cluster as it is to be.
func (o ReplaceOptions) reachable(s *Site) error {
	var key *host.HostKeyError
	switch down := s.Down()[o.With]; {
	case down == nil:
	case errors.As(down, &key) && key.Changed():
		return &ConflictError{What: "the host at the address of " + o.With + " shows another SSH host key than the one that is known", Why: key.Error(),
			Run: "if you have installed it anew: compare the fingerprint on its console, put the new key into hostKeys of " + o.With + " in the inventory (or into known_hosts, for the old one), then the same command again"}
	case o.sameHost():
		return &ConflictError{What: o.Lost.Name + " cannot be reached, and no other host is named for its place", Why: down.Error(),
			Run: "install it anew under its name and addresses, then the same command again; or ha-install replace --with NEWHOST, which is in the inventory as one more master"}
	}
	return s.RequireAll()
}

// forget drops what is kept of a host that was made anew.
func (s *Site) forget(name string) {
	s.members.Forget(name)
	s.mu.Lock()
	delete(s.apis, name)
	s.mu.Unlock()
}

func (r *replacement) close() {
	r.done()
	r.apply.close()
}

// newReplacement looks at what the lost master has left, and refuses what is no
// loss of a master. It is closed by its caller.
func newReplacement(ctx context.Context, s *Site, o ReplaceOptions) (_ *replacement, err error) {
	r := &replacement{ReplaceOptions: o, done: func() {}}
	if r.apply, err = newApply(s); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if err := r.findFirst(ctx); err != nil {
		return nil, err
	}
	site, done := s.without(func(h inventory.Host) bool {
		return h.Name == o.Lost.Name || r.facts[h.Name].marker.Cluster != s.Cluster.Metadata.Name
	})
	r.kept, r.done = &apply{Site: site, facts: r.facts, beginning: r.beginning}, done
	if err := r.seeLoss(ctx); err != nil {
		return nil, err
	}
	return r, r.isLoss(ctx)
}

// lossBudget is how long a look waits for a quorum that comes and goes.
const lossBudget = 15 * time.Second

// seeLoss asks the masters that stay what they have of the lost one.
func (r *replacement) seeLoss(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, lossBudget)
	defer cancel()
	var v etcd.Verdict
	if phase.Wait(waiting, phase.Check{Name: "quorum", Run: func(ctx context.Context) error {
		if now := r.kept.members.Look(ctx, etcd.Options{ReadOnly: true}); ctx.Err() == nil || v.State == "" {
			v = now
		}
		if !v.State.HasQuorum() {
			return errors.New("no quorum")
		}
		return nil
	}}) != nil {
		return &etcd.QuorumError{What: "replace " + r.Lost.Name, Reason: "a member can only be replaced while the others hold quorum", Verdict: v,
			Run: "bring other masters back first; when they are lost for good that is a recovery: ha-install recover"}
	}
	if m, ok := v.Find(0, peerURL(r.Lost)); ok && m.Role != etcd.NoRole {
		r.member = m
	}
	client, err := r.kept.anyAPI(ctx)
	if err != nil {
		return err
	}
	noted, err := client.Noted(ctx, noteReplacing)
	if err != nil {
		return err
	}
	r.begun, r.noted = r.heard(noted)
	r.ended = strings.HasSuffix(noted, noteEnded)
	_, err = client.CoreV1().Nodes().Get(ctx, r.Lost.Name, metav1.GetOptions{})
	r.node = err == nil
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// isLoss refuses a host under the lost master's name that has not lost anything.
func (r *replacement) isLoss(ctx context.Context) error {
	if !r.sameHost() {
		return nil
	}
	h, err := r.host(r.With)
	if err != nil {
		return err
	}
	seen, err := h.Stat(ctx, etcdMember)
	if err != nil {
		return err
	}
	if len(seen) == 0 {
		r.fenced = r.facts[r.With].marker.Cluster != r.Cluster.Metadata.Name
		return nil
	}
	// Once it came to its end, a member that is sick is another loss.
	joins := r.begun && r.member.ID != r.noted && (!r.ended || r.member.Healthy)
	if r.member.ID == 0 || joins {
		r.member, r.node, r.fenced = etcd.Member{}, false, true // what is there is of the join
		return nil
	}
	if r.sick = !r.member.Healthy; r.sick { // an etcd that finds no data makes a directory, and dies
		return nil
	}
	return &ConflictError{What: r.With + " is not lost: it answers, and has its etcd data", Why: fmt.Sprintf("its member %s is %s", r.member.ID, r.member.State),
		Run: "nothing, if all is well; to make it anew, ha-install remove, which moves its data aside, and apply, which joins it again"}
}

// removal is all that happens before another host joins.
func (r *replacement) removal() []phase.Stage {
	stages := []phase.Stage{phase.One(r.preflight())}
	if (r.member.ID != 0 || r.node) && !r.sameHost() {
		stages = append(stages, phase.One(r.proveDead()))
	}
	if r.sick {
		stages = append(stages, phase.One(r.proveSick()))
	}
	stages = append(stages, phase.One(r.snapshot()), phase.One(r.remember()))
	if r.sameHost() {
		stages = append(stages, phase.One(r.fence()))
	}
	return append(stages,
		phase.One(r.removeLost()),
		phase.One(deleteNode(r.kept, r.Lost.Name, func() bool { return r.node })))
}
