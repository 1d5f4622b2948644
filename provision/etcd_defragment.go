package provision

import (
	"context"
	"fmt"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
)

// A database is worth the pause of a defragmentation when so many bytes, and so
// much of it, would be freed; one that nears its quota when so many bytes would.
const (
	worthRatio = 0.2
	worthBytes = 8 << 20
)

// allHealthy is what gates want around a member's turn: the member itself healthy,
// too. One that is cut off or behind has other worries than free room.
var allHealthy = etcd.Want{AllHealthy: true}

// Defragment has the members write their databases anew, one at a time and the
// leader last: those where it is worth it, or all.
func Defragment(all bool) Chore {
	return Chore{"etcd defragment", func(ctx context.Context, c *chore) ([]phase.Stage, error) {
		v := c.look(ctx)
		if err := unalarmed("defragment", v, etcd.KindNoSpace, etcd.KindCorrupt); err != nil {
			return nil, err
		}
		stages := []phase.Stage{phase.One(c.readmitAll())}
		for _, ih := range c.leaderLast(v) {
			stages = append(stages, phase.Stage{Phases: []phase.Phase{c.defragment(ih, all), c.readmit(ih)}})
		}
		return append(stages, phase.One(c.votes())), nil
	}}
}

// votes proves what a chore leaves: all members vote, accept a write and hold the
// same data.
func (c *chore) votes() phase.Phase {
	return phase.Phase{Name: "votes", Gate: []phase.Check{c.allVotes()}, GateTimeout: restartGate}
}

// defragment is a member's turn where no alarm is raised.
func (c *chore) defragment(ih inventory.Host, all bool) phase.Phase {
	return phase.Phase{
		Name: "defragment", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			s, err := c.members.Ask(ctx, ih.Name)
			if err != nil || all || worthwhile(s) {
				return false, err
			}
			phase.Tell(ctx, fmt.Sprintf("%s: the database has %s, of which %s are free: left as it is (--all does it anyway)", ih.Name, units.Bytes(s.DBSize), units.Bytes(s.DBSize-s.DBInUse)))
			return true, nil
		},
		Needs:       []phase.Check{c.othersCarryWhile(defragmenting(ih), allHealthy, c.columnRuns)},
		Do:          func(ctx context.Context) error { return c.rewrite(ctx, ih, allHealthy) },
		Undo:        func(ctx context.Context) error { return c.comeBack(ctx, ih) },
		Gate:        []phase.Check{c.quorum("defragment " + ih.Name), c.columnRuns(ih)},
		GateTimeout: restartGate,
		Explain: func(ctx context.Context) ([]phase.Change, error) {
			return c.explainDefragment(ctx, ih, etcd.Options{ReadOnly: true})
		},
	}
}

func worthwhile(s etcd.Status) bool {
	free := s.DBSize - s.DBInUse
	return free >= worthBytes && (float64(free) >= worthRatio*float64(s.DBSize) || s.Fullness() >= etcd.QuotaWarn)
}

func defragmenting(ih inventory.Host) etcd.Operation {
	return etcd.Operation{Kind: etcd.OpDefragment, Host: ih.Name, PeerURL: peerURL(ih)}
}

// rewrite takes a master from behind the balancers, its etcd from the lead, and
// defragments it when the others hold quorum, as it is wanted. The old size and the
// new one are told.
func (c *chore) rewrite(ctx context.Context, ih inventory.Host, want etcd.Want) error {
	if err := c.leave(ctx, ih); err != nil {
		return err
	}
	if _, err := c.allowedWith(ctx, defragmenting(ih), want, etcd.PreGateBudget); err != nil {
		return err
	}
	before, err := c.members.Ask(ctx, ih.Name)
	if err == nil {
		err = c.members.Defragment(ctx, ih.Name)
	}
	if err != nil {
		return err
	}
	after, err := c.members.Ask(ctx, ih.Name)
	if err != nil {
		return err
	}
	phase.TellData(ctx, fmt.Sprintf("%s: the database had %s, it has %s", ih.Name, units.Bytes(before.DBSize), units.Bytes(after.DBSize)), phase.Data{"bytesBefore": before.DBSize, "bytesAfter": after.DBSize})
	return nil
}

func (c *chore) explainDefragment(ctx context.Context, ih inventory.Host, o etcd.Options) ([]phase.Change, error) {
	d := etcd.Project(c.members.Look(ctx, o), defragmenting(ih))
	changes := []phase.Change{{Kind: changeRun, Name: "etcd's database on " + ih.Name, Text: "written anew, without the room that is free in it; the member answers nobody meanwhile", Figures: figures(d.Before, d.After)}}
	if names := c.balancerNames(); names != "" {
		changes = append(changes, phase.Change{Kind: changeRun, Name: "HAProxy of " + names, Text: "sends nobody new to " + ih.Name + " until it is ready again"})
	}
	return changes, nil
}
