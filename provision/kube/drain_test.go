package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/test/kubeapi"
)

// owned stores a running pod of a controller ("ReplicaSet/web", "" for none) in
// the namespace shop, with the label app=NAME up to its first dash.
func owned(api *kubeapi.Server, name, node, owner string, change ...func(*corev1.Pod)) {
	app, _, _ := strings.Cut(name, "-")
	p := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	if kind, of, ok := strings.Cut(owner, "/"); ok {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: of, Controller: new(true)}}
	}
	for _, c := range change {
		c(&p)
	}
	api.Set("pods", "shop", name, p)
}

// setBudget stores a budget of the pods with the label app, as the disruption
// controller leaves it.
func setBudget(api *kubeapi.Server, name, app string, allowed, healthy, desired, expected int32) {
	api.Set("poddisruptionbudgets", "shop", name, policyv1.PodDisruptionBudget{
		Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}},
		Status: policyv1.PodDisruptionBudgetStatus{
			DisruptionsAllowed: allowed, CurrentHealthy: healthy, DesiredHealthy: desired, ExpectedPods: expected,
		},
	})
}

func newShop(t *testing.T) (*kubeapi.Server, *Client) {
	t.Helper()
	api, client := newAPI(t)
	api.Set("namespaces", "", "shop", kubeapi.Object{})
	return api, client
}

// lines keeps what a drain says.
func lines(to *[]string) func(string) { return func(text string) { *to = append(*to, text) } }

// wantDrainError compares what is left with "namespace/name budget: why".
func wantDrainError(t *testing.T, err error, want ...string) {
	t.Helper()
	var drain *DrainError
	if !errors.As(err, &drain) {
		t.Fatalf("error %v, want a *DrainError", err)
	}
	var got []string
	for _, p := range drain.Pods {
		got = append(got, fmt.Sprintf("%s/%s %s: %s", p.Namespace, p.Name, p.Budget, p.Why))
	}
	if diff := cmp.Diff(want, got); drain.Node != "w-1" || diff != "" {
		t.Errorf("node %s, left (-want +got):\n%s", drain.Node, diff)
	}
}

func TestDrainMovesOnlyWhatMayMove(t *testing.T) {
	t.Parallel()
	api, client := newShop(t)
	api.Set("daemonsets", "shop", "logs", appsv1.DaemonSet{})
	keep := func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	}
	phase := func(to corev1.PodPhase) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Status.Phase = to }
	}
	owned(api, "web-1", "w-1", "ReplicaSet/web")
	owned(api, "web-2", "w-2", "ReplicaSet/web")
	owned(api, "cache-1", "w-1", "StatefulSet/cache", keep)
	owned(api, "new-1", "w-1", "ReplicaSet/new", phase(corev1.PodPending))
	owned(api, "logs-1", "w-1", "DaemonSet/logs", keep)
	owned(api, "static-1", "w-1", "", func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} })
	owned(api, "done-1", "w-1", "", phase(corev1.PodSucceeded))
	owned(api, "failed-1", "w-1", "ReplicaSet/failed", phase(corev1.PodFailed))
	var said []string
	if err := client.Drain(within(t, 10*time.Second), "w-1", DrainOptions{Timeout: 5 * time.Second, Say: lines(&said)}); err != nil {
		t.Fatal(err)
	}
	want := []string{"shop/done-1", "shop/failed-1", "shop/logs-1", "shop/static-1", "shop/web-2"}
	if diff := cmp.Diff(want, api.Names("pods")); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	for i, name := range []string{"shop/cache-1", "shop/new-1", "shop/web-1"} {
		if len(said) != 3 || !strings.HasPrefix(said[i], name+" was evicted and is gone after ") {
			t.Fatalf("said %q", said)
		}
	}
}

