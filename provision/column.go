package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// A master joins through kubeadm's init phases, not through `kubeadm join`. It
// holds the CA set already, so it can sign its own certificates and its
// kubelet's: there is no token and no discovery that could be got wrong, and
// all that needs no quorum is done on every master at once, ahead of its turn.
// What is left for the turn is etcd's membership, which is ours to gate.

// prepareScript makes the leaf certificates and kubeconfigs. kubeadm keeps
// what is there already and fits. That etcd's directory has no member was seen
// before; a mount point has other things in it.
const prepareScript = `set -eu
kubeadm init phase preflight --config "$1" --ignore-preflight-errors DirAvailable--var-lib-etcd
kubeadm init phase certs all --config "$1"
for name in admin kubelet controller-manager scheduler; do
	kubeadm init phase kubeconfig "$name" --config "$1"
done
`

// startScript writes the static pods, etcd's first, and starts the kubelet.
const startScript = `set -eu
kubeadm init phase etcd local --config "$1"
kubeadm init phase control-plane all --config "$1"
kubeadm init phase kubelet-start --config "$1"
`

// finishScript has the kubelet read its rotating certificate, for which
// kubeadm restarts it: it then registers its Node at once, instead of after the
// back-off that it grew into while its API server was still starting.
const finishScript = `set -eu
kubeadm init phase kubelet-finalize enable-client-cert-rotation --config "$1"
kubeadm init phase mark-control-plane --config "$1"
`

// Names of the detached steps, under which their output is kept on the host.
const (
	stepPrepare = "column-prepare"
	stepStart   = "column-start"
	stepFinish  = "column-finish"
)

// prepared are the files that prepareScript leaves.
var prepared = []string{
	kube.AdminConf, kube.KubeletConf, "/etc/kubernetes/controller-manager.conf", "/etc/kubernetes/scheduler.conf",
	kube.PKIDir + "/apiserver.crt", kube.PKIDir + "/apiserver-kubelet-client.crt", kube.PKIDir + "/apiserver-etcd-client.crt",
	kube.PKIDir + "/front-proxy-client.crt", kube.PKIDir + "/etcd/server.crt", kube.PKIDir + "/etcd/peer.crt",
	kube.PKIDir + "/etcd/healthcheck-client.crt",
}

// prepare makes a master's certificates and kubeconfigs; it needs no quorum
// and runs on all joiners at once, while the first master is initialised.
func (a *apply) prepare(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "prepare", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			h, err := a.host(ih.Name)
			if err != nil {
				return false, err
			}
			if a.facts[ih.Name].etcd { // it has been through this, whatever was taken away since
				return true, nil
			}
			seen, err := h.Stat(ctx, prepared...)
			return len(seen) == len(prepared), err
		},
		Do:      func(ctx context.Context) error { return a.prepareColumn(ctx, ih) },
		Explain: func(ctx context.Context) ([]phase.Change, error) { return a.explainPrepare(ctx, ih) },
	}
}

func (a *apply) prepareColumn(ctx context.Context, ih inventory.Host) error {
	return a.columnStep(ctx, ih, stepPrepare, prepareScript, templates.Init{EtcdExisting: true})
}

