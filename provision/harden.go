package provision

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
)

// hardenFrom is the number of masters from which one etcd may be restarted
// without an outage; fewer are for trying out.
const hardenFrom = 3

const (
	stateFlag    = "--initial-cluster-state="
	stateExists  = "existing"
	configMap    = "kubeadm-config"
	configMapKey = "ClusterConfiguration"
)

// rememberExisting stores initial-cluster-state=existing where kubeadm looks
// for it, so that no later upgrade writes a manifest that lets etcd start an
// empty cluster over a lost data directory (fact 4 of quorum.md).
func (a *apply) rememberExisting() phase.Phase {
	return phase.Phase{
		Name: "etcd-state",
		Done: func(ctx context.Context) (bool, error) {
			_, _, changed, err := a.existingConfig(ctx)
			return !changed, err
		},
		Do: func(ctx context.Context) error {
			client, cm, _, err := a.existingConfig(ctx)
			if err != nil {
				return err
			}
			_, err = client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Update(ctx, cm, metav1.UpdateOptions{})
			return err
		},
		After:   []string{"init"},
		Explain: func(context.Context) ([]phase.Change, error) { return explainExisting(), nil },
		// kubeadm init never writes it.
		Foresee: func(context.Context, []string) (phase.State, []phase.Change, error) {
			return phase.ToChange, explainExisting(), nil
		},
	}
}

// existingConfig returns kubeadm's ConfigMap with the flag set, and whether
// that changed it.
func (a *apply) existingConfig(ctx context.Context) (*kube.Client, *corev1.ConfigMap, bool, error) {
	client, err := a.anyAPI(ctx)
	if err != nil {
		return nil, nil, false, err
	}
	cm, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, configMap, metav1.GetOptions{})
	if err != nil {
		return nil, nil, false, err
	}
	document, changed, err := withExistingState([]byte(cm.Data[configMapKey]))
	if err != nil {
		return nil, nil, false, fmt.Errorf("ConfigMap %s: %w", configMap, err)
	}
	cm.Data[configMapKey] = string(document)
	return client, cm, changed, nil
}

// withExistingState sets initial-cluster-state in a v1beta4
// ClusterConfiguration and leaves every other field, known to us or not, alone.
func withExistingState(document []byte) ([]byte, bool, error) {
	var config map[string]any
	if err := yaml.Unmarshal(document, &config); err != nil {
		return nil, false, err
	}
	local := submap(submap(config, "etcd"), "local")
	args, _ := local["extraArgs"].([]any)
	for _, arg := range args {
		if m, ok := arg.(map[string]any); ok && m["name"] == "initial-cluster-state" {
			if m["value"] == stateExists {
				return document, false, nil
			}
			m["value"] = stateExists
			out, err := yaml.Marshal(config)
			return out, true, err
		}
	}
	local["extraArgs"] = append(args, map[string]any{"name": "initial-cluster-state", "value": stateExists})
	out, err := yaml.Marshal(config)
	return out, true, err
}

func submap(m map[string]any, key string) map[string]any {
	sub, ok := m[key].(map[string]any)
	if !ok {
		sub = map[string]any{}
		m[key] = sub
	}
	return sub
}

// hardenInTurn hardens one master after the other; each is back behind the
// balancers before the next one leaves them.
func (a *apply) hardenInTurn(masters []inventory.Host) phase.Stage {
	var s phase.Stage
	for _, ih := range masters {
		s.Phases = append(s.Phases, a.harden(ih), a.readmit(ih))
	}
	return s
}