func TestDrainRefusesToLosePods(t *testing.T) {
	t.Parallel()
	orphan := func(api *kubeapi.Server) { owned(api, "logs-1", "w-1", "DaemonSet/logs") } // there is no such DaemonSet
	for _, row := range []struct {
		name string
		set  func(*kubeapi.Server)
		want string
	}{
		{"no controller", func(api *kubeapi.Server) { owned(api, "one", "w-1", "") }, "shop/one : no controller would start it anew elsewhere"},
		{"a DaemonSet that is gone", orphan, "shop/logs-1 : its DaemonSet logs is gone, and no controller would start it anew"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			api, client := newShop(t)
			owned(api, "web-1", "w-1", "ReplicaSet/web")
			row.set(api)
			began := time.Now()
			err := client.Drain(within(t, 10*time.Second), "w-1", DrainOptions{Timeout: 5 * time.Second})
			wantDrainError(t, err, row.want)
			if names := api.Names("pods"); len(names) != 2 || time.Since(began) > 3*time.Second {
				t.Errorf("left %q after %s: nothing was to be evicted, at once", names, time.Since(began))
			}
			if err := client.Drain(within(t, 10*time.Second), "w-1", DrainOptions{Timeout: 5 * time.Second, Force: true}); err != nil {
				t.Error(err)
			}
			if names := api.Names("pods"); len(names) != 0 {
				t.Errorf("forced, left %q", names)
			}
		})
	}
}

