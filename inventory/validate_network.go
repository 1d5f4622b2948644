package inventory

import (
	"fmt"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

func (v *validator) endpoint() {
	const path = "spec.endpoint.host"
	host := v.c.Spec.Endpoint.Host
	v.port("spec.endpoint.port", v.c.Spec.Endpoint.Port)
	if !v.required(path, host, "want the virtual IP address, or the DNS name of the balancer") {
		return
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		v.dnsName(path, host)
	} else {
		v.machineIP(path, host)
	}
	for i, h := range v.c.Spec.Hosts {
		if !isHost(h, host, ip) {
			continue
		}
		at := v.line(fmt.Sprintf("spec.hosts[%d]", i))
		switch h.Role {
		case RoleControlPlane, RoleWorker:
			v.err(path, fmt.Sprintf("the address of one %s host, %s: clients would be lost with it", h.Role, at),
				"want the address of the balancer: a free one that keepalived can move, or a DNS name")
		case RoleLoadBalancer:
			v.err(path, fmt.Sprintf("the own address of a load-balancer host, %s: clients would be lost with it", at),
				"want a free address of the same network, for keepalived to move")
		}
	}
}

// isHost says whether the name or address belongs to h.
func isHost(h Host, name string, ip netip.Addr) bool {
	if strings.EqualFold(h.Address, name) {
		return true
	}
	address, err := netip.ParseAddr(h.Address)
	return ip.IsValid() && (h.IP() == ip || err == nil && address == ip)
}

func (v *validator) loadBalancer() {
	const path = "spec.loadBalancer"
	lb := v.c.Spec.LoadBalancer
	oneOf(v, path+".mode", lb.Mode, BalancerDedicated, BalancerMasters, BalancerExternal)
	if lb.Mode == BalancerExternal {
		for _, field := range []string{".vip", ".interface", ".virtualRouterID"} {
			if v.given(path + field) {
				v.err(path+field, "an external balancer is not set up, only checked", "remove it, or set mode: dedicated")
			}
		}
		return
	}
	if v.given(path+".virtualRouterID") && (lb.VirtualRouterID < 1 || lb.VirtualRouterID > 255) {
		v.err(path+".virtualRouterID", fmt.Sprintf("%d is out of range", lb.VirtualRouterID), "want 1 to 255, one that no other VRRP on this network uses")
	}
	const maxInterface = 15 // IFNAMSIZ without its NUL
	if len(lb.Interface) > maxInterface || strings.ContainsAny(lb.Interface, " /:") {
		v.err(path+".interface", quote(lb.Interface)+" is not an interface's name", "want a name such as eth0")
	}
	if (lb.Mode == BalancerDedicated || lb.Mode == BalancerMasters) && !v.spoilt("spec.endpoint.host") {
		v.vip(path+".vip", lb.VIP)
	}
	if lb.Mode == BalancerMasters {
		v.besideAPIServer()
	}
}

// onMasters are the ports that a master's own components listen on.
var onMasters = map[int]string{
	2378: "what takes copies of backups", 6443: "the API server", 2379: "etcd", 2380: "etcd", 2381: "etcd", 10248: "the kubelet", 10249: "kube-proxy",
	10250: "the kubelet", 10256: "kube-proxy", 10257: "the controller-manager", 10259: "the scheduler",
}

// besideAPIServer reports a port on which HAProxy and a component of the same
// host would both listen.
func (v *validator) besideAPIServer() {
	port := v.c.Spec.Endpoint.Port
	if who, taken := onMasters[port]; taken {
		v.err("spec.endpoint.port", fmt.Sprintf("%d is where %s of each master listens itself, and %s is masters: HAProxy on the same host needs another port",
			port, who, v.line("spec.loadBalancer.mode")), fmt.Sprintf("remove it for %d, or take another one", DefaultMastersPort))
	}
}

func (v *validator) vip(path, vip string) {
	host := v.c.Spec.Endpoint.Host
	if host != "" && !v.required(path, vip, "endpoint.host is a DNS name: want the address behind it, for keepalived to move") {
		return
	}
	if !v.given(path) {
		return // the endpoint itself, already looked at
	}
	v.machineIP(path, vip)
	ip, err := netip.ParseAddr(vip)
	if err != nil {
		return
	}
	if endpoint, err := netip.ParseAddr(host); err == nil && endpoint != ip {
		v.err(path, fmt.Sprintf("%s is not the address that clients use, %s", vip, v.line("spec.endpoint.host")),
			"remove vip, or write "+host)
	}
	for i, h := range v.c.Spec.Hosts {
		if isHost(h, vip, ip) {
			v.err(path, "the own address of "+v.line(fmt.Sprintf("spec.hosts[%d]", i)),
				"want a free address of the balancers' network")
		}
	}
}

func (v *validator) network() {
	const path = "spec.network"
	n := v.c.Spec.Network
	pods, podsOK := v.cidr(path+".podCIDR", n.PodCIDR, DefaultPodCIDR)
	services, servicesOK := v.cidr(path+".serviceCIDR", n.ServiceCIDR, DefaultServiceCIDR)
	if podsOK {
		v.podSize(path+".podCIDR", pods)
	}
	if servicesOK {
		v.serviceSize(path+".serviceCIDR", services)
	}
	if podsOK && servicesOK {
		at, other := path+".podCIDR", path+".serviceCIDR"
		if !v.given(at) {
			at, other = other, at
		}
		switch {
		case pods.Addr().Is4() != services.Addr().Is4():
			v.err(at, fmt.Sprintf("%s and %s are of different IP families", pods, services), "want both IPv4 or both IPv6")
		case pods.Overlaps(services):
			v.err(at, fmt.Sprintf("the pod network %s and the service network %s overlap", pods, services),
				"want two networks that share no address; the other is "+other)
		}
	}
	if len(validation.IsDNS1123Subdomain(n.DNSDomain)) > 0 {
		v.err(path+".dnsDomain", quote(n.DNSDomain)+" is not a DNS domain", "want one such as "+DefaultDNSDomain)
	}
	v.cni(path+".cni", n.CNI)
}

// cidr reports what is no network in CIDR form.
func (v *validator) cidr(path, text, example string) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(text)
	switch {
	case v.spoilt(path):
		return prefix, false
	case strings.Contains(text, ","):
		v.err(path, "more than one network", "want one: dual stack is not supported")
	case err != nil:
		v.err(path, quote(text)+" is not a network", "want one such as "+example)
	case prefix.Addr().Is4In6():
		v.err(path, text+" is an IPv4 network in IPv6 form", "want one such as "+example)
	case prefix != prefix.Masked():
		v.err(path, text+" has bits set after its first "+fmt.Sprint(prefix.Bits()), "write "+prefix.Masked().String())
	default:
		return prefix, true
	}
	return prefix, false
}

