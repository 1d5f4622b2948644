package provision

import (
	"fmt"
	"strings"

	"github.com/ha-install/ha-install/provision/etcd"
)

// RecoverWay is how a cluster without quorum comes back.
type RecoverWay string

// The ways, in the order of what they lose.
const (
	WayNone      RecoverWay = ""           // quorum holds, and every master that is here is in it
	WayFinish    RecoverWay = "finish"     // a recovery is half done
	WayClean     RecoverWay = "clean"      // members of the cluster before have come back: take them off their hosts
	WayJoin      RecoverWay = "join"       // quorum holds, and bare masters wait to join
	WayBringBack RecoverWay = "bring-back" // start the members that are only stopped; nothing is lost
	WaySurvivor  RecoverWay = "survivor"   // make the cluster anew of the most advanced member
	WayBackup    RecoverWay = "backup"     // make it anew of the newest backup that is whole
)

// survey is what a recovery has seen of one master.
type recoverSeen struct {
	name string
	away bool // it cannot be reached
	// bare has nothing of the cluster; lacks is a file of a master that one with
	// a marker misses, "" for none.
	bare  bool
	lacks string
	data  bool // a member's data directory
	// returned has data of a cluster that was made anew without it.
	returned bool
	answers  bool          // its etcd does
	read     bool          // it does not, and a copy of its data does
	revision int64         // that it tells
	cluster  etcd.MemberID // that it is of
}

// String is what is seen, in words.
func (s recoverSeen) String() string {
	switch {
	case s.away:
		return "cannot be reached"
	case s.bare:
		return "bare"
	case s.returned:
		if s.answers {
			return fmt.Sprintf("has data of the cluster before, %s, revision %d; it cannot join with them", s.cluster, s.revision)
		}
		return "has data of the cluster before; it cannot join with them"
	case s.lacks != "":
		return "not whole: it has no " + s.lacks
	case s.answers && s.revision > 0:
		return fmt.Sprintf("its etcd answers, revision %d", s.revision)
	case s.read:
		return fmt.Sprintf("its etcd does not answer; its data are there, revision %d", s.revision)
	case s.data:
		return "its etcd does not answer; its data are there"
	}
	return "its data are gone"
}

// recoverFacts are all that the way is chosen by.
type recoverFacts struct {
	masters  []recoverSeen
	quorum   bool     // it is proven
	halfDone bool     // a note says so
	snapshot string   // of what is half done, on the machine that began it
	stuck    []string // who takes part in what is half done, and cannot be reached
	without  []string // who takes part in it and is away or bare, where the others are the new cluster and have its quorum
	full     bool     // etcd votes, and takes no write: a database is at its quota
	planned  bool     // a restore was begun and has stopped nothing; the cluster is well
	// backup is the best one that is whole, "" for none; its revision, and the
	// cluster that it is of.
	backup         string
	backupRevision int64
	backupCluster  etcd.MemberID
}

func (f recoverFacts) names(which func(recoverSeen) bool) []string {
	var all []string
	for _, m := range f.masters {
		if which(m) {
			all = append(all, m.name)
		}
	}
	return all
}

func (f recoverFacts) ours() []string {
	return f.names(func(m recoverSeen) bool {
		return !m.away && !m.bare && !m.returned && m.lacks == "" && m.data
	})
}

// unfit says who has data, and misses what etcd or an API server starts with.
func (f recoverFacts) unfit() string {
	var all []string
	for _, m := range f.masters {
		if !m.away && !m.bare && !m.returned && m.lacks != "" && m.data {
			all = append(all, fmt.Sprintf("%s has data, but no %s", m.name, m.lacks))
		}
	}
	return strings.Join(all, "; ")
}

// backupAhead says that the backup is of the masters' own history, and has more
// of it than any of them that tells: who is left had fallen behind.
func (f recoverFacts) backupAhead() bool {
	var newest recoverSeen
	for _, m := range f.masters {
		if (m.answers || m.read) && !m.returned && m.revision > newest.revision {
			newest = m
		}
	}
	return newest.revision > 0 && f.backup != "" && newest.cluster == f.backupCluster && f.backupRevision > newest.revision
}

