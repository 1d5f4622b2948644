package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Budget is a PodDisruptionBudget that would hold a drain.
type Budget struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Allowed   int    `json:"allowed"`  // how many of its pods may be evicted now
	Healthy   int    `json:"healthy"`  // of its pods
	Desired   int    `json:"desired"`  // that have to be healthy
	Expected  int    `json:"expected"` // pods, when all are there
	// Never: it allows no eviction even when all of its pods are healthy, as it
	// is written and with as many pods as there are to be now.
	Never bool     `json:"never"`
	Pods  []string `json:"pods"` // that a drain would have to evict: "shop/web-6f-x2@w-1", sorted
}

// Budgets are the PodDisruptionBudgets that allow no eviction now and guard a
// pod that a drain of one of the nodes would evict, by namespace and name. nil
// nodes are all.
func (c *Client) Budgets(ctx context.Context, nodes []string) ([]Budget, error) {
	list, err := c.PolicyV1().PodDisruptionBudgets(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing PodDisruptionBudgets: %w", err)
	}
	closed := slices.DeleteFunc(list.Items, func(b policyv1.PodDisruptionBudget) bool { return b.Status.DisruptionsAllowed > 0 })
	if len(closed) == 0 {
		return nil, nil
	}
	pods, err := c.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	return holding(closed, pods.Items, nodes)
}

// holding are the budgets that guard a pod which a drain of one of the nodes evicts.
func holding(closed []policyv1.PodDisruptionBudget, pods []corev1.Pod, nodes []string) ([]Budget, error) {
	moving := slices.DeleteFunc(pods, func(p corev1.Pod) bool {
		return p.Spec.NodeName == "" || nodes != nil && !slices.Contains(nodes, p.Spec.NodeName) || stays(&p)
	})
	var budgets []Budget
	for i := range closed {
		b := &closed[i]
		var guarded []string
		for _, p := range moving {
			ok, err := guards(b, &p)
			if err != nil {
				return nil, err
			}
			if ok {
				guarded = append(guarded, p.Namespace+"/"+p.Name+"@"+p.Spec.NodeName)
			}
		}
		if len(guarded) > 0 {
			slices.Sort(guarded)
			budgets = append(budgets, Budget{
				Namespace: b.Namespace, Name: b.Name, Pods: guarded, Never: never(b),
				Allowed: int(b.Status.DisruptionsAllowed), Healthy: int(b.Status.CurrentHealthy),
				Desired: int(b.Status.DesiredHealthy), Expected: int(b.Status.ExpectedPods),
			})
		}
	}
	slices.SortFunc(budgets, func(a, b Budget) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return budgets, nil
}

// stays says that a drain leaves the pod where it is: it has ended, the
// kubelet itself has made it, or a DaemonSet would make it anew on the node.
func stays(p *corev1.Pod) bool {
	_, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]
	return mirror || ended(p) || ofDaemonSet(p)
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func ofDaemonSet(p *corev1.Pod) bool {
	ref := metav1.GetControllerOf(p)
	return ref != nil && ref.Kind == "DaemonSet" && ref.APIVersion == appsv1.SchemeGroupVersion.String()
}

// guards says whether the budget's selector takes the pod.
func guards(b *policyv1.PodDisruptionBudget, p *corev1.Pod) (bool, error) {
	if b.Namespace != p.Namespace {
		return false, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return false, fmt.Errorf("the selector of PodDisruptionBudget %s/%s: %w", b.Namespace, b.Name, err)
	}
	return selector.Matches(labels.Set(p.Labels)), nil
}

// never says whether the budget allows no eviction with all pods healthy.
// DesiredHealthy is what the disruption controller has made of minAvailable or
// maxUnavailable; while it has not seen the present specification, only what
// can be told from that alone counts.
func never(b *policyv1.PodDisruptionBudget) bool {
	if most := b.Spec.MaxUnavailable; most != nil {
		if n, err := intstr.GetScaledValueFromIntOrPercent(most, 100, true); err == nil && n <= 0 {
			return true
		}
	}
	if least := b.Spec.MinAvailable; least != nil && least.Type == intstr.String {
		if n, err := intstr.GetScaledValueFromIntOrPercent(least, 100, true); err == nil && n >= 100 {
			return true
		}
	}
	return b.Status.ObservedGeneration >= b.Generation && b.Status.ExpectedPods > 0 && b.Status.DesiredHealthy >= b.Status.ExpectedPods
}
