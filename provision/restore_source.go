package provision

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/units"
)

// RestoreOptions say what a cluster is restored from.
type RestoreOptions struct {
	From string // the directory of a backup on this machine
	// Expected is what the backup is held against besides: openers of its keys.
	Expected backup.Expected
	// Openers open the backup's keys, which are needed on bare hosts.
	Openers []age.Identity
	// Again restores a backup once more that was restored already.
	Again bool
	// Backup is where what the cluster holds now is put before.
	Backup BackupOptions
}

// restoreSource is the snapshot of which the new members are made.
type restoreSource struct {
	dir, file string // on this machine
	sum       string // SHA-256 of the whole file, in hex
	size      int64  // of the whole file, in bytes
	m         backup.Manifest
}

// sourceOf proves a backup, all of it, and returns its snapshot. A backup that
// is not whole is a *backup.DamagedError; no host is touched before.
func sourceOf(ctx context.Context, o RestoreOptions, cluster string) (restoreSource, error) {
	want := o.Expected
	want.Cluster = cluster
	r, err := backup.Verify(ctx, o.From, want)
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return restoreSource{}, err
	}
	s := restoreSource{dir: r.Path, file: filepath.Join(r.Path, backup.SnapshotFile), m: *r.Manifest}
	s.sum, s.size, err = sumOfFile(s.file)
	return s, err
}

func sumOfFile(file string) (sum string, size int64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

// onHosts is where the snapshot lies on a master while it is restored.
func (s restoreSource) onHosts() string {
	return restoreDir + "/" + s.sum[:min(16, len(s.sum))] + ".db"
}

// bumpStep is by how much revisions are raised, as upstream advises: what
// watches from before the restore ask for must be older than all there is, or
// they would wait for revisions to come, and take new ones for those they know.
const bumpStep = 1_000_000_000

// bumpFor is what a snapshot's revision has to be raised by to come out above
// every revision that anybody has seen.
func bumpFor(snapshot, seen int64) int64 {
	return (max(seen-snapshot, 0)/bumpStep + 1) * bumpStep
}

// Loss is what a restore throws away: all that was written after the snapshot.
type Loss struct {
	From time.Time `json:"from"` // when the snapshot was taken
	To   time.Time `json:"to"`   // when the cluster was looked at, or stopped
	// Revisions counts the writes between; -1 when it cannot be known.
	Revisions int64 `json:"revisions"`
}

// String is a sentence.
func (l Loss) String() string {
	const layout = "2006-01-02 15:04:05Z"
	text := fmt.Sprintf("all that was written between %s and %s (%s)", l.From.UTC().Format(layout), l.To.UTC().Format(layout), units.Seconds(l.To.Sub(l.From).Round(time.Second)))
	if l.Revisions < 0 {
		return text + "; how much that is cannot be known: there was no quorum that could tell, or its history is another one than the backup's"
	}
	return text + fmt.Sprintf(": %d revisions", l.Revisions)
}

// lossOf holds what the members have now against a snapshot. Without quorum who is left
// may be behind it.
func lossOf(m backup.Manifest, now etcd.Verdict, at time.Time) Loss {
	l := Loss{From: m.Time, To: at, Revisions: -1}
	if revision, cluster := newestRevision(now); revision > 0 && cluster == m.ClusterID && now.State.HasQuorum() {
		l.Revisions = max(revision-m.Snapshot.Revision, 0)
	}
	return l
}

// newestRevision is the highest that any member tells, and that member's
// cluster; 0 when none answers.
func newestRevision(v etcd.Verdict) (revision int64, cluster etcd.MemberID) {
	for _, m := range v.Members {
		if m.Inputs == nil || m.Inputs.Last == nil {
			continue
		}
		if s := m.Inputs.Last; s.Revision > revision {
			revision, cluster = s.Revision, s.ClusterID
		}
	}
	return revision, cluster
}
