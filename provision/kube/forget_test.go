package kube

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/ha-install/ha-install/test/kubeapi"
)

// TestPodsOfLostNodesGoToNoOtherLostOne has a scheduler beside it, to which all Nodes
// look ready, and a DaemonSet that minds no cordon.
func TestPodsOfLostNodesGoToNoOtherLostOne(t *testing.T) {
	api, client := newAPI(t)
	for _, name := range []string{"w-1", "w-2", "w-3"} {
		setNode(api, name, "", nil)
		api.Set("pods", "default", "of-"+name, corev1.Pod{Spec: corev1.PodSpec{NodeName: name}})
		api.Set("pods", "default", "daemon-"+name, corev1.Pod{Spec: corev1.PodSpec{NodeName: name}})
		api.Set("leases", NodeLeases, name, kubeapi.Object{})
		api.Set("csinodes", "", name, kubeapi.Object{})
		api.Set("volumeattachments", "", "csi-"+name, storagev1.VolumeAttachment{Spec: storagev1.VolumeAttachmentSpec{NodeName: name}})
	}
	var anew []string // where pods that are made anew are bound to
	api.React = func(verb, resource, _, name string) {
		if verb != "DELETE" || resource != "pods" {
			return
		}
		if of, daemon := strings.CutPrefix(name, "daemon-"); daemon && slices.Contains(api.Names("nodes"), "/"+of) {
			api.Set("pods", "default", name, corev1.Pod{Spec: corev1.PodSpec{NodeName: of}})
		}
		if !strings.HasPrefix(name, "of-") {
			return
		}
		for _, node := range api.Names("nodes") {
			spec, _ := api.Get("nodes", "", strings.TrimPrefix(node, "/"))["spec"].(kubeapi.Object)
			if spec["unschedulable"] != true {
				anew = append(anew, node)
				return
			}
		}
	}
	var told []string
	if err := client.ForgetNodes(t.Context(), []string{"w-1", "w-2"}, "restore", func(name string) { told = append(told, name) }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(anew, []string{"/w-3", "/w-3"}) || !slices.Equal(told, []string{"w-1", "w-2"}) {
		t.Errorf("pods are made anew on %q, told %q", anew, told)
	}
	for resource, want := range map[string][]string{"nodes": {"/w-3"}, "pods": {"default/daemon-w-3", "default/of-w-3"}, "leases": {NodeLeases + "/w-3"}, "csinodes": {"/w-3"}, "volumeattachments": {"/csi-w-3"}} {
		if left := api.Names(resource); !slices.Equal(left, want) {
			t.Errorf("%s: %q are left", resource, left)
		}
	}
	if err := client.ForgetNodes(t.Context(), []string{"w-1"}, "restore", func(string) {}); err != nil {
		t.Errorf("one that is gone: %v", err)
	}
}
