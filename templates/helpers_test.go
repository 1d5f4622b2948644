package templates

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/test/golden"
)

// goldenFiles compares a list of files, paths and modes included.
func goldenFiles(t *testing.T, name string, list []File) {
	t.Helper()
	var out strings.Builder
	for _, f := range list {
		fmt.Fprintf(&out, "==> %s %04o secret=%t\n%s\n", f.Path, f.Mode, f.Secret, f.Content)
	}
	golden.Check(t, name, []byte(out.String()))
}

// testCluster has two balancers, three masters and a worker; each call is a new one.
func testCluster() *inventory.Cluster {
	host := func(name string, role inventory.Role, last int) inventory.Host {
		address := fmt.Sprintf("198.51.100.%d", last)
		return inventory.Host{Name: name, Address: address, InternalAddress: address, Role: role}
	}
	return &inventory.Cluster{
		APIVersion: inventory.APIVersion, Kind: inventory.Kind,
		Metadata: inventory.Metadata{Name: "prod"},
		Spec: inventory.Spec{
			Kubernetes:   inventory.Kubernetes{Version: "v1.36.3"},
			Endpoint:     inventory.Endpoint{Host: "198.51.100.100", Port: 6443},
			LoadBalancer: inventory.LoadBalancer{Mode: inventory.BalancerDedicated, VirtualRouterID: 51},
			Hosts: []inventory.Host{
				host("lb-1", inventory.RoleLoadBalancer, 11), host("lb-2", inventory.RoleLoadBalancer, 12),
				host("cp-1", inventory.RoleControlPlane, 21), host("cp-2", inventory.RoleControlPlane, 22),
				host("cp-3", inventory.RoleControlPlane, 23), host("w-1", inventory.RoleWorker, 31),
			},
			Network: inventory.Network{
				PodCIDR: "10.244.0.0/16", ServiceCIDR: "10.96.0.0/12", DNSDomain: "cluster.local",
				CNI: inventory.CNI{Plugin: inventory.CNIFlannel, Backend: inventory.CNIBackendVXLAN},
			},
			Software: inventory.Software{Source: inventory.SourceBundle},
		},
	}
}

// onMasters has the masters balance, and no other host.
func onMasters(c *inventory.Cluster) {
	c.Spec.LoadBalancer.Mode, c.Spec.Endpoint.Port = inventory.BalancerMasters, 8443
	c.Spec.Hosts = c.Spec.Hosts[2:]
}

// labCluster is a cluster on containers: every raw field that the lab needs.
func labCluster() *inventory.Cluster {
	c := testCluster()
	c.Spec.Network.CNI.Backend = inventory.CNIBackendHostGW
	c.Spec.Hosts[2].Taints = []inventory.Taint{} // cp-1 takes everybody's pods
	c.Spec.Hosts[5].Taints = []inventory.Taint{{Key: "dedicated", Value: "db", Effect: "NoSchedule"}}
	c.Spec.Preflight.IgnoreErrors = []string{"SystemVerification", "Memory"}
	c.Spec.Kubeadm = inventory.Kubeadm{
		ClusterConfiguration: map[string]any{
			"apiServer": map[string]any{
				"certSANs":  []any{"api.example.org", "localhost"},
				"extraArgs": []any{map[string]any{"name": "goaway-chance", "value": "0"}, map[string]any{"name": "v", "value": "2"}},
			},
			"imageRepository": "registry.example.org/k8s",
		},
		KubeletConfiguration:   map[string]any{"failCgroupV1": false, "cgroupDriver": "cgroupfs", "containerLogMaxSize": nil},
		KubeProxyConfiguration: map[string]any{"conntrack": map[string]any{"maxPerCore": 0, "min": 0}},
	}
	c.Spec.Containerd = map[string]any{"plugins": map[string]any{
		"io.containerd.cri.v1.runtime": map[string]any{"restrict_oom_score_adj": true},
	}}
	return c
}

func hostNamed(t *testing.T, c *inventory.Cluster, name string) inventory.Host {
	t.Helper()
	for _, h := range c.Spec.Hosts {
		if h.Name == name {
			return h
		}
	}
	t.Fatalf("no host %s", name)
	return inventory.Host{}
}
