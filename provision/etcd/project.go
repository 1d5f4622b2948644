package etcd

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/ha-install/ha-install/provision/units"
)

// OpKind is a kind of operation on one member.
type OpKind string

const (
	OpAddLearner    OpKind = "add a learner"
	OpPromote       OpKind = "promote"
	OpRemoveLearner OpKind = "remove a learner"
	OpRemoveDead    OpKind = "remove a dead member"
	OpRemoveLive    OpKind = "remove a live member"
	OpRestart       OpKind = "restart"
	OpDefragment    OpKind = "defragment" // the member answers nobody meanwhile
	OpSnapshot      OpKind = "snapshot"
)

// Operation is what is about to be done. The target is named by ID or, for a
// newcomer and where the ID is 0, by peer URL.
type Operation struct {
	Kind    OpKind   `json:"kind"`
	Host    string   `json:"host,omitempty"` // for messages, and the newcomer's name
	ID      MemberID `json:"id,omitempty"`
	PeerURL string   `json:"peerURL,omitempty"`
	// HostEmpty says that the newcomer's data directory was seen empty.
	HostEmpty bool `json:"hostEmpty,omitempty"`
	// Fenced says that a dead member cannot come back by itself: it is powered
	// off, or its kubelet is stopped and its manifest moved away.
	Fenced bool `json:"fenced,omitempty"`
	// Force overrules a refusal by caution, never one by arithmetic, SPLIT,
	// NO QUORUM or UNKNOWN.
	Force bool `json:"force,omitempty"`
}

// String reads "restart cp-2".
func (o Operation) String() string {
	who := o.Host
	if who == "" && o.ID != 0 {
		who = o.ID.String()
	}
	who = cmp.Or(who, o.PeerURL)
	if who == "" {
		return string(o.Kind)
	}
	if o.Kind == OpRestart || o.Kind == OpPromote || o.Kind == OpDefragment {
		return string(o.Kind) + " " + who
	}
	return string(o.Kind) + " (" + who + ")"
}

// Decision is what Project says of an operation.
type Decision struct {
	Op      Operation `json:"op"`
	Before  Numbers   `json:"before"`
	After   Numbers   `json:"after"` // while, and right after, it is done
	Allowed bool      `json:"allowed"`
	Forced  bool      `json:"forced,omitempty"` // allowed only by Force
	Reason  string    `json:"reason"`
	Run     string    `json:"run,omitempty"` // what the user does about a refusal
	// Overrulable says that Force would allow it.
	Overrulable bool `json:"overrulable,omitempty"`
	// Definite says that waiting cannot help.
	Definite bool `json:"definite,omitempty"`
}

// Project computes the numbers that an operation would leave and says whether
// it may be made. Every state in between must hold quorum, over all voters.
func Project(v Verdict, op Operation) Decision {
	d := decide(v, op)
	if d.Allowed {
		return d
	}
	if d.Overrulable && op.Force {
		d.Allowed, d.Forced = true, true
		d.Reason = "forced, although " + d.Reason
		return d
	}
	d.Definite = v.State == Split || v.State.HasQuorum() && !decide(atBest(v, op), op).Allowed
	return d
}

// atBest is the verdict that patience could give: every voter recovers but
// those whose host is gone. What is refused even then is refused for good.
func atBest(v Verdict, op Operation) Verdict {
	v.Members = slices.Clone(v.Members)
	healthy := 0
	for i := range v.Members {
		m := &v.Members[i]
		isTarget := op.Kind == OpRemoveDead && targets(op, *m)
		switch {
		case isTarget && !m.Healthy:
			m.State, m.DeadFor = MemberDead, units.Seconds(MinDead)
		case m.Role == Learner:
			m.State, m.Healthy = MemberLearner, true
		case m.Role == Voter && !(m.State == MemberDead && m.HostDown) && m.State != MemberAlarm:
			m.State, m.Healthy = MemberHealthy, true
		}
		if m.Role == Voter && m.Healthy {
			healthy++
		}
	}
	v.Numbers = numbers(v.Voters, healthy, v.Learners, v.Unnamed)
	return v
}

