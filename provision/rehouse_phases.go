package provision

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// The stages that apply has more when it makes a cluster of a backup; of nil,
// which is a plain apply, there are none.

// begun notes on every master what is begun, once they are claimed: until it is
// done nothing else makes a cluster there, and reset takes it back.
func (r *rehousing) begun() []phase.Stage {
	if r == nil {
		return nil
	}
	return append([]phase.Stage{phase.AtOnce(r.Cluster.ControlPlanes(), r.noteBegun)}, r.settling(r.note.Made)...)
}

// seeded has the first member's data made of the snapshot, and in their place
// before anything starts etcd.
func (r *rehousing) seeded() []phase.Stage {
	if r == nil {
		return nil
	}
	unpack, exchange := r.unpack(r.seed()), r.exchange(r.seed())
	unpack.Needs = append(unpack.Needs, r.toolFits())
	unpack.Explain = explained(phase.Change{Kind: changeRun, Name: "etcdutl", Text: "makes the data of a first member of the snapshot: " + r.note.Cluster})
	exchange.Explain = explained(phase.Change{Kind: changeFile, Name: etcdMember, New: true, Text: "the data of the backup"})
	return []phase.Stage{phase.One(r.push(r.seed())), phase.One(unpack), phase.One(exchange)}
}

func explained(c phase.Change) func(context.Context) ([]phase.Change, error) {
	return func(context.Context) ([]phase.Change, error) { return []phase.Change{c}, nil }
}

// toolFits holds the etcdutl that is there by now against the backup.
func (r *rehousing) toolFits() phase.Check {
	return r.look(r.seed(), "etcdutl on "+r.seed().Name, func(f restoreFacts) error {
		return phase.Final(phase.Join(fits(r.seed().Name, r.source, masterSeen{restoreFacts: f})...))
	})
}

// initialise is apply's own, but for when it is done: what kubeadm init makes
// last is in the backup, too. So it is noted on the host when it has come to its
// end, with all that it writes anew for these hosts and their endpoint. One that
// broke off is simply run again.
func (r *rehousing) initialise(p phase.Phase) phase.Phase {
	if r == nil {
		return p
	}
	do := p.Do
	p.Done = func(context.Context) (bool, error) { return r.note.Made, nil }
	p.Needs = append(p.Needs, r.isNew(r.seed()))
	p.Do = func(ctx context.Context) error {
		if err := do(ctx); err != nil {
			return err
		}
		h, err := r.host(r.seed().Name)
		if err != nil {
			return err
		}
		made := r.note
		made.Made = true
		if err := writeRestoreNote(ctx, h, made); err != nil {
			return err
		}
		r.note = made
		return nil
	}
	return p
}

// settled is what has to be so before anything joins: the cluster is one of its
// own, and has no Nodes of hosts that are gone.
func (r *rehousing) settled() []phase.Stage {
	if r == nil {
		return nil
	}
	return r.settling(!r.note.Made)
}

// settling comes before anything else where an earlier run has made the first
// master: one that broke off among the Nodes may have left it without its own, and
// whatever is done to a running master waits for that.
func (r *rehousing) settling(now bool) []phase.Stage {
	if !now {
		return nil
	}
	return []phase.Stage{phase.One(r.ownCluster()), phase.One(r.lostNodes())}
}

// ownCluster proves that etcd serves the backup's data, as a cluster that no
// member of the one before can join.
func (r *rehousing) ownCluster() phase.Phase {
	return phase.Phase{Name: "own-cluster", GateTimeout: restartGate, Gate: []phase.Check{r.isNew(r.seed()), {
		Name: "a cluster ID of its own", Run: func(ctx context.Context) error {
			id := r.members.Look(ctx, etcd.Options{ReadOnly: true}).ClusterID
			switch id {
			case 0:
				return fmt.Errorf("no member tells it")
			case r.source.m.ClusterID:
				return phase.Final(fmt.Errorf("it is %s, as in the backup: members from before could join", id))
			}
			r.note.After = id
			return nil
		},
	}}}
}

