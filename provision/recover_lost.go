package provision

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
)

// away are the masters and balancers that cannot be reached: what they run
// cannot be stopped, nor told of the new cluster.
func (rc *recovery) away() []inventory.Host {
	return slices.DeleteFunc(slices.Clone(rc.whole.Spec.Hosts), func(ih inventory.Host) bool {
		_, here := rc.Cluster.HostByName(ih.Name)
		return here || ih.Role == inventory.RoleWorker
	})
}

// remakes says that the way makes etcd anew, so that what old members still
// take is lost.
func (w RecoverWay) remakes() bool {
	return w == WaySurvivor || w == WayBackup || w == WayFinish
}

// leavesBehind says that etcd is made anew without those that are away. That is not
// so where it was, and has its quorum: one that comes back is a member of it, or
// finds nobody who takes it for one.
func (rc *recovery) leavesBehind() bool { return rc.way.remakes() && len(rc.facts.without) == 0 }

// unsaid are the hosts that cannot be reached and that nobody has said to be
// lost: not now, and not when a recovery was begun that is half done.
func (rc *recovery) unsaid() []string {
	if !rc.leavesBehind() {
		return nil
	}
	said := rc.Lost
	if rc.way == WayFinish {
		said = append(slices.Clone(said), rc.note.Lost...)
	}
	return slices.DeleteFunc(namesOf(rc.away()), func(name string) bool { return slices.Contains(said, name) })
}

// checkLost refuses a word about hosts that is not so: they answer.
func (rc *recovery) checkLost(ctx context.Context) error {
	for _, name := range rc.Lost {
		ih, there := rc.whole.HostByName(name)
		_, here := rc.Cluster.HostByName(name)
		switch {
		case !there || ih.Role == inventory.RoleWorker:
			return &ConflictError{What: "the inventory has no master or balancer " + name, Why: "--lost names hosts that cannot be reached and stay off", Run: "leave it out of --lost; workers need no word"}
		case here && rc.way != WayFinish && rc.way.remakes(): // one that came back while it was half done is stopped
			return &ConflictError{What: name + " is not lost: it can be reached", Why: "it takes part, or is stopped, by what is found on it", Run: "the same command without " + name + " in --lost"}
		}
	}
	if !rc.leavesBehind() {
		return nil
	}
	return rc.unseen(ctx)
}

// unseen refuses when anybody sees a host that cannot be reached: it lives, and
// cannot be stopped.
func (rc *recovery) unseen(ctx context.Context) error {
	var all []error
	for _, ih := range rc.away() {
		if seen := (&search{apply: &apply{Site: rc.Site}, lost: ih}).knock(ctx); len(seen) > 0 {
			all = append(all, &AliveError{Host: ih.Name, Seen: seen})
		}
	}
	return phase.Join(all...)
}

// agreed wants the operator's word for every host that is away, and that what
// was agreed to is what would be done.
func (rc *recovery) agreed() error {
	if names := rc.unsaid(); len(names) > 0 {
		return &ConflictError{
			What: strings.Join(names, ", ") + " cannot be reached, and may still run",
			Why:  "what cannot be reached cannot be stopped: old masters that see each other go on taking writes, which would be lost, and a balancer would send clients there",
			Run:  "power on what is only off: with its data nothing is lost. What is lost for good: make sure that it is off and stays off, then the same command with --lost " + strings.Join(namesOf(rc.away()), ","),
		}
	}
	if rc.Agreed != nil && *rc.Agreed != rc.way {
		return &MovedError{Differ: []string{fmt.Sprintf("the way was %q, it is %q: %s", *rc.Agreed, rc.way, rc.why)}}
	}
	return nil
}

