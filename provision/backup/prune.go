package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Rule says which backups stay: the newest ones, and those that are younger.
type Rule struct {
	Keep    int           // so many whole ones; 0: none by their number
	Younger time.Duration // 0: none by their age
}

// Fate is what becomes of one backup, and why.
type Fate struct {
	Entry
	Remove bool
	Why    string
}

// Decide says what becomes of backups, the newest first, by a rule. whole is
// asked whether a backup can be restored from, only as far as it matters: one
// that is damaged does not count as kept, and goes only when it is older than
// what is. Whatever the rule says, the newest whole one stays, and with none
// that is whole all do.
func Decide(all []Entry, cluster string, r Rule, now time.Time, whole func(Entry) bool) []Fate {
	fates := make([]Fate, len(all))
	kept := 0 // whole ones
	for i, e := range all {
		f := &fates[i]
		f.Entry = e
		switch young := r.Younger > 0 && now.Sub(e.Manifest.Time) < r.Younger; {
		case e.Err != nil:
			f.Why = "its manifest does not prove it to be ours: " + e.Err.Error()
		case e.Manifest.Cluster != cluster:
			f.Why = "it is of cluster " + e.Manifest.Cluster
		case (kept == 0 || kept < r.Keep) && !whole(e):
			f.Why = "it is damaged, and newer than what is kept"
		case kept < r.Keep:
			kept++
			f.Why = fmt.Sprintf("number %d of %d to keep", kept, r.Keep)
		case young:
			kept++
			f.Why = "it is younger than " + inDays(r.Younger)
		case kept == 0:
			kept++
			f.Why = "it is the newest that is whole"
		default:
			f.Why, f.Remove = "older than what is to be kept", true
		}
	}
	return fates
}

// inDays reads "14 days", or "36h0m0s".
func inDays(d time.Duration) string {
	if day := 24 * time.Hour; d%day == 0 {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}

// Fates looks at the store and decides; nothing is removed.
func (s Store) Fates(ctx context.Context, cluster string, r Rule, now time.Time) ([]Fate, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	fates := Decide(all, cluster, r, now, func(e Entry) bool {
		report, verifying := Verify(ctx, e.Path, Expected{Cluster: cluster})
		err = errors.Join(err, verifying)
		return report.Whole
	})
	return fates, err
}

// Remove deletes one backup of the store: it loses its name first, so that no
// half of it is ever taken for a backup. Where something lies in it that is not
// a backup's, nothing is deleted.
func (s Store) Remove(e Entry) error {
	if e.Err != nil {
		return fmt.Errorf("%s: not removed: %w", e.Path, e.Err)
	}
	lock, err := hold(e.Path)
	if err != nil {
		return fmt.Errorf("%s: not removed: %w", e.Path, err)
	}
	defer lock.Close()
	if err := onlyOurs(e.Path); err != nil {
		return err
	}
	hidden := filepath.Join(s.dir, "."+filepath.Base(e.Path)+partSuffix)
	if err := os.Rename(e.Path, hidden); err != nil {
		return err
	}
	return removeOurs(hidden)
}
