package sim

import (
	"encoding/json"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ha-install/ha-install/test/kubeapi"
)

// countDisruptions plays the disruption controller: it says in the status of a
// namespace's budgets how many of their pods may go. As many pods are expected
// as there are.
func countDisruptions(api *kubeapi.Server, namespace string) {
	for _, name := range api.Names("poddisruptionbudgets") {
		name, here := strings.CutPrefix(name, namespace+"/")
		if !here {
			continue
		}
		var b policyv1.PodDisruptionBudget
		typed(api.Get("poddisruptionbudgets", namespace, name), &b)
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil {
			panic(err)
		}
		b.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: b.Generation}
		for _, pod := range api.Names("pods") {
			pod, here := strings.CutPrefix(pod, namespace+"/")
			if !here {
				continue
			}
			var p corev1.Pod
			if typed(api.Get("pods", namespace, pod), &p); selector.Matches(labels.Set(p.Labels)) {
				b.Status.ExpectedPods++
				if p.DeletionTimestamp == nil && ready(&p) {
					b.Status.CurrentHealthy++
				}
			}
		}
		b.Status.DesiredHealthy = desired(&b)
		b.Status.DisruptionsAllowed = max(b.Status.CurrentHealthy-b.Status.DesiredHealthy, 0)
		api.Set("poddisruptionbudgets", namespace, name, b)
	}
}

// desired is how many pods have to be healthy.
func desired(b *policyv1.PodDisruptionBudget) int32 {
	of := func(v *intstr.IntOrString) int32 {
		n, err := intstr.GetScaledValueFromIntOrPercent(v, int(b.Status.ExpectedPods), true)
		if err != nil {
			panic(err)
		}
		return int32(n)
	}
	switch {
	case b.Spec.MaxUnavailable != nil:
		return max(b.Status.ExpectedPods-of(b.Spec.MaxUnavailable), 0)
	case b.Spec.MinAvailable != nil:
		return of(b.Spec.MinAvailable)
	}
	return 0
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// typed reads an object of the API.
func typed(o kubeapi.Object, into any) {
	data, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		panic(err)
	}
}
