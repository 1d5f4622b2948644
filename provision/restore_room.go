package provision

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/templates"
)

// room makes room in the new members' databases where the snapshot is of one that
// had none: it brings its alarm along, of a member that is no more, and its size. It
// is what `etcd alarms disarm` does, but that nobody has to be led around a member
// that answers nobody: no API server runs yet.
func (r *restore) room() phase.Phase {
	c := &chore{r.apply}
	return phase.Phase{
		Name: "room",
		Done: func(ctx context.Context) (bool, error) {
			alarms, err := c.full(ctx)
			if err != nil || len(alarms) > 0 {
				return false, err
			}
			all, err := c.statuses(ctx)
			return !slices.ContainsFunc(all, func(s etcd.Status) bool { return !hasRoom(s) }), err
		},
		Do: func(ctx context.Context) error {
			if err := c.compactAll(ctx); err != nil {
				return err
			}
			if err := c.awaitStill(ctx); err != nil {
				return err
			}
			for _, ih := range c.leaderLast(c.look(ctx)) {
				if err := r.rewriteUnused(ctx, c, ih); err != nil {
					return err
				}
			}
			if err := r.stillFull(ctx, c); err != nil {
				return err
			}
			return c.disarmAll(ctx)
		},
		After: []string{"start-etcd"},
		Foresee: func(context.Context, []string) (phase.State, []phase.Change, error) {
			return phase.NotKnown, nil, nil
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeRun, Name: "etcd's databases", Text: "compacted, defragmented and their alarms taken back: they are at their quota"}}, nil
		},
	}
}

// writes proves all of the new cluster, a write among it.
func (r *restore) writes() phase.Phase {
	c := &chore{r.apply}
	return phase.Phase{Name: "writes", GateTimeout: restartGate, Gate: []phase.Check{r.quorumWith(r.isWhole()), {Name: "no alarm", Run: func(ctx context.Context) error {
		alarms, err := c.full(ctx)
		if err == nil && len(alarms) > 0 { // of a member that is no more it takes no vote away
			err = fmt.Errorf("member %s has a %s alarm", alarms[0].Member, alarms[0].Kind)
		}
		return err
	}}}}
}

// rewriteUnused defragments a member where it is worth it, when all members are there.
func (r *restore) rewriteUnused(ctx context.Context, c *chore, ih inventory.Host) error {
	want := r.isWhole()
	want.NoSpace, want.Hash = true, false
	waiting, cancel := context.WithTimeout(ctx, restartGate)
	defer cancel()
	if err := phase.Wait(waiting, r.quorumWith(want)); err != nil {
		return err
	}
	before, err := c.members.Ask(ctx, ih.Name)
	if err != nil || !worthwhile(before) && hasRoom(before) {
		return err
	}
	if len(r.Cluster.ControlPlanes()) > 1 {
		if m, _ := c.look(ctx).Find(0, peerURL(ih)); m.Leader {
			moving, cancel := context.WithTimeout(ctx, moveBudget)
			defer cancel()
			if err := c.members.MoveLeader(moving, 0, nil); err != nil {
				return err
			}
		}
	}
	if err := c.members.Defragment(ctx, ih.Name); err != nil {
		return err
	}
	after, err := c.members.Ask(ctx, ih.Name)
	if err == nil {
		phase.Tell(ctx, fmt.Sprintf("%s: the database had %s, it has %s", ih.Name, units.Bytes(before.DBSize), units.Bytes(after.DBSize)))
	}
	return err
}

// stillFull is an error when a database has no room although all was done: how to go
// on depends on whether objects can be deleted, which they can through an API server.
func (r *restore) stillFull(ctx context.Context, c *chore) error {
	alarms, err := c.full(ctx)
	if err != nil {
		return err
	}
	all, err := c.statuses(ctx)
	if err != nil {
		return err
	}
	for i, s := range all {
		if hasRoom(s) || len(alarms) == 0 && s.Fullness() < 1 {
			continue
		}
		run := "raise quota-backend-bytes in the inventory (spec.kubeadm.clusterConfiguration.etcd.local.extraArgs), then the same command again, which starts etcd with it"
		if r.serves() {
			run = "delete objects that are not needed (the API servers that run take deletions), then ha-install " + disarmVerb + " INVENTORY, then the same command again"
		}
		return phase.Final(&etcd.QuorumError{
			What: "make room", Verdict: c.look(ctx), Run: run,
			Reason: fmt.Sprintf("what was restored is too large for the quota: the database of %s still has %s of %s, compacted and defragmented, and takes no write", r.Cluster.ControlPlanes()[i].Name, units.Bytes(s.DBSize), units.Bytes(s.DBQuota)),
		})
	}
	return nil
}

// serves says that some master's API server was started on the new data already.
func (r *restore) serves() bool {
	return slices.ContainsFunc(r.Cluster.ControlPlanes(), func(ih inventory.Host) bool {
		return r.stands(ih) && r.seen[ih.Name].manifest["kube-apiserver"]
	})
}

// mayHaveMore says that the inventory gives etcd a larger quota than it runs with:
// it was raised since an earlier run found that it was too small. Once API servers
// run nobody's etcd is restarted for it.
func (r *restore) mayHaveMore(ctx context.Context, ih inventory.Host) (bool, error) {
	if r.serves() {
		return false, nil
	}
	quota, err := templates.EtcdQuota(r.Cluster)
	if err != nil {
		return false, err
	}
	s, err := r.members.Ask(ctx, ih.Name)
	// One that does not answer yet is waited for by the gate; one before 3.6 tells none.
	return err == nil && s.DBQuota > 0 && s.DBQuota < quota, ctx.Err()
}

// lowered says whose etcd runs with a larger quota than the inventory gives it: it was
// raised by hand, and what is made anew has the inventory's.
func lowered(c *inventory.Cluster, now etcd.Verdict) []string {
	quota, err := templates.EtcdQuota(c)
	if err != nil {
		return nil // who writes the manifest says so
	}
	var all []string
	for _, m := range now.Members {
		if m.DBQuota > quota && quota > 0 {
			all = append(all, fmt.Sprintf("etcd of %s runs with a quota of %s; it will have %s, which the inventory says (quota-backend-bytes)", m.Name, units.Bytes(m.DBQuota), units.Bytes(quota)))
		}
	}
	return all
}

// stillFor is for how long what is in use has to be the same everywhere.
const stillFor = 2 * time.Second

// awaitStill waits until no member has less in use than a moment ago: the members of
// a snapshot compact by themselves when they start, and say of none when it is done.
func (c *chore) awaitStill(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, compactBudget)
	defer cancel()
	var last []int64
	since := time.Now()
	err := phase.Wait(waiting, phase.Check{Name: "all members to have compacted", Run: func(ctx context.Context) error {
		all, err := c.statuses(ctx)
		if err != nil {
			return err
		}
		var now []int64
		for _, s := range all {
			now = append(now, s.DBInUse)
		}
		if !slices.Equal(now, last) {
			last, since = now, time.Now()
		}
		if time.Since(since) < stillFor {
			return fmt.Errorf("they have %d bytes in use, for %s", now, time.Since(since).Round(time.Second))
		}
		return nil
	}})
	if err != nil && ctx.Err() == nil { // it is defragmented to less effect, which is looked at
		phase.Tell(ctx, err.Error())
		err = nil
	}
	return err
}
