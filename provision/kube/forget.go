package kube

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// NodeLeases is the namespace of the leases that kubelets renew.
const NodeLeases = "kube-node-lease"

// ForgetNodes takes Nodes whose hosts are lost out of the API, with the pods that
// are bound to them, their leases, CSINodes and VolumeAttachments: what controllers make anew of
// them goes elsewhere at once, and nothing of them meets a new host that comes under
// an old name. All are cordoned before the first goes: lost ones look ready for as
// long as nobody has missed their kubelets, and what is made anew would be bound to
// the next of them; but DaemonSets, which no cordon holds, make pods for a Node until
// it is gone, and so what is bound is looked for once more then. told is given each
// that is out.
func (c *Client) ForgetNodes(ctx context.Context, names []string, by string, told func(name string)) error {
	for _, name := range names {
		if err := c.Cordon(ctx, name, by); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("node %s: %w", name, err)
		}
	}
	for _, name := range names {
		if err := c.forgetNode(ctx, name); err != nil {
			return fmt.Errorf("node %s: %w", name, err)
		}
		told(name)
	}
	for _, name := range names {
		if err := c.forgetPods(ctx, name); err != nil {
			return fmt.Errorf("pods of node %s: %w", name, err)
		}
	}
	return nil
}

// forgetPods deletes what is bound to a Node, of whose kubelet nobody waits for an end.
func (c *Client) forgetPods(ctx context.Context, node string) error {
	bound, err := c.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String()})
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
	return nil
}

// forgetNode takes the Node itself last, so that what was broken off is seen by it.
func (c *Client) forgetNode(ctx context.Context, name string) error {
	if err := c.forgetPods(ctx, name); err != nil {
		return err
	}
	if err := c.CoordinationV1().Leases(NodeLeases).Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err := c.StorageV1().CSINodes().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err := c.forgetAttachments(ctx, name); err != nil {
		return err
	}
	return c.DeleteNode(ctx, name)
}

// forgetAttachments asks for what was attached to a Node to be detached. The driver's
// attacher does it, and takes its finalizer away when it has: that is left to it.
func (c *Client) forgetAttachments(ctx context.Context, node string) error {
	attached, err := c.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{}) // the API selects none by their Node
	if err != nil {
		return err
	}
	for _, a := range attached.Items {
		if a.Spec.NodeName != node {
			continue
		}
		if err := c.StorageV1().VolumeAttachments().Delete(ctx, a.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
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

// ForgetLeaders takes the leases of controller-managers and schedulers away, of which
// none runs: those that start next lead at once, and do not wait until they run out.
func (c *Client) ForgetLeaders(ctx context.Context) error {
	for _, component := range electing {
		err := c.CoordinationV1().Leases(metav1.NamespaceSystem).Delete(ctx, component, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("lease of %s: %w", component, err)
		}
	}
	return nil
}
