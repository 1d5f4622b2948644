package provision

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
)

// despite is what gates want while NOSPACE alarms are raised: every member healthy
// as always, but for the writes that are refused.
var despite = etcd.Want{AllHealthy: true, NoSpace: true}

const disarmVerb = "etcd alarms disarm"

// DisarmAlarms takes NOSPACE alarms back, and their cause before: old revisions are
// compacted, which frees room inside the databases; each member is defragmented,
// which gives it back; only then, and where it was enough, the alarms go, and a write
// proves it. In any other order the next write would raise them again.
func DisarmAlarms() Chore {
	return Chore{disarmVerb, func(ctx context.Context, c *chore) ([]phase.Stage, error) {
		v := c.look(ctx)
		if err := unalarmed("disarm", v, etcd.KindCorrupt); err != nil {
			return nil, err
		}
		stages := []phase.Stage{phase.One(c.readmitAll()), phase.One(c.compact())}
		for _, ih := range c.leaderLast(v) {
			stages = append(stages, phase.Stage{Phases: []phase.Phase{c.makeRoom(ih), c.readmit(ih)}})
		}
		return append(stages, phase.One(c.disarm()), phase.One(c.votes())), nil
	}}
}

// unalarmed refuses a chore that cannot do anything while such alarms are raised.
func unalarmed(what string, v etcd.Verdict, kinds ...string) error {
	for _, alarm := range v.Alarms {
		if !slices.Contains(kinds, alarm.Kind) {
			continue
		}
		m, _ := v.Find(alarm.Member, "")
		refused := &etcd.QuorumError{What: what, Verdict: v, Reason: fmt.Sprintf("%s (member %s) has raised a %s alarm", cmp.Or(m.Name, "nobody of the list"), alarm.Member, alarm.Kind)}
		switch alarm.Kind {
		case etcd.KindNoSpace:
			refused.Reason += ": old revisions have to be compacted first, and no write proves that a member came through"
			refused.Run = "ha-install etcd alarms disarm INVENTORY, which does all of it in order"
		default:
			refused.Reason += ": its data differ from the others', which neither defragmenting nor disarming mends"
			refused.Run = "stop its etcd, then ha-install replace INVENTORY " + cmp.Or(m.Host, "that host")
		}
		return refused
	}
	return nil
}

// full are the NOSPACE alarms that are raised now. That they are not known is an
// error. Another kind of alarm is not ours to take back: gates refuse to go on.
func (c *chore) full(ctx context.Context) ([]etcd.Alarm, error) {
	v := c.look(ctx)
	if len(v.Alarms) == 0 && !v.State.HasQuorum() {
		return nil, &NotWholeError{State: v.State, Problems: v.Reasons}
	}
	return slices.DeleteFunc(slices.Clone(v.Alarms), func(a etcd.Alarm) bool { return a.Kind != etcd.KindNoSpace }), nil
}

func (c *chore) noAlarm(ctx context.Context) (bool, error) {
	alarms, err := c.full(ctx)
	return len(alarms) == 0, err
}

// despiteAlarms is the gate of quorum while writes are refused.
func (c *chore) despiteAlarms(title string) phase.Check {
	return c.quorumWith(etcd.Want{What: title, AllHealthy: true, NoSpace: true})
}

// statuses are what all members say of themselves, in the inventory's order.
func (c *chore) statuses(ctx context.Context) ([]etcd.Status, error) {
	var all []etcd.Status
	for _, ih := range c.Cluster.ControlPlanes() {
		s, err := c.members.Ask(ctx, ih.Name)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (c *chore) compact() phase.Phase {
	return phase.Phase{
		Name: "compact", Done: c.noAlarm,
		Needs:       []phase.Check{c.despiteAlarms("before revisions are compacted")},
		Do:          c.compactAll,
		Gate:        []phase.Check{c.despiteAlarms("revisions are compacted")},
		GateTimeout: restartGate,
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeRun, Name: "etcd's old revisions", Text: "compacted: what keys were before is forgotten; clients that watch from an older revision begin anew"}}, nil
		},
	}
}

// compactAll has all members forget what keys were before.
func (c *chore) compactAll(ctx context.Context) error {
	all, err := c.statuses(ctx)
	if err != nil {
		return err
	}
	revision := int64(0)
	for _, s := range all {
		revision = max(revision, s.Revision)
	}
	if err := c.members.Compact(ctx, revision); err != nil {
		return err
	}
	return c.awaitCompacted(ctx)
}

const (
	// compactBudget is how long the members that were not asked are waited for:
	// each compacts when it gets to it.
	compactBudget = time.Minute
	// alikeBytes is how far apart the members' data in use may be besides a tenth:
	// free pages are counted each in its own way.
	alikeBytes = 4 << 20
)

