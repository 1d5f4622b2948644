package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
)

// backupPossible says that some member could give a snapshot of now.
func backupPossible(now etcd.Verdict) bool {
	sources, err := etcd.SnapshotSources(now)
	return err == nil && len(sources) > 0
}

// keepBackup takes a backup of what is there now. Where no member can give one
// the directories that are kept on the masters are all there is.
func (r *restore) keepBackup() phase.Phase {
	return phase.Phase{
		Name: "backup",
		// What an earlier run has left half done is nothing to go back to.
		Done: func(ctx context.Context) (bool, error) {
			if !r.resumed && !r.saved && !backupPossible(r.now) {
				phase.Tell(ctx, "no member can give a snapshot of what is there now: the directories that are kept on the masters are all there is of it")
			}
			return r.resumed || r.saved || !backupPossible(r.now), nil
		},
		Do: func(ctx context.Context) error {
			_, err := r.backupTo(ctx, r.Backup)
			if err != nil && !r.now.State.HasQuorum() {
				phase.Tell(ctx, fmt.Sprintf("no backup of what is there now, the directories that are kept on the masters are all there is of it: %v", err))
				return ctx.Err()
			}
			return err
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeRun, Name: "backup", Text: "of what is there now, to " + r.Backup.Directory}}, nil
		},
	}
}

// isWhole is what a gate wants of the new cluster; where one of its masters was lost
// since, that it votes.
func (r *restore) isWhole() etcd.Want {
	if r.goesOn != nil {
		return etcd.Want{What: "the new cluster"}
	}
	return etcd.Want{What: "the new cluster", Voters: len(r.Cluster.ControlPlanes()), AllHealthy: true, Hash: true}
}

// newQuorum proves the new cluster before anything uses it: all members vote,
// hold the same data, and are of no cluster that was there before. Whether it takes
// a write, which it does not with the alarm of a snapshot, is shown by writes.
func (r *restore) newQuorum() phase.Phase {
	want := r.isWhole()
	want.NoSpace = true
	all := r.quorumWith(want)
	return phase.Phase{Name: "quorum", GateTimeout: restartGate, Gate: []phase.Check{all, {
		Name: "a cluster ID of its own", Run: func(ctx context.Context) error {
			id := r.members.Look(ctx, etcd.Options{ReadOnly: true}).ClusterID
			switch id {
			case 0:
				return errors.New("no member tells it")
			case r.note.Before, r.source.m.ClusterID:
				return phase.Final(fmt.Errorf("it is %s, as before the restore: members from before could join", id))
			}
			r.note.After = id
			return nil
		},
	}}}
}

// verifyHere is apply's proof of all; without a master that was lost since, of those
// that are here.
func (r *restore) verifyHere() phase.Phase {
	p := r.verify()
	if r.goesOn == nil {
		return p
	}
	p.Gate = []phase.Check{r.quorumWith(r.isWhole())}
	for _, ih := range r.Cluster.ControlPlanes() {
		p.Gate = append(p.Gate, r.columnReady(ih), r.served(ih))
	}
	p.Gate = append(p.Gate, r.leaders())
	for _, ih := range r.Cluster.Nodes() {
		p.Gate = append(p.Gate, r.nodeReady(ih))
	}
	return p
}

// tryControllers has a Deployment made, scaled and deleted: what acts on the API
// may hold on to what it knew before.
func (r *restore) tryControllers() phase.Phase {
	return phase.Phase{
		Name: "try-controllers",
		Do: func(ctx context.Context) error {
			client, err := r.anyAPI(ctx)
			if err != nil {
				return err
			}
			image := ""
			if r.bundle != nil {
				image = r.probeImage()
			} else if err := r.openBundle(); err == nil {
				image = r.probeImage()
				r.close()
				r.bundle = nil
			}
			if image == "" {
				phase.Tell(ctx, "the trial's pods were only scheduled and not started: there is no bundle here that has an image for it")
			}
			return client.TryControllers(ctx, image, namesOf(r.Cluster.Nodes()), sayIn(ctx), tellIn(ctx))
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeObject, Name: "a Deployment in a namespace of its own", Text: "made, scaled and deleted again"}}, nil
		},
	}
}

// finish notes on a master that all is done, and removes what it took.
func (r *restore) finish(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "finish", Host: ih.Name,
		Done: func(context.Context) (bool, error) {
			n := r.seen[ih.Name].note
			return n != nil && n.Token == r.note.Token && n.Done, nil
		},
		Do: func(ctx context.Context) error {
			h, err := r.host(ih.Name)
			if err != nil {
				return err
			}
			if _, err := h.Run(ctx, host.Command{Argv: []string{"rm", "-rf", restoreDir, keptManifests}}); err != nil {
				return err
			}
			done := r.note
			done.Done = true
			return writeRestoreNote(ctx, h, done)
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeFile, Name: restoreFile, Mode: "0600", Text: "the restore is done"}, {Kind: changeClean, Name: restoreDir}}, nil
		},
	}
}

// report tells what was lost.
func (r *restore) report() phase.Phase {
	return phase.Phase{Name: "report", Gate: []phase.Check{{Name: "the report", Run: func(ctx context.Context) error {
		n := r.note
		var b strings.Builder
		fmt.Fprintf(&b, "restored  %s\nlost      %s\netcd      cluster %s, before it %s; revisions go on above %d", r.source.dir, n.Loss, n.After, orUnknown(n.Before), r.source.m.Snapshot.Revision+n.Bump)
		fmt.Fprintf(&b, "\nkept      on each master: %s.ha-install-*; delete it when it is not needed any more", etcdMember)
		for _, name := range r.away {
			if ih, _ := r.whole.HostByName(name); ih.Role != inventory.RoleWorker {
				continue
			}
			fmt.Fprintf(&b, "\naway      %s: restart its kubelet when it is back", name)
		}
		b.WriteString("\nnext      ha-install apply, which brings Nodes that the backup does not know to what the inventory says")
		phase.TellData(ctx, b.String(), phase.Data{"restore": n})
		return nil
	}}}}
}

func orUnknown(id etcd.MemberID) string {
	if id == 0 {
		return "not known"
	}
	return id.String()
}

// alreadyRestored is the whole of a run that has nothing to do.
func (r *restore) alreadyRestored() phase.Phase {
	return phase.Phase{Name: "report", Gate: []phase.Check{{Name: "the report", Run: func(ctx context.Context) error {
		n := r.restored
		phase.TellData(ctx, fmt.Sprintf("%s was restored at %s, by %s; nothing was changed\nto do it again, and lose what was written since: --again", r.source.dir, n.Began.Format(time.DateTime+"Z"), n.By), phase.Data{"restore": *n})
		return nil
	}}}}
}
