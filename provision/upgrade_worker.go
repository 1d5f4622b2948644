package provision

import (
	"context"
	"fmt"
	"strings"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
)

// cordoner is what our own cordon is noted as, so that nobody else's is taken back.
const cordoner = "upgrade"

// drain empties a Node before its kubelet changes its minor version, which no
// kubelet does under running pods. Disruption budgets are respected.
func (u *upgrade) drain(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "drain", Host: ih.Name,
		Done:  func(context.Context) (bool, error) { return !u.minor(ih), nil },
		Needs: []phase.Check{u.imagesThere(ih)},
		Do: func(ctx context.Context) error {
			client, err := u.anyAPI(ctx)
			if err != nil {
				return err
			}
			if err := client.Cordon(ctx, ih.Name, cordoner); err != nil {
				return err
			}
			return client.Drain(ctx, ih.Name, kube.DrainOptions{Timeout: u.DrainTimeout, Force: u.DeleteUnmanaged, Say: sayIn(ctx)})
		},
		// A Node that could not be emptied takes pods again: it runs what it ran.
		Undo: func(ctx context.Context) error {
			client, err := u.anyAPI(ctx)
			if err != nil {
				return err
			}
			_, err = client.Uncordon(ctx, ih.Name, cordoner)
			return err
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeObject, Name: "Node " + ih.Name, Text: "takes no new pods; its pods are asked to leave, as their disruption budgets allow; what they keep in emptyDir volumes goes with them"}}, nil
		},
	}
}

// uncordon lets a Node take pods again, when it is ready.
func (u *upgrade) uncordon(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "uncordon", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			client, err := u.anyAPI(ctx)
			if err != nil {
				return false, err
			}
			by, _, err := client.Cordoned(ctx, ih.Name)
			return by != cordoner, err
		},
		Needs: []phase.Check{u.nodeReady(ih)},
		Do: func(ctx context.Context) error {
			client, err := u.anyAPI(ctx)
			if err != nil {
				return err
			}
			_, err = client.Uncordon(ctx, ih.Name, cordoner)
			return err
		},
		Gate:        []phase.Check{u.nodeReady(ih), u.kubeletIs(ih, u.Cluster.Spec.Kubernetes.Version)},
		GateTimeout: restartGate,
		After:       []string{"drain"},
		Explain:     func(context.Context) ([]phase.Change, error) { return u.explainUncordon(ih), nil },
		Foresee: func(context.Context, []string) (phase.State, []phase.Change, error) {
			return phase.ToChange, u.explainUncordon(ih), nil
		},
	}
}

func (u *upgrade) explainUncordon(ih inventory.Host) []phase.Change {
	return []phase.Change{{Kind: changeObject, Name: "Node " + ih.Name, Text: "takes pods again, when it is ready"}}
}

// kubeletIs wants a Node to say that its kubelet is of the version.
func (u *upgrade) kubeletIs(ih inventory.Host, to string) phase.Check {
	return phase.Check{Name: "the kubelet of " + ih.Name + " to report " + to, Run: func(ctx context.Context) error {
		client, err := u.anyAPI(ctx)
		if err != nil {
			return err
		}
		return client.KubeletIs(ctx, ih.Name, to)
	}}
}

// workerScript exchanges what a worker runs: its configuration by kubeadm, whose
// copy of the equal one before goes, then binaries and kubelet, with a note
// meanwhile, as on a master. Arguments: where
// the new binaries wait, "restart" when the container runtime has to be, and
// preflight errors that kubeadm is to ignore.
const workerScript = `set -eu
kubeadm=kubeadm
for f in "$1"/usr/local/bin/kubeadm "$1"/usr/bin/kubeadm; do
	if [ -x "$f" ]; then kubeadm=$f; fi
done
waiting() { if [ -d "$1" ]; then (cd "$1" && find . -type f); fi; }
trap 'waiting "$@" | while read -r f; do rm -f -- "/$f.ha-install"; done' EXIT
waiting "$@" | while read -r f; do cp -p -- "$1/$f" "/$f.ha-install"; done
` + roomFunction + `room /var/lib/kubelet
"$kubeadm" upgrade node --ignore-preflight-errors "$3"
rm -rf -- /etc/kubernetes/tmp/kubeadm-kubelet-config*
rmdir --ignore-fail-on-non-empty -- /etc/kubernetes/tmp || true
` + noteScript + `trap 'systemctl start kubelet.service' EXIT
systemctl stop kubelet.service
waiting "$@" | while read -r f; do mv -f -- "/$f.ha-install" "/$f"; done
systemctl daemon-reload
if [ "$2" = restart ]; then systemctl restart containerd.service; fi
systemctl start kubelet.service
rm -f -- ` + owedUpgrade + `
`

const stepWorker = "worker-upgrade"

// worker exchanges a worker's kubelet, which has been drained before where the
// minor version changes.
func (u *upgrade) worker(ih inventory.Host) phase.Phase {
	to := u.Cluster.Spec.Kubernetes.Version
	explain := func(ctx context.Context) ([]phase.Change, error) {
		others, err := u.exchanged(ctx, ih)
		if err != nil {
			return nil, err
		}
		explained, err := u.explainConfigure(ctx, ih)
		for _, item := range others {
			explained = append(explained, phase.Change{Kind: changeBinary, Name: item.Dest, Text: item.Version})
		}
		return append(explained, phase.Change{Kind: changeRestart, Name: "kubelet", Text: fmt.Sprintf("%s -> %s", u.nodes[ih.Name].kubelet, to)}), err
	}
	return phase.Phase{
		Name: "upgrade", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			due, err := u.due(ctx, ih)
			return !due, err
		},
		Needs: []phase.Check{u.imagesThere(ih), u.endpointFrom(ih)},
		Do: func(ctx context.Context) error {
			h, err := u.host(ih.Name)
			if err != nil {
				return err
			}
			runtime, err := u.reconfigureRuntime(ctx, ih)
			if err != nil {
				return err
			}
			return kube.RunStep(ctx, h, stepWorker, sayIn(ctx), "sh", "-c", workerScript, "sh", u.stageDir(), runtime,
				strings.Join(u.Cluster.Spec.Preflight.IgnoreErrors, ","))
		},
		Gate:        []phase.Check{u.kubeletHealthy(ih), u.kubeletIs(ih, to), u.nodeReady(ih)},
		GateTimeout: restartGate,
		After:       []string{"stage", "kubeadm-config"},
		Explain:     explain,
		Foresee: func(ctx context.Context, _ []string) (phase.State, []phase.Change, error) {
			if due, err := u.due(ctx, ih); !due || err != nil {
				return phase.AlreadyDone, nil, err
			}
			changes, err := explain(ctx)
			return phase.ToChange, changes, err
		},
	}
}
