package etcd

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"
)

// AnyLearners in Want.Learners accepts any number of learners.
const AnyLearners = -1

const gatePoll = 500 * time.Millisecond

// Want is what a gate waits for. Quorum, a stable leader and the absence of
// ghosts are always wanted.
type Want struct {
	What       string // "join cp-2: before"; for messages
	Voters     int    // exactly; 0: any number
	Learners   int    // exactly; AnyLearners
	AllHealthy bool   // every voter
	Hash       bool   // equal HashKV too
	NoSpace    bool   // NOSPACE alarms are no obstacle, and no write is tried
	// Op is projected on each look; a gate passes only when it is allowed.
	Op *Operation
	// Watch is told of each look and what is still missing ("" at the end).
	Watch func(v Verdict, missing string)
}

// Gate looks until everything wanted holds, and returns the last verdict. What
// waiting cannot change (a ghost, a stray learner, SPLIT, an operation refused
// even at best) is returned at once, the rest when budget is over; both as
// *QuorumError. On a healthy cluster it takes one election timeout, or a
// single look when the last gate's samples are recent.
func (m *Members) Gate(ctx context.Context, w Want, budget time.Duration) (Verdict, error) {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	var last Verdict
	var miss *missing
	for {
		v := m.Look(ctx, Options{Hash: w.Hash, NoSpace: w.NoSpace})
		if !cutShort(ctx) || miss == nil {
			last, miss = v, w.missing(v)
		}
		if w.Watch != nil {
			w.Watch(last, miss.text())
		}
		switch {
		case miss == nil:
			return last, nil
		case miss.definite:
			return last, miss.err(w, last, nil)
		}
		wait := gatePoll
		if left := ElectionTimeout - last.StableFor.Duration(); miss.onlyStability && left > 0 {
			wait = left
		}
		if err := pause(ctx, wait); err != nil {
			if whole.Err() != nil {
				return last, miss.err(w, last, whole.Err())
			}
			return last, miss.err(w, last, fmt.Errorf("not within %s: %w", shortDuration(budget), err))
		}
	}
}

// cutShort says that a look which ended now was ended by the deadline: what it
// did not see, nobody was given the time to show.
func cutShort(ctx context.Context) bool {
	deadline, bounded := ctx.Deadline()
	return ctx.Err() != nil || bounded && time.Until(deadline) < lastStatus
}

// missing is the first thing that a verdict lacks.
type missing struct {
	reason, run   string
	definite      bool
	onlyStability bool
	decision      *Decision
}

func (m *missing) text() string {
	if m == nil {
		return ""
	}
	return m.reason
}

func (m *missing) err(w Want, v Verdict, cause error) error {
	e := &QuorumError{What: cmp.Or(w.What, "quorum"), Reason: m.reason, Run: m.run, Verdict: v, Decision: m.decision, Err: cause}
	if w.What == "" && m.decision != nil {
		e.What = m.decision.Op.String()
	}
	return e
}

// missing compares a verdict with what is wanted; what waiting cannot change
// comes first.
func (w Want) missing(v Verdict) *missing {
	if v.State == Split {
		r := byState(v)
		return &missing{reason: r.reason, run: r.run, definite: true}
	}
	if d := w.definite(v); d != nil {
		return d
	}
	var op *missing
	if w.Op != nil {
		if d := Project(v, *w.Op); !d.Allowed {
			op = &missing{reason: d.Reason, run: d.Run, definite: d.Definite, decision: &d}
			if d.Definite {
				return op
			}
		}
	}
	switch {
	case !v.State.HasQuorum():
		r := byState(v)
		return &missing{reason: r.reason, run: r.run}
	case op != nil:
		return op
	case w.Voters > 0 && v.Voters < w.Voters:
		return &missing{reason: fmt.Sprintf("%d voters, %d are wanted", v.Voters, w.Voters)}
	case w.Learners > v.Learners:
		return &missing{reason: fmt.Sprintf("%d learners, %d are wanted", v.Learners, w.Learners)}
	case w.AllHealthy && v.Healthy < v.Voters:
		return &missing{reason: fmt.Sprintf("%d of %d voters are healthy: %s", v.Healthy, v.Voters, v.sick()), run: arithmeticRemedy(v)}
	case v.StableFor.Duration() < ElectionTimeout:
		return &missing{reason: fmt.Sprintf("leader and term seen unchanged for %s, %s are wanted", shortDuration(v.StableFor), ElectionTimeout), onlyStability: true}
	}
	return nil
}

// definite finds members that will not go away by themselves. Without quorum
// the list may be stale, and nothing is definite.
func (w Want) definite(v Verdict) *missing {
	if !v.State.HasQuorum() {
		return nil
	}
	targeted := func(m Member) bool { return w.Op != nil && targets(*w.Op, m) }
	for _, m := range v.Members {
		if m.Ghost && m.Role != NoRole && !targeted(m) {
			return &missing{definite: true, run: removeCommand(v, m),
				reason: fmt.Sprintf("ghost %s: member %s at %s is on no host of the inventory", m.Role, m.ID, m.PeerURL)}
		}
	}
	for _, m := range v.Members {
		if w.AllHealthy && m.Role == Voter && m.State == MemberForeign && !targeted(m) {
			return &missing{definite: true, reason: fmt.Sprintf("%s is foreign: %s", m.Name, m.Why),
				run: fmt.Sprintf("ha-install replace INVENTORY %s, which moves its data aside and joins it anew", m.Name)}
		}
	}
	learners, names := 0, []string{}
	var one Member
	for _, m := range v.Members {
		if m.Role == Learner && !targeted(m) {
			learners, one = learners+1, m
			names = append(names, fmt.Sprintf("%s (member %s)", m.Name, m.ID))
		}
	}
	if w.Learners >= 0 && learners > w.Learners {
		return &missing{definite: true, run: removeCommand(v, one),
			reason: fmt.Sprintf("%d learners, %d are wanted: %s", learners, w.Learners, strings.Join(names, ", "))}
	}
	if w.Voters > 0 && v.Voters > w.Voters {
		return &missing{definite: true, run: seeStatus, reason: fmt.Sprintf("%d voters, %d are wanted", v.Voters, w.Voters)}
	}
	return nil
}
