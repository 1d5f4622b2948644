package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ha-install/ha-install/test/kubeapi"
)

func TestBudgets(t *testing.T) {
	api, client := newShop(t)
	api.Set("namespaces", "", "other", kubeapi.Object{})
	owned(api, "web-2", "w-2", "ReplicaSet/web")
	owned(api, "web-1", "w-1", "ReplicaSet/web")
	owned(api, "web-3", "", "ReplicaSet/web") // waits for a node
	owned(api, "free-1", "w-1", "ReplicaSet/free")
	owned(api, "far-1", "w-2", "ReplicaSet/far")
	owned(api, "logs-1", "w-1", "DaemonSet/logs")
	owned(api, "job-1", "w-1", "Job/job", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	owned(api, "static-1", "w-1", "", func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} })
	setBudget(api, "web", "web", 0, 1, 2, 3)
	setBudget(api, "free", "free", 1, 2, 1, 2)
	setBudget(api, "far", "far", 0, 1, 1, 1)
	for _, app := range []string{"logs", "job", "static", "nobody"} { // guard nothing that a drain evicts
		setBudget(api, app, app, 0, 1, 1, 1)
	}
	api.Set("poddisruptionbudgets", "other", "web", policyv1.PodDisruptionBudget{ // same labels, elsewhere
		Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
	})
	api.Set("poddisruptionbudgets", "shop", "null", policyv1.PodDisruptionBudget{}) // no selector: no pod
	web := Budget{Namespace: "shop", Name: "web", Healthy: 1, Desired: 2, Expected: 3, Pods: []string{"shop/web-1@w-1"}}
	far := Budget{Namespace: "shop", Name: "far", Healthy: 1, Desired: 1, Expected: 1, Never: true, Pods: []string{"shop/far-1@w-2"}}
	both := web
	both.Pods = []string{"shop/web-1@w-1", "shop/web-2@w-2"}
	for _, row := range []struct {
		name  string
		nodes []string
		want  []Budget
	}{
		{"of one node", []string{"w-1"}, []Budget{web}},
		{"of all nodes", nil, []Budget{far, both}},
		{"of two by name", []string{"w-2", "w-1"}, []Budget{far, both}},
		{"of none", []string{}, nil},
		{"of one without pods", []string{"cp-1"}, nil},
	} {
		got, err := client.Budgets(t.Context(), row.nodes)
		if diff := cmp.Diff(row.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", row.name, err, diff)
		}
	}
}

// TestBudgetsAreSorted has lists in an order that API servers happen not to give.
func TestBudgetsAreSorted(t *testing.T) {
	labels := map[string]string{"app": "web"}
	var budgets []policyv1.PodDisruptionBudget
	for _, at := range [][2]string{{"shop", "b"}, {"shop-2", "a"}, {"shop", "a"}} {
		budgets = append(budgets, policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Namespace: at[0], Name: at[1]},
			Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}},
		})
	}
	var pods []corev1.Pod
	for _, at := range [][2]string{{"shop", "web-2"}, {"shop", "web-1"}, {"shop-2", "web-1"}} {
		pods = append(pods, corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: at[0], Name: at[1], Labels: labels}, Spec: corev1.PodSpec{NodeName: "w-1"}})
	}
	got, err := holding(budgets, pods, nil)
	both := []string{"shop/web-1@w-1", "shop/web-2@w-1"}
	want := []Budget{{Namespace: "shop", Name: "a", Pods: both}, {Namespace: "shop", Name: "b", Pods: both}, {Namespace: "shop-2", Name: "a", Pods: []string{"shop-2/web-1@w-1"}}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestNever(t *testing.T) {
	number := func(n int32) *intstr.IntOrString { return new(intstr.FromInt32(n)) }
	share := func(s string) *intstr.IntOrString { return new(intstr.FromString(s)) }
	for _, row := range []struct {
		name              string
		least, most       *intstr.IntOrString
		desired, expected int32
		stale             bool // the controller has not seen this specification
		want              bool
	}{
		{"none may be away", nil, number(0), 3, 3, false, true},
		{"no share may be away", nil, share("0%"), 3, 3, false, true},
		{"none may be away, not seen yet", nil, number(0), 0, 0, true, true},
		{"one may be away", nil, number(1), 2, 3, false, false},
		{"a hundredth may be away, which is one", nil, share("1%"), 2, 3, false, false},
		{"all must be there", share("100%"), nil, 3, 3, false, true},
		{"all must be there, not seen yet", share("100%"), nil, 0, 0, true, true},
		{"nine of ten parts of three are three", share("90%"), nil, 3, 3, false, true},
		{"half must be there", share("50%"), nil, 2, 3, false, false},
		{"as many as there are", number(3), nil, 3, 3, false, true},
		{"more than there are", number(5), nil, 5, 3, false, true},
		{"fewer than there are", number(2), nil, 2, 3, false, false},
		{"as many as there were, not seen yet", number(1), nil, 3, 3, true, false},
		{"no pods are expected", number(1), nil, 1, 0, false, false},
		{"nothing is said", nil, nil, 0, 3, false, false},
	} {
		b := &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Generation: 2},
			Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: row.least, MaxUnavailable: row.most},
			Status:     policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 2, DesiredHealthy: row.desired, ExpectedPods: row.expected},
		}
		if row.stale {
			b.Status.ObservedGeneration = 1
		}
		if got := never(b); got != row.want {
			t.Errorf("%s: %t", row.name, got)
		}
	}
}
