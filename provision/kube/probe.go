package kube

import (
	"context"
	"fmt"
	"net"
	"sort"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	probeNamespace = "ha-install-verify"
	probeName      = "probe"
	probePort      = 8080
	probeBudget    = 4 * time.Minute
	probePoll      = 500 * time.Millisecond
)

// ProbeDataPath starts a pod on every node and, from each, asks every other by
// pod IP, the Service by its cluster IP and by its DNS name. The image serves
// on port 8080 and understands "get URL". Everything is deleted afterwards, and what is
// not gone at once is told.
func (c *Client) ProbeDataPath(ctx context.Context, image, domain string, say, tell func(string)) (err error) {
	ctx, cancel := context.WithTimeout(ctx, probeBudget)
	defer cancel()
	namespace, err := c.PassingNamespace(ctx, probeNamespace)
	defer func() {
		if left := c.LeaveNamespace(ctx, namespace, 0, tell); err == nil {
			err = left
		}
	}()
	if err != nil {
		return err
	}
	service, err := c.startProbe(ctx, namespace, image)
	if err != nil {
		return err
	}
	say("waiting for a pod on every node")
	pods, err := c.probePods(ctx, namespace)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s.%s.svc.%s", probeName, namespace, domain)
	common := []string{"http://" + service, "http://" + name}
	say(fmt.Sprintf("asking from %d pods: pod IPs, Service %s, %s", len(pods), service, name))
	for _, p := range pods {
		if err := c.startAsker(ctx, namespace, image, p, pods, common); err != nil {
			return err
		}
	}
	return c.awaitAskers(ctx, namespace, len(pods))
}

// startProbe makes the Service and the serving DaemonSet, and returns the Service's
// cluster IP.
func (c *Client) startProbe(ctx context.Context, namespace, image string) (string, error) {
	meta := metav1.ObjectMeta{Name: probeName, Namespace: namespace, Labels: map[string]string{"app": probeName}}
	service, err := c.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
		ObjectMeta: meta,
		Spec: corev1.ServiceSpec{
			Selector: meta.Labels,
			Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(probePort)}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	_, err = c.AppsV1().DaemonSets(namespace).Create(ctx, &appsv1.DaemonSet{
		ObjectMeta: meta,
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: meta.Labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: meta.Labels},
				Spec:       probePodSpec(image, nil),
			},
		},
	}, metav1.CreateOptions{})
	return service.Spec.ClusterIP, err
}

// probePodSpec serves when there are no URLs, else asks each of them in a
// container of its own.
func probePodSpec(image string, urls []string) corev1.PodSpec {
	spec := corev1.PodSpec{
		Tolerations:                   []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		AutomountServiceAccountToken:  new(false),
		TerminationGracePeriodSeconds: new(int64(0)),
	}
	container := corev1.Container{
		Name: "serve", Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false), RunAsNonRoot: new(true), RunAsUser: new(int64(65532)),
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
	if urls == nil {
		container.ReadinessProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(probePort)}},
			PeriodSeconds: 1,
		}
		spec.Containers = []corev1.Container{container}
		return spec
	}
	// A name may take a moment to reach every DNS server, a rule every node.
	spec.RestartPolicy = corev1.RestartPolicyOnFailure
	for i, url := range urls {
		asker := container
		asker.Name, asker.Args = fmt.Sprintf("ask-%d", i), []string{"get", url}
		spec.Containers = append(spec.Containers, asker)
	}
	return spec
}

// probePods waits until the DaemonSet is ready on every node.
func (c *Client) probePods(ctx context.Context, namespace string) ([]corev1.Pod, error) {
	last := "no pod yet"
	var pods []corev1.Pod
	err := wait.PollUntilContextCancel(ctx, probePoll, true, func(ctx context.Context) (bool, error) {
		nodes, err := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			last = err.Error()
			return false, nil
		}
		list, err := c.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + probeName})
		if err != nil {
			last = err.Error()
			return false, nil
		}
		pods = list.Items
		var waiting []string
		for _, p := range pods {
			if s := podState(&p); s != "ready" {
				waiting = append(waiting, p.Spec.NodeName+" ("+s+")")
			}
		}
		last = fmt.Sprintf("%d pods on %d nodes; not ready: %s", len(pods), len(nodes.Items), strings.Join(waiting, ", "))
		return len(pods) == len(nodes.Items) && len(waiting) == 0, nil
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for a pod on every node: %w; last seen: %s", err, last)
	}
	return pods, nil
}

func (c *Client) startAsker(ctx context.Context, namespace, image string, from corev1.Pod, all []corev1.Pod, common []string) error {
	urls := append([]string{}, common...)
	for _, p := range all {
		if p.Name != from.Name {
			urls = append(urls, "http://"+net.JoinHostPort(p.Status.PodIP, fmt.Sprint(probePort)))
		}
	}
	spec := probePodSpec(image, urls)
	spec.NodeName = from.Spec.NodeName
	_, err := c.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "ask-" + from.Spec.NodeName, Namespace: namespace, Labels: map[string]string{"app": "ask"}},
		Spec:       spec,
	}, metav1.CreateOptions{})
	return err
}

// awaitAskers waits until every asking pod has succeeded; the error names each
// container that has not, with the URL that it asks.
func (c *Client) awaitAskers(ctx context.Context, namespace string, want int) error {
	var bad []string
	err := wait.PollUntilContextCancel(ctx, probePoll, true, func(ctx context.Context) (bool, error) {
		list, err := c.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=ask"})
		if err != nil {
			return false, nil
		}
		bad = nil
		succeeded := 0
		for _, p := range list.Items {
			if p.Status.Phase == corev1.PodSucceeded {
				succeeded++
				continue
			}
			bad = append(bad, unanswered(&p)...)
		}
		return succeeded == want, nil
	})
	if err != nil {
		sort.Strings(bad)
		return fmt.Errorf("pods do not reach each other: %w\n  %s", err, strings.Join(bad, "\n  "))
	}
	return nil
}

func unanswered(p *corev1.Pod) []string {
	var bad []string
	for i, s := range p.Status.ContainerStatuses {
		if t := s.State.Terminated; t != nil && t.ExitCode == 0 || i >= len(p.Spec.Containers) {
			continue
		}
		why := ""
		if t := s.LastTerminationState.Terminated; t != nil {
			why = ": " + strings.TrimSpace(t.Message)
		}
		for _, container := range p.Spec.Containers {
			if container.Name == s.Name {
				bad = append(bad, fmt.Sprintf("%s: %s%s", p.Spec.NodeName, strings.Join(container.Args, " "), why))
			}
		}
	}
	return bad
}
