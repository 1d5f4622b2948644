//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// crewManifest is a workload as a user has it who cares: replicas on several
// hosts, some of which are masters, a budget for disruptions, a probe, and a
// goodbye that is longer than the news of it takes to every host.
const crewManifest = `apiVersion: apps/v1
kind: Deployment
metadata: {name: crew, namespace: default}
spec:
  replicas: 3
  selector: {matchLabels: {app: crew}}
  template:
    metadata: {labels: {app: crew}}
    spec:
      tolerations: [{key: node-role.kubernetes.io/control-plane, operator: Exists, effect: NoSchedule}]
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: crew}}}
      containers:
      - name: echo
        image: ha-install.test/echo:1
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 5}}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: crew, namespace: default}
spec: {minAvailable: 2, selector: {matchLabels: {app: crew}}}
---
apiVersion: v1
kind: Service
metadata: {name: crew, namespace: default}
spec: {type: NodePort, selector: {app: crew}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
`

// crewBudget is its minAvailable, crewPort its port on every node.
const (
	crewBudget = 2
	crewPort   = "30080"
)

// crew is that workload, watched: it is asked ten times a second, each time by a
// new connection to the worker's port, and its ready pods are counted.
type crew struct {
	client *kubernetes.Clientset
	stop   func()

	mu       sync.Mutex
	requests int
	failures []string
	counts   int
	least    int // ready pods that are not on their way out
	leastAt  time.Time
}

func startCrew(t *testing.T, kubeconfig string) *crew {
	t.Helper()
	applyManifest(t, "crew", crewManifest)
	kubectl(t, "wait", "--for=condition=Available", "deployment/crew", "--timeout=50s")
	kubectl(t, "rollout", "status", "deployment/crew", "--timeout=50s")
	worker, err := theLab.Host("w-1")
	if err != nil {
		t.Fatal(err)
	}
	c := &crew{client: clientOf(t, kubeconfig), least: 1 << 30}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { every(ctx, 100*time.Millisecond, func() { c.ask(net.JoinHostPort(worker.Address, crewPort)) }) })
	all.Go(func() { every(ctx, 250*time.Millisecond, c.count) })
	c.stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	t.Cleanup(c.stop)
	return c
}

// applyManifest has kubectl apply documents.
func applyManifest(t *testing.T, name, documents string) {
	t.Helper()
	file := "/root/" + name + ".yaml"
	onHost(t, "cp-1", "sh", "-c", `printf '%s' "$1" >"$2"`, "sh", documents, file)
	kubectl(t, "apply", "-f", file)
}

// deleteManifest takes them back.
func deleteManifest(t *testing.T, name string) {
	t.Helper()
	file := "/root/" + name + ".yaml"
	kubectl(t, "delete", "-f", file, "--timeout=50s")
	onHost(t, "cp-1", "rm", file)
}

// every begins a call at each tick, whether those before it have ended or not,
// and returns when all have.
func every(ctx context.Context, tick time.Duration, call func()) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var underWay sync.WaitGroup
	defer underWay.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			underWay.Go(call)
		}
	}
}

func (c *crew) ask(address string) {
	began := time.Now()
	client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + address)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answered %s", response.Status)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	if err != nil {
		c.failures = append(c.failures, fmt.Sprintf("%s after %s: %v", began.UTC().Format("15:04:05.000"), time.Since(began).Round(time.Millisecond), err))
	}
}

func (c *crew) count() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	pods, err := c.client.CoreV1().Pods(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{LabelSelector: "app=crew"})
	if err != nil {
		return // the probes say what the endpoint does not answer
	}
	ready := 0
	for _, p := range pods.Items {
		if p.DeletionTimestamp == nil && podReady(p) {
			ready++
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts++
	if ready < c.least {
		c.least, c.leastAt = ready, time.Now()
	}
}

func podReady(p corev1.Pod) bool {
	for _, condition := range p.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// end stops the watch and judges: the budget was kept, and hardly anybody who asked
// was turned away. (A pod that goes while no controller-manager leads, for 15 s after
// the one that led has ended, is asked until another one does.)
func (c *crew) end(t *testing.T, what string) {
	t.Helper()
	c.stop()
	t.Logf("%s: a Deployment of 3 with a budget of %d: %d ready at the least (%d counts), %d of %d requests failed",
		what, crewBudget, c.least, c.counts, len(c.failures), c.requests)
	if c.least < crewBudget {
		t.Errorf("%s: only %d pods were ready at %s, the budget wants %d", what, c.least, c.leastAt.UTC().Format("15:04:05.000"), crewBudget)
	}
	for _, failure := range c.failures {
		t.Logf("%s: a request to the Service failed at %s", what, failure)
	}
	if len(c.failures)*100 > c.requests {
		t.Errorf("%s: more than one in a hundred requests to the Service failed", what)
	}
	if c.requests < 50 || c.counts < 20 {
		t.Errorf("%s: only %d requests and %d counts: nothing was watched", what, c.requests, c.counts)
	}
	deleteManifest(t, "crew")
}
