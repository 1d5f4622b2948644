package fidelity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/versions"
)

// moving are claims about what an upgrade asks for, and about moving pods. They
// are played in a namespace of their own, which they take away.
func moving() []Claim {
	return []Claim{
		{"a master says which versions it has", []string{"sh ... ha-install-versions"}, func(ctx context.Context, s *Scene) string {
			set, err := versions.Ask(ctx, s.Host, []string{"kubelet", "kubeadm", "containerd", "runc", "none"})
			programs, pods := slices.Sorted(maps.Keys(set.Programs)), slices.Sorted(maps.Keys(set.Pods))
			silent := 0
			for _, name := range slices.Concat(programs, pods) {
				if set.Of(name) == versions.Unreadable {
					silent++
				}
			}
			same := set.Of("kubelet") == set.Of("kubeadm") && set.Of("kubelet") == set.Of("kube-apiserver")
			return fmt.Sprint(strings.Join(programs, " "), "; ", strings.Join(pods, " "), "; ", silent, " ", same, " ", seen(err))
		}, "containerd kubeadm kubelet runc; etcd kube-apiserver kube-controller-manager kube-scheduler; 0 true done"},
		{"an API server counts who asks for deprecated APIs", []string{"GET /metrics"}, func(ctx context.Context, s *Scene) string {
			_, err := s.api(ctx).DeprecatedUse(ctx)
			return seen(err)
		}, "done"},
		{"a cordon is taken back by who made it", []string{"PUT /api/v1/nodes"}, func(ctx context.Context, s *Scene) string {
			c, all := s.api(ctx), []string{}
			for _, step := range []func() error{
				func() error { return c.Cordon(ctx, "w-1", "fidelity") },
				func() error { _, err := c.Uncordon(ctx, "w-1", "somebody"); return err },
				func() error { _, err := c.Uncordon(ctx, "w-1", "fidelity"); return err },
			} {
				did := step()
				by, closed, err := c.Cordoned(ctx, "w-1")
				all = append(all, fmt.Sprintf("%q %t %s", by, closed, seen(errors.Join(did, err))))
			}
			return strings.Join(all, ", ")
		}, `"fidelity" true done, "fidelity" true done, "" false done`},
		{"a node's pods are told by its name, and what is not there cannot be deleted", []string{"GET", "DELETE"}, func(ctx context.Context, s *Scene) string {
			c := s.api(ctx)
			bound, err := c.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + s.Host.Name()})
			if err != nil {
				return seen(err)
			}
			others, static := 0, 0
			for _, p := range bound.Items {
				if p.Spec.NodeName != s.Host.Name() {
					others++
				}
				if p.Name == "etcd-"+s.Host.Name() {
					static++
				}
			}
			return fmt.Sprintf("%d of others, %d etcd, %s, %s", others, static, reason(c.CoordinationV1().Leases(kube.NodeLeases).Delete(ctx, "nobody", metav1.DeleteOptions{})),
				reason(c.StorageV1().CSINodes().Delete(ctx, "nobody", metav1.DeleteOptions{})))
		}, "0 of others, 1 etcd, NotFound, NotFound"},
		{"a pod is evicted unless a budget holds it, or it is another of that name", []string{"POST", "GET"}, evictions, "TooManyRequests by a budget, 1 budget that never allows one, Conflict, done"},
	}
}

// evictions asks for the eviction of a pod that a budget guards, of a namesake,
// and of the pod when there is no budget any more.
func evictions(ctx context.Context, s *Scene) string {
	c, w := s.api(ctx), kube.Workload{Name: "guarded"}
	images, _ := s.query(ctx, "ctr", "-n", "k8s.io", "images", "ls")
	for ref := range strings.FieldsSeq(images) {
		if strings.Contains(ref, "/echo:") {
			w.Image = ref
		}
	}
	var err error
	w.Namespace, err = c.PassingNamespace(ctx, "ha-install-fidelity-moving")
	defer func() {
		if err := c.LeaveNamespace(ctx, w.Namespace, 2*time.Minute, func(text string) { s.T.Error(text) }); err != nil {
			s.T.Error(err)
		}
	}()
	if err == nil {
		err = c.Deploy(ctx, w)
	}
	if err != nil {
		return seen(err)
	}
	pod, err := c.AwaitPod(ctx, w)
	if err != nil {
		return seen(err)
	}
	evict := func(uid types.UID) error {
		return c.PolicyV1().Evictions(w.Namespace).Evict(ctx, &policyv1.Eviction{
			ObjectMeta:    metav1.ObjectMeta{Namespace: w.Namespace, Name: pod.Name},
			DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}},
		})
	}
	is, err := c.CoreV1().Pods(w.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil {
		return seen(err)
	}
	held, never := heldBack(ctx, s, c, w, func() error { return evict(is.UID) })
	other, gone := evict("of-the-one-before"), evict(is.UID)
	return fmt.Sprintf("%s, %d budget that never allows one, %s, %s", held, never, reason(other), reason(gone))
}

// heldBack tries an eviction while a budget wants all of the workload's pods.
func heldBack(ctx context.Context, s *Scene, c *kube.Client, w kube.Workload, evict func() error) (held string, never int) {
	budgets := c.PolicyV1().PodDisruptionBudgets(w.Namespace)
	_, err := budgets.Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: w.Name},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: new(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": w.Name}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return seen(err), 0
	}
	for ctx.Err() == nil { // until the controller has counted
		b, err := budgets.Get(ctx, w.Name, metav1.GetOptions{})
		if err != nil {
			return seen(err), 0
		}
		if b.Status.ExpectedPods == 1 && b.Status.CurrentHealthy == 1 {
			break
		}
		s.Pause(200 * time.Millisecond)
	}
	found, err := c.Budgets(ctx, nil)
	if err != nil {
		return seen(err), 0
	}
	for _, b := range found {
		if b.Namespace == w.Namespace && b.Never && len(b.Pods) == 1 {
			never++
		}
	}
	refused := evict()
	held = reason(refused)
	if apierrors.HasStatusCause(refused, policyv1.DisruptionBudgetCause) {
		held += " by a budget"
	}
	if err := budgets.Delete(ctx, w.Name, metav1.DeleteOptions{}); err != nil {
		return seen(err), never
	}
	return held, never
}
