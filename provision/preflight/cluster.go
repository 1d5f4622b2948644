package preflight

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/ha-install/ha-install/inventory"
)

// subject is one host under examination: what the inventory wants of it and
// what it said of itself.
type subject struct {
	cluster *inventory.Cluster
	opt     *Options
	host    inventory.Host
	facts   Facts
}

func (s subject) is(role inventory.Role) bool { return s.host.Role == role }

// node reports whether a kubelet runs on the host.
func (s subject) node() bool {
	return s.is(inventory.RoleControlPlane) || s.is(inventory.RoleWorker)
}

// ours reports whether the host already belongs to this cluster, finished or
// half built. The CA is stronger than any name: a host of an earlier cluster
// that was called the same still holds the other CA.
func (s subject) ours() bool {
	switch {
	case s.facts.CA != "" && s.opt.CAFingerprint != "":
		return s.facts.CA == s.opt.CAFingerprint
	case s.opt.Ours != nil && s.opt.Ours(s.host.Name):
		return true
	default:
		return s.facts.Journal != "" && s.facts.Journal == s.cluster.Metadata.Name
	}
}

// internal is the address that other hosts use; invalid when the inventory
// only has a DNS name.
func internal(h inventory.Host) netip.Addr {
	for _, text := range []string{h.InternalAddress, h.Address} {
		if a, err := netip.ParseAddr(text); err == nil {
			return a.Unmap()
		}
	}
	return netip.Addr{}
}

// vip is the address that keepalived moves, or an external balancer's when the
// endpoint is an address.
func vip(c *inventory.Cluster) netip.Addr {
	for _, text := range []string{c.Spec.LoadBalancer.VIP, c.Spec.Endpoint.Host} {
		if a, err := netip.ParseAddr(text); err == nil {
			return a.Unmap()
		}
	}
	return netip.Addr{}
}

func endpointPort(c *inventory.Cluster) int {
	if c.Spec.Endpoint.Port == 0 {
		return portAPI
	}
	return c.Spec.Endpoint.Port
}

// endpointName is the DNS name that must resolve on the hosts, or "".
func endpointName(c *inventory.Cluster) string {
	if _, err := netip.ParseAddr(c.Spec.Endpoint.Host); err == nil {
		return ""
	}
	return c.Spec.Endpoint.Host
}

// managed reports whether the balancer is ours to set up, not only to check.
func managed(c *inventory.Cluster) bool {
	return c.Spec.LoadBalancer.Mode != inventory.BalancerExternal
}

func flannel(c *inventory.Cluster) bool {
	p := c.Spec.Network.CNI.Plugin
	return p == "" || p == inventory.CNIFlannel
}

func vxlan(c *inventory.Cluster) bool {
	return flannel(c) && c.Spec.Network.CNI.Backend != inventory.CNIBackendHostGW
}

const defaultEtcdDir = "/var/lib/etcd"

// etcdDir is etcd's data directory on every master.
func etcdDir(c *inventory.Cluster) string {
	if dir, ok := lookup(c.Spec.Kubeadm.ClusterConfiguration, "etcd", "local", "dataDir").(string); ok && strings.HasPrefix(dir, "/") {
		return dir
	}
	return defaultEtcdDir
}

// lookup walks nested raw fields; nil when a step is missing.
func lookup(m map[string]any, path ...string) any {
	var v any = m
	for _, key := range path {
		next, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = next[key]
	}
	return v
}

// minor is the Kubernetes minor release, 0 when the version makes no sense
// (the inventory's validation has said so).
func minor(c *inventory.Cluster) int {
	parts := strings.Split(strings.TrimPrefix(c.Spec.Kubernetes.Version, "v"), ".")
	if len(parts) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(parts[1])
	return n
}

// The ports that stacked control planes, kubelets and balancers listen on.
const (
	portAPI               = 6443
	portEtcdClient        = 2379
	portEtcdPeer          = 2380
	portKubelet           = 10250
	portControllerManager = 10257
	portScheduler         = 10259
)

// portsOf are the TCP ports that must be free on a host.
func portsOf(c *inventory.Cluster, h inventory.Host) []int {
	var ports []int
	switch h.Role {
	case inventory.RoleControlPlane:
		ports = []int{portAPI, portEtcdClient, portEtcdPeer, portKubelet, portControllerManager, portScheduler}
	case inventory.RoleWorker:
		ports = []int{portKubelet}
	}
	if c.Balances(h) {
		ports = append(ports, endpointPort(c))
	}
	return ports
}

// openPortsOf are the ports that a firewall must let through to a host.
func openPortsOf(c *inventory.Cluster, h inventory.Host) string {
	var list []string
	switch h.Role {
	case inventory.RoleControlPlane:
		list = []string{"TCP 6443, 2379-2380, 10250"}
		if c.Spec.Backup.BetweenMasters() {
			list = []string{"TCP 6443, 2378-2380, 10250"}
		}
	case inventory.RoleWorker:
		list = []string{"TCP 10250"}
	}
	if vxlan(c) && h.Role != inventory.RoleLoadBalancer {
		list = append(list, "UDP 8472 (flannel's vxlan)")
	}
	if c.Balances(h) {
		list = append(list, "TCP "+strconv.Itoa(endpointPort(c))+" and VRRP (IP protocol 112) between the balancers")
	}
	return strings.Join(list, ", ")
}
