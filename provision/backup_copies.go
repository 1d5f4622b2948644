package provision

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/copies"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
)

// CopyOptions say where copies of backups are kept.
type CopyOptions struct {
	To []inventory.BackupCopy
	// Here is the host that this program runs on, which masters:// leaves out; ""
	// when it is none of the cluster's.
	Here string
}

// OnMasters reports whether a place is on the cluster's own hosts.
func (o CopyOptions) OnMasters() bool {
	for _, c := range o.To {
		if strings.HasPrefix(c.To, string(inventory.CopyMasters)+"://") {
			return true
		}
	}
	return false
}

// Copied is what became of one copy.
type Copied struct {
	Place string `json:"place"`
	// There says that it was there already; it was read, not sent.
	There bool          `json:"alreadyThere"`
	Bytes int64         `json:"bytes"`
	Took  units.Seconds `json:"tookSeconds"`
	Err   string        `json:"error,omitempty"`

	err error
}

// String is a line.
func (c Copied) String() string {
	switch {
	case c.err != nil:
		return "copy      FAILED  " + c.err.Error()
	case c.There:
		return fmt.Sprintf("copy      %s: was there already, read back whole", c.Place)
	}
	return fmt.Sprintf("copy      %s: %s sent and read back in %s", c.Place, units.Bytes(c.Bytes), c.Took)
}

// CopiesError means that a backup is whole, and some of its copies were not made.
type CopiesError struct {
	Path   string
	Failed []error // one for each copy, which it names
	Places int     // how many copies there were to be
	Run    string  // what to do
}

func (e *CopiesError) Error() string {
	text := fmt.Sprintf("%d of %d copies of %s were not made; the backup itself is whole", len(e.Failed), e.Places, e.Path)
	for _, err := range e.Failed {
		text += "\n" + err.Error()
	}
	return text + "\nrun: " + e.Run
}

func (e *CopiesError) Unwrap() []error { return e.Failed }

// opening is a place that is not connected to yet.
type opening struct {
	name string
	open func(context.Context) (*copies.Place, error)
}

// openings are all places of the options, in their order; of masters:// one for
// each master.
func (s *Site) openings(o CopyOptions) []opening {
	var all []opening
	for _, c := range o.To {
		if at, err := c.Place(); err != nil || at.Scheme != inventory.CopyMasters {
			all = append(all, opening{c.To, func(ctx context.Context) (*copies.Place, error) { return copies.Open(ctx, c, s.BaseDir) }})
			continue
		}
		for _, ih := range s.Cluster.ControlPlanes() {
			if ih.Name == o.Here {
				continue
			}
			all = append(all, opening{c.To + " on " + ih.Name, func(ctx context.Context) (*copies.Place, error) {
				h, err := s.host(ih.Name)
				if err != nil {
					return nil, err
				}
				return copies.OnHost(ctx, c, h)
			}})
		}
	}
	return all
}

// at opens the place, does something there, and closes it.
func (o opening) at(ctx context.Context, do func(*copies.Place) error) error {
	p, err := o.open(ctx)
	if err == nil {
		err = do(p)
		p.Close()
	}
	if err != nil && !strings.Contains(err.Error(), o.name) {
		err = fmt.Errorf("%s: %w", o.name, err)
	}
	return err
}

// CopyBackup sends a backup, which has to be whole, to all places at once, and
// reads each copy back; tell hears of each as it ends. The error is a
// *CopiesError where one was not made.
func CopyBackup(ctx context.Context, s *Site, dir string, o CopyOptions, tell func(Copied)) ([]Copied, error) {
	e := backup.Read(dir)
	if e.Err != nil {
		return nil, fmt.Errorf("%s: %w", dir, e.Err)
	}
	var places []sending
	for _, place := range s.openings(o) {
		places = append(places, sending{place.name, func(ctx context.Context, e backup.Entry) (there bool, err error) {
			err = place.at(ctx, func(p *copies.Place) (err error) {
				there, err = p.Send(ctx, e)
				return err
			})
			return there, err
		}})
	}
	made, failed := sendTo(ctx, e, places, tell)
	if failed != nil {
		failed.Run = fmt.Sprintf("ha-install backup copy INVENTORY %s (with the same --copy-to, where there was one) when the cause is gone", filepath.Base(dir))
		return made, failed
	}
	return made, nil
}

// sending is a place that a backup is to be sent to.
type sending struct {
	name string
	send func(context.Context, backup.Entry) (there bool, err error)
}