// harden makes a master's etcd refuse to start on an empty data directory. The
// masters that joined have the flag from kubeadm; the first one's etcd is
// restarted once, under the gate.
func (a *apply) harden(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "harden-etcd", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			h, err := a.host(ih.Name)
			if err != nil {
				return false, err
			}
			manifest, err := h.ReadFile(ctx, etcdManifest)
			if err != nil {
				return false, err
			}
			_, changed, err := existingManifest(manifest)
			return !changed, err
		},
		Needs: []phase.Check{a.quorum("harden " + ih.Name)},
		Do: func(ctx context.Context) error {
			// The run that makes the cluster has told nobody of it yet.
			goes := "now"
			if a.established {
				goes = "leave"
				if err := a.leave(ctx, ih); err != nil {
					return err
				}
			}
			if _, err := a.allowed(ctx, etcd.Operation{Kind: etcd.OpRestart, Host: ih.Name, PeerURL: peerURL(ih)}, etcd.PreGateBudget); err != nil {
				return err
			}
			h, err := a.host(ih.Name)
			if err != nil {
				return err
			}
			manifest, err := h.ReadFile(ctx, etcdManifest)
			if err != nil {
				return err
			}
			changed, _, err := existingManifest(manifest)
			if err != nil {
				return err
			}
			return wake(ctx, h, replaceEtcdManifest(ctx, h, ih, changed, goes))
		},
		Undo:        func(ctx context.Context) error { return a.enable(ctx, ih) },
		Gate:        []phase.Check{a.etcdRuns(ih, stateFlag+stateExists), a.quorum("harden " + ih.Name), a.columnRuns(ih)},
		GateTimeout: restartGate,
		After:       []string{"init", "join"},
		Explain:     func(ctx context.Context) ([]phase.Change, error) { return a.explainHarden(ctx, ih) },
		Foresee:     func(context.Context, []string) (phase.State, []phase.Change, error) { return a.foreseeHarden(ih) },
	}
}

// wake starts the kubelet of a host again after a step that has stopped it and
// has ended with an error: a script that was killed itself could not.
func wake(ctx context.Context, h host.Host, err error) error {
	var ended *kube.StepError
	if !errors.As(err, &ended) { // it may still go on, and does it then
		return err
	}
	return errors.Join(err, runAll(ctx, h, []string{"systemctl", "start", "kubelet.service"}))
}

// existingManifest sets the flag in the etcd static pod's command.
func existingManifest(manifest []byte) ([]byte, bool, error) {
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(manifest, &pod); err != nil {
		return nil, false, fmt.Errorf("%s: %w", etcdManifest, err)
	}
	if len(pod.Spec.Containers) != 1 {
		return nil, false, fmt.Errorf("%s: %d containers, want one", etcdManifest, len(pod.Spec.Containers))
	}
	command := pod.Spec.Containers[0].Command
	if slices.Contains(command, stateFlag+stateExists) {
		return manifest, false, nil
	}
	command = slices.DeleteFunc(command, func(arg string) bool { return strings.HasPrefix(arg, stateFlag) })
	pod.Spec.Containers[0].Command = append(command, stateFlag+stateExists)
	out, err := yaml.Marshal(pod)
	return out, true, err
}

// endFunctions has "ends NAME ARGUMENT SIGNAL FIFTHS" besides "processes", which ends
// a program and waits that many fifths of a second for it.
const endFunctions = kube.ProcessFunction + `ends() {
	kill -s "$3" $(processes "$1" "$2") 2>/dev/null || return 0
	for _ in $(seq "$4"); do
		if [ -z "$(processes "$1" "$2")" ]; then return; fi
		sleep 0.2
	done
}
`

