package etcd

import (
	"fmt"
	"strings"
)

const (
	seeStatus = "ha-install status"
	disarm    = "ha-install etcd alarms disarm INVENTORY, which compacts, defragments each member and takes the alarm back"
)

// byState refuses everything where quorum is not proven.
func byState(v Verdict) *refusal {
	switch v.State {
	case Pass, Degraded:
		return nil
	case Split:
		return &refusal{reason: "the cluster is SPLIT: " + strings.Join(v.Reasons, "; "), run: "stop etcd on the odd one out, then ha-install status; --force does not overrule this"}
	case NoQuorum:
		if len(v.Alarms) > 0 {
			return &refusal{reason: "there is no quorum without an alarm: " + strings.Join(v.Reasons, "; "), run: disarm}
		}
		return &refusal{reason: "there is no quorum: " + strings.Join(v.Reasons, "; "), run: "bring the missing members back, then ha-install status"}
	default:
		return &refusal{reason: "quorum could not be proven: " + strings.Join(v.Reasons, "; "), run: seeStatus}
	}
}

// addRefusals follow what etcd itself will refuse, and what it wrongly takes:
// it accepts an add 1 s after a member froze, and kubeadm reuses a listed URL.
func addRefusals(v Verdict, op Operation, m Member, listed bool) []refusal {
	var rs []refusal
	if listed {
		rs = append(rs, refusal{reason: fmt.Sprintf("its peer URL is already listed, as member %s (%s)", m.ID, m.State), run: removeCommand(v, m)})
	}
	for _, o := range v.Members {
		if o.Role != NoRole && o.Name == op.Host && op.Host != "" && !sameURL(o.PeerURL, op.PeerURL) {
			rs = append(rs, refusal{reason: fmt.Sprintf("the name %s is already that of member %s at %s", op.Host, o.ID, o.PeerURL), run: removeCommand(v, o)})
		}
	}
	rs = append(rs, strangers(v, 0)...)
	if !op.HostEmpty {
		rs = append(rs, refusal{reason: "its etcd data directory was not seen empty", run: "move /var/lib/etcd aside on " + op.Host})
	}
	if v.Healthy < v.Voters {
		rs = append(rs, refusal{reason: "etcd adds no member while a voter is unhealthy: " + v.sick(), run: bringBack(v, "bring it back, or replace it first")})
	}
	return append(rs, full(v)...)
}

// memberRefusals judge an operation on a listed member.
func memberRefusals(v Verdict, op Operation, m Member, after Numbers) []refusal {
	var rs []refusal
	switch op.Kind {
	case OpPromote:
		rs = promoteRefusals(v, m)
	case OpRemoveLearner:
		if m.Role != Learner {
			rs = append(rs, refusal{reason: "it is a voter, not a learner", run: seeStatus})
		}
	case OpRemoveDead:
		rs = removeDeadRefusals(op, m)
	case OpRemoveLive:
		if m.Role != Voter {
			rs = append(rs, refusal{reason: "it is a learner, not a voter", run: seeStatus})
		}
		rs = append(rs, full(v)...)
	case OpRestart:
		rs = append(append(rs, restartRefusals(v, m)...), full(v)...)
	case OpDefragment: // which mends what is full, but takes no alarm back
		rs = append(alarmed(v), restartRefusals(v, m)...)
	}
	if !after.Holds() {
		// A cluster of one or two cannot restart a member and keep quorum; who
		// runs one for trying out may accept the outage.
		tiny := op.Kind == OpRestart && v.Voters <= 2 && v.Healthy == v.Voters
		rs = append(rs, refusal{
			reason:  fmt.Sprintf("%d of %d voters would be healthy, %d are needed", after.Healthy, after.Voters, after.Quorum),
			run:     arithmeticRemedy(v),
			caution: tiny,
		})
	}
	return rs
}

func arithmeticRemedy(v Verdict) string {
	if v.Healthy < v.Voters {
		return bringBack(v, "bring back the voters that are not healthy first: "+v.sick())
	}
	return "add members first: three voters can lose one"
}

// bringBack is what makes sick voters healthy: with an alarm its remedy.
func bringBack(v Verdict, otherwise string) string {
	for _, m := range v.Members {
		if m.Role == Voter && m.State == MemberAlarm {
			return disarm
		}
	}
	return otherwise
}

