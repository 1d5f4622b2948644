package provision

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
)

// lastNote is the newest note about etcd having been made anew; one that is not
// done comes before all others.
func (rc *recovery) lastNote() *restoreNote {
	var last *restoreNote
	for _, name := range sortedKeys(rc.seen) {
		n := rc.seen[name].note
		if n == nil || n.Manifest.Cluster != rc.Cluster.Metadata.Name || last != nil && (!last.Done && n.Done || last.Done == n.Done && !n.Began.After(last.Began)) {
			continue
		}
		last = n
	}
	return last
}

// gather puts together what is known of each master.
func (rc *recovery) gather() recoverFacts {
	answers, listed := map[string]*etcd.Status{}, map[string]bool{}
	anew := rc.note != nil && rc.note.Done
	// Once etcd was made anew only what is of the new cluster counts: old members
	// may have a quorum of their own.
	f := recoverFacts{quorum: rc.now.State.HasQuorum() && (!anew || rc.now.ClusterID == rc.note.After)}
	f.full = rc.full && (!anew || rc.now.ClusterID == rc.note.After)
	for _, m := range rc.now.Members {
		if m.Inputs == nil || m.Inputs.Last == nil {
			continue
		}
		s := m.Inputs.Last
		if m.Host != "" {
			answers[m.Host] = s
		}
		if anew && s.ClusterID == rc.note.After {
			for _, l := range m.Inputs.Local {
				for _, url := range l.PeerURLs {
					listed[url] = true
				}
			}
			f.quorum = f.quorum || m.Inputs.Linearizable.OK()
		}
	}
	for _, ih := range rc.whole.ControlPlanes() {
		m, here := rc.seen[ih.Name]
		s := recoverSeen{name: ih.Name, away: !here}
		status := answers[ih.Name]
		if here {
			s.bare = !m.marker.Established && !m.data
			s.lacks, s.data = m.lacks, m.data
			of := anew && status != nil && status.ClusterID != rc.note.After
			s.returned = anew && m.data && (of || len(listed) > 0 && !listed[peerURL(ih)])
		}
		if status != nil {
			s.answers, s.revision, s.cluster = true, status.Revision, status.ClusterID
		} else if i := slices.IndexFunc(rc.read, func(d dataRead) bool { return d.host == ih.Name }); i >= 0 {
			s.read, s.revision, s.cluster = true, rc.read[i].revision, rc.read[i].cluster
		}
		f.masters = append(f.masters, s)
	}
	if rc.note == nil || rc.note.Done || !rc.canFinish() {
		return f
	}
	f.snapshot = rc.note.From
	if f.quorum && rc.untouched() {
		f.planned = rc.note.Verb != "recover" // a restore is for a cluster that is well
		return f
	}
	f.halfDone = true
	var gone []string
	serves := f.quorum || f.full
	for _, ih := range rc.whole.ControlPlanes() {
		m, here := rc.seen[ih.Name]
		switch {
		case !rc.note.has(ih):
		case !here:
			f.stuck = append(f.stuck, ih.Name)
			gone = append(gone, ih.Name)
		case m.bare():
			gone = append(gone, ih.Name)
		default:
			serves = serves && m.renewed(rc.note.Token) == nil
		}
	}
	if serves {
		f.without = gone
	}
	return f
}

// isFull says that etcd votes and takes no write all the same: a database is at its
// quota.
func (rc *recovery) isFull(ctx context.Context) bool {
	if !slices.ContainsFunc(rc.now.Alarms, func(a etcd.Alarm) bool { return a.Kind == etcd.KindNoSpace }) {
		return false
	}
	return rc.members.Judge(ctx, etcd.Options{ReadOnly: true, NoSpace: true}).State.HasQuorum()
}

// has says that a master takes part in what the note is about.
func (n restoreNote) has(ih inventory.Host) bool {
	return slices.Contains(strings.Split(n.Cluster, ","), ih.Name+"="+peerURL(ih))
}

// bestBackup is the one that is whole and of the highest revision: each restore
// raises revisions above all that were seen before. One that was taken later may
// be of less, when its member had fallen behind.
func (rc *recovery) bestBackup(ctx context.Context) error {
	all, err := backup.In(rc.Backup.Directory, rc.Cluster.Metadata.Name).List()
	if err != nil {
		return err
	}
	slices.SortStableFunc(all, func(a, b backup.Entry) int {
		return cmp.Compare(b.Manifest.Snapshot.Revision, a.Manifest.Snapshot.Revision)
	})
	want := rc.Expected
	want.Cluster, want.CASHA256 = rc.Cluster.Metadata.Name, CAFingerprint(ctx, rc.Site)
	for _, e := range all {
		if e.Err != nil {
			continue
		}
		r, err := backup.Verify(ctx, e.Path, want)
		if err != nil {
			return err
		}
		if r.Whole {
			rc.best = *r.Manifest
			rc.facts.backup, rc.facts.backupRevision, rc.facts.backupCluster = e.Path, rc.best.Snapshot.Revision, rc.best.ClusterID
			return nil
		}
	}
	return nil
}