// awaitColumnStep waits for what a killed run may have left running there.
func (a *apply) awaitColumnStep(ctx context.Context, ih inventory.Host) error {
	h, err := a.host(ih.Name)
	if err != nil {
		return err
	}
	for _, step := range []string{stepPrepare, stepStart, stepFinish} {
		if err := kube.AwaitStep(ctx, h, step, sayIn(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// startColumn starts the kubelet with all four static pods. members are those
// that etcd has agreed on, the newcomer among them or not yet.
func (a *apply) startColumn(ctx context.Context, ih inventory.Host, members []etcd.Member) error {
	return a.columnStep(ctx, ih, stepStart, startScript, templates.Init{EtcdExisting: true, InitialCluster: initialCluster(ih, members)})
}

// finishColumn waits for the local API server and marks the Node.
func (a *apply) finishColumn(ctx context.Context, ih inventory.Host) error {
	waiting, cancel := context.WithTimeout(ctx, restartGate)
	defer cancel()
	if err := phase.Wait(waiting, a.apiReady(ih)); err != nil {
		return err
	}
	return a.columnStep(ctx, ih, stepFinish, finishScript, templates.Init{EtcdExisting: true})
}

// columnStep runs a script on a master with the documents for kubeadm init as its
// first argument, and with those that are given after it.
func (a *apply) columnStep(ctx context.Context, ih inventory.Host, step, script string, o templates.Init, args ...string) error {
	h, err := a.host(ih.Name)
	if err != nil {
		return err
	}
	documents, err := templates.InitDocuments(a.Cluster, ih, o)
	if err != nil {
		return err
	}
	config := fmt.Sprintf("%s/%s.yaml", kube.ConfigDir, step)
	if _, err := h.Upload(ctx, host.File{Path: config, Mode: 0o600, Content: documents}); err != nil {
		return err
	}
	return kube.RunStep(ctx, h, step, sayIn(ctx), append([]string{"sh", "-c", script, "sh", config}, args...)...)
}

// initialCluster is etcd's flag of the same name: every agreed member and the
// newcomer, each by its peer URL.
func initialCluster(ih inventory.Host, members []etcd.Member) string {
	own := peerURL(ih)
	var parts []string
	for _, m := range members {
		if m.ID != 0 && m.PeerURL != own && m.Role == etcd.Voter {
			parts = append(parts, m.Name+"="+m.PeerURL)
		}
	}
	return strings.Join(append(parts, ih.Name+"="+own), ",")
}

// promoteBudget is how long a learner may take to catch up. It has to pull the
// whole database; what takes longer than this is taken back.
const promoteBudget = 3 * time.Minute

// addMember lists the newcomer as a learner, starts its column, and promotes
// it when it has caught up.
func (a *apply) addMember(ctx context.Context, ih inventory.Host) error {
	op := etcd.Operation{Kind: etcd.OpAddLearner, Host: ih.Name, PeerURL: peerURL(ih), HostEmpty: true}
	verdict, err := a.allowed(ctx, op, etcd.PreGateBudget)
	if err != nil {
		return err
	}
	adding, cancel := context.WithTimeout(ctx, etcd.PreGateBudget)
	defer cancel()
	learner, err := a.members.AddLearner(adding, op.PeerURL, ih.Name)
	if err != nil {
		return err
	}
	if err := a.startColumn(ctx, ih, verdict.Members); err != nil {
		return err
	}
	return a.promote(ctx, ih, learner.ID)
}

// A kubelet that does not start is not waited for as long as a learner that
// catches up: nothing that it should start would ever come. systemd starts it
// again every 2 s.
const (
	kubeletBudget = 90 * time.Second
	kubeletDeaths = 5
)

// awaitKubelet waits for a kubelet that was just started; one that dies again
// and again is an error at once.
func (a *apply) awaitKubelet(ctx context.Context, ih inventory.Host) error {
	ctx, cancel := context.WithTimeout(ctx, kubeletBudget)
	defer cancel()
	healthy := a.kubeletHealthy(ih)
	return phase.Wait(ctx, phase.Check{Name: healthy.Name, Run: func(ctx context.Context) error {
		err := healthy.Run(ctx)
		if err == nil {
			return nil
		}
		h, connecting := a.host(ih.Name)
		if connecting != nil {
			return connecting
		}
		deaths, counting := kube.KubeletDeaths(ctx, h)
		if counting == nil && deaths >= kubeletDeaths {
			return phase.Final(&kube.KubeletError{Host: ih.Name, Deaths: deaths})
		}
		return errors.Join(err, counting)
	}})
}

// mute is how long a learner that the others know by name may keep its client
// port shut before it is helped.
const mute = 500 * time.Millisecond

// awaitLearner waits until the learner's etcd serves. etcd 3.6 brings a learner
// up from a snapshot; when that snapshot already holds the learner's own
// announcement, it waits 7 s for an answer that was given before it listened
// (server.go, publishV3). Restarting it ends the wait: it has no vote to miss,
// and its log has the snapshot.
func (a *apply) awaitLearner(ctx context.Context, ih inventory.Host, id etcd.MemberID) error {
	ctx, cancel := context.WithTimeout(ctx, promoteBudget)
	defer cancel()
	if err := a.members.AwaitName(ctx, id); err != nil {
		return err
	}
	serves := a.etcdServes(ih)
	soon, stop := context.WithTimeout(ctx, mute)
	defer stop()
	if phase.Wait(soon, serves) == nil {
		return nil
	}
	h, err := a.host(ih.Name)
	if err != nil {
		return err
	}
	phase.Say(ctx, "the learner missed the answer to its own announcement; restarting its etcd")
	// Only a help: without it the learner serves some seconds later, and a host
	// that is out of reach for a while must not cost the join.
	if _, err := h.Run(ctx, host.Command{Argv: []string{"sh", "-c", endEtcdScript}}); err != nil {
		phase.Say(ctx, "its etcd was not restarted: "+err.Error())
	}
	return phase.Wait(ctx, serves)
}

// endEtcdScript asks etcd to end; the kubelet starts it again. Not every
// minimal host has pkill.
const endEtcdScript = `for p in /proc/[0-9]*; do
	[ "$(cat "$p/comm" 2>/dev/null)" = etcd ] && kill -TERM "${p#/proc/}"
done
exit 0
`

// promote gives the learner its vote, as soon as it has caught up and quorum
// is proven anew.
func (a *apply) promote(ctx context.Context, ih inventory.Host, id etcd.MemberID) error {
	phase.Say(ctx, fmt.Sprintf("learner %s gets its vote when it has caught up", id))
	if err := a.awaitKubelet(ctx, ih); err != nil {
		return err
	}
	if err := a.awaitLearner(ctx, ih, id); err != nil {
		return err
	}
	if _, err := a.allowed(ctx, etcd.Operation{Kind: etcd.OpPromote, Host: ih.Name, ID: id}, promoteBudget); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, promoteBudget)
	defer cancel()
	return a.members.Promote(ctx, id)
}
