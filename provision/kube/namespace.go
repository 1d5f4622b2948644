package kube

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/wait"
)

// PassingLabel is on the namespaces that a run makes for itself, with what for.
const PassingLabel = "ha-install.io/passing"

// leaveBudget is for the deletion to be accepted.
const leaveBudget = 20 * time.Second

// PassingNamespace makes an empty namespace of a run's own, named after what it is for
// and something that no other has: one that an earlier run has deleted may be there for
// long. What runs left that were killed is deleted and not waited for. With an error
// the name is of what may have been made.
func (c *Client) PassingNamespace(ctx context.Context, purpose string) (name string, err error) {
	all, err := c.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	name = purpose + "-" + rand.String(5)
	for _, n := range all.Items {
		// Programs of before used the bare name, and no label.
		if (n.Name == purpose || n.Labels[PassingLabel] == purpose) && n.DeletionTimestamp == nil {
			_ = c.CoreV1().Namespaces().Delete(ctx, n.Name, metav1.DeleteOptions{}) // the next run tries again
		}
	}
	_, err = c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{PassingLabel: purpose}},
	}, metav1.CreateOptions{})
	return name, err
}

// LeaveNamespace deletes a run's own namespace, also after ctx has ended, and tells when
// it is not gone so soon; "" is none. That is no error: as long as an aggregated API service does not
// answer, Kubernetes ends no namespace at all.
func (c *Client) LeaveNamespace(ctx context.Context, name string, soon time.Duration, tell func(string)) error {
	if name == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveBudget+soon)
	defer cancel()
	if err := c.deleteNamespace(ctx, name); err != nil {
		return fmt.Errorf("removing namespace %s: %w\n  run: kubectl delete namespace %s", name, err, name)
	}
	waiting, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	for {
		n, err := c.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		select {
		case <-waiting.Done():
			tell("namespace " + name + " was deleted, and is going away" + whyStill(n))
			return nil
		case <-time.After(probePoll):
		}
	}
}

func (c *Client) deleteNamespace(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, leaveBudget)
	defer cancel()
	var last error
	err := wait.PollUntilContextCancel(ctx, probePoll, true, func(ctx context.Context) (bool, error) {
		err := c.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})
		if err == nil || apierrors.IsNotFound(err) {
			return true, nil
		}
		last = err
		return false, nil
	})
	if err != nil && last != nil {
		return last
	}
	return err
}

// whyStill is what Kubernetes says of a namespace that does not end.
func whyStill(n *corev1.Namespace) string {
	why := ""
	if n == nil {
		return why
	}
	for _, condition := range n.Status.Conditions {
		if condition.Status == corev1.ConditionTrue {
			why += "\n  " + condition.Message
		}
	}
	return why
}