// podSize holds kubeadm's bounds: a node gets a /24 (IPv6: /64) out of the pod
// network unless kubeadm is told otherwise, and at most 2^16 of them are tracked.
func (v *validator) podSize(path string, pods netip.Prefix) {
	if v.c.Spec.Kubeadm.ClusterConfiguration["controllerManager"] != nil {
		return // node-cidr-mask-size may be there; kubeadm's own validation knows
	}
	node := 24
	if pods.Addr().Is6() {
		node = 64
	}
	nodes := len(v.c.Nodes())
	switch room := node - pods.Bits(); {
	case room < 0:
		v.err(path, fmt.Sprintf("%s is too small: every node takes a /%d of it", pods, node), fmt.Sprintf("want a /%d to /%d", node-16, node-2))
	case room > 16:
		v.err(path, fmt.Sprintf("%s is too large: kubeadm takes at most a /%d", pods, node-16), fmt.Sprintf("want a /%d to /%d", node-16, node-2))
	case nodes > 1<<room:
		v.err(path, fmt.Sprintf("%s has room for %d nodes of a /%d each, and there are %d", pods, 1<<room, node, nodes), "want a larger network")
	}
}

// serviceSize holds kubeadm's bounds: 10 addresses at least, 2^20 at most.
func (v *validator) serviceSize(path string, services netip.Prefix) {
	full := services.Addr().BitLen()
	largest, smallest := full-20, full-4
	hint := fmt.Sprintf("want a /%d to /%d", largest, smallest)
	if services.Bits() < largest {
		v.err(path, services.String()+" is too large for Services", hint)
	}
	if services.Bits() > smallest {
		v.err(path, services.String()+" is too small for Services", hint)
	}
}

