package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestWhereAWorkloadRuns(t *testing.T) {
	for _, test := range []struct {
		w    Workload
		want corev1.NodeSelectorRequirement
	}{
		{Workload{Not: "cp-1"}, corev1.NodeSelectorRequirement{Key: "kubernetes.io/hostname", Operator: "NotIn", Values: []string{"cp-1"}}},
		{Workload{On: []string{"cp-2", "w-1"}}, corev1.NodeSelectorRequirement{Key: "kubernetes.io/hostname", Operator: "In", Values: []string{"cp-2", "w-1"}}},
	} {
		terms := test.w.podSpec().Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
		if diff := cmp.Diff([]corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{test.want}}}, terms); diff != "" {
			t.Error(diff)
		}
	}
}