func TestDrainLetsEndWhatIsEnding(t *testing.T) {
	t.Parallel()
	api, client := newShop(t)
	owned(api, "one", "w-1", "", func(p *corev1.Pod) { p.Finalizers = []string{"example.com/slow"} })
	api.Set("pods", "shop", "one", api.Get("pods", "shop", "one"))
	if err := client.CoreV1().Pods("shop").Delete(t.Context(), "one", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	err := client.Drain(within(t, 10*time.Second), "w-1", DrainOptions{Timeout: 1500 * time.Millisecond})
	wantDrainError(t, err, "shop/one : was told to end and still runs")
	owned(api, "web-1", "w-2", "ReplicaSet/web", func(p *corev1.Pod) { p.Finalizers = []string{"example.com/slow"} })
	err = client.Drain(within(t, 10*time.Second), "w-2", DrainOptions{Timeout: 1500 * time.Millisecond})
	var late *DrainError // evicted in the first round, seen to be ending in the second
	if !errors.As(err, &late) || len(late.Pods) != 1 || late.Pods[0].Why != "was told to end and still runs" {
		t.Errorf("evicted, and ending: %v", err)
	}
	gone := time.AfterFunc(500*time.Millisecond, func() { api.Remove("pods", "shop", "one") })
	defer gone.Stop()
	var said []string
	if err := client.Drain(within(t, 10*time.Second), "w-1", DrainOptions{Timeout: 5 * time.Second, Say: lines(&said)}); err != nil {
		t.Error(err)
	}
	if !slices.Equal(said, []string{"shop/one is gone"}) {
		t.Errorf("said %q", said)
	}
}

const webNeeds2 = "the disruption budget web needs 2 healthy pods and has 2 currently"

func TestDrainWaitsForABudget(t *testing.T) {
	t.Parallel()
	api, client := newShop(t)
	owned(api, "web-1", "w-1", "ReplicaSet/web")
	owned(api, "web-2", "w-1", "ReplicaSet/web")
	owned(api, "other-1", "w-1", "ReplicaSet/other")
	setBudget(api, "web", "web", 0, 2, 2, 2)
	setBudget(api, "stranger", "elsewhere", 0, 0, 0, 0)
	var said []string
	o := DrainOptions{Timeout: 2500 * time.Millisecond, Say: lines(&said)}
	err := client.Drain(within(t, 10*time.Second), "w-1", o)
	wantDrainError(t, err, "shop/web-1 web: "+webNeeds2, "shop/web-2 web: "+webNeeds2)
	if names := api.Names("pods"); len(names) != 2 {
		t.Errorf("left %q: what no budget holds was to be evicted", names)
	}
	held := slices.DeleteFunc(said, func(s string) bool { return !strings.Contains(s, "held back") })
	if want := []string{"shop/web-1 is held back: " + webNeeds2, "shop/web-2 is held back: " + webNeeds2}; !slices.Equal(held, want) {
		t.Errorf("said %q, want each once", held)
	}

	said = nil
	o.Timeout = 8 * time.Second
	o.Say = func(text string) {
		said = append(said, text)
		switch { // one after the other, as the replacements become ready
		case strings.HasPrefix(text, "shop/web-2 is held back"), strings.Contains(text, "is gone"):
			setBudget(api, "web", "web", 1, 3, 2, 3)
		}
	}
	if err := client.Drain(within(t, 10*time.Second), "w-1", o); err != nil {
		t.Errorf("%v; said %q", err, said)
	}
	if names := api.Names("pods"); len(names) != 0 {
		t.Errorf("left %q", names)
	}
}

func TestDrainNamesEveryBudgetOfAPod(t *testing.T) {
	t.Parallel()
	api, client := newShop(t)
	owned(api, "web-1", "w-1", "ReplicaSet/web")
	setBudget(api, "b", "web", 1, 2, 1, 2)
	setBudget(api, "a", "web", 1, 2, 1, 2)
	err := client.Drain(within(t, 10*time.Second), "w-1", DrainOptions{Timeout: 1500 * time.Millisecond})
	wantDrainError(t, err, "shop/web-1 a, b: This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.")
}

func TestDrainEndsWithItsContext(t *testing.T) {
	t.Parallel()
	api, client := newShop(t)
	owned(api, "web-1", "w-1", "ReplicaSet/web")
	setBudget(api, "web", "web", 0, 2, 2, 2)
	ctx, cancel := context.WithCancelCause(within(t, 10*time.Second))
	why := errors.New("the operator has stopped it")
	var at time.Time
	err := client.Drain(ctx, "w-1", DrainOptions{Say: func(string) {
		time.AfterFunc(200*time.Millisecond, func() { at = time.Now(); cancel(why) }) // between two rounds
	}})
	var drain *DrainError
	if took := time.Since(at); !errors.Is(err, why) || errors.As(err, &drain) || took > 300*time.Millisecond {
		t.Errorf("ended %s after its context with %v", took, err)
	}
}

func TestDrainIsNotFooledByPodsThatComeBack(t *testing.T) {
	t.Parallel()
	api, client := newShop(t)
	anywhere := func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}} }
	owned(api, "agent-1", "w-1", "ReplicaSet/agent", anywhere)
	owned(api, "web-1", "w-1", "ReplicaSet/web")
	api.React = func(verb, resource, _, name string) {
		switch {
		case verb != http.MethodDelete:
		case name == "agent-1": // the scheduler puts it back: it tolerates the cordon
			owned(api, "agent-2", "w-1", "ReplicaSet/agent", anywhere)
		case name == "web-1": // the scheduler had not heard of the cordon yet
			owned(api, "web-2", "w-1", "ReplicaSet/web")
		}
	}
	if err := client.Drain(within(t, 10*time.Second), "w-1", DrainOptions{Timeout: 6 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if names := api.Names("pods"); !slices.Equal(names, []string{"shop/agent-2"}) {
		t.Errorf("left %q", names)
	}
}

func TestToleratesCordon(t *testing.T) {
	for _, row := range []struct {
		name string
		t    corev1.Toleration
		want bool
	}{
		{"everything", corev1.Toleration{Operator: corev1.TolerationOpExists}, true},
		{"the cordon", corev1.Toleration{Key: "node.kubernetes.io/unschedulable", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}, true},
		{"the cordon, by its empty value", corev1.Toleration{Key: "node.kubernetes.io/unschedulable"}, true},
		{"the cordon with a value that it has not", corev1.Toleration{Key: "node.kubernetes.io/unschedulable", Value: "x"}, false},
		{"another taint", corev1.Toleration{Key: "node-role.kubernetes.io/control-plane", Operator: corev1.TolerationOpExists}, false},
		{"only to stay", corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}, false},
	} {
		if got := toleratesCordon(&corev1.Pod{Spec: corev1.PodSpec{Tolerations: []corev1.Toleration{row.t}}}); got != row.want {
			t.Errorf("%s: %t", row.name, got)
		}
	}
}

