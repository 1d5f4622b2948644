package provision

import (
	"context"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// A master is upgraded by the new kubeadm's init phases, as masters join, and
// not by `kubeadm upgrade`: that exchanges one manifest after the other under a
// running kubelet, which takes over 40 s to act on each, restarts etcd under a
// running API server, and on an error puts back what it takes for the old etcd.
// The manifests are the same; they are written while the kubelet is stopped, so
// that it starts all four pods of the new version at once.

// upgradeScript exchanges everything that a master runs. Nothing is changed
// before there is room for it: kubeadm writes certificates and manifests over the
// old ones, and on a full disk leaves them empty. Nothing is stopped before the
// new certificates are made and the new binaries lie beside the old. From then on
// a note says that the exchange is under way; if the script is killed the disk may
// look as before, or as after, with a kubelet that nothing starts again.
//
//	$1 kubeadm's configuration   $2 where the new binaries wait
//	$3 the node's name           $4 $5 arguments that tell this host's etcd and API server from others
//	$6 "restart" when the container runtime has to be
const upgradeScript = `set -eu
kubeadm=kubeadm
for f in "$2"/usr/local/bin/kubeadm "$2"/usr/bin/kubeadm; do
	if [ -x "$f" ]; then kubeadm=$f; fi
done
waiting() { if [ -d "$2" ]; then (cd "$2" && find . -type f); fi; }
trap 'waiting "$@" | while read -r f; do rm -f -- "/$f.ha-install"; done' EXIT
waiting "$@" | while read -r f; do cp -p -- "$2/$f" "/$f.ha-install"; done
` + roomFunction + `room /etc/kubernetes
room /var/lib/kubelet
"$kubeadm" certs renew all --config "$1"
` + noteScript + `node=$3 etcd=$4 api=$5 grace=150
` + endColumn + `waiting "$@" | while read -r f; do mv -f -- "/$f.ha-install" "/$f"; done
systemctl daemon-reload
if [ "$6" = restart ]; then systemctl restart containerd.service; fi
kubeadm init phase etcd local --config "$1"
kubeadm init phase control-plane all --config "$1"
kubeadm init phase kubelet-start --config "$1"
rm -f -- ` + owedUpgrade + `
`

// roomFunction is a shell function: room DIRECTORY fails where less than
// preflight.ExchangeMB are free.
const roomFunction = `room() {
	free=$(df -Pk -- "$1" | awk 'NR == 2 { print $4 }')
	if [ "$free" -lt 32768 ]; then
		echo "no room: $free kB are free in $1, 32768 are needed; nothing was exchanged" >&2
		exit 1
	fi
}
`

// owedUpgrade is there while what a node runs is being exchanged.
const owedUpgrade = stateDir + "/owed/upgrade"

// noteScript writes that note.
const noteScript = `mkdir -p -m 0700 -- "$(dirname ` + owedUpgrade + `)"
: > ` + owedUpgrade + `
sync -- ` + owedUpgrade + `
`

// stepUpgrade is the name of the step under which its output is kept on the host.
const stepUpgrade = "column-upgrade"

// master exchanges the whole column of a master and its kubelet: certificates,
// manifests, binaries. The other masters carry quorum and clients meanwhile.
func (u *upgrade) master(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "upgrade", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			if due, err := u.due(ctx, ih); due || err != nil {
				return false, err
			}
			return u.comesUp(ctx, ih), nil
		},
		Needs: []phase.Check{u.imagesThere(ih), u.othersCarry(ih)},
		Do: func(ctx context.Context) error {
			if err := u.leave(ctx, ih); err != nil {
				return err
			}
			if _, err := u.allowed(ctx, etcd.Operation{Kind: etcd.OpRestart, Host: ih.Name, PeerURL: peerURL(ih)}, etcd.PreGateBudget); err != nil {
				return err
			}
			return u.exchange(ctx, ih)
		},
		Undo:        func(ctx context.Context) error { return u.comeBack(ctx, ih) },
		Gate:        u.whole(ih),
		GateTimeout: restartGate,
		After:       []string{"stage"},
		Explain:     func(ctx context.Context) ([]phase.Change, error) { return u.explainMaster(ctx, ih) },
		Foresee: func(ctx context.Context, _ []string) (phase.State, []phase.Change, error) {
			if due, err := u.due(ctx, ih); !due || err != nil {
				return phase.AlreadyDone, nil, err
			}
			changes, err := u.explainMaster(ctx, ih)
			return phase.ToChange, changes, err
		},
	}
}

