package kube

import (
	"context"
	"errors"
	"fmt"
	"net"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// Workload is a Deployment of one pod that answers HTTP, to be watched while
// something else fails. It runs on any node but one.
type Workload struct {
	Namespace, Name, Image string
	Not                    string   // the node that no pod of it runs on
	On                     []string // the nodes that its pods may run on; none: any other
}

func (w Workload) labels() map[string]string { return map[string]string{"app": w.Name} }

// podSpec is that of the data path's pods, kept off one node, or on some.
func (w Workload) podSpec() corev1.PodSpec {
	spec := probePodSpec(w.Image, nil)
	where := corev1.NodeSelectorRequirement{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpNotIn, Values: []string{w.Not}}
	if len(w.On) > 0 {
		where.Operator, where.Values = corev1.NodeSelectorOpIn, w.On
	}
	spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{where},
		}}},
	}}
	return spec
}

// Deploy makes the Deployment.
func (c *Client) Deploy(ctx context.Context, w Workload) error {
	_, err := c.AppsV1().Deployments(w.Namespace).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: w.Name, Labels: w.labels()},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: w.labels()},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: w.labels()}, Spec: w.podSpec()},
		},
	}, metav1.CreateOptions{})
	return err
}

// StartPod makes a pod of the workload's kind that no controller looks after.
func (c *Client) StartPod(ctx context.Context, w Workload) error {
	_, err := c.CoreV1().Pods(w.Namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: w.Name, Labels: w.labels()}, Spec: w.podSpec(),
	}, metav1.CreateOptions{})
	return err
}

// ReadyPod is a pod of a workload that is ready.
type ReadyPod struct {
	Name, Node string
	Address    string // "10.244.3.7:8080"
}

// errNoPod means that no pod of a workload is ready.
var errNoPod = errors.New("no pod is ready")

// ReadyPod finds a ready pod of the workload with another name than the given
// one, "" for any.
func (c *Client) ReadyPod(ctx context.Context, w Workload, not string) (ReadyPod, error) {
	list, err := c.CoreV1().Pods(w.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + w.Name})
	if err != nil {
		return ReadyPod{}, err
	}
	state := ""
	for _, p := range list.Items {
		state = podState(&p)
		if p.Name != not && p.DeletionTimestamp == nil && state == podReady {
			return ReadyPod{Name: p.Name, Node: p.Spec.NodeName, Address: net.JoinHostPort(p.Status.PodIP, fmt.Sprint(probePort))}, nil
		}
	}
	return ReadyPod{}, fmt.Errorf("%s: %w (%d pods, the last is %q)", w.Name, errNoPod, len(list.Items), state)
}

// AwaitPod asks for a ReadyPod until there is one.
func (c *Client) AwaitPod(ctx context.Context, w Workload) (ReadyPod, error) {
	var found ReadyPod
	var last error
	err := wait.PollUntilContextCancel(ctx, probePoll, true, func(ctx context.Context) (bool, error) {
		found, last = c.ReadyPod(ctx, w, "")
		return last == nil, nil
	})
	if err != nil {
		return found, fmt.Errorf("waiting for a pod: %w; last seen: %w", err, last)
	}
	return found, nil
}

// RemovePod deletes a pod, at once.
func (c *Client) RemovePod(ctx context.Context, w Workload, name string) error {
	return c.CoreV1().Pods(w.Namespace).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
}

// Withdraw deletes the named workloads with their pods, and waits until they
// are gone. Those that are not there are no error.
func (c *Client) Withdraw(ctx context.Context, namespace string, names ...string) error {
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), PropagationPolicy: new(metav1.DeletePropagationBackground)}
	for _, name := range names {
		if err := c.AppsV1().Deployments(namespace).Delete(ctx, name, now); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if err := c.CoreV1().Pods(namespace).Delete(ctx, name, now); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return wait.PollUntilContextCancel(ctx, probePoll, true, func(ctx context.Context) (bool, error) {
		list, err := c.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		return err == nil && len(list.Items) == 0, nil
	})
}