// lostNodes takes the Nodes of the backup out of the API, all of them, told by
// their UIDs: their hosts are lost, and a new one that bears an old name
// registers anew, with addresses, networks and pods of its own. The seed's
// kubelet has met an old one of its name: it is stopped meanwhile, or it would make
// the mirrors of its pods anew.
func (r *rehousing) lostNodes() phase.Phase {
	left := func(ctx context.Context) (*kube.Client, []string, bool, error) {
		client, err := r.anyAPI(ctx)
		if err != nil {
			return nil, nil, false, err
		}
		names, err := client.NodesOf(ctx, r.then.nodes)
		if err != nil {
			return nil, nil, false, err
		}
		registered, err := r.listedAsMaster(ctx, r.seed())
		return client, names, registered, err
	}
	return phase.Phase{
		Name: "lost-nodes",
		Done: func(ctx context.Context) (bool, error) {
			_, names, registered, err := left(ctx)
			return len(names) == 0 && registered, err
		},
		Do: func(ctx context.Context) error {
			client, names, registered, err := left(ctx)
			if err != nil {
				return err
			}
			if slices.Contains(names, r.seed().Name) {
				if err := r.runOnSeed(ctx, []string{"systemctl", "stop", "kubelet.service"}); err != nil {
					return err
				}
				registered = false
			}
			if err := client.ForgetNodes(ctx, names, "restore", func(name string) { phase.Say(ctx, "node "+name+" is taken out") }); err != nil {
				return err
			}
			if registered {
				return nil
			}
			return r.registerAnew(ctx, client)
		},
		Gate:        []phase.Check{r.nodeRegistered(r.seed()), r.columnRuns(r.seed())},
		GateTimeout: restartGate,
		After:       []string{"init"},
		Explain:     func(context.Context) ([]phase.Change, error) { return r.explainLostNodes(), nil },
		Foresee: func(context.Context, []string) (phase.State, []phase.Change, error) {
			return phase.ToChange, r.explainLostNodes(), nil
		},
	}
}

func (r *rehousing) explainLostNodes() []phase.Change {
	var changes []phase.Change
	for _, name := range sortedKeys(r.then.nodes) {
		changes = append(changes, phase.Change{Kind: changeClean, Name: "node " + name, Text: "of the backup: taken out of the API with its pods, its lease, its CSINode and what is attached to it"})
	}
	return changes
}

// registerAnew has the seed's kubelet make its Node where there is none any more.
// One that is there was made after all this: what flannel has made is of that one.
func (r *rehousing) registerAnew(ctx context.Context, client *kube.Client) error {
	_, err := client.CoreV1().Nodes().Get(ctx, r.seed().Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		err = r.runOnSeed(ctx, []string{"systemctl", "stop", "kubelet.service"}, kube.EndPodNetwork(), []string{"systemctl", "start", "kubelet.service"})
	}
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, restartGate)
	defer cancel()
	if err := phase.Wait(waiting, r.nodeRegistered(r.seed())); err != nil {
		return err
	}
	return r.columnStep(ctx, r.seed(), stepFinish, finishScript, templates.Init{})
}

func (r *rehousing) runOnSeed(ctx context.Context, commands ...[]string) error {
	h, err := r.host(r.seed().Name)
	if err != nil {
		return err
	}
	return runAll(ctx, h, commands...)
}

// ended proves that controllers act, and says on every master that all is done.
func (r *rehousing) ended() []phase.Stage {
	if r == nil {
		return nil
	}
	return []phase.Stage{phase.One(onceMade(r.tryControllers())), phase.AtOnce(r.Cluster.ControlPlanes(), r.finish), phase.One(r.report())}
}

// onceMade is a phase that a plan cannot ask about before there is a cluster.
func onceMade(p phase.Phase) phase.Phase {
	p.After = []string{"init", "join"}
	p.Foresee = func(ctx context.Context, _ []string) (phase.State, []phase.Change, error) {
		changes, err := p.Explain(ctx)
		return phase.ToChange, changes, err
	}
	return p
}

// report tells what was lost.
func (r *rehousing) report() phase.Phase {
	return phase.Phase{Name: "report", Gate: []phase.Check{{Name: "the report", Run: func(ctx context.Context) error {
		n := r.note
		var b strings.Builder
		fmt.Fprintf(&b, "restored  %s onto %s\nlost      %s\netcd      cluster %s, in the backup %s; revisions go on above %d",
			r.source.dir, strings.Join(namesOf(r.Cluster.ControlPlanes()), ", "), n.Loss, n.After, orUnknown(r.source.m.ClusterID), n.Revision)
		fmt.Fprintf(&b, "\nnodes     those of the backup are taken out: %s", strings.Join(sortedKeys(r.then.nodes), ", "))
		b.WriteString("\nnext      keep the hosts of before off; ha-install kubeconfig INVENTORY, for the endpoint of now; ha-install backup create")
		phase.TellData(ctx, b.String(), phase.Data{"restore": n, "nodesRemoved": sortedKeys(r.then.nodes)})
		return nil
	}}}}
}
