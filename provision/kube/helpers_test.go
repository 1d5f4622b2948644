package kube

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/ha-install/ha-install/test/kubeapi"
)

// newAPI is an API server and a client of it.
func newAPI(t *testing.T) (*kubeapi.Server, *Client) {
	t.Helper()
	return newGuardedAPI(t, nil)
}

// newGuardedAPI has the client ask before each change.
func newGuardedAPI(t *testing.T, before func(context.Context) error) (*kubeapi.Server, *Client) {
	t.Helper()
	api := kubeapi.New()
	server := httptest.NewTLSServer(api)
	t.Cleanup(server.Close)
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{
		Server:                   "https://192.0.2.1:1", // nobody's: the client must not use it
		CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: "token"}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "c"
	data, err := clientcmd.Write(*config)
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(nil, strings.TrimPrefix(server.URL, "https://"), data, before)
	if err != nil {
		t.Fatal(err)
	}
	return api, client
}

// setNode stores a Node that is ready, or says why not.
func setNode(api *kubeapi.Server, name, why string, labels map[string]string, taints ...corev1.Taint) {
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue}
	if why != "" {
		ready.Status, ready.Message = corev1.ConditionFalse, why
	}
	api.Set("nodes", "", name, corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec:       corev1.NodeSpec{Taints: taints},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{ready}},
	})
}

// setStaticPod stores the pod of a component in a state: "ready", "running",
// "pending", or the reason that it waits for.
func setStaticPod(api *kubeapi.Server, node, component, state string) {
	p := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"tier": "control-plane", "component": component}},
		Spec:       corev1.PodSpec{NodeName: node},
	}
	switch state {
	case "pending":
	case "ready", "running":
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		if state == "ready" {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
	case "terminated":
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "OOMKilled"}}}}
	default:
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: state}}}}
	}
	api.Set("pods", "kube-system", component+"-"+node, p)
}

func setColumn(api *kubeapi.Server, node string, states ...string) {
	for i, component := range Components {
		if states[i] != "" {
			setStaticPod(api, node, component, states[i])
		}
	}
}

// within bounds a test's calls, so that a poll that never ends is a failure.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// wantError compares an error with a part of its text; "" wants none.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if got := fmt.Sprint(err); want == "" && err != nil || want != "" && !strings.Contains(got, want) {
		t.Errorf("error %q, wanted %q", got, want)
	}
}
