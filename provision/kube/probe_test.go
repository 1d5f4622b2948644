package kube

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ha-install/ha-install/test/kubeapi"
)

// controllers plays the parts of Kubernetes that the probe waits for: a pod on
// each node, an address for the Service, an end for each asking pod.
func controllers(api *kubeapi.Server, nodes []string, unreached string) {
	api.React = func(verb, resource, namespace, name string) {
		switch {
		case verb == "POST" && resource == "daemonsets":
			for i, node := range nodes {
				setStaticPod(api, node, "probe", "ready") // its status will do
				p := api.Get("pods", "kube-system", "probe-"+node)
				api.Remove("pods", "kube-system", "probe-"+node)
				p["metadata"] = map[string]any{"labels": map[string]any{"app": "probe"}}
				p["status"].(map[string]any)["podIP"] = fmt.Sprintf("10.244.%d.2", i)
				api.Set("pods", namespace, "probe-"+node, p)
			}
		case verb == "POST" && resource == "pods":
			finish(api, namespace, "ask-", unreached)
		}
	}
}

func finish(api *kubeapi.Server, namespace, prefix, unreached string) {
	for _, name := range api.Names("pods") {
		name, ok := strings.CutPrefix(name, namespace+"/")
		if !ok || !strings.HasPrefix(name, prefix) {
			continue
		}
		var p corev1.Pod
		data, err := json.Marshal(api.Get("pods", namespace, name))
		if err != nil || json.Unmarshal(data, &p) != nil {
			panic(err)
		}
		p.Status.Phase = corev1.PodSucceeded
		for _, c := range p.Spec.Containers {
			s := corev1.ContainerStatus{Name: c.Name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}
			if unreached != "" && strings.Contains(strings.Join(c.Args, " "), unreached) {
				p.Status.Phase = corev1.PodRunning
				s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
				s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 1, Message: "i/o timeout\n"}
			}
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, s)
		}
		api.Set("pods", namespace, name, p)
	}
}

func TestProbeAsksEveryWayAndCleansUp(t *testing.T) {
	api, client := newAPI(t)
	nodes := []string{"cp-1", "cp-2", "w-1"}
	for _, n := range nodes {
		setNode(api, n, "", nil)
	}
	asked := map[string]string{} // pod -> its arguments
	controllers(api, nodes, "")
	react := api.React
	api.React = func(verb, resource, namespace, name string) {
		react(verb, resource, namespace, name)
		for _, pod := range nodes {
			if o := api.Get("pods", namespace, "ask-"+pod); o != nil {
				data, _ := json.Marshal(o["spec"])
				asked[pod] = string(data)
			}
		}
	}
	api.Set("namespaces", "", probeNamespace, kubeapi.Object{}) // of a run that was killed
	var said []string
	if err := client.ProbeDataPath(within(t, 20*time.Second), "example.org/probe:1", "cluster.local", func(s string) { said = append(said, s) }, toldNothing(t)); err != nil {
		t.Fatal(err)
	}
	for i, node := range nodes {
		for j := range nodes {
			url := fmt.Sprintf("http://10.244.%d.2:8080", j)
			if got := strings.Contains(asked[node], url); got != (i != j) {
				t.Errorf("%s asks %s: %t", node, url, got)
			}
		}
		if !regexp.MustCompile(`"http://probe\.ha-install-verify-[a-z0-9]{5}\.svc\.cluster\.local"`).MatchString(asked[node]) {
			t.Errorf("%s asks no DNS name: %s", node, asked[node])
		}
	}
	if left := strings.Join(append(api.Names("namespaces"), api.Names("pods")...), " "); strings.Contains(left, probeNamespace) {
		t.Errorf("left behind: %s", left)
	}
	if len(said) != 2 {
		t.Errorf("said %q", said)
	}
}

func TestProbeNamesTheWayThatIsCut(t *testing.T) {
	api, client := newAPI(t)
	for _, n := range []string{"cp-1", "w-1"} {
		setNode(api, n, "", nil)
	}
	controllers(api, []string{"cp-1", "w-1"}, "10.244.1.2")
	err := client.ProbeDataPath(within(t, 2*time.Second), "example.org/probe:1", "cluster.local", func(string) {}, toldNothing(t))
	wantError(t, err, "cp-1: get http://10.244.1.2:8080: i/o timeout")
	if strings.Contains(fmt.Sprint(err), "w-1: get") {
		t.Errorf("it blames w-1 too: %v", err)
	}
	if left := api.Names("namespaces"); strings.Contains(strings.Join(left, " "), probeNamespace) {
		t.Errorf("left behind: %q", left)
	}
}

func TestProbeSaysWhichNodeHasNoPod(t *testing.T) {
	api, client := newAPI(t)
	for _, n := range []string{"cp-1", "w-1"} {
		setNode(api, n, "", nil)
	}
	controllers(api, []string{"cp-1"}, "")
	err := client.ProbeDataPath(within(t, 2*time.Second), "example.org/probe:1", "cluster.local", func(string) {}, toldNothing(t))
	wantError(t, err, "1 pods on 2 nodes")
}

func TestProbePodsMayRunUnderTheRestrictedStandard(t *testing.T) {
	for _, spec := range []corev1.PodSpec{probePodSpec("i", nil), probePodSpec("i", []string{"http://a"})} {
		for _, c := range spec.Containers {
			sc := c.SecurityContext
			if *sc.AllowPrivilegeEscalation || !*sc.RunAsNonRoot || len(sc.Capabilities.Drop) != 1 || sc.SeccompProfile == nil {
				t.Errorf("container %s: %+v", c.Name, sc)
			}
		}
		if *spec.AutomountServiceAccountToken {
			t.Error("a probe needs no token")
		}
	}
}
