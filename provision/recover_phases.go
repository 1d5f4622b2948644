package provision

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
)

// survive takes the snapshot of the most advanced survivor.
func (rc *recovery) survive(into *string) phase.Phase {
	return phase.Phase{Name: "survivor", Do: func(ctx context.Context) error {
		var b Backed
		var err error
		if d := rc.mostRead(); d != nil {
			b, err = rc.backupOfRead(ctx, *d)
		} else {
			b, err = rc.backupTo(ctx, rc.Backup)
		}
		*into = b.Path
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("%w\n%s", phase.Join(append(rc.unread, err)...), rc.withoutSurvivor())
		}
		return err
	}, Explain: func(context.Context) ([]phase.Change, error) {
		return []phase.Change{{Kind: changeRun, Name: "snapshot", Text: "of the most advanced member, to " + rc.Backup.Directory}}, nil
	}}
}

// withoutSurvivor says what is left when no survivor's data could be had.
func (rc *recovery) withoutSurvivor() string {
	if rc.facts.backup == "" {
		return "nothing was made anew, and all data are as they were; there is no backup that is whole"
	}
	return fmt.Sprintf("nothing was made anew, and all data are as they were\nonce they are given up: --way backup makes the cluster of %s, and loses all that was written after %s", rc.facts.backup, rc.best.Time.UTC().Format(time.DateTime+"Z"))
}

// wake starts the kubelets of masters whose etcd does not answer although its
// data are there. To make the cluster anew of them it is enough that etcd runs: one
// that waits for others is asked by its data (see readAll).
func (rc *recovery) wake() []phase.Stage {
	asleep := rc.silent()
	if rc.way == WaySurvivor {
		asleep = slices.DeleteFunc(asleep, func(ih inventory.Host) bool { return rc.seen[ih.Name].runs["etcd"] })
	}
	if len(asleep) == 0 {
		return nil
	}
	return []phase.Stage{phase.AtOnce(asleep, func(ih inventory.Host) phase.Phase {
		return phase.Phase{
			Name: "wake", Host: ih.Name,
			Do: func(ctx context.Context) error {
				h, err := rc.host(ih.Name)
				if err != nil {
					return err
				}
				commands := [][]string{{"systemctl", "restart", "kubelet.service"}}
				if rc.way == WayBringBack { // what a run has read that was broken off
					commands = append(commands, []string{"rm", "-rf", readDir})
				}
				if err := runAll(ctx, h, commands...); err != nil {
					return err
				}
				waiting, cancel := context.WithTimeout(ctx, wakeBudget)
				defer cancel()
				if err := phase.Wait(waiting, rc.upOrWaits(ih)); err != nil {
					phase.Tell(ctx, fmt.Sprintf("%s: its etcd does not come up with the data that are there: %v", ih.Name, err))
				}
				return ctx.Err()
			},
			Explain: func(context.Context) ([]phase.Change, error) {
				return []phase.Change{{Kind: changeRestart, Name: "kubelet", Text: "which starts etcd with the data that are there"}}, nil
			},
		}
	})}
}

// wakeBudget is how long an etcd may take to come up alone.
const wakeBudget = 2 * time.Minute

// bringBack starts what is only stopped, and proves quorum.
func (rc *recovery) bringBack() []phase.Stage {
	gate := rc.quorumWith(etcd.Want{What: "brought back", NoSpace: true})
	return append(rc.wake(), phase.One(phase.Phase{Name: "quorum", Gate: []phase.Check{gate}, GateTimeout: restartGate}))
}

// clean takes masters that came back off the cluster before; their data are
// moved aside. That the new one has its quorum is proven first.
func (rc *recovery) clean() []phase.Stage {
	var returned []inventory.Host
	for i, ih := range rc.whole.ControlPlanes() {
		if rc.facts.masters[i].returned {
			returned = append(returned, ih)
		}
	}
	return []phase.Stage{
		phase.One(phase.Phase{Name: "quorum", Gate: []phase.Check{rc.newOneHolds(returned)}}),
		phase.AtOnce(returned, rc.resetNode),
		phase.AtOnce(returned, rc.disown),
	}
}

