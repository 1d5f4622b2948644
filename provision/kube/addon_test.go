package kube

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

func TestAddon(t *testing.T) {
	const image = "registry.example/addon:v1"
	pod := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}}}
	two := int32(2)
	deployment := func(s appsv1.DeploymentStatus) any {
		d := appsv1.Deployment{Spec: appsv1.DeploymentSpec{Replicas: &two, Template: pod}, Status: s}
		d.Generation = 3
		return d
	}
	daemons := func(s appsv1.DaemonSetStatus) any {
		d := appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Template: pod}, Status: s}
		d.Generation = 3
		return d
	}
	rows := []struct {
		name, addon string
		is          any
		waiting     string
	}{
		{"CoreDNS runs", CoreDNS, deployment(appsv1.DeploymentStatus{ObservedGeneration: 3, UpdatedReplicas: 2, AvailableReplicas: 2}), ""},
		{"nobody has seen the new one", CoreDNS, deployment(appsv1.DeploymentStatus{ObservedGeneration: 2, UpdatedReplicas: 2, AvailableReplicas: 2}), "Deployment coredns: no controller has seen the change yet"},
		{"one pod is of the old kind", CoreDNS, deployment(appsv1.DeploymentStatus{ObservedGeneration: 3, UpdatedReplicas: 1, AvailableReplicas: 2}), "Deployment coredns: of 2 pods 1 are of the new kind, 2 are available"},
		{"one pod is not available", CoreDNS, deployment(appsv1.DeploymentStatus{ObservedGeneration: 3, UpdatedReplicas: 2, AvailableReplicas: 1}), "Deployment coredns: of 2 pods 2 are of the new kind, 1 are available"},
		{"kube-proxy runs", KubeProxy, daemons(appsv1.DaemonSetStatus{ObservedGeneration: 3, DesiredNumberScheduled: 4, UpdatedNumberScheduled: 4, NumberAvailable: 4}), ""},
		{"a Node has the old one", KubeProxy, daemons(appsv1.DaemonSetStatus{ObservedGeneration: 3, DesiredNumberScheduled: 4, UpdatedNumberScheduled: 3, NumberAvailable: 4}), "DaemonSet kube-proxy: of 4 pods 3 are of the new kind, 4 are available"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			api, client := newAPI(t)
			resource := map[string]string{CoreDNS: "deployments", KubeProxy: "daemonsets"}
			api.Set(resource[row.addon], "kube-system", row.addon, row.is)
			got, err := client.Addon(t.Context(), row.addon)
			if want := (Addon{Image: image, Waiting: row.waiting}); err != nil || got != want {
				t.Errorf("%+v, %v; want %+v", got, err, want)
			}
			for name := range resource {
				if _, err := client.Addon(t.Context(), name); name != row.addon && !apierrors.IsNotFound(err) {
					t.Errorf("%s, which is not there: %v", name, err)
				}
			}
		})
	}
}
