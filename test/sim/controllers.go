package sim

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/test/kubeapi"
)

// control plays Kubernetes' controllers and kubelets for pods: those of a
// DaemonSet are ready at once, and those made by hand succeed.
func control(api *kubeapi.Server) {
	api.React = func(verb, resource, namespace, _ string) {
		if verb != "POST" {
			return
		}
		switch resource {
		case "daemonsets":
			for i, name := range api.Names("nodes") {
				node := strings.TrimPrefix(name, "/")
				api.Set("pods", namespace, "probe-"+node, corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "probe"}},
					Spec:       corev1.PodSpec{NodeName: node},
					Status: corev1.PodStatus{
						PodIP:             fmt.Sprintf("10.244.%d.2", i),
						Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
						ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
					},
				})
			}
		case "pods":
			for _, name := range api.Names("pods") {
				pod, ok := strings.CutPrefix(name, namespace+"/ask-")
				if !ok {
					continue
				}
				o := api.Get("pods", namespace, "ask-"+pod)
				o["status"] = kubeapi.Object{"phase": "Succeeded"}
				api.Set("pods", namespace, "ask-"+pod, o)
			}
		}
	}
}
