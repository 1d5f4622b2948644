package provision

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
)

// Chore is a verb of `ha-install etcd` that changes something: phases that are
// planned, and run under the lock, as those of an apply are.
type Chore struct {
	verb   string
	stages func(context.Context, *chore) ([]phase.Stage, error)
}

// chore is one run of a Chore.
type chore struct{ *apply }

// Run does it, if the plan that was agreed to still holds; nil agrees to any. It
// needs every host, and goes on where an earlier run broke off.
func (c Chore) Run(ctx context.Context, s *Site, agreed *Plan, run *phase.Runner) error {
	if err := s.RequireAll(); err != nil {
		return err
	}
	return s.operate(ctx, c.verb, run, func(ctx context.Context) error {
		a := &chore{&apply{Site: s}}
		if err := a.finishSteps(ctx, run); err != nil {
			return err
		}
		stages, err := c.begin(ctx, a)
		if err != nil {
			return err
		}
		if agreed != nil {
			now, err := c.plan(ctx, s, phase.Planner{SkipGates: true})
			if err != nil {
				return err
			}
			if err := agreed.Moved(now); err != nil {
				return err
			}
		}
		return run.Run(ctx, stages)
	})
}

// Plan says what Run would do, as MakePlan does of Apply.
func (c Chore) Plan(ctx context.Context, s *Site, tell func(string)) (Plan, error) {
	return c.plan(ctx, s, phase.Planner{Tell: tell})
}

func (c Chore) plan(ctx context.Context, s *Site, planner phase.Planner) (Plan, error) {
	if err := s.RequireAll(); err != nil {
		return Plan{}, err
	}
	view, end := s.view()
	defer end()
	a := &chore{&apply{Site: view}}
	stages, err := c.begin(ctx, a)
	if err != nil {
		return Plan{}, err
	}
	return a.plan(ctx, planner, stages)
}

func (c Chore) begin(ctx context.Context, a *chore) ([]phase.Stage, error) {
	if err := a.findFirst(ctx); err != nil {
		return nil, err
	}
	if !a.established {
		return nil, &ConflictError{What: "there is no running cluster on the hosts of the inventory", Why: "no master bears its marker", Run: "ha-install apply, which makes it"}
	}
	return c.stages(ctx, a)
}

// look is etcd as it stands now.
func (c *chore) look(ctx context.Context) etcd.Verdict {
	return c.members.Look(ctx, etcd.Options{ReadOnly: true})
}

// leaderLast are the masters, the one that leads etcd at the end, so that
// leadership moves once.
func (c *chore) leaderLast(v etcd.Verdict) []inventory.Host {
	masters := c.Cluster.ControlPlanes()
	leads := func(h inventory.Host) int {
		if m, _ := v.Find(0, peerURL(h)); m.Leader {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(masters, func(a, b inventory.Host) int { return cmp.Compare(leads(a), leads(b)) })
	return masters
}

// MoveLeader hands etcd's leadership to the master of that name, or, for "", to the
// healthy follower with the fastest disk.
func MoveLeader(to string) Chore {
	return Chore{"etcd move-leader", func(ctx context.Context, c *chore) ([]phase.Stage, error) {
		v := c.members.Look(ctx, etcd.Options{ReadOnly: true, Disk: true})
		target, err := c.successor(v, to)
		if err != nil {
			return nil, err
		}
		return []phase.Stage{phase.One(c.moving(cmp.Or(v.LeaderName, "nobody"), target))}, nil
	}}
}

// successor is the member that is to lead.
func (c *chore) successor(v etcd.Verdict, to string) (etcd.Member, error) {
	if to == "" {
		m, ok := v.Successor()
		if !ok {
			return m, &NotWholeError{State: v.State, Problems: append([]string{"no healthy follower could take etcd's leadership over"}, v.Reasons...)}
		}
		return m, nil
	}
	ih, ok := c.Cluster.HostByName(to)
	if !ok || ih.Role != inventory.RoleControlPlane {
		return etcd.Member{}, &ConflictError{What: to + " is no master of the inventory", Why: "etcd's members are on masters", Run: "ha-install etcd members INVENTORY, which names them"}
	}
	m, _ := v.Find(0, peerURL(ih))
	if m.Role != etcd.Voter || !m.Healthy {
		return m, &NotWholeError{State: v.State, Problems: []string{fmt.Sprintf("%s cannot lead: it is %s %s", to, m.State, m.Why)}}
	}
	return m, nil
}

func (c *chore) moving(from string, to etcd.Member) phase.Phase {
	leads := func(ctx context.Context) error {
		if v := c.look(ctx); v.LeaderID != to.ID {
			return fmt.Errorf("%s leads, %s is wanted", cmp.Or(v.LeaderName, "nobody"), to.Name)
		}
		return nil
	}
	quorum := func(title string) phase.Check { return c.quorumWith(etcd.Want{What: title}) }
	return phase.Phase{
		Name:  "move-leader",
		Done:  func(ctx context.Context) (bool, error) { return leads(ctx) == nil, nil },
		Needs: []phase.Check{quorum("before leadership moves to " + to.Name)},
		Do:    func(ctx context.Context) error { return c.moveLeader(ctx, to.ID) },
		Gate:  []phase.Check{{Name: to.Name + " to lead etcd", Run: leads}, quorum(to.Name + " leads")},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeRun, Name: "etcd's leadership", Text: "from " + from + " to " + to.Name}}, nil
		},
	}
}