// endColumn stops the kubelet, which is started again whatever happens, and ends
// the four static pods. $api and $etcd tell this host's API server and etcd from
// others; the first has $grace fifths of a second to say goodbye. With 0 nobody is
// waited for, as where it serves nobody.
//
// What the host's controller-manager and scheduler led is given back, as they do
// not do themselves when they end: another one leads after 2 s and not after 15,
// in which pods would go and no Service hear of it. $node is the Node's name.
const endColumn = `trap 'systemctl start kubelet.service' EXIT
systemctl stop kubelet.service
` + endFunctions + `ends kube-apiserver "$api" TERM "$grace"
ends kube-apiserver "$api" KILL 25
ends kube-controller --kubeconfig=/etc/kubernetes/controller-manager.conf TERM 25
ends kube-scheduler --kubeconfig=/etc/kubernetes/scheduler.conf TERM 25
if [ "$grace" != 0 ] && command -v kubectl >/dev/null; then
	for lease in kube-controller-manager kube-scheduler; do
		holder=$(kubectl --kubeconfig /etc/kubernetes/admin.conf --namespace kube-system get lease "$lease" \
			--output 'jsonpath={.spec.holderIdentity}' --request-timeout=5s) || continue
		case $holder in
		"$node"_*) kubectl --kubeconfig /etc/kubernetes/admin.conf --namespace kube-system patch lease "$lease" --type json --request-timeout=5s \
			--patch '[{"op":"test","path":"/spec/holderIdentity","value":"'"$holder"'"},{"op":"replace","path":"/spec/holderIdentity","value":""}]' || true ;;
		esac
	done
	kubectl --kubeconfig /etc/kubernetes/admin.conf --namespace kube-system delete pod \
		"etcd-$node" "kube-apiserver-$node" "kube-controller-manager-$node" "kube-scheduler-$node" \
		--grace-period=0 --force --wait=false --ignore-not-found --request-timeout=5s || true
fi
ends etcd "$etcd" TERM 50
ends etcd "$etcd" KILL 25
`

// swapScript changes the manifest of etcd while the kubelet is stopped: a
// running kubelet takes over 40 s to act on it, one that starts acts at once.
//
// The API server beside it is ended before, and etcd itself: a kubelet that
// starts and finds neither starts both at once, and is done in 4 s. Left alone,
// the old etcd would go on until the kubelet has heard from the API server, and
// the new one die on its port once (18 s); and an API server that has lived
// through the absence of its etcd says that it is ready while some of its own
// etcd clients still wait out a back-off, and fails writes for seconds.
//
// With "leave" as $5 the API server has time to say goodbye: it announces that it
// leaves, serves on for a while, sends its clients elsewhere and ends. One that
// has not ended after 30 s is killed, as the kubelet itself would. "now" kills it.
//
// The pod's mirror in the API is deleted, by way of the endpoint: a kubelet that
// finds the old one deletes it itself, and may wait 34 s for an answer. Without
// kubectl it does.
//
// Which processes they are is told by $4 (etcd's) and $6 (the API server's).
//
// The trap starts the kubelet again whatever happens.
const swapScript = `set -eu
trap 'systemctl start kubelet.service' EXIT
systemctl stop kubelet.service
` + endFunctions + `if [ "$5" = leave ]; then
	ends kube-apiserver "$6" TERM 150
fi
ends kube-apiserver "$6" KILL 25
if command -v kubectl >/dev/null; then
	kubectl --kubeconfig /etc/kubernetes/admin.conf --namespace kube-system delete pod "$3" \
		--grace-period=0 --force --wait=false --ignore-not-found --request-timeout=5s || true
fi
ends etcd "$4" TERM 50
ends etcd "$4" KILL 25
mv -f -- "$1" "$2"
`

// replaceEtcdManifest puts a changed manifest of etcd in place as one detached
// step, so that a host is never left with its kubelet stopped. The API server of
// the host shall "leave" before, or go "now".
func replaceEtcdManifest(ctx context.Context, h host.Host, ih inventory.Host, content []byte, goes string) error {
	staged := path.Join(stateDir, "manifests", path.Base(etcdManifest))
	if _, err := h.Upload(ctx, host.File{Path: staged, Mode: 0o600, Content: content}); err != nil {
		return err
	}
	return kube.RunStep(ctx, h, "manifest-etcd", nil, "sh", "-c", swapScript, "sh", staged, etcdManifest, "etcd-"+h.Name(),
		"--advertise-client-urls=https://"+net.JoinHostPort(ih.IP().String(), "2379"), goes, "--advertise-address="+ih.IP().String())
}
