package templates

import (
	"fmt"
	"net"
	"strconv"

	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/kubernetes/cmd/kubeadm/app/constants"

	"github.com/ha-install/ha-install/inventory"
)

// hostsWith returns the hosts of a role in inventory order.
func hostsWith(c *inventory.Cluster, role inventory.Role) []inventory.Host {
	var hosts []inventory.Host
	for _, h := range c.Spec.Hosts {
		if h.Role == role {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// internalAddress is where the other hosts reach h.
func internalAddress(h inventory.Host) string {
	if h.InternalAddress != "" {
		return h.InternalAddress
	}
	return h.Address
}

// endpoint is the host:port that clients and kubelets use for the API.
func endpoint(c *inventory.Cluster) string {
	return net.JoinHostPort(c.Spec.Endpoint.Host, strconv.Itoa(c.Spec.Endpoint.Port))
}

// virtualIP is the address that keepalived moves, or "" when there is none.
func virtualIP(c *inventory.Cluster) string {
	if c.Spec.LoadBalancer.VIP != "" {
		return c.Spec.LoadBalancer.VIP
	}
	if net.ParseIP(c.Spec.Endpoint.Host) != nil {
		return c.Spec.Endpoint.Host
	}
	return ""
}

// release parses the Kubernetes version. kubeadm would ask the internet what
// "stable" means (KubernetesReleaseVersion), so nothing but x.y.z passes.
func release(c *inventory.Cluster) (*version.Version, error) {
	v, err := version.ParseSemantic(c.Spec.Kubernetes.Version)
	if err != nil {
		return nil, fmt.Errorf("spec.kubernetes.version %q: want a release such as v1.36.3", c.Spec.Kubernetes.Version)
	}
	return v, nil
}

// pauseVersions are kubeadm's PauseVersion by minor, where it is not the one
// of the kubeadm that this program is built with.
var pauseVersions = map[uint]string{33: "3.10", 34: "3.10.1", 35: "3.10.1"}

// PauseImage is the sandbox image that kubeadm of the cluster's version wants.
func PauseImage(c *inventory.Cluster) (string, error) {
	v, err := release(c)
	if err != nil {
		return "", err
	}
	tag, ok := pauseVersions[v.Minor()]
	if !ok {
		tag = constants.PauseVersion
	}
	repository, ok := c.Spec.Kubeadm.ClusterConfiguration["imageRepository"].(string)
	if !ok {
		repository = "registry.k8s.io"
	}
	return repository + "/pause:" + tag, nil
}
