package provision

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// configScript stores what the cluster's ConfigMaps say of it, and the rights
// of joining nodes, as the new kubeadm would at its own upgrade. The token that
// it makes is swept up after.
const configScript = `set -eu
kubeadm init phase upload-config all --config "$1"
kubeadm init phase bootstrap-token --config "$1" --skip-token-print
`

// addonsScript brings CoreDNS and kube-proxy to the versions of the kubeadm.
const addonsScript = `set -eu
kubeadm init phase addon all --config "$1"
`

const (
	stepConfig = "cluster-config"
	stepAddons = "cluster-addons"
)

// config has the cluster's ConfigMaps say the new version: not before all
// masters have it, for a host that joins reads them.
func (u *upgrade) config() phase.Phase {
	return phase.Phase{
		Name: "kubeadm-config",
		Done: func(ctx context.Context) (bool, error) {
			running, wanted, err := u.configs(ctx)
			if err != nil {
				return false, err
			}
			return running.version == u.Cluster.Spec.Kubernetes.Version && running.comparable == wanted, nil
		},
		Do: func(ctx context.Context) error { return u.onFirst(ctx, stepConfig, configScript) },
		Explain: func(ctx context.Context) ([]phase.Change, error) {
			running, wanted, err := u.configs(ctx)
			if err != nil {
				return nil, err
			}
			c := phase.Change{Kind: changeObject, Name: "ConfigMaps kube-system/kubeadm-config and kubelet-config",
				Text: fmt.Sprintf("kubernetesVersion: %s -> %s", running.version, u.Cluster.Spec.Kubernetes.Version)}
			if running.comparable != wanted {
				c.Diff = diff(running.comparable, wanted)
			}
			return []phase.Change{c}, nil
		},
	}
}

// addons brings kubeadm's addons to the version, when all API servers have it.
func (u *upgrade) addons() phase.Phase {
	explain := func(context.Context) ([]phase.Change, error) {
		return []phase.Change{{Kind: changeObject, Name: "CoreDNS, kube-proxy", Text: "of kubeadm " + u.Cluster.Spec.Kubernetes.Version}}, nil
	}
	return phase.Phase{
		Name: "addons",
		Done: func(ctx context.Context) (bool, error) {
			client, err := u.anyAPI(ctx)
			if err != nil {
				return false, err
			}
			is, err := client.ProxyImage(ctx)
			if apierrors.IsNotFound(err) { // the user has one of his own
				return true, nil
			}
			return err == nil && strings.HasSuffix(is, ":"+u.Cluster.Spec.Kubernetes.Version), err
		},
		Do:      func(ctx context.Context) error { return u.onFirst(ctx, stepAddons, addonsScript) },
		Explain: explain,
	}
}

// onFirst runs a script of kubeadm's on the first master.
func (u *upgrade) onFirst(ctx context.Context, step, script string) error {
	return u.columnStep(ctx, u.Cluster.ControlPlanes()[0], step, script, templates.Init{EtcdExisting: true})
}

// storedConfig is what kubeadm-config holds.
type storedConfig struct{ document, version, comparable string }

// configs are the ClusterConfiguration of the cluster and the inventory's, the
// second in its comparable form.
func (u *upgrade) configs(ctx context.Context) (running storedConfig, wanted string, err error) {
	client, err := u.anyAPI(ctx)
	if err != nil {
		return running, "", err
	}
	cm, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, configMap, metav1.GetOptions{})
	if err != nil {
		return running, "", err
	}
	running.document = cm.Data[configMapKey]
	is, err := templates.ComparableConfiguration([]byte(running.document))
	if err != nil {
		return running, "", fmt.Errorf("ConfigMap %s: %w", configMap, err)
	}
	for line := range strings.Lines(running.document) {
		if v, ok := strings.CutPrefix(line, "kubernetesVersion: "); ok {
			running.version = strings.TrimSpace(v)
		}
	}
	running.comparable = string(is)
	document, err := templates.ClusterConfiguration(u.Cluster, true)
	if err != nil {
		return running, "", err
	}
	want, err := templates.ComparableConfiguration(document)
	return running, string(want), err
}
