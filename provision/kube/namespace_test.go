package kube

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ha-install/ha-install/test/kubeapi"
)

// toldNothing wants nothing to be told.
func toldNothing(t *testing.T) func(string) {
	return func(text string) { t.Errorf("told: %s", text) }
}

// passing are the namespaces of a purpose, by name.
func passing(api *kubeapi.Server, purpose string) (names []string) {
	for _, name := range api.Names("namespaces") {
		if name = strings.TrimPrefix(name, "/"); strings.HasPrefix(name, purpose) {
			names = append(names, name)
		}
	}
	return names
}

// endless has no namespace of a purpose ever end, as when an aggregated API service does
// not answer.
func endless(api *kubeapi.Server, purpose string) {
	react := api.React
	api.React = func(verb, resource, namespace, name string) {
		if react != nil {
			react(verb, resource, namespace, name)
		}
		if verb != "POST" || resource != "namespaces" {
			return
		}
		for _, name := range passing(api, purpose) {
			o := api.Get("namespaces", "", name)
			if meta := o["metadata"].(kubeapi.Object); meta["finalizers"] == nil {
				meta["finalizers"] = []string{"kubernetes"}
				o["status"] = corev1.NamespaceStatus{Conditions: []corev1.NamespaceCondition{{Type: "NamespaceDeletionDiscoveryFailure", Status: corev1.ConditionTrue, Message: "metrics.k8s.io/v1beta1: stale"}}}
				api.Set("namespaces", "", name, o)
			}
		}
	}
}

// deployments gives each Deployment its pods, on a node.
func deployments(api *kubeapi.Server) {
	api.React = func(verb, resource, namespace, name string) {
		if resource != "deployments" {
			return
		}
		want := 0
		if o := api.Get("deployments", namespace, trialName); o != nil {
			want = 1
			if n, ok := o["spec"].(kubeapi.Object)["replicas"].(float64); ok {
				want = int(n)
			}
		}
		for i := range 2 {
			pod := fmt.Sprint(trialName, i)
			if i >= want {
				api.Remove("pods", namespace, pod)
				continue
			}
			api.Set("pods", namespace, pod, kubeapi.Object{
				"metadata": kubeapi.Object{"labels": kubeapi.Object{"app": trialName}}, "spec": kubeapi.Object{"nodeName": "w-1"},
			})
		}
	}
}

// TestATrialEndsBeforeItsNamespace: it is told of, not waited for, and in nobody's way.
func TestATrialEndsBeforeItsNamespace(t *testing.T) {
	api, client := newAPI(t)
	deployments(api)
	endless(api, trialNamespace)
	for run := range 2 {
		var told []string
		err := client.TryControllers(within(t, 20*time.Second), "", nil, func(string) {}, func(text string) { told = append(told, text) })
		if err != nil {
			t.Fatal(err)
		}
		there := passing(api, trialNamespace)
		if len(there) != run+1 {
			t.Errorf("run %d: %q", run, there)
		}
		for _, name := range there {
			if api.Get("namespaces", "", name)["metadata"].(kubeapi.Object)["deletionTimestamp"] == nil {
				t.Errorf("%s was not deleted", name)
			}
		}
		if len(told) != 1 || !strings.Contains(told[0], "is going away\n  metrics.k8s.io/v1beta1: stale") {
			t.Errorf("told %q", told)
		}
	}
}

// TestATrialLeavesNothing, whether it passes or not, of itself or of runs before.
func TestATrialLeavesNothing(t *testing.T) {
	for name, row := range map[string]struct {
		controllers bool
		want        string
	}{
		"it passes":          {true, ""},
		"nobody makes a pod": {false, "a Deployment of 1"},
	} {
		t.Run(name, func(t *testing.T) {
			api, client := newAPI(t)
			if row.controllers {
				deployments(api)
			}
			api.Set("namespaces", "", trialNamespace, kubeapi.Object{}) // of an older program's run
			api.Set("namespaces", "", trialNamespace+"-abcde", kubeapi.Object{"metadata": kubeapi.Object{"labels": kubeapi.Object{PassingLabel: trialNamespace}}})
			api.Set("namespaces", "", trialNamespace+"-of-users", kubeapi.Object{})
			err := client.TryControllers(within(t, 2*time.Second), "", nil, func(string) {}, toldNothing(t))
			wantError(t, err, row.want)
			if left := passing(api, trialNamespace); !slices.Equal(left, []string{trialNamespace + "-of-users"}) {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestAProbeEndsBeforeItsNamespace, too.
func TestAProbeEndsBeforeItsNamespace(t *testing.T) {
	api, client := newAPI(t)
	setNode(api, "cp-1", "", nil)
	controllers(api, []string{"cp-1"}, "")
	endless(api, probeNamespace)
	for range 2 {
		told := ""
		if err := client.ProbeDataPath(within(t, 20*time.Second), "example.org/probe:1", "cluster.local", func(string) {}, func(text string) { told += text }); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(told, "is going away") {
			t.Errorf("told %q", told)
		}
	}
}

// TestTheDeletionIsTriedAgain: a balancer may have moved just then.
func TestTheDeletionIsTriedAgain(t *testing.T) {
	api, client := newAPI(t)
	name, err := client.PassingNamespace(t.Context(), trialNamespace)
	if err != nil {
		t.Fatal(err)
	}
	api.Fail("DELETE namespaces", http.StatusInternalServerError)
	if err := client.LeaveNamespace(t.Context(), name, 0, toldNothing(t)); err != nil || len(passing(api, trialNamespace)) != 0 {
		t.Errorf("%v; left: %q", err, passing(api, trialNamespace))
	}
}
