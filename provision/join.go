package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// tokenLife is the longest that one join may take; the token is deleted when
// it ends, this bound is for an installer that dies.
const tokenLife = 20 * time.Minute

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
			found, err := a.examineJoiner(ctx, ih)
			if err != nil {
				return err
			}
			switch found.action() {
			case joinRefuse:
				return found.refusal(ih.Name)
			case joinTakeBack:
				if err := a.takeBack(ctx, ih, found); err != nil {
					return err
				}
			case joinFinish:
				return a.finishJoin(ctx, ih)
			}
			if err := a.allowed(ctx, etcd.Operation{Kind: etcd.OpAddLearner, Host: ih.Name, PeerURL: peerURL(ih), HostEmpty: true}); err != nil {
				return err
			}
			return a.kubeadmJoin(ctx, ih, "join")
		},
		Gate:        []phase.Check{a.quorum("join "+ih.Name, ih), a.columnReady(ih)},
		GateTimeout: joinGate,
	}
}

// joinFacts is what can be seen of a host that is to be a master.
type joinFacts struct {
	member   *etcd.Member // at the host's peer URL in the agreed list; nil when not listed
	data     bool         // there is an etcd data directory
	manifest bool         // there is an etcd manifest
	node     bool         // its Node exists and is marked as control plane
	running  bool         // a kubeadm join is under way on the host
}

type joinAction int

const (
	joinFresh    joinAction = iota // nothing of ours is there
	joinNothing                    // it is a master
	joinTakeBack                   // a learner or leftovers without a vote: remove, clean, join
	joinFinish                     // it votes, but the rest of the join is missing
	joinRefuse                     // it votes and has lost its data: only a replacement helps
)

// action decides what a join has to do, from what is there.
func (f joinFacts) action() joinAction {
	switch {
	case f.running:
		return joinFresh // the step attaches to it
	case f.member == nil && !f.data && !f.manifest:
		return joinFresh
	case f.member == nil || f.member.Role == etcd.Learner:
		return joinTakeBack
	case !f.data:
		return joinRefuse
	case !f.node:
		return joinFinish
	default:
		return joinNothing
	}
}

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
	if f.running, err = kube.StepRunning(ctx, h, "kubeadm-join"); err != nil {
		return f, err
	}
	verdict, err := a.members.Gate(ctx, etcd.Want{What: "look at " + ih.Name, Learners: etcd.AnyLearners}, etcd.PreGateBudget)
	if err != nil {
		return f, err
	}
	if m, ok := verdict.Find(0, peerURL(ih)); ok && m.ID != 0 {
		f.member = &m
	}
	client, err := a.anyAPI(ctx)
	if err != nil {
		return f, err
	}
	node, err := client.CoreV1().Nodes().Get(ctx, ih.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return f, err
	}
	f.node = err == nil && kube.IsControlPlane(node)
	return f, nil
}

// takeBack removes what a broken join left: the learner by its ID, then the
// host's files. etcd's directory is moved aside, never deleted.
func (a *apply) takeBack(ctx context.Context, ih inventory.Host, found joinFacts) error {
	phase.Tell(ctx, ih.Name+": an earlier join broke off before it had a vote; taking it back")
	if found.member != nil {
		if err := a.members.Remove(ctx, found.member.ID); err != nil {
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
	return putFiles(ctx, h, a.secrets.files())
}

// finishJoin repeats what kubeadm does after the member has its vote.
func (a *apply) finishJoin(ctx context.Context, ih inventory.Host) error {
	return a.withToken(ctx, ih, func(h host.Host) error {
		for _, step := range []string{"kubelet-wait-bootstrap", "control-plane-join all"} {
			if err := kube.Kubeadm(ctx, h, "join phase "+step, sayIn(ctx), "--config", kube.JoinConfig); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *apply) kubeadmJoin(ctx context.Context, ih inventory.Host, verb string) error {
	return a.withToken(ctx, ih, func(h host.Host) error {
		return kube.Kubeadm(ctx, h, verb, sayIn(ctx), "--config", kube.JoinConfig)
	})
}

// withToken puts the join documents on the host with a token made for this one
// join; both token and file are gone afterwards, also when do failed.
func (a *apply) withToken(ctx context.Context, ih inventory.Host, do func(host.Host) error) (err error) {
	h, err := a.host(ih.Name)
	if err != nil {
		return err
	}
	client, err := a.anyAPI(ctx)
	if err != nil {
		return err
	}
	token, err := client.CreateToken(ctx, tokenLife)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
		defer cancel()
		_, removal := h.Run(ctx, host.Command{Argv: []string{"rm", "-f", kube.DiscoveryFile}})
		err = errors.Join(err, client.DeleteToken(ctx, token), removal)
	}()
	documents, err := templates.JoinDocuments(a.Cluster, ih, templates.Join{DiscoveryFile: kube.DiscoveryFile})
	if err != nil {
		return err
	}
	discovery, err := templates.DiscoveryKubeconfig(a.Cluster, a.endpoint(), a.secrets.ca.CAPEM(), token)
	if err != nil {
		return err
	}
	err = putFiles(ctx, h, []host.File{
		{Path: kube.JoinConfig, Mode: 0o600, Content: documents},
		{Path: kube.DiscoveryFile, Mode: 0o600, Content: discovery, Secret: true},
	})
	if err != nil {
		return err
	}
	return do(h)
}

// joinWorker joins a worker; workers may join all at once.
func (a *apply) joinWorker(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "join", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			h, err := a.host(ih.Name)
			if err != nil {
				return false, err
			}
			seen, err := h.Stat(ctx, kube.KubeletConf)
			if err != nil || len(seen) == 0 {
				return false, err
			}
			client, err := a.anyAPI(ctx)
			if err != nil {
				return false, err
			}
			_, err = client.CoreV1().Nodes().Get(ctx, ih.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return false, nil
			}
			return err == nil, err
		},
		Needs: []phase.Check{a.endpointFrom(ih)},
		Do: func(ctx context.Context) error {
			h, err := a.host(ih.Name)
			if err != nil {
				return err
			}
			// What a broken join left on a worker holds no data of the cluster.
			if seen, err := h.Stat(ctx, kube.KubeletConf, kube.BootstrapKubeletConf); err != nil {
				return err
			} else if running, err := kube.StepRunning(ctx, h, "kubeadm-join"); err != nil {
				return err
			} else if len(seen) > 0 && !running {
				if err := cleanNode(ctx, h); err != nil {
					return err
				}
			}
			return a.kubeadmJoin(ctx, ih, "join")
		},
		Gate:        []phase.Check{a.kubeletHealthy(ih)},
		GateTimeout: joinGate,
	}
}

// sweepTokens deletes what joins of killed runs left behind.
func (a *apply) sweepTokens() phase.Phase {
	return phase.Phase{
		Name: "tokens",
		Done: func(ctx context.Context) (bool, error) {
			client, err := a.anyAPI(ctx)
			if err != nil {
				return false, err
			}
			n, err := client.CountTokens(ctx)
			return n == 0, err
		},
		Do: func(ctx context.Context) error {
			client, err := a.anyAPI(ctx)
			if err != nil {
				return err
			}
			return client.DeleteTokens(ctx)
		},
	}
}
