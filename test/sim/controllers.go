package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/test/kubeapi"
)

// replicas is how many pods a Deployment wants.
func replicas(deployment kubeapi.Object) int {
	spec, _ := deployment["spec"].(kubeapi.Object)
	if n, err := strconv.Atoi(fmt.Sprint(spec["replicas"])); err == nil {
		return n
	}
	return 1
}

// deploy keeps the wanted pods for each Deployment, none for one that is gone, and
// makes pods ready that nobody else looks after.
func deploy(api *kubeapi.Server, namespace string) {
	wanted := map[string]int{}
	for _, name := range api.Names("deployments") {
		if of, here := strings.CutPrefix(name, namespace+"/"); here {
			wanted[of] = replicas(api.Get("deployments", namespace, of))
		}
	}
	ready := func(name string, labels map[string]string) {
		api.Set("pods", namespace, name, corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       corev1.PodSpec{NodeName: "w-1"},
			Status: corev1.PodStatus{
				PodIP:      "10.244.9.9",
				Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			},
		})
	}
	for _, name := range api.Names("pods") {
		pod, here := strings.CutPrefix(name, namespace+"/")
		of, _, replicated := strings.Cut(pod, "-replica-")
		switch {
		case !here:
		case replicated && wanted[of] == 0:
			api.Remove("pods", namespace, pod)
		case replicated:
			wanted[of]--
		case !strings.HasPrefix(pod, "ask-") && !strings.HasPrefix(pod, "probe-") && !mirror(api, namespace, pod):
			ready(pod, map[string]string{"app": pod})
		}
	}
	for of, more := range wanted {
		has := replicas(api.Get("deployments", namespace, of)) - more
		for i := range more { // at one moment of a false clock there may be two
			ready(fmt.Sprintf("%s-replica-%d-%d", of, time.Now().UnixNano(), has+i), map[string]string{"app": of})
		}
	}
}

// succeed has another master's controllers take over what those of a host led
// that is gone, if there is any.
func (w *World) succeed(gone *Host) {
	heirs := slices.DeleteFunc(w.up(), func(h *Host) bool { return h == gone })
	for _, component := range []string{"kube-controller-manager", "kube-scheduler"} {
		lease := w.API.Get("leases", "kube-system", component)
		spec, _ := lease["spec"].(kubeapi.Object)
		if len(heirs) == 0 || spec["holderIdentity"] != gone.calls()+"_x" {
			continue
		}
		w.API.Set("leases", "kube-system", component, kubeapi.Object{"spec": kubeapi.Object{"holderIdentity": heirs[0].calls() + "_x", "renewTime": spec["renewTime"]}})
	}
}

// mirror says whether the pod is a kubelet's static one.
func mirror(api *kubeapi.Server, namespace, name string) bool {
	var p corev1.Pod
	typed(api.Get("pods", namespace, name), &p)
	return p.Annotations[corev1.MirrorPodAnnotationKey] != ""
}

// control plays Kubernetes' controllers and kubelets for pods: those of a
// DaemonSet are ready at once, those made by hand succeed, and budgets are counted.
func control(api *kubeapi.Server) {
	api.React = func(verb, resource, namespace, _ string) {
		if (resource == "deployments" || resource == "pods") && namespace != metav1.NamespaceSystem { // whose addons are there, and that is all
			deploy(api, namespace)
		}
		if resource == "deployments" || resource == "pods" || resource == "poddisruptionbudgets" {
			countDisruptions(api, namespace)
		}
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
