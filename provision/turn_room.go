package provision

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/schedule"
)

// workInRoom is work, and where the disk has no room for it work once more with one
// backup less beside it: older ones go only after a newer one was made else, and a disk
// that is full would stay so. freed is what a turn's outcome says of that besides.
func (t Turn) workInRoom(ctx context.Context, run *phase.Runner, d schedule.Decision, view schedule.View, turn *schedule.Turn, cfg *tls.Config, own []backup.Entry) (note schedule.Note, made Backed, freed string, err error) {
	note, made, err = t.work(ctx, run, d, view, turn, cfg, own)
	var full *backup.SpaceError
	if !errors.As(err, &full) {
		return note, made, "", err
	}
	removed, freeing := t.makeRoom(ctx, full)
	if freeing != nil || removed == 0 {
		return note, made, "", errors.Join(err, freeing)
	}
	freed = fmt.Sprintf("there was no room, and of the older backups here %d went first", removed)
	if note, made, err = t.work(ctx, run, d, view, turn, cfg, own); err != nil {
		return note, made, "", fmt.Errorf("%s: %w", freed, err)
	}
	return note, made, "; " + freed, nil
}

// makeRoom removes those of this cluster's backups that go anyway when there is one
// more. Those that stay are read to their ends before, and the newest that is whole is
// one of them. Where it would not be enough, nothing is removed.
func (t Turn) makeRoom(ctx context.Context, full *backup.SpaceError) (removed int, err error) {
	store, ca := backup.In(t.Config.Directory, t.Config.Cluster), t.master().caFingerprint(ctx)
	all, err := store.List()
	if err != nil {
		return 0, err
	}
	var mine []backup.Entry
	for _, e := range all {
		if e.Err == nil && e.Manifest.Cluster == t.Config.Cluster && e.Manifest.CASHA256 == ca {
			mine = append(mine, e)
		}
	}
	keep := max(t.Config.Keep-1, 1)
	if len(mine) <= keep || !enough(full, mine[keep:]) {
		return 0, nil // as each look finds, without reading them all
	}
	fates := backup.Decide(mine, t.Config.Cluster, backup.Rule{Keep: keep}, t.Now(), func(e backup.Entry) bool {
		r, verifying := backup.Verify(ctx, e.Path, backup.Expected{Cluster: t.Config.Cluster, CASHA256: ca})
		err = errors.Join(err, verifying)
		return r.Whole
	})
	if err != nil {
		return 0, err
	}
	var going []backup.Entry
	for _, f := range fates {
		if f.Remove {
			going = append(going, f.Entry)
		}
	}
	if !enough(full, going) {
		return 0, nil
	}
	for _, e := range going {
		if err := store.Remove(e); err != nil {
			return removed, fmt.Errorf("make room: %w", err)
		}
		removed++
		phase.Tell(ctx, "removed "+e.Path+": there is no room for a newer one")
	}
	return removed, nil
}

// enough says whether there would be room without those, as far as is known.
func enough(full *backup.SpaceError, without []backup.Entry) bool {
	free := full.Free
	for _, e := range without {
		free += e.Manifest.Bytes()
	}
	return full.Needed == 0 || free >= full.Needed
}
