package provision

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// join makes a host the next master: one at a time, the quorum proven before
// and after.
func (a *apply) join(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "join", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			found, err := a.examineJoiner(ctx, ih)
			return err == nil && found.action() == joinNothing, err
		},
		Needs: []phase.Check{a.endpointFrom(ih)},
		Do: func(ctx context.Context) error {
			if err := a.awaitColumnStep(ctx, ih); err != nil {
				return err
			}
			found, err := a.examineJoiner(ctx, ih)
			if err != nil {
				return err
			}
			switch found.action() {
			case joinRefuse:
				return found.refusal(ih.Name)
			case joinFresh:
				err = a.addMember(ctx, ih)
			case joinTakeBack:
				phase.Tell(ctx, ih.Name+": an earlier join broke off before its etcd started; taking it back")
				err = a.joinAnew(ctx, ih, found)
			case joinPromote:
				phase.Tell(ctx, ih.Name+": an earlier join broke off before it had a vote; going on from there")
				err = a.promote(ctx, ih, found.member.ID)
			}
			if err != nil {
				return err
			}
			return a.finishColumn(ctx, ih)
		},
		Undo: func(ctx context.Context) error {
			if err := a.awaitColumnStep(ctx, ih); err != nil {
				return err
			}
			found, err := a.examineJoiner(ctx, ih)
			if err != nil || found.voter() || found.action() == joinFresh {
				return err
			}
			return a.takeBack(ctx, ih, found)
		},
		Gate:        []phase.Check{a.quorumWithin("join "+ih.Name, ih), a.columnRuns(ih)},
		GateTimeout: joinGate,
		After:       []string{"init"},
		Explain:     func(ctx context.Context) ([]phase.Change, error) { return a.explainJoin(ctx, ih) },
		Foresee:     func(context.Context, []string) (phase.State, []phase.Change, error) { return a.foreseeJoin(ih) },
	}
}

// joinFacts is what can be seen of a host that is to be a master.
type joinFacts struct {
	member   *etcd.Member // at the host's peer URL in the agreed list; nil when not listed
	data     bool         // there is an etcd data directory
	manifest bool         // there is an etcd manifest
	node     bool         // its Node exists and is marked as control plane
	verdict  etcd.Verdict
}

type joinAction int

const (
	joinFresh    joinAction = iota // nothing of ours is there
	joinNothing                    // it is a master
	joinTakeBack                   // leftovers, or a learner that never started: remove, clean, join
	joinPromote                    // a learner that runs: wait for it, give it its vote
	joinFinish                     // it votes, but the rest of the join is missing
	joinRefuse                     // it votes and has lost its data: only a replacement helps
)

// action decides what a join has to do, from what is there.
func (f joinFacts) action() joinAction {
	switch {
	case f.member == nil && !f.data && !f.manifest:
		return joinFresh
	case f.member == nil:
		return joinTakeBack
	case !f.voter() && f.data && f.manifest && !f.member.Unnamed:
		return joinPromote
	case !f.voter():
		return joinTakeBack
	case !f.data:
		return joinRefuse
	case !f.node:
		return joinFinish
	default:
		return joinNothing
	}
}

func (f joinFacts) voter() bool { return f.member != nil && f.member.Role == etcd.Voter }

func (f joinFacts) refusal(name string) error {
	return fmt.Errorf("%s is voter %s of the cluster, but its data directory %s is gone; starting it again would bring an empty member to life under an old ID\n  remove the member by its ID first, then apply again", name, f.member.ID, etcdMember)
}

func (a *apply) examineJoiner(ctx context.Context, ih inventory.Host) (joinFacts, error) {
	var f joinFacts
	h, err := a.host(ih.Name)
	if err != nil {
		return f, err
	}
	seen, err := h.Stat(ctx, etcdManifest, etcdMember)
	if err != nil {
		return f, err
	}
	_, f.manifest = seen[etcdManifest]
	_, f.data = seen[etcdMember]
	verdict, err := a.members.Gate(ctx, etcd.Want{What: "look at " + ih.Name, Learners: etcd.AnyLearners}, etcd.PreGateBudget)
	if err != nil {
		return f, err
	}
	f.verdict = verdict
	if m, ok := verdict.Find(0, peerURL(ih)); ok && m.ID != 0 {
		f.member = &m
	}
	f.node, err = a.listedAsMaster(ctx, ih)
	return f, err
}

// listedAsMaster asks whether the API lists the host as a master. An API server
// whose etcd has lost its leader meanwhile does not answer: the next one is asked.
func (a *apply) listedAsMaster(ctx context.Context, ih inventory.Host) (is bool, err error) {
	ask := func(ctx context.Context) error {
		client, err := a.anyAPI(ctx)
		if err != nil {
			return err
		}
		node, err := client.CoreV1().Nodes().Get(ctx, ih.Name, metav1.GetOptions{})
		is = err == nil && kube.IsControlPlane(node)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, etcd.PreGateBudget)
	defer cancel()
	err = phase.Wait(ctx, phase.Check{Name: "the API to say what it knows of " + ih.Name, Run: ask})
	return is, err
}

// joinAnew takes a broken join back and joins from the beginning.
func (a *apply) joinAnew(ctx context.Context, ih inventory.Host, found joinFacts) error {
	if err := a.takeBack(ctx, ih, found); err != nil {
		return err
	}
	if err := a.prepareColumn(ctx, ih); err != nil {
		return err
	}
	return a.addMember(ctx, ih)
}

// takeBack removes what a broken join left: the learner by its ID, then the
// host's files, and puts back what a bare master holds. etcd's directory is
// moved aside, never deleted.
func (a *apply) takeBack(ctx context.Context, ih inventory.Host, found joinFacts) error {
	if found.member != nil {
		removing, cancel := context.WithTimeout(ctx, etcd.PreGateBudget)
		defer cancel()
		if err := a.members.Remove(removing, found.member.ID); err != nil {
			return fmt.Errorf("removing learner %s: %w", found.member.ID, err)
		}
	}
	h, err := a.host(ih.Name)
	if err != nil {
		return err
	}
	if err := cleanNode(ctx, h); err != nil {
		return err
	}
	files, err := templates.HostFiles(a.Cluster, ih)
	if err != nil {
		return err
	}
	return putFiles(ctx, h, append(hostFiles(files), a.secrets.files()...))
}
