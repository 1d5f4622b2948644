package kube

import (
	"context"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
)

// NodeHas says whether a Node has the labels and taints.
func (c *Client) NodeHas(ctx context.Context, name string, labels map[string]string, taints []corev1.Taint) (bool, error) {
	n, err := c.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return false, err
	}
	return !dress(n, labels, taints), nil
}

// DressNode adds labels and taints to a Node and leaves all others alone.
func (c *Client) DressNode(ctx context.Context, name string, labels map[string]string, taints []corev1.Taint) error {
	return onConflict(func() error {
		n, err := c.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !dress(n, labels, taints) {
			return nil
		}
		_, err = c.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{FieldManager: fieldManager})
		return err
	})
}

// dress adds what is missing and says whether anything was.
func dress(n *corev1.Node, labels map[string]string, taints []corev1.Taint) bool {
	changed := false
	for key, value := range labels {
		if has, ok := n.Labels[key]; !ok || has != value {
			changed = true
		}
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	maps.Copy(n.Labels, labels)
	for _, t := range taints {
		same := func(o corev1.Taint) bool { return o.Key == t.Key && o.Effect == t.Effect }
		i := slices.IndexFunc(n.Spec.Taints, same)
		switch {
		case i < 0:
			n.Spec.Taints, changed = append(n.Spec.Taints, t), true
		case n.Spec.Taints[i].Value != t.Value:
			n.Spec.Taints[i].Value, changed = t.Value, true
		}
	}
	return changed
}

// onConflict repeats an update that met another one. retry.RetryOnConflict
// alone would return nil for a context that has ended: it takes that for the
// end of its own patience, and for the error the last conflict, of which there
// was none.
func onConflict(update func() error) error {
	var last error
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		last = update()
		return last
	})
	if err == nil {
		return last
	}
	return err
}

// DeleteNode takes a Node out of the API together with its static pods' mirrors,
// which a kubelet that comes back under its name would wait for. A Node that is
// not there is success. Nothing of it may run any more: its kubelet would make
// the mirrors anew.
func (c *Client) DeleteNode(ctx context.Context, name string) error {
	now := int64(0)
	for _, component := range Components {
		err := c.CoreV1().Pods(metav1.NamespaceSystem).Delete(ctx, component+"-"+name, metav1.DeleteOptions{GracePeriodSeconds: &now})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	err := c.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