func promoteRefusals(v Verdict, m Member) []refusal {
	var rs []refusal
	if m.Role != Learner {
		return append(rs, refusal{reason: "it is already a voter", run: seeStatus})
	}
	if m.State != MemberLearner {
		rs = append(rs, refusal{reason: fmt.Sprintf("the learner is %s: %s", m.State, m.Why), run: "wait for it, or see its etcd log"})
	}
	rs = append(rs, strangers(v, m.ID)...)
	if v.Healthy < v.Voters {
		rs = append(rs, refusal{reason: "a voter is unhealthy: " + v.sick(), run: "bring it back first", caution: true})
	}
	return append(rs, full(v)...)
}

func removeDeadRefusals(op Operation, m Member) []refusal {
	var rs []refusal
	fence := "power " + m.Name + " off, or stop its kubelet and move the etcd manifest away"
	switch {
	case m.Role != Voter:
		rs = append(rs, refusal{reason: "it is a learner, not a voter", run: seeStatus})
	case m.Healthy:
		rs = append(rs, refusal{reason: "it is healthy, not dead", run: seeStatus})
	case m.State != MemberDead && m.State != MemberUnnamed:
		rs = append(rs, refusal{reason: fmt.Sprintf("it is %s, which does not prove it dead: %s", m.State, m.Why), run: fence})
	case m.DeadFor.Duration() < MinDead:
		rs = append(rs, refusal{reason: fmt.Sprintf("it has been dead for %s only, %s are wanted", shortDuration(m.DeadFor), shortDuration(MinDead)), run: "the same command again, when it has been dead for longer"})
	case !op.Fenced:
		rs = append(rs, refusal{reason: "it is not fenced and could come back", run: fence})
	}
	return rs
}

func restartRefusals(v Verdict, m Member) []refusal {
	rs := strangers(v, m.ID)
	for _, o := range v.Members {
		if o.Role == Voter && o.ID != m.ID && !o.Healthy {
			return append(rs, refusal{reason: fmt.Sprintf("%s is %s: one member at a time", o.Name, o.State), run: "bring " + o.Name + " back first", caution: true})
		}
	}
	return rs
}

// strangers are members that must not be there when membership or a process
// is about to change: ghosts, other learners, members that never started.
func strangers(v Verdict, except MemberID) []refusal {
	var rs []refusal
	for _, m := range v.Members {
		switch {
		case m.Role == NoRole || m.ID == except:
		case m.Ghost:
			rs = append(rs, refusal{reason: fmt.Sprintf("ghost %s: member %s at %s is on no host of the inventory", m.Role, m.ID, m.PeerURL), run: removeCommand(v, m)})
		case m.Role == Learner:
			rs = append(rs, refusal{reason: fmt.Sprintf("%s is a learner (member %s): finish or undo that first", m.Name, m.ID), run: removeCommand(v, m)})
		case m.Unnamed:
			rs = append(rs, refusal{reason: fmt.Sprintf("member %s at %s was added and never started", m.ID, m.PeerURL), run: removeCommand(v, m)})
		}
	}
	return rs
}

// full refuses mutations of a cluster that accepts, or soon accepts, no write.
func full(v Verdict) []refusal {
	rs := alarmed(v)
	for _, m := range v.Members {
		if m.Role != NoRole && m.Fullness() >= QuotaRefuse {
			rs = append(rs, refusal{reason: fmt.Sprintf("the database of %s fills %.0f %% of its quota", m.Name, m.Fullness()*100), run: "ha-install etcd defragment INVENTORY; where that frees too little, delete what is not needed first", caution: true})
		}
	}
	return rs
}

// alarmed refuses while an alarm is raised.
func alarmed(v Verdict) []refusal {
	var rs []refusal
	for _, a := range v.Alarms {
		name := a.Member.String()
		if m, ok := v.Find(a.Member, ""); ok {
			name = fmt.Sprintf("%s (%s)", m.Name, a.Member)
		}
		rs = append(rs, refusal{reason: fmt.Sprintf("%s alarm of %s", a.Kind, name), run: disarm, caution: true})
	}
	return rs
}

// removeCommand is what takes a member out by hand, where no verb of ours may.
func removeCommand(v Verdict, m Member) string {
	from := "a healthy master"
	for _, o := range v.Members {
		if o.Healthy && o.Role == Voter && o.Host != "" {
			from = o.Host
			break
		}
	}
	by := fmt.Sprintf("once you know that it is not needed, on %s: etcdctl member remove %s", from, m.ID)
	if m.Ghost && m.Healthy { // most likely a host that was taken out of the inventory
		return "put its host back into the inventory; or, " + by
	}
	return by
}
