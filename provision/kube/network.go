package kube

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// networkNotReady is how the kubelet begins a Node's condition when the
// container runtime has no CNI configuration (kubelet's runtimeState). With
// other reasons beside it, it writes a list in brackets.
const networkNotReady = "container runtime network not ready:"

// LacksNetwork says that a Node is not Ready for no other reason than that
// nobody has set up a pod network on its host.
func LacksNetwork(n *corev1.Node) bool {
	for _, cond := range n.Status.Conditions {
		if cond.Type == corev1.NodeReady {
			return cond.Status == corev1.ConditionFalse && strings.HasPrefix(cond.Message, networkNotReady)
		}
	}
	return false
}

// NodeReadyForNetwork is NodeReady for a Node that may still lack its pod network.
func (c *Client) NodeReadyForNetwork(ctx context.Context, node string) error {
	n, err := c.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("node %s: %w", node, err)
	}
	if state := NodeState(n); state != nodeReady && !LacksNetwork(n) {
		return fmt.Errorf("node %s: %s", node, state)
	}
	return nil
}

// NodesWithoutNetwork names the Nodes that lack a pod network, in the API's order.
func (c *Client) NodesWithoutNetwork(ctx context.Context) ([]string, error) {
	nodes, err := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range nodes.Items {
		if LacksNetwork(&n) {
			names = append(names, n.Name)
		}
	}
	return names, nil
}