// awaitCompacted waits until all members have as little in use as the one that has
// least. One that never has is defragmented to less effect, which disarm looks at.
func (c *chore) awaitCompacted(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, compactBudget)
	defer cancel()
	err := phase.Wait(waiting, phase.Check{Name: "all members to have compacted", Run: func(ctx context.Context) error {
		all, err := c.statuses(ctx)
		if err != nil {
			return err
		}
		least := all[0].DBInUse
		for _, s := range all {
			least = min(least, s.DBInUse)
		}
		for i, s := range all {
			if s.DBInUse > least+least/10+alikeBytes {
				return fmt.Errorf("%s has %s in use, another one %s", c.Cluster.ControlPlanes()[i].Name, units.Bytes(s.DBInUse), units.Bytes(least))
			}
		}
		return nil
	}})
	if err != nil && ctx.Err() == nil {
		phase.Tell(ctx, "not all members have as little in use as the others: "+err.Error())
		err = nil
	}
	return err
}

// makeRoom is a member's turn while writes are refused. Nodes and leaders cannot
// say that they live meanwhile, so that neither is asked for.
func (c *chore) makeRoom(ih inventory.Host) phase.Phase {
	explain := func(ctx context.Context) ([]phase.Change, error) {
		return c.explainDefragment(ctx, ih, etcd.Options{NoSpace: true})
	}
	return phase.Phase{
		Name: "defragment", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			if none, err := c.noAlarm(ctx); none || err != nil {
				return none, err
			}
			s, err := c.members.Ask(ctx, ih.Name) // an earlier run may have come this far
			return err == nil && hasRoom(s) && !worthwhile(s), err
		},
		Needs:       []phase.Check{c.othersCarryWhile(defragmenting(ih), despite, c.apiReady)},
		Do:          func(ctx context.Context) error { return c.rewrite(ctx, ih, despite) },
		Undo:        func(ctx context.Context) error { return c.comeBack(ctx, ih) },
		Gate:        []phase.Check{c.despiteAlarms("defragment " + ih.Name), c.apiReady(ih)},
		GateTimeout: restartGate,
		After:       []string{"compact"}, // which makes the room that is given back
		Explain:     explain,
		Foresee: func(ctx context.Context, _ []string) (phase.State, []phase.Change, error) {
			changes, err := explain(ctx)
			return phase.ToChange, changes, err
		},
	}
}

func (c *chore) disarm() phase.Phase {
	return phase.Phase{
		Name: "disarm", Done: c.noAlarm,
		Needs: []phase.Check{c.despiteAlarms("before alarms are taken back"), c.rooms()},
		Do:    c.disarmAll,
		Gate: []phase.Check{{Name: "the alarms to be gone", Run: func(ctx context.Context) error {
			alarms, err := c.full(ctx)
			if err == nil && len(alarms) > 0 {
				err = fmt.Errorf("member %s has a %s alarm", alarms[0].Member, alarms[0].Kind)
			}
			return err
		}}},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeRun, Name: "etcd's alarms", Text: "taken back, if there is room in every database then"}}, nil
		},
	}
}

// disarmAll takes all NOSPACE alarms back.
func (c *chore) disarmAll(ctx context.Context) error {
	alarms, err := c.full(ctx)
	for _, alarm := range alarms {
		if err == nil {
			err = c.members.Disarm(ctx, alarm)
		}
	}
	return err
}

// hasRoom says that a database would not raise its alarm again with the next write.
// One that does not tell its quota (etcd before 3.6) is left to that write.
func hasRoom(s etcd.Status) bool { return s.Fullness() < etcd.QuotaRefuse }

// rooms wants room in every database.
func (c *chore) rooms() phase.Check {
	return phase.Check{Name: "room in every database", Run: func(ctx context.Context) error {
		all, err := c.statuses(ctx)
		if err != nil {
			return err
		}
		for i, s := range all {
			if hasRoom(s) {
				continue
			}
			return phase.Final(&etcd.QuorumError{
				What: "disarm", Verdict: c.look(ctx),
				Reason: fmt.Sprintf("the database of %s still has %s of a quota of %s, compacted and defragmented; the next write would raise the alarm again", c.Cluster.ControlPlanes()[i].Name, units.Bytes(s.DBSize), units.Bytes(s.DBQuota)),
				Run:    "delete objects that are not needed (deleting works while the alarm is raised), or raise quota-backend-bytes of etcd in its manifest on each master, and in the inventory too, by which an upgrade or a restore writes the manifest anew; then the same command again",
			})
		}
		return nil
	}}
}
