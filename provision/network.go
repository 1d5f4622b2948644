package provision

import (
	"context"
	"errors"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// network applies the pod network: the embedded flannel, or the user's manifests.
func (a *apply) network() phase.Phase {
	return phase.Phase{
		Name: "network",
		Done: func(ctx context.Context) (bool, error) {
			client, objects, err := a.networkObjects(ctx)
			if err != nil {
				return false, err
			}
			differ, err := client.Differ(ctx, objects)
			return !differ, err
		},
		Do: func(ctx context.Context) error {
			client, objects, err := a.networkObjects(ctx)
			if err != nil {
				return err
			}
			_, err = client.Apply(ctx, objects)
			return err
		},
		After:   []string{"init"},
		Explain: a.explainNetwork,
		Foresee: func(context.Context, []string) (phase.State, []phase.Change, error) { return a.foreseeNetwork() },
	}
}

func (a *apply) networkObjects(ctx context.Context) (*kube.Client, []*unstructured.Unstructured, error) {
	client, err := a.anyAPI(ctx)
	if err != nil {
		return nil, nil, err
	}
	objects, err := a.networkManifests()
	return client, objects, err
}

// networkManifests are the objects to be applied.
func (s *Site) networkManifests() ([]*unstructured.Unstructured, error) {
	cni := s.Cluster.Spec.Network.CNI
	switch cni.Plugin {
	case inventory.CNINone:
		return nil, nil
	case inventory.CNIFlannel:
		stream, err := templates.Flannel(s.Cluster)
		if err != nil {
			return nil, err
		}
		return kube.Decode(stream)
	}
	var objects []*unstructured.Unstructured
	for _, name := range cni.Manifests {
		more, err := s.manifest(name)
		if err != nil {
			return nil, err
		}
		objects = append(objects, more...)
	}
	return objects, nil
}

// manifest reads a file of spec.network.cni.manifests.
func (s *Site) manifest(name string) ([]*unstructured.Unstructured, error) {
	stream, err := os.ReadFile(s.path(name))
	if err != nil {
		return nil, err
	}
	objects, err := kube.Decode(stream)
	if err == nil && len(objects) == 0 {
		err = errors.New("no object is in it")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return objects, nil
}

// labels puts the inventory's labels and taints on a Node. Those that others
// put there stay.
func (a *apply) labels(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "labels", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			client, err := a.anyAPI(ctx)
			if err != nil {
				return false, err
			}
			return client.NodeHas(ctx, ih.Name, ih.Labels, coreTaints(ih))
		},
		Do: func(ctx context.Context) error {
			client, err := a.anyAPI(ctx)
			if err != nil {
				return err
			}
			return client.DressNode(ctx, ih.Name, ih.Labels, coreTaints(ih))
		},
		After:   []string{"init", "join"},
		Explain: func(context.Context) ([]phase.Change, error) { return explainLabels(ih), nil },
		Foresee: func(context.Context, []string) (phase.State, []phase.Change, error) {
			if len(ih.Labels) == 0 { // kubeadm registers a Node with its taints
				return phase.AlreadyDone, nil, nil
			}
			return phase.ToChange, explainLabels(ih), nil
		},
	}
}

func coreTaints(ih inventory.Host) []corev1.Taint {
	taints := make([]corev1.Taint, 0, len(ih.Taints))
	for _, t := range ih.Taints {
		taints = append(taints, corev1.Taint{Key: t.Key, Value: t.Value, Effect: corev1.TaintEffect(t.Effect)})
	}
	return taints
}
