package kube

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// NodeLeases is the namespace of the leases that kubelets renew.
const NodeLeases = "kube-node-lease"

// ForgetNode takes a Node whose host is lost out of the API, with the pods that
// are bound to it, its lease and its CSINode: what controllers make anew of them
// goes elsewhere at once, and nothing of it meets a new host that comes under the
// same name. It is cordoned before, or what is made anew would be bound to it
// again, and goes last, so that what was broken off is seen by it.
func (c *Client) ForgetNode(ctx context.Context, name, by string) error {
	if err := c.Cordon(ctx, name, by); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	bound, err := c.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", name).String()})
	if err != nil {
		return err
	}
	now := int64(0) // no kubelet is left to end them
	for _, p := range bound.Items {
		err := c.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	if err := c.CoordinationV1().Leases(NodeLeases).Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err := c.StorageV1().CSINodes().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return c.DeleteNode(ctx, name)
}

// NodesOf are the names of those Nodes that are still the ones of then, by their
// UIDs: a host that came under an old name has another one.
func (c *Client) NodesOf(ctx context.Context, then map[string]string) ([]string, error) {
	list, err := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var same []string
	for _, n := range list.Items {
		if uid, was := then[n.Name]; was && uid == string(n.UID) {
			same = append(same, n.Name)
		}
	}
	return same, nil
}