func targets(op Operation, m Member) bool {
	if op.ID != 0 {
		return m.ID == op.ID
	}
	return sameURL(m.PeerURL, op.PeerURL)
}

// refusal is one reason not to act.
type refusal struct {
	reason, run string
	caution     bool // Force may overrule it
}

func (d Decision) refuse(r refusal) Decision {
	d.Reason, d.Run, d.Overrulable = r.reason, r.run, r.caution
	return d
}

// decide finds the first refusal; one that Force cannot overrule goes before
// one that it can.
func decide(v Verdict, op Operation) Decision {
	d := Decision{Op: op, Before: v.Numbers, After: v.Numbers}
	if r := byState(v); r != nil {
		return d.refuse(*r)
	}
	target, found := v.Find(op.ID, op.PeerURL)
	if target.Role == NoRole {
		found = false
	}
	d.After = after(v.Numbers, op, target)
	var refusals []refusal
	switch op.Kind {
	case OpAddLearner:
		refusals = addRefusals(v, op, target, found)
	case OpSnapshot:
		if v.Healthy < 1 {
			refusals = append(refusals, refusal{reason: "no healthy voter", run: seeStatus})
		}
	default:
		if !found {
			return d.refuse(refusal{reason: "it is not in the member list", run: seeStatus})
		}
		refusals = memberRefusals(v, op, target, d.After)
	}
	slices.SortStableFunc(refusals, func(x, y refusal) int { return cmp.Compare(order(x), order(y)) })
	if len(refusals) > 0 {
		return d.refuse(refusals[0])
	}
	d.Allowed, d.Reason = true, allowedReason(v, op, target)
	return d
}

func order(r refusal) int {
	if r.caution {
		return 1
	}
	return 0
}

// after computes the numbers while the operation is made. A learner has no
// vote; a promoted one counts as healthy only because it was proven caught up.
func after(n Numbers, op Operation, m Member) Numbers {
	voters, healthy, learners, unnamed := n.Voters, n.Healthy, n.Learners, n.Unnamed
	switch op.Kind {
	case OpAddLearner:
		learners, unnamed = learners+1, unnamed+1
	case OpPromote:
		if m.Role == Learner {
			learners, voters = learners-1, voters+1
			if m.Healthy {
				healthy++
			}
		}
	case OpRemoveLearner, OpRemoveDead, OpRemoveLive:
		if m.Role == Learner {
			learners--
		} else if m.Role == Voter {
			voters--
			if m.Healthy {
				healthy--
			}
		}
		if m.Unnamed {
			unnamed--
		}
	case OpRestart, OpDefragment:
		if m.Role == Voter && m.Healthy {
			healthy--
		}
	}
	return numbers(voters, healthy, learners, unnamed)
}

func allowedReason(v Verdict, op Operation, m Member) string {
	switch op.Kind {
	case OpAddLearner:
		return "adding a learner; it has no vote yet"
	case OpPromote:
		return "promoting a learner that has caught up"
	case OpRemoveLearner:
		return "removing a learner; it has no vote"
	case OpRemoveDead:
		return "removing a dead member"
	case OpRemoveLive:
		if m.Leader {
			return "removing a live member; it leads, so leadership is moved first"
		}
		return "removing a live member"
	case OpRestart:
		if !m.Healthy {
			return fmt.Sprintf("restarting a member that is %s; its vote is already lost", m.State)
		}
		return "restarting one member; the others hold quorum meanwhile"
	case OpDefragment:
		return "defragmenting one member; the others hold quorum while it answers nobody"
	case OpSnapshot:
		if v.State == Degraded {
			return "snapshot; to be labelled DEGRADED"
		}
		return "snapshot"
	}
	return string(op.Kind)
}
