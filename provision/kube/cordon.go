package kube

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CordonedBy is the Node annotation that says which operation of ours made the
// Node unschedulable, so that nobody else's cordon is ever taken back.
const CordonedBy = "ha-install.io/cordoned-by"

// Cordon makes a Node unschedulable and notes that by did it ("upgrade"). One
// that is unschedulable already stays as it is: whoever did that takes it back.
func (c *Client) Cordon(ctx context.Context, node, by string) error {
	nodes := c.CoreV1().Nodes()
	return onConflict(func() error {
		n, err := nodes.Get(ctx, node, metav1.GetOptions{})
		if err != nil || n.Spec.Unschedulable {
			return err
		}
		if n.Annotations == nil {
			n.Annotations = map[string]string{}
		}
		n.Spec.Unschedulable, n.Annotations[CordonedBy] = true, by
		_, err = nodes.Update(ctx, n, metav1.UpdateOptions{FieldManager: fieldManager})
		return err
	})
}

// Uncordon takes back what Cordon did for by, and nothing else; changed says
// whether there was anything.
func (c *Client) Uncordon(ctx context.Context, node, by string) (changed bool, err error) {
	nodes := c.CoreV1().Nodes()
	err = onConflict(func() error {
		n, err := nodes.Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if noted, ours := n.Annotations[CordonedBy]; !ours || noted != by {
			return nil
		}
		delete(n.Annotations, CordonedBy)
		n.Spec.Unschedulable = false
		_, err = nodes.Update(ctx, n, metav1.UpdateOptions{FieldManager: fieldManager})
		changed = err == nil
		return err
	})
	return changed, err
}

// Cordoned says whether a Node is unschedulable, and which of our operations
// made it so: by is "" when none did. A by without unschedulable is left where
// somebody else has uncordoned the Node since; Uncordon takes it away.
func (c *Client) Cordoned(ctx context.Context, node string) (by string, unschedulable bool, err error) {
	n, err := c.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return "", false, err
	}
	return n.Annotations[CordonedBy], n.Spec.Unschedulable, nil
}
