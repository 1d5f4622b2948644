package provision

import (
	"context"
	"fmt"
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
			goes := "stay"
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
			return replaceManifest(ctx, h, etcdManifest, changed, goes)
		},
		Undo:        func(ctx context.Context) error { return a.enable(ctx, ih) },
		Gate:        []phase.Check{a.etcdRuns(ih, stateFlag+stateExists), a.quorum("harden " + ih.Name), a.columnRuns(ih)},
		GateTimeout: restartGate,
		After:       []string{"init", "join"},
		Explain:     func(ctx context.Context) ([]phase.Change, error) { return a.explainHarden(ctx, ih) },
		Foresee:     func(context.Context, []string) (phase.State, []phase.Change, error) { return a.foreseeHarden(ih) },
	}
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

// swapScript changes a static pod's manifest while the kubelet is stopped: a
// running kubelet takes over 40 s to act on it, one that starts acts at once.
//
// The old container must be left for the kubelet to end: it ends pods that it
// does not know only once it has heard from its API server, which needs this
// very etcd (ending it here made a restart take 2 minutes instead of 6 s). For
// the same reason the pod's mirror in the API is deleted before: a kubelet that
// finds the old one deletes it itself, by the API server whose etcd it has just
// ended, and waits 34 s for the answer. Without kubectl it does.
//
// With "leave" as $4 the API server is told to stop before its etcd is gone: it
// announces that it leaves, serves on for a while, sends its clients elsewhere
// and ends. A kubelet that starts finds it ended and starts another one. One that
// has not ended after 30 s is killed, as the kubelet itself would. This costs most
// of a minute, for the API server comes up twice: with the old etcd, by whose help
// the kubelet hears that it has to end it, and with the new one.
//
// The trap starts the kubelet again whatever happens.
const swapScript = `set -eu
trap 'systemctl start kubelet.service' EXIT
systemctl stop kubelet.service
servers() {
	for p in /proc/[0-9]*; do
		if { read -r name <"$p/comm"; } 2>/dev/null && [ "$name" = kube-apiserver ]; then
			echo "${p#/proc/}"
		fi
	done
}
ends() {
	kill -s "$1" $(servers) 2>/dev/null || return 0
	for _ in $(seq "$2"); do
		if [ -z "$(servers)" ]; then return; fi
		sleep 0.2
	done
}
if [ "$4" = leave ]; then
	ends TERM 150
	ends KILL 25
fi
if command -v kubectl >/dev/null; then
	kubectl --kubeconfig /etc/kubernetes/admin.conf --namespace kube-system delete pod "$3" \
		--grace-period=0 --force --wait=false --ignore-not-found --request-timeout=5s || true
fi
mv -f -- "$1" "$2"
`

// replaceManifest puts a changed manifest in place as one detached step, so
// that a host is never left with its kubelet stopped. The API server of the host
// shall "leave" before, or "stay".
func replaceManifest(ctx context.Context, h host.Host, at string, content []byte, goes string) error {
	staged := path.Join(stateDir, "manifests", path.Base(at))
	if _, err := h.Upload(ctx, host.File{Path: staged, Mode: 0o600, Content: content}); err != nil {
		return err
	}
	component := strings.TrimSuffix(path.Base(at), ".yaml")
	return kube.RunStep(ctx, h, "manifest-"+component, nil, "sh", "-c", swapScript, "sh", staged, at, component+"-"+h.Name(), goes)
}
