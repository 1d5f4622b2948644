package kube

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/provision/units"
)

const controlPlaneLabel = "node-role.kubernetes.io/control-plane"

// Components are the static pods of one control plane column.
var Components = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}

// Readyz asks this API server whether it is ready; the error names the parts that are not.
func (c *Client) Readyz(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	body, err := c.Discovery().RESTClient().Get().AbsPath("/readyz").Param("verbose", "").DoRaw(ctx)
	if err == nil {
		return nil
	}
	var bad []string
	for line := range strings.SplitSeq(string(body), "\n") {
		if name, ok := strings.CutPrefix(line, "[-]"); ok {
			bad = append(bad, strings.SplitN(name, " ", 2)[0])
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("apiserver %s: not ready: %s", c.Server, strings.Join(bad, ", "))
	}
	return fmt.Errorf("apiserver %s: %w", c.Server, err)
}

// IsControlPlane says whether kubeadm has marked the Node as a master, the
// last act of init and join.
func IsControlPlane(n *corev1.Node) bool {
	_, marked := n.Labels[controlPlaneLabel]
	return marked
}

// Column reports whether the control plane of one node is complete: its Node
// is there and marked, and its four static pods are ready. The error names
// what is missing.
func (c *Client) Column(ctx context.Context, node string) error {
	return c.column(ctx, node, func(state string) bool { return state == podReady })
}

// ColumnRuns is Column without the wait for the startup probes, which first
// look after 10 s: all four containers have to run.
func (c *Client) ColumnRuns(ctx context.Context, node string) error {
	return c.column(ctx, node, func(state string) bool { return state == podReady || state == podRunning })
}

func (c *Client) column(ctx context.Context, node string, good func(string) bool) error {
	n, err := c.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("node %s: %w", node, err)
	}
	if !IsControlPlane(n) {
		return fmt.Errorf("node %s: not marked as control plane", node)
	}
	pods, err := c.StaticPods(ctx)
	if err != nil {
		return fmt.Errorf("static pods of %s: %w", node, err)
	}
	var bad []string
	for _, component := range Components {
		if state := pods[node][component]; !good(state) {
			if state == "" {
				state = "no pod"
			}
			bad = append(bad, component+" ("+state+")")
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("control plane of %s: %s", node, strings.Join(bad, ", "))
	}
	return nil
}

const (
	podReady   = "ready"
	podRunning = "not ready" // but its containers run
)

// podState is "ready", or why the pod is not.
func podState(p *corev1.Pod) string {
	for _, s := range p.Status.ContainerStatuses {
		if w := s.State.Waiting; w != nil {
			return w.Reason
		}
		if t := s.State.Terminated; t != nil {
			return "terminated: " + t.Reason
		}
	}
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue {
			return podReady
		}
	}
	if len(p.Status.ContainerStatuses) == 0 {
		return "pending"
	}
	return podRunning
}

// NodeReady reports whether a Node is there and Ready.
func (c *Client) NodeReady(ctx context.Context, node string) error {
	n, err := c.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("node %s: %w", node, err)
	}
	if state := NodeState(n); state != nodeReady {
		return fmt.Errorf("node %s: %s", node, state)
	}
	return nil
}

// Leader is who holds the election lease of a control plane component.
type Leader struct {
	Component string        `json:"component"`
	Node      string        `json:"node"`
	Age       units.Seconds `json:"ageSeconds"` // since the last renewal, by the clock of this machine
	Renewed   time.Time     `json:"-"`          // by the leader's own clock
}

// electing are the components of which one leads.
var electing = []string{"kube-controller-manager", "kube-scheduler"}

// LeaseStale is beyond the 15 s lease of kubeadm's defaults: nobody is leading.
const LeaseStale = 20 * time.Second