// choose finds the way that loses least, and says why. wished is the operator's
// own choice, WayNone for none; one that is not possible is an error.
func (f recoverFacts) choose(wished RecoverWay) (RecoverWay, string, error) {
	majority := len(f.masters)/2 + 1
	returned := f.names(func(m recoverSeen) bool { return m.returned })
	bare := f.names(func(m recoverSeen) bool { return m.bare })
	away := f.names(func(m recoverSeen) bool { return m.away })
	ours := f.ours()
	switch {
	case f.planned:
		return "", "", &ConflictError{What: "a restore is half done, and quorum holds", Why: "it has stopped nothing yet; to finish it would lose what was written since its backup", Run: "ha-install restore INVENTORY --from " + f.snapshot + ", if that is meant"}
	case f.halfDone && len(f.without) > 0 && wished != WayNone:
		return "", "", hasQuorum()
	case f.halfDone && len(f.without) > 0:
		return WayFinish, fmt.Sprintf("what is half done goes on without %s: the others are the new cluster, and have its quorum", strings.Join(f.without, ", ")), nil
	case f.halfDone && len(f.stuck) == 0:
		return WayFinish, "what is half done goes on", nil
	case f.halfDone && wished == WayBackup && f.backup != "":
		return WayBackup, "as --way says; what was half done is given up", nil
	case f.halfDone:
		return "", "", &ConflictError{What: strings.Join(f.stuck, ", ") + " takes part in the recovery that is half done, and cannot be reached", Why: "its data may be of the new cluster already",
			Run: "bring it back, then the same command again; where it is lost for good, too: ha-install recover --way backup --lost " + strings.Join(f.stuck, ",") + ", which begins anew from the best backup; the snapshot of what is half done is one, in " + f.snapshot}
	case f.quorum && len(returned) > 0:
		return WayClean, fmt.Sprintf("%s came back with data of the cluster before, which cannot merge with that of now", strings.Join(returned, ", ")), nil
	case f.full && (wished == WayNone || f.quorum || len(away) == 0):
		return "", "", f.noSpace(away)
	case f.quorum && wished != WayNone:
		return "", "", hasQuorum()
	case f.quorum && len(bare) > 0:
		return WayJoin, fmt.Sprintf("quorum holds; %s can join", strings.Join(bare, ", ")), nil
	case f.quorum:
		return WayNone, "quorum holds; there is nothing to recover", nil
	case wished == WayNone && len(ours) >= majority:
		return WayBringBack, fmt.Sprintf("%s have their data, and %d of %d are a quorum: nothing is lost when they are started", strings.Join(ours, ", "), majority, len(f.masters)), nil
	case wished == WayBringBack && len(ours) < majority:
		return "", "", f.impossible(wished, fmt.Sprintf("%d masters that can be reached have their data, %d of %d are a quorum", len(ours), majority, len(f.masters)))
	case wished == WayBackup && f.backup == "":
		return "", "", f.impossible(wished, "there is no backup that is whole")
	case wished == WaySurvivor && len(ours) == 0:
		return "", "", f.impossible(wished, "no master that can be reached has its data")
	case wished != WayNone:
		return wished, "as --way says", nil
	case len(ours) > 0 && f.backupAhead():
		return WayBackup, fmt.Sprintf("the backup has revision %d of the same cluster, which is more than any master that is left has", f.backupRevision), nil
	case len(ours) > 0:
		return WaySurvivor, fmt.Sprintf("%s has its data: all that it knows to be committed", strings.Join(ours, ", ")), nil
	case f.unfit() != "":
		return "", "", f.impossible("", f.unfit())
	case f.backup != "":
		return WayBackup, "no master that can be reached has its data", nil
	}
	return "", "", f.impossible("", "no master that can be reached has its data, and there is no backup that is whole")
}

// noSpace refuses where etcd is full and well else: no way of a recovery makes room
// without losing anything.
func (f recoverFacts) noSpace(away []string) error {
	run := disarmVerb + " INVENTORY"
	if len(away) > 0 {
		run += "; it wants all masters: power " + strings.Join(away, ", ") + " on"
		if !f.quorum {
			run += ". What is lost for good: ha-install recover --way survivor --lost " + strings.Join(away, ",") + ", which makes the cluster anew of those that are left, and room in it"
		}
	}
	return &ConflictError{What: "the cluster takes no write, and has not lost its quorum", Why: "its members vote, and a database is at its quota (NOSPACE alarm)", Run: "ha-install " + run}
}

func (f recoverFacts) impossible(way RecoverWay, why string) error {
	what := "the cluster cannot be recovered from what is here"
	if way != "" {
		what = "the cluster cannot be recovered by --way " + string(way)
	}
	run := "bring a master back that still has its disk, or name where backups lie with --backup-directory"
	if f.unfit() != "" {
		run = "bring that file back from the backup's keys, then the same command; or --way backup, which loses what was written since the best backup"
	}
	if away := f.names(func(m recoverSeen) bool { return m.away }); len(away) > 0 {
		run = "power " + strings.Join(away, ", ") + " on: nothing is lost if they only were off. Else " + run
	}
	return &ConflictError{What: what, Why: why, Run: run}
}
