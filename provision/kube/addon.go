package kube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The addons that kubeadm gives a cluster, by the name of what runs them in
// kube-system and of its container.
const (
	CoreDNS   = "coredns"
	KubeProxy = "kube-proxy"
)

// Addon is what is to be seen of one of kubeadm's addons.
type Addon struct {
	Image   string
	Waiting string // what of it does not run yet; "" when all does
}

// Addon reads CoreDNS's Deployment or kube-proxy's DaemonSet; a NotFound error
// when the cluster has none.
func (c *Client) Addon(ctx context.Context, name string) (Addon, error) {
	if name == KubeProxy {
		ds, err := c.AppsV1().DaemonSets(metav1.NamespaceSystem).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return Addon{}, err
		}
		s := ds.Status
		return addon("DaemonSet "+name, ds.Spec.Template.Spec, s.ObservedGeneration < ds.Generation, s.DesiredNumberScheduled, s.UpdatedNumberScheduled, s.NumberAvailable)
	}
	d, err := c.AppsV1().Deployments(metav1.NamespaceSystem).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return Addon{}, err
	}
	wanted := int32(1) // the API's own default
	if d.Spec.Replicas != nil {
		wanted = *d.Spec.Replicas
	}
	s := d.Status
	return addon("Deployment "+name, d.Spec.Template.Spec, s.ObservedGeneration < d.Generation, wanted, s.UpdatedReplicas, s.AvailableReplicas)
}

// addon judges the figures that both kinds have.
func addon(what string, pod corev1.PodSpec, unseen bool, wanted, updated, available int32) (Addon, error) {
	if len(pod.Containers) == 0 {
		return Addon{}, fmt.Errorf("%s has no container", what)
	}
	a := Addon{Image: pod.Containers[0].Image}
	switch {
	case unseen:
		a.Waiting = what + ": no controller has seen the change yet"
	case updated < wanted || available < wanted:
		a.Waiting = fmt.Sprintf("%s: of %d pods %d are of the new kind, %d are available", what, wanted, updated, available)
	}
	return a, nil
}