// whole is what has to hold of a master before the next one is touched. What
// balances outside is asked, too: it may take longer than ours to come back.
func (u *upgrade) whole(ih inventory.Host) []phase.Check {
	to := u.Cluster.Spec.Kubernetes.Version
	gate := []phase.Check{u.etcdRuns(ih, stateFlag+stateExists), u.quorum("upgrade " + ih.Name), u.columnRuns(ih), u.runs(ih, to), u.led(renewsWithin),
		u.kubeletIs(ih, to), u.nodeReady(ih)}
	if u.external() {
		gate = append(gate, u.balancerFit())
	}
	return gate
}

// due says that something of a node is to be exchanged. It is looked at once, as
// hosts were when the run began: after the exchange it was due all the same.
func (u *upgrade) due(ctx context.Context, ih inventory.Host) (bool, error) {
	u.mu.Lock()
	due, known := u.dues[ih.Name]
	u.mu.Unlock()
	if known {
		return due, nil
	}
	arrived, err := u.hasArrived(ctx, ih)
	if err != nil {
		return false, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dues[ih.Name] = !arrived
	return !arrived, nil
}

// hasArrived says that nothing of a node is left to exchange.
func (u *upgrade) hasArrived(ctx context.Context, ih inventory.Host) (bool, error) {
	if !u.nodes[ih.Name].arrived(u.Cluster.Spec.Kubernetes.Version) {
		return false, nil
	}
	others, err := u.exchanged(ctx, ih)
	if err != nil || len(others) > 0 {
		return false, err
	}
	h, files, err := u.nodeFiles(ih)
	if err != nil {
		return false, err
	}
	owed, err := changes(ctx, h, "configure", files)
	return len(owed) == 0, err
}

// patience is for what an earlier run has just started: it is not started again.
const patience = time.Minute

// comesUp says that a master runs, or comes up by itself. One that does not is
// upgraded once more: what kept it down may be gone, and a kubelet that has
// failed to start a pod many times waits five minutes before it tries again.
func (u *upgrade) comesUp(ctx context.Context, ih inventory.Host) bool {
	if u.nodes[ih.Name].out == nil {
		return true
	}
	if u.readOnly { // a plan does not wait
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return phase.Wait(ctx, u.columnRuns(ih)) == nil
}

// exchange does it, when the balancers send nobody there any more.
func (u *upgrade) exchange(ctx context.Context, ih inventory.Host) error {
	runtime, err := u.reconfigureRuntime(ctx, ih)
	if err != nil {
		return err
	}
	address := ih.IP().String()
	return u.columnStep(ctx, ih, stepUpgrade, upgradeScript, templates.Init{EtcdExisting: true}, u.stageDir(), ih.Name,
		"--advertise-client-urls=https://"+net.JoinHostPort(address, "2379"), "--advertise-address="+address, runtime)
}

// runtimeBinaries are those with which containerd has to be started anew.
var runtimeBinaries = []string{"containerd", "containerd-shim-runc-v2", "runc"}

// reconfigureRuntime brings the node's files to what the version wants, and
// says whether the script has to restart containerd for its new binaries.
func (u *upgrade) reconfigureRuntime(ctx context.Context, ih inventory.Host) (string, error) {
	p := u.configure(ih)
	done, err := p.Done(ctx)
	if err == nil && !done {
		err = p.Do(ctx)
	}
	if err != nil {
		return "", err
	}
	others, err := u.exchanged(ctx, ih)
	for _, item := range others {
		if slices.Contains(runtimeBinaries, path.Base(item.Dest)) {
			return "restart", err
		}
	}
	return "keep", err
}

// comeBack has the balancers send clients to a master again whose upgrade
// failed, if its API server is still there, or there again.
func (s *Site) comeBack(ctx context.Context, ih inventory.Host) error {
	if s.apiReady(ih).Run(ctx) != nil {
		phase.Tell(ctx, ih.Name+": its API server is not ready; the balancers send it nobody until the next run")
		return nil
	}
	return s.enable(ctx, ih)
}

// othersCarry wants every other master whole: its column, its vote, and a
// stable leader among them.
func (s *Site) othersCarry(ih inventory.Host) phase.Check {
	op := etcd.Operation{Kind: etcd.OpRestart, Host: ih.Name, PeerURL: peerURL(ih)}
	return s.othersCarryWhile(op, etcd.Want{}, s.columnRuns) // Ready comes 10 s after, with the startup probes
}

// othersCarryWhile wants quorum while an operation on one member is under way, and
// what whole asks for of every other master.
func (s *Site) othersCarryWhile(op etcd.Operation, want etcd.Want, whole func(inventory.Host) phase.Check) phase.Check {
	return phase.Check{Name: "the masters beside " + op.Host + " to carry the cluster", Run: func(ctx context.Context) error {
		want := want
		want.Op, want.Watch = &op, sayMissing(ctx)
		if _, err := s.members.Gate(ctx, want, etcd.PreGateBudget); err != nil {
			return phase.Final(err)
		}
		for _, other := range s.Cluster.ControlPlanes() {
			if other.Name == op.Host {
				continue
			}
			if err := whole(other).Run(ctx); err != nil {
				return err
			}
		}
		return nil
	}}
}

// imagesThere wants the images on a host still, when its turn comes: a kubelet
// that is short of disk deletes those that no pod uses yet.
func (u *upgrade) imagesThere(ih inventory.Host) phase.Check {
	return phase.Check{Name: "the images on " + ih.Name, Run: func(ctx context.Context) error {
		missing, err := u.missingImages(ctx, ih)
		if err != nil || len(missing) == 0 {
			return err
		}
		var names []string
		for _, item := range missing {
			names = append(names, item.Images...)
		}
		return phase.Final(&ConflictError{
			What: fmt.Sprintf("%s had %s when this run began, and has not any more", ih.Name, strings.Join(names, ", ")),
			Why:  "a kubelet deletes images that no pod uses yet when more than 85 % of its disk are used, and so may an operator",
			Run:  "see `df -h /var/lib/containerd` on " + ih.Name + ", then run the same command again: it imports them once more",
		})
	}}
}

// renewsWithin is how long a leader that is there takes to say so again, with
// patience: it renews its lease every 2 s, which is valid for 15. Without one a
// drain takes pods away that Services still send clients to.
const renewsWithin = 6 * time.Second

// runs wants what runs on a master to be of the version: what its own API
// server says of itself, and the images of its pods. A manifest is a wish.
func (u *upgrade) runs(ih inventory.Host, to string) phase.Check {
	return phase.Check{Name: ih.Name + " to run " + to, Run: func(ctx context.Context) error {
		client, err := u.api(ctx, ih)
		if err != nil {
			return err
		}
		said, err := client.Discovery().ServerVersion()
		if err != nil {
			return err
		}
		if said.GitVersion != to {
			return fmt.Errorf("its API server says that it is %s", said.GitVersion)
		}
		h, err := u.host(ih.Name)
		if err != nil {
			return err
		}
		wanted, err := manifestTags(ctx, h)
		if err != nil {
			return err
		}
		return client.ColumnIs(ctx, ih.Name, wanted)
	}}
}

func (u *upgrade) explainMaster(ctx context.Context, ih inventory.Host) ([]phase.Change, error) {
	to := u.Cluster.Spec.Kubernetes.Version
	seen := u.nodes[ih.Name]
	others, err := u.exchanged(ctx, ih)
	if err != nil {
		return nil, err
	}
	explained, err := u.explainConfigure(ctx, ih)
	if err != nil {
		return nil, err
	}
	changes := []phase.Change{{Kind: changeCertificate, Name: "all but the CA set's", Text: "renewed", Withheld: withheldSecret}}
	if names := u.balancerNames(); names != "" {
		changes = append(changes, phase.Change{Kind: changeRun, Name: "HAProxy of " + names, Text: "sends nobody new to " + ih.Name + " until it is ready again"})
	}
	for _, item := range others {
		changes = append(changes, phase.Change{Kind: changeBinary, Name: item.Dest, Text: item.Version})
	}
	changes = append(changes, explained...)
	v := etcd.Verdict{}
	if planned := u.plannedEtcd(); planned != nil {
		v = *planned
	} else {
		v = u.members.Look(ctx, etcd.Options{ReadOnly: true})
	}
	d := etcd.Project(v, etcd.Operation{Kind: etcd.OpRestart, Host: ih.Name, PeerURL: peerURL(ih)})
	for _, component := range kube.Components {
		c := phase.Change{Kind: changeRestart, Name: component, Text: fmt.Sprintf("%s -> %s", seen.manifests[component], to)}
		if component == "etcd" {
			c.Text, c.Figures = "one member; the others hold quorum meanwhile", figures(d.Before, d.After)
		}
		changes = append(changes, c)
	}
	return append(changes, phase.Change{Kind: changeRestart, Name: "kubelet", Text: fmt.Sprintf("%s -> %s", seen.kubelet, to)}), nil
}