// Leaders reads who leads among the controller-managers and schedulers. A
// component whose lease has run out is an error that names it.
func (c *Client) Leaders(ctx context.Context) ([]Leader, error) {
	leaders, err := c.Elected(ctx)
	if err != nil {
		return leaders, err
	}
	for _, l := range leaders {
		if age := l.Age.Duration(); age > LeaseStale {
			return leaders, fmt.Errorf("%s: last leader %s has not renewed for %s", l.Component, l.Node, age.Round(time.Second))
		}
	}
	return leaders, nil
}

// Elected reads who holds the leases of the controller-managers and schedulers,
// which may have run out. A component whose lease nobody holds is an error.
func (c *Client) Elected(ctx context.Context) ([]Leader, error) {
	var leaders []Leader
	for _, component := range electing {
		lease, err := c.CoordinationV1().Leases(metav1.NamespaceSystem).Get(ctx, component, metav1.GetOptions{})
		if err != nil {
			return leaders, fmt.Errorf("%s: %w", component, err)
		}
		holder := lease.Spec.HolderIdentity
		if holder == nil || *holder == "" || lease.Spec.RenewTime == nil { // client-go gives a lease back by emptying it
			return leaders, fmt.Errorf("%s: nobody leads", component)
		}
		l := Leader{Component: component, Age: units.Seconds(time.Since(lease.Spec.RenewTime.Time)), Renewed: lease.Spec.RenewTime.Time}
		l.Node, _, _ = strings.Cut(*holder, "_")
		leaders = append(leaders, l)
	}
	return leaders, nil
}

// KubeletHealthz asks the kubelet of the host behind d. It listens without TLS
// on the host's loopback only.
func KubeletHealthz(ctx context.Context, d Dialer) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:10248/healthz", nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // more than the status is a courtesy
		return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return nil
}

// StaticPods are the states of all control plane pods: by node, by component.
// "ready" is good, anything else says why not.
func (c *Client) StaticPods(ctx context.Context) (map[string]map[string]string, error) {
	pods, err := c.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: "tier=control-plane"})
	if err != nil {
		return nil, err
	}
	states := map[string]map[string]string{}
	for _, p := range pods.Items {
		if states[p.Spec.NodeName] == nil {
			states[p.Spec.NodeName] = map[string]string{}
		}
		states[p.Spec.NodeName][p.Labels["component"]] = podState(&p)
	}
	return states, nil
}

const nodeReady = "Ready"

// NodeState is "Ready", or why the Node is not.
func NodeState(n *corev1.Node) string {
	for _, cond := range n.Status.Conditions {
		if cond.Type == corev1.NodeReady {
			if cond.Status == corev1.ConditionTrue {
				return nodeReady
			}
			return "not ready: " + cond.Message
		}
	}
	return "has not reported yet"
}

// ColumnIs reports whether the static pods of a node run the images of the
// given tags, by component. The error names those that do not.
func (c *Client) ColumnIs(ctx context.Context, node string, tags map[string]string) error {
	pods, err := c.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: "tier=control-plane", FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return fmt.Errorf("static pods of %s: %w", node, err)
	}
	runs := map[string]string{}
	for _, p := range pods.Items {
		if state := podState(&p); len(p.Spec.Containers) == 1 && (state == podReady || state == podRunning) {
			image := p.Spec.Containers[0].Image
			runs[p.Labels["component"]] = image[strings.LastIndex(image, ":")+1:]
		}
	}
	var bad []string
	for _, component := range Components {
		if runs[component] != tags[component] || tags[component] == "" {
			bad = append(bad, fmt.Sprintf("%s (runs %q, wanted %q)", component, runs[component], tags[component]))
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("control plane of %s: %s", node, strings.Join(bad, ", "))
	}
	return nil
}

// KubeletIs reports whether a Node says that its kubelet is of the version.
func (c *Client) KubeletIs(ctx context.Context, node, version string) error {
	n, err := c.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("node %s: %w", node, err)
	}
	if is := n.Status.NodeInfo.KubeletVersion; is != version {
		return fmt.Errorf("node %s: its kubelet is %s, wanted %s", node, is, version)
	}
	return nil
}