// inside reports addresses of machines that lie in the cluster's own networks,
// and of another IP family.
func (v *validator) inside() {
	type address struct{ path, text string }
	addresses := []address{{"spec.endpoint.host", v.c.Spec.Endpoint.Host}}
	if v.given("spec.loadBalancer.vip") {
		addresses = append(addresses, address{"spec.loadBalancer.vip", v.c.Spec.LoadBalancer.VIP})
	}
	for i, h := range v.c.Spec.Hosts {
		path := fmt.Sprintf("spec.hosts[%d].", i)
		addresses = append(addresses, address{path + "address", h.Address})
		if v.given(path + "internalAddress") {
			addresses = append(addresses, address{path + "internalAddress", h.InternalAddress})
		}
	}
	n := v.c.Spec.Network
	for _, a := range addresses {
		ip, err := netip.ParseAddr(a.text)
		if err != nil || ip.IsLoopback() {
			continue
		}
		v.within(a.path, ip, "pod", n.PodCIDR, "spec.network.podCIDR")
		v.within(a.path, ip, "service", n.ServiceCIDR, "spec.network.serviceCIDR")
	}
	v.families()
}

func (v *validator) within(path string, ip netip.Addr, what, cidr, field string) {
	network, err := netip.ParsePrefix(cidr)
	if err == nil && !v.spoilt(field) && network.Contains(ip) {
		origin := v.line(field)
		if !v.given(field) {
			origin = "the default of " + field
		}
		v.err(path, fmt.Sprintf("%s is inside the %s network %s, %s", ip, what, cidr, origin),
			"want the cluster's own networks where no machine is")
	}
}

// families reports internal addresses of another IP family than the pod network.
func (v *validator) families() {
	pods, err := netip.ParsePrefix(v.c.Spec.Network.PodCIDR)
	if err != nil || v.spoilt("spec.network.podCIDR") {
		return
	}
	for i, h := range v.c.Spec.Hosts {
		if ip := h.IP(); ip.IsValid() && ip.Is4() != pods.Addr().Is4() && h.Role != RoleLoadBalancer {
			v.err(fmt.Sprintf("spec.hosts[%d].internalAddress", i),
				fmt.Sprintf("%s and the pod network %s are of different IP families", ip, pods),
				"want both IPv4 or both IPv6; the networks are set in spec.network")
		}
	}
}

func (v *validator) cni(path string, cni CNI) {
	oneOf(v, path+".plugin", cni.Plugin, CNIFlannel, CNIManifests, CNINone)
	if v.spoilt(path + ".plugin") {
		return
	}
	switch {
	case cni.Plugin == CNIFlannel:
		oneOf(v, path+".backend", cni.Backend, CNIBackendVXLAN, CNIBackendHostGW)
	case v.given(path + ".backend"):
		v.err(path+".backend", "a backend is flannel's, and plugin is "+string(cni.Plugin), "set plugin: flannel, or remove it")
	}
	v.filled(path+".manifests", cni.Manifests)
	if cni.Plugin == CNIManifests && len(cni.Manifests) == 0 {
		v.err(path+".manifests", "missing, and plugin is manifests", "list the files to apply, in order")
	}
	if cni.Plugin != CNIManifests && v.given(path+".manifests") {
		v.err(path+".manifests", "manifests are not applied with plugin "+string(cni.Plugin), "set plugin: manifests, or remove them")
	}
}
