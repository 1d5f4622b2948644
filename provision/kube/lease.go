package kube

import (
	"context"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// LeaseHolder is the node whose component holds its election lease, "" for
// none. That the lease may have run out is not looked at.
func (c *Client) LeaseHolder(ctx context.Context, component string) (string, error) {
	lease, err := c.CoordinationV1().Leases(metav1.NamespaceSystem).Get(ctx, component, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("%s: %w", component, err)
	}
	if lease.Spec.HolderIdentity == nil {
		return "", nil
	}
	node, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	return node, nil
}