func TestEvictionSparesANamesake(t *testing.T) {
	t.Parallel()
	api, client := newShop(t)
	owned(api, "db-0", "w-2", "StatefulSet/db")
	d := &draining{Client: client}
	err := d.evict(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db-0", UID: "of-the-one-before"}})
	if !apierrors.IsConflict(err) || len(api.Names("pods")) != 1 {
		t.Errorf("%v, left %q", err, api.Names("pods"))
	}
}

func TestDrainOfARunThatLostItsLock(t *testing.T) {
	t.Parallel()
	lost := errors.New("the lock is another's")
	api, client := newGuardedAPI(t, func(context.Context) error { return lost })
	owned(api, "web-1", "w-1", "ReplicaSet/web")
	began := time.Now()
	err := client.Drain(within(t, 10*time.Second), "w-1", DrainOptions{Timeout: 5 * time.Second})
	if !errors.Is(err, lost) || len(api.Names("pods")) != 1 || time.Since(began) > time.Second {
		t.Errorf("%v after %s, left %q", err, time.Since(began), api.Names("pods"))
	}
}

func TestDrainOutlivesAnAPIServerThatFails(t *testing.T) {
	t.Parallel()
	api, client := newShop(t)
	owned(api, "web-1", "w-1", "ReplicaSet/web")
	api.Fail("GET pods", http.StatusServiceUnavailable)
	api.Fail("POST pods/eviction", http.StatusInternalServerError)
	var said []string
	if err := client.Drain(within(t, 10*time.Second), "w-1", DrainOptions{Timeout: 6 * time.Second, Say: lines(&said)}); err != nil {
		t.Fatal(err)
	}
	if len(said) != 2 || said[0] != "shop/web-1 is held back: made to fail" || len(api.Names("pods")) != 0 {
		t.Errorf("said %q, left %q", said, api.Names("pods"))
	}
	api.Fail("GET pods", http.StatusForbidden)
	if err := client.Drain(within(t, 10*time.Second), "w-1", DrainOptions{Timeout: 5 * time.Second}); !apierrors.IsForbidden(err) {
		t.Errorf("of one that may not ask: %v", err)
	}
}

// TestDrainSaysNothingOfPodsThatWentAlready has pods that are gone, or followed
// by a namesake, when their eviction is asked for.
func TestDrainSaysNothingOfPodsThatWentAlready(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusNotFound, http.StatusConflict} {
		api, client := newShop(t)
		owned(api, "web-1", "w-1", "ReplicaSet/web")
		api.Fail("POST pods/eviction", code)
		var said []string
		if err := client.Drain(within(t, 10*time.Second), "w-1", DrainOptions{Timeout: 5 * time.Second, Say: lines(&said)}); err != nil {
			t.Fatal(err)
		}
		if len(said) != 1 || !strings.Contains(said[0], "is gone") {
			t.Errorf("after %d: said %q", code, said)
		}
	}
}

func TestDrainForgetsWhatIsOver(t *testing.T) {
	t.Parallel()
	api, client := newShop(t)
	owned(api, "web-1", "w-1", "ReplicaSet/web")
	setBudget(api, "web", "web", 0, 2, 2, 2)
	api.Fail("GET pods", http.StatusServiceUnavailable)
	err := client.Drain(within(t, 10*time.Second), "w-1", DrainOptions{Timeout: 2500 * time.Millisecond})
	wantDrainError(t, err, "shop/web-1 web: "+webNeeds2)
	if strings.Contains(err.Error(), "made to fail") {
		t.Errorf("an answer that came in the end: %v", err)
	}
}