// sendTo sends a backup to all places at once; tell hears of each as it ends. nil
// when all have it.
func sendTo(ctx context.Context, e backup.Entry, places []sending, tell func(Copied)) ([]Copied, *CopiesError) {
	made := make([]Copied, len(places))
	var mu sync.Mutex
	var all sync.WaitGroup
	for i, place := range places {
		all.Go(func() {
			c := &made[i]
			c.Place, c.Bytes = place.name, e.Manifest.Bytes()
			began := time.Now()
			c.There, c.err = place.send(ctx, e)
			c.Took = units.Seconds(time.Since(began).Round(time.Millisecond))
			if c.err != nil {
				c.Err = c.err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			tell(*c)
		})
	}
	all.Wait()
	failed := &CopiesError{Path: e.Path, Places: len(places)}
	for _, c := range made {
		if c.err != nil {
			failed.Failed = append(failed.Failed, c.err)
		}
	}
	if len(failed.Failed) > 0 {
		return made, failed
	}
	return made, nil
}

// sendCopies sends a backup that was just made; it stays whatever becomes of them.
func (s *Site) sendCopies(ctx context.Context, path string, o CopyOptions) error {
	_, err := CopyBackup(ctx, s, path, o, func(c Copied) {
		phase.TellData(ctx, c.String(), phase.Data{"copy": c})
	})
	return err
}

// Kept is what a place has of a cluster's backups.
type Kept struct {
	Place  string
	Copies []copies.Copy // the newest first; their place is closed
	Err    error
}

// ListCopies asks all places at once.
func ListCopies(ctx context.Context, s *Site, o CopyOptions) []Kept {
	places := s.openings(o)
	kept := make([]Kept, len(places))
	var all sync.WaitGroup
	for i, place := range places {
		all.Go(func() {
			k := &kept[i]
			k.Place = place.name
			k.Err = place.at(ctx, func(p *copies.Place) (err error) {
				k.Copies, err = p.List(ctx, s.Cluster.Metadata.Name)
				return err
			})
		})
	}
	all.Wait()
	return kept
}

// FetchBackup brings a copy by its name from the first place that has it whole,
// into the cluster's directory in directory.
func FetchBackup(ctx context.Context, s *Site, o CopyOptions, name, directory string, want backup.Expected) (backup.Report, error) {
	var failed []error
	for _, place := range s.openings(o) {
		var r backup.Report
		err := place.at(ctx, func(p *copies.Place) (err error) {
			r, err = p.Fetch(ctx, path.Join(s.Cluster.Metadata.Name, name), directory, want)
			return err
		})
		if err == nil {
			return r, nil
		}
		var local *backup.LocalError
		if ctx.Err() != nil || errors.As(err, &local) {
			return r, err
		}
		failed = append(failed, err)
	}
	if len(failed) == 0 {
		return backup.Report{}, errors.New("no place for copies is known; give --copy-to, or list them in spec.backup.copies")
	}
	return backup.Report{}, fmt.Errorf("no place gave %s whole:\n%w", name, phase.Join(failed...))
}

// PrunedCopy is what becomes of one copy.
type PrunedCopy struct {
	Place string
	backup.Fate
	Err error // of its removal, or of the place as a whole, which then has no Fate
}

// PruneCopies holds the copies of each place for itself against a rule, and
// deletes what is to go, the oldest first, unless dry. Of each place the newest
// copy that counts is read to its end before it counts; those after it are taken
// at their manifest's word, which was written when they had been read back.
func PruneCopies(ctx context.Context, s *Site, o CopyOptions, r backup.Rule, now time.Time, dry bool) []PrunedCopy {
	places := s.openings(o)
	pruned := make([][]PrunedCopy, len(places))
	var all sync.WaitGroup
	for i, place := range places {
		all.Go(func() {
			err := place.at(ctx, func(p *copies.Place) (err error) {
				pruned[i], err = pruneAt(ctx, p, s.Cluster.Metadata.Name, pruning{rule: r, now: now, dry: dry})
				return err
			})
			if err != nil {
				pruned[i] = append(pruned[i], PrunedCopy{Place: place.name, Err: err})
			}
		})
	}
	all.Wait()
	var flat []PrunedCopy
	for _, of := range pruned {
		flat = append(flat, of...)
	}
	return flat
}

// pruning is a rule for the copies of one place.
type pruning struct {
	rule backup.Rule
	now  time.Time
	dry  bool
	only func(backup.Manifest) bool // the copies that are meant; nil: all
	sure string                     // a copy that was read just now, by its name
}

func pruneAt(ctx context.Context, p *copies.Place, cluster string, how pruning) ([]PrunedCopy, error) {
	found, err := p.List(ctx, cluster)
	if err != nil {
		return nil, err
	}
	var entries []backup.Entry
	at := map[string]copies.Copy{}
	for _, c := range found {
		if how.only == nil || c.Err == nil && how.only(c.Manifest) {
			entries, at[c.Dir] = append(entries, c.Entry()), c
		}
	}
	proven := false
	fates := backup.Decide(entries, cluster, how.rule, how.now, func(e backup.Entry) bool {
		if proven || path.Base(e.Path) == how.sure {
			proven = true
			return true
		}
		checking := at[e.Path].Check(ctx)
		proven = checking == nil
		// A line that broke says nothing about the copy: then nothing is decided.
		if checking != nil && !copies.IsDamage(checking) && err == nil {
			err = checking
		}
		return proven
	})
	if err != nil {
		return nil, err
	}
	out := make([]PrunedCopy, len(fates))
	for i := len(fates) - 1; i >= 0; i-- {
		out[i] = PrunedCopy{Place: p.String(), Fate: fates[i]}
		if fates[i].Remove && !how.dry {
			out[i].Err = at[fates[i].Path].Remove(ctx)
		}
	}
	return out, nil
}