// newOneHolds proves the quorum of the cluster that was made anew, without those
// that do not belong to it.
func (rc *recovery) newOneHolds(returned []inventory.Host) phase.Check {
	return phase.Check{Name: "quorum of the cluster that was made anew", Run: func(ctx context.Context) error {
		here, done := rc.withOnly(func(ih inventory.Host) bool {
			return !slices.ContainsFunc(returned, func(r inventory.Host) bool { return r.Name == ih.Name })
		})
		defer done()
		v, err := here.members.Gate(ctx, etcd.Want{What: "before members of the cluster before are taken off", NoSpace: true}, etcd.PreGateBudget)
		if err != nil {
			return phase.Final(err)
		}
		if v.ClusterID != rc.note.After {
			return phase.Final(fmt.Errorf("the masters that should be of the new cluster are of %s, not of %s", v.ClusterID, rc.note.After))
		}
		tellVerdict(ctx, v, "before members of the cluster before are taken off", nil)
		return nil
	}}
}

// plan walks what would be done without making any change.
func (rc *recovery) plan(ctx context.Context) (Plan, error) {
	var stages []phase.Stage
	switch rc.way {
	case WayBringBack:
		stages = rc.bringBack()
	case WayClean:
		stages = rc.clean()
	case WaySurvivor, WayBackup, WayFinish:
		r, done, err := rc.foresee(ctx)
		if err != nil {
			return Plan{}, err
		}
		defer done()
		if err := r.begin(ctx); err != nil {
			return Plan{}, err
		}
		if rc.way == WaySurvivor {
			var path string
			stages = slices.Concat(rc.wake(), rc.readAll(), []phase.Stage{phase.One(rc.survive(&path))}, rc.forget())
		}
		stages = append(stages, r.stages()...)
	}
	stages = append(stages, rc.giveUp()...)
	if bare := rc.facts.names(func(m recoverSeen) bool { return m.bare || m.returned }); len(bare) > 0 && len(rc.facts.without) == 0 {
		stages = append(stages, phase.One(phase.Phase{
			Name: "apply", Do: func(context.Context) error { return errReadOnly },
			Explain: func(context.Context) ([]phase.Change, error) {
				return []phase.Change{{Kind: changeMembership, Name: strings.Join(bare, ", "), Text: "join, by all that ha-install apply does"}}, nil
			},
		}))
	}
	return (&apply{Site: rc.Site}).plan(ctx, phase.Planner{SkipGates: true}, stages)
}

// foresee is the restore that a plan is made of; of a snapshot that is not taken
// yet as much as its member tells.
func (rc *recovery) foresee(ctx context.Context) (*restore, func(), error) {
	switch rc.way {
	case WayBackup:
		return rc.remake(ctx, rc.facts.backup)
	case WayFinish:
		return rc.remake(ctx, "")
	}
	m := backup.Manifest{Cluster: rc.Cluster.Metadata.Name, Time: time.Now()}
	for _, seen := range rc.seen { // until its own member says
		m.EtcdVersion = cmp.Or(m.EtcdVersion, seen.etcdutl)
	}
	source := restoreSource{dir: rc.Backup.Directory}
	if sources, err := etcd.SnapshotSources(rc.now); err == nil {
		best := sources[0]
		source.size, m.EtcdVersion = best.DBSize, best.Version
		if best.Inputs != nil && best.Inputs.Last != nil {
			m.ClusterID, m.Snapshot.Revision = best.Inputs.Last.ClusterID, best.Inputs.Last.Revision
		}
	}
	source.m = m
	r, done := rc.remakeFrom(source, RestoreOptions{Again: true, Backup: rc.Backup})
	return r, done, nil
}
