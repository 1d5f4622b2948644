// Package schedule decides which master makes a scheduled backup, and when: the
// periods of a clock, turns that go round, one record in etcd, and a lease that
// only one master can have.
package schedule

import (
	"fmt"
	"slices"
	"time"
)

// Facts are what a master knows when it looks whether a backup is due.
type Facts struct {
	Now   time.Time
	Every time.Duration
	Grace time.Duration // that each master leaves the one before it
	Self  string
	// Masters are the voters, those that are down too.
	Masters []string
	Last    *Note       // what etcd has on record; nil for nothing yet
	Own     []time.Time // when this master's own backups were begun, the newest first
	// Recorded is when that one of them was begun that this master has put on record
	// last; zero for none.
	Recorded time.Time
}

// Kind is what is to be done.
type Kind string

const (
	Nothing Kind = "nothing" // the period has its backup
	Wait    Kind = "wait"    // the turn is another's as yet
	Make    Kind = "make"
	// Adopt is for a backup that this master has made, and could not put on
	// record before it was stopped.
	Adopt Kind = "adopt"
)

// Decision is what is to be done, and why.
type Decision struct {
	Kind   Kind
	Period time.Time // when the period of now began
	Why    string
}

// Decide says what a master is to do now. Periods are those of the clock, since
// the beginning of time, so that all masters have the same. Each has a first
// master, the next one the next master, and who comes after it waits for Grace,
// and for Grace again for each one between them. The lease keeps two from making
// one at once; the turns only keep them from trying.
func Decide(f Facts) Decision {
	period := f.Now.UTC().Truncate(f.Every)
	d := Decision{Period: period}
	// A record of the far future is of a clock that was wrong: it must not end all
	// backups. What is made instead is one in a period on each master at most.
	if l := f.Last; l != nil && !l.Period.Before(period) && !l.Period.After(period.Add(f.Every)) {
		d.Kind, d.Why = Nothing, fmt.Sprintf("the period since %s has its backup, on %s", stamp(l.Period), l.Host)
		return d
	}
	for _, t := range f.Own {
		if t.Before(period) || !t.Before(period.Add(f.Every)) {
			continue
		}
		// Where the record gave way to one of a clock that is far off, each look would put
		// it back, and read all of the backup before.
		if l := f.Last; t.Equal(f.Recorded) || l != nil && l.Host == f.Self && l.Time.Equal(t) {
			d.Kind, d.Why = Nothing, "it was made at "+stamp(t)+" and put on record"
		} else {
			d.Kind, d.Why = Adopt, "it was made at "+stamp(t)+" and is not on record"
		}
		return d
	}
	masters := slices.Sorted(slices.Values(f.Masters))
	self := slices.Index(masters, f.Self)
	if self < 0 {
		d.Kind, d.Why = Wait, f.Self+" is no voter"
		return d
	}
	n := int64(len(masters))
	first := period.Unix() / int64(f.Every/time.Second) % n
	after := (int64(self) - first + n) % n
	if from := period.Add(time.Duration(after) * f.Grace); f.Now.Before(from) {
		d.Kind, d.Why = Wait, fmt.Sprintf("it is the turn of %s; %s would follow at %s", masters[first], f.Self, stamp(from))
		return d
	}
	d.Kind, d.Why = Make, "the period since "+stamp(period)+" has no backup yet"
	return d
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
