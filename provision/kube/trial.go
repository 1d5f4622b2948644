package kube

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	trialNamespace = "ha-install-trial"
	trialName      = "trial"
	trialBudget    = 3 * time.Minute
)

// TryControllers proves that what acts on the API does: a Deployment of one pod
// is made, scaled to two and deleted, in a namespace of its own that is deleted
// after. Its pods run on the named nodes: others may be known to the API that are
// no more, and tolerated. Without an image the pods only have to be given a node; with one, which
// has to serve HTTP on port 8080, they have to get ready. What is left when all is
// proved is told, and no error.
func (c *Client) TryControllers(ctx context.Context, image string, nodes []string, say, tell func(string)) error {
	ctx, cancel := context.WithTimeout(ctx, trialBudget)
	defer cancel()
	namespace, err := c.PassingNamespace(ctx, trialNamespace)
	defer func() {
		if left := c.LeaveNamespace(ctx, namespace, 0, tell); left != nil {
			tell(left.Error())
		}
	}()
	if err != nil {
		return err
	}
	w := Workload{Namespace: namespace, Name: trialName, Image: image, On: nodes}
	ready := image != ""
	if !ready {
		w.Image = "registry.k8s.io/pause:3.10"
	}
	for replicas := range int32(2) {
		say(fmt.Sprintf("a Deployment of %d", replicas+1))
		if replicas == 0 {
			err = c.Deploy(ctx, w)
		} else {
			err = c.scale(ctx, w, replicas+1)
		}
		if err != nil {
			return err
		}
		if err := c.awaitPods(ctx, w, int(replicas+1), ready); err != nil {
			return err
		}
	}
	return c.Withdraw(ctx, namespace, trialName)
}

func (c *Client) scale(ctx context.Context, w Workload, replicas int32) error {
	return onConflict(func() error {
		d, err := c.AppsV1().Deployments(w.Namespace).Get(ctx, w.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		d.Spec.Replicas = &replicas
		_, err = c.AppsV1().Deployments(w.Namespace).Update(ctx, d, metav1.UpdateOptions{FieldManager: fieldManager})
		return err
	})
}

// awaitPods waits for so many pods of a workload that have a node, or are ready.
func (c *Client) awaitPods(ctx context.Context, w Workload, want int, ready bool) error {
	last := "nothing"
	err := wait.PollUntilContextCancel(ctx, probePoll, true, func(ctx context.Context) (bool, error) {
		list, err := c.CoreV1().Pods(w.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + w.Name})
		if err != nil {
			last = err.Error()
			return false, nil
		}
		good := 0
		for _, p := range list.Items {
			if p.DeletionTimestamp == nil && placed(&p, ready) {
				good++
			}
		}
		last = fmt.Sprintf("%d pods, %d of them good", len(list.Items), good)
		return good == want, nil
	})
	if err != nil {
		return fmt.Errorf("a Deployment of %d: %w; last seen: %s", want, err, last)
	}
	return nil
}

func placed(p *corev1.Pod, ready bool) bool {
	if ready {
		return podState(p) == podReady
	}
	return p.Spec.NodeName != ""
}