// TestTheEndOfADrainIsNoFailureOfTheAPI tells a look that the time limit cuts
// short from an API server that does not answer.
func TestTheEndOfADrainIsNoFailureOfTheAPI(t *testing.T) {
	cut, dead := errors.New("rate limiter: deadline"), errors.New("connection refused")
	for _, row := range []struct {
		name   string
		begun  bool
		failed []error
		want   error
	}{
		{"all looks were answered", true, nil, nil},
		{"the last look was cut short", true, []error{cut}, nil},
		{"the API was gone for a while", true, []error{dead, cut}, dead},
		{"no look was ever answered", false, []error{dead}, dead},
		{"no look came to an end", false, nil, nil},
	} {
		err := (&draining{node: "w-1", begun: row.begun, failed: row.failed}).late()
		if got := errors.Unwrap(err); got != row.want {
			t.Errorf("%s: %v", row.name, got)
		}
	}
}

func TestDrainThatNeverHearsOfThePods(t *testing.T) {
	t.Parallel()
	api, client := newShop(t)
	owned(api, "web-1", "w-1", "ReplicaSet/web")
	seen := 0
	client.before = func(context.Context) error { // asked before each look
		seen++
		api.Fail("GET pods", http.StatusServiceUnavailable)
		return nil
	}
	err := client.Drain(within(t, 10*time.Second), "w-1", DrainOptions{Timeout: 1500 * time.Millisecond})
	wantDrainError(t, err)
	if !apierrors.IsServiceUnavailable(err) && !strings.Contains(err.Error(), "made to fail") || seen < 2 {
		t.Errorf("asked %d times: %v", seen, err)
	}
}

func TestDrainErrorSaysWhatToRun(t *testing.T) {
	web := BlockedPod{"shop", "web-1", "web", webNeeds2}
	for _, row := range []struct {
		name string
		err  DrainError
		want string
	}{
		{"a budget", DrainError{Node: "w-1", After: 5 * time.Minute, Pods: []BlockedPod{{"shop", "db-0", "", "was told to end and still runs"}, web}},
			`w-1: not drained within 5m0s: 2 pods left
  shop/db-0: was told to end and still runs
  shop/web-1: the disruption budget web needs 2 healthy pods and has 2 currently
  see ` + "`kubectl -n shop describe poddisruptionbudget web`" + `: more replicas, or a budget that allows one pod less, then run the same command again`},
		{"two budgets", DrainError{Node: "w-1", After: time.Minute, Pods: []BlockedPod{{"shop", "web-1", "a, b", "This pod has more than one PodDisruptionBudget."}}},
			`w-1: not drained within 1m0s: 1 pod left
  shop/web-1: This pod has more than one PodDisruptionBudget.
  see ` + "`kubectl -n shop describe poddisruptionbudget a`" + `: more replicas, or a budget that allows one pod less, then run the same command again`},
		{"an end that lasts", DrainError{Node: "w-1", After: time.Minute, Pods: []BlockedPod{{"shop", "db-0", "", "was told to end and still runs, with 600 s to do so"}}},
			`w-1: not drained within 1m0s: 1 pod left
  shop/db-0: was told to end and still runs, with 600 s to do so
  see ` + "`kubectl -n shop describe pod db-0`" + `, then run the same command again`},
		{"a pod that would be lost", DrainError{Node: "w-1", Pods: []BlockedPod{{"shop", "one", "", "no controller would start it anew elsewhere"}}},
			`w-1: not drained: 1 pod would be lost
  shop/one: no controller would start it anew elsewhere
  delete what may go (` + "`kubectl -n shop delete pod one`" + `), then run the same command again`},
		{"no answer", DrainError{Node: "w-1", After: time.Minute, Err: errors.New("w-1: asking which pods are to be moved: connection refused")},
			`w-1: not drained within 1m0s: which pods are left is not known
  w-1: asking which pods are to be moved: connection refused
  see why the API does not answer, then run the same command again`},
	} {
		if diff := cmp.Diff(row.want, row.err.Error()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}
