package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// configScript stores what the cluster's ConfigMaps say of it, and the rights
// of joining nodes, as the new kubeadm would at its own upgrade. kubeadm-config,
// by which it is known that all is stored, comes last. The token that it makes is
// swept up after.
const configScript = `set -eu
kubeadm init phase upload-config kubelet --config "$1"
kubeadm init phase bootstrap-token --config "$1" --skip-token-print
kubeadm init phase upload-config kubeadm --config "$1"
`

// addonScript brings one of kubeadm's addons to the version of the kubeadm.
const addonScript = `set -eu
kubeadm init phase addon "$2" --config "$1"
`

const (
	stepConfig = "cluster-config"
	stepAddon  = "cluster-addon"
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

// addon brings one of kubeadm's addons to the version, when all API servers
// have it. One that the cluster does not have was removed on purpose.
func (u *upgrade) addon(name string) phase.Phase {
	return phase.Phase{
		Name: name,
		Done: func(ctx context.Context) (bool, error) {
			client, err := u.anyAPI(ctx)
			if err != nil {
				return false, err
			}
			is, err := client.Addon(ctx, name)
			if apierrors.IsNotFound(err) {
				return true, nil
			}
			if err != nil {
				return false, err
			}
			tag, err := u.addonTag(name)
			if err != nil || tag != "" {
				return strings.HasSuffix(is.Image, ":"+tag), err
			}
			running, _, err := u.configs(ctx) // which is written after the addons
			return running.version == u.Cluster.Spec.Kubernetes.Version, err
		},
		Do: func(ctx context.Context) error {
			return u.onFirst(ctx, stepAddon, addonScript, name)
		},
		Gate: []phase.Check{{Name: name + " to run on all that it is for", Run: func(ctx context.Context) error {
			client, err := u.anyAPI(ctx)
			if err != nil {
				return err
			}
			is, err := client.Addon(ctx, name)
			switch {
			case apierrors.IsNotFound(err):
				return nil
			case err == nil && is.Waiting != "":
				return errors.New(is.Waiting)
			}
			return err
		}}},
		GateTimeout: restartGate,
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeObject, Name: name, Text: "of kubeadm " + u.Cluster.Spec.Kubernetes.Version}}, nil
		},
	}
}

// addonTag is the tag of the image that the version's kubeadm gives an addon;
// "" where neither the inventory nor a bundle says it of CoreDNS, which has
// versions of its own.
func (u *upgrade) addonTag(name string) (string, error) {
	if name == kube.KubeProxy {
		return u.Cluster.Spec.Kubernetes.Version, nil
	}
	document, err := templates.ClusterConfiguration(u.Cluster, true)
	if err != nil {
		return "", err
	}
	var wanted map[string]any
	err = yaml.Unmarshal(document, &wanted)
	return cmp.Or(setting(wanted, "dns.imageTag"), u.imageTag(name)), err
}

// onFirst runs a script of kubeadm's on the first master.
func (u *upgrade) onFirst(ctx context.Context, step, script string, args ...string) error {
	return u.columnStep(ctx, u.Cluster.ControlPlanes()[0], step, script, templates.Init{EtcdExisting: true}, args...)
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