// before is what has to be so when nothing has stopped yet: nobody sees what is
// away, the old cluster has no quorum after all. Then no balancer sends anybody
// to masters that are left out, should they come back, also while this run is
// broken off; and old members on hosts that do not take part are stopped.
func (rc *recovery) before(r *restore) []phase.Stage {
	gate := phase.Check{Name: "quorum to be lost, and what is lost to be seen by nobody", Run: func(ctx context.Context) error {
		if v := rc.members.Judge(ctx, etcd.Options{ReadOnly: true, Inputs: true}); !r.resumed && v.State.HasQuorum() {
			return phase.Final(hasQuorum())
		}
		if err := rc.unseen(ctx); err != nil {
			return phase.Final(err)
		}
		return nil
	}}
	out := &restore{apply: &apply{Site: rc.Site}, seen: rc.seen, note: r.note}
	var fenced []inventory.Host
	for _, ih := range rc.Cluster.ControlPlanes() {
		if _, in := r.Cluster.HostByName(ih.Name); !in && !rc.seen[ih.Name].bare() {
			fenced = append(fenced, ih)
		}
	}
	return []phase.Stage{phase.One(phase.Phase{Name: "lost", Gate: []phase.Check{gate}}), phase.InTurn(r.leavesOut(), r.leaveOut), phase.AtOnce(fenced, func(ih inventory.Host) phase.Phase {
		p := out.stop(ih)
		p.Name = "fence"
		if !rc.whole.Balances(ih) {
			return p
		}
		stop, retire := p, (&removal{apply: out.apply, RemoveOptions: RemoveOptions{Host: ih.Name}, kept: out.apply}).retireBalancer()
		p.Done = func(ctx context.Context) (bool, error) {
			if done, err := stop.Done(ctx); !done || err != nil {
				return false, err
			}
			return retire.Done(ctx)
		}
		p.Do = func(ctx context.Context) error { // it would send clients to all it knew
			if err := retire.Do(ctx); err != nil {
				return err
			}
			return stop.Do(ctx)
		}
		return p
	})}
}

// bare says that a host has nothing of a master.
func (m masterSeen) bare() bool {
	return !m.marker.Established && !m.data && len(m.manifest) == 0 && len(m.runs) == 0
}

// hasQuorum refuses to make anew what is well.
func hasQuorum() error {
	return &ConflictError{What: "the cluster has its quorum: it is not made anew", Why: "what is written to it now would be lost",
		Run: "ha-install status, which shows what is wrong else; a master that is lost while the others vote: ha-install replace; back to a backup by intent: ha-install restore"}
}

// untouched says that a recovery which is half done has not stopped anything:
// every master that takes part has its own data and static pods still.
func (rc *recovery) untouched() bool {
	for _, m := range rc.seen {
		if m.note != nil && m.note.Token == rc.note.Token && (m.token == rc.note.Token || !m.manifest["etcd"]) {
			return false
		}
	}
	return true
}

// giveUp takes back a recovery that was begun and has stopped nothing, when the
// quorum that it was for is there.
func (rc *recovery) giveUp() []phase.Stage {
	if rc.note == nil || rc.note.Done || rc.facts.halfDone || !rc.facts.quorum {
		return nil
	}
	var noted []inventory.Host
	for _, ih := range rc.Cluster.ControlPlanes() {
		if n := rc.seen[ih.Name].note; n != nil && !n.Done {
			noted = append(noted, ih)
		}
	}
	all := &restore{apply: &apply{Site: rc.Site}, whole: rc.whole}
	return []phase.Stage{phase.InTurn(rc.Cluster.Balancers(), func(ih inventory.Host) phase.Phase {
		p := all.leaveOut(ih)
		p.Name = "let-in"
		p.Explain = func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeReload, Name: "haproxy", Text: "sends clients to all masters that are here again"}}, nil
		}
		return p
	}), phase.AtOnce(noted, func(ih inventory.Host) phase.Phase {
		return phase.Phase{
			Name: "give-up", Host: ih.Name,
			Do: func(ctx context.Context) error {
				h, err := rc.host(ih.Name)
				if err != nil {
					return err
				}
				unpacked := kube.EtcdDir + "/restore-" + rc.seen[ih.Name].note.Token // a copy of the snapshot
				return runAll(ctx, h, []string{"rm", "-rf", restoreDir, unpacked, unpacked + ".part"}, []string{"rm", "-f", restoreFile})
			},
			Explain: func(context.Context) ([]phase.Change, error) {
				return []phase.Change{{Kind: changeClean, Name: restoreFile, Text: "the recovery that was begun is given up: it has stopped nothing, and the quorum is there"}}, nil
			},
		}
	})}
}
