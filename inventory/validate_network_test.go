package inventory

import "testing"

// TestNetwork: endpoint, balancer and networks fit together.
func TestNetwork(t *testing.T) {
	for _, r := range []row{
		{
			name: "no endpoint", old: `  endpoint:
    host: 192.0.2.10
`,
			want: `f:5:1: spec.endpoint.host: missing; want the virtual IP address, or the DNS name of the balancer`,
		},
		{
			name: "an endpoint that is nothing", old: "host: 192.0.2.10", with: "host: https://k8s",
			want: `f:9:11: spec.endpoint.host: "https://k8s" is neither an IP address nor a DNS name; want the bare name or address, without the scheme`,
		},
		{
			name: "an endpoint on loopback", old: "host: 192.0.2.10", with: "host: 127.0.0.1",
			want: `f:9:11: spec.endpoint.host: 127.0.0.1 is a loopback address; want an address that the other hosts can reach`,
		},
		{
			name: "an endpoint's port 0", old: "host: 192.0.2.10", with: "host: 192.0.2.10\n    port: 0",
			want: `f:10:11: spec.endpoint.port: 0 is not a port; want 1 to 65535`,
		},
		{
			name: "an endpoint's port out of range", old: "host: 192.0.2.10", with: "host: 192.0.2.10\n    port: 65536",
			want: `f:10:11: spec.endpoint.port: 65536 is not a port; want 1 to 65535`,
		},
		{
			name: "empty values that have defaults",
			old:  "host: 192.0.2.10\n", with: `host: 192.0.2.10
  loadBalancer: {mode: ""}
  network: {podCIDR: "", dnsDomain: ""}
`,
			want: `f:10:24: spec.loadBalancer.mode: "" is not known; want one of dedicated, masters, external
f:11:22: spec.network.podCIDR: "" is not a network; want one such as 10.244.0.0/16
f:11:37: spec.network.dnsDomain: "" is not a DNS domain; want one such as cluster.local`,
		},
		{
			name: "an endpoint that is a control plane host", old: "host: 192.0.2.10", with: "host: 192.0.2.13",
			want: `f:9:11: spec.endpoint.host: the address of one control-plane host, spec.hosts[2] (line 17): clients would be lost with it; want the address of the balancer: a free one that keepalived can move, or a DNS name`,
		},
		{
			name: "an endpoint that is a control plane host's internal address",
			old: `    host: 192.0.2.10
  hosts:
    - name: cp-1
      address: 192.0.2.11
`, with: `    host: 10.0.0.1
  hosts:
    - name: cp-1
      address: 192.0.2.11
      internalAddress: 10.0.0.1
`,
			want: `f:9:11: spec.endpoint.host: the address of one control-plane host, spec.hosts[0] (line 11): clients would be lost with it; want the address of the balancer: a free one that keepalived can move, or a DNS name`,
		},
		{
			name: "an endpoint that is a control plane host's name",
			old: `host: 192.0.2.10
  hosts:
    - name: cp-1
      address: 192.0.2.11`, with: `host: CP-1.example.com
  loadBalancer: {vip: 192.0.2.10}
  hosts:
    - name: cp-1
      address: cp-1.example.com
      internalAddress: 192.0.2.11`,
			want: `f:9:11: spec.endpoint.host: the address of one control-plane host, spec.hosts[0] (line 12): clients would be lost with it; want the address of the balancer: a free one that keepalived can move, or a DNS name`,
		},
		{
			name: "an endpoint that is a worker",
			old: `host: 192.0.2.10
  hosts:
`, with: `host: 192.0.2.31
  hosts:
    - {name: w, address: 192.0.2.31, role: worker}
`,
			want: `f:9:11: spec.endpoint.host: the address of one worker host, spec.hosts[0] (line 11): clients would be lost with it; want the address of the balancer: a free one that keepalived can move, or a DNS name`,
		},
		{
			name: "an endpoint that is a load-balancer host", old: "host: 192.0.2.10", with: "host: 192.0.2.21",
			want: `f:9:11: spec.endpoint.host: the own address of a load-balancer host, spec.hosts[3] (line 20): clients would be lost with it; want a free address of the same network, for keepalived to move`,
		},
		{
			name: "an endpoint by name without a VIP", old: "host: 192.0.2.10", with: "host: k8s.example.com",
			want: `f:5:1: spec.loadBalancer.vip: missing; endpoint.host is a DNS name: want the address behind it, for keepalived to move`,
		},
		{name: "an endpoint by name with a VIP", old: "host: 192.0.2.10", with: "host: k8s.example.com\n  loadBalancer: {vip: 192.0.2.10}"},
		{
			name: "a VIP that is no address", old: "host: 192.0.2.10", with: "host: k8s.example.com\n  loadBalancer: {vip: k8s}",
			want: `f:10:23: spec.loadBalancer.vip: "k8s" is not an IP address; want one such as 192.0.2.11`,
		},
		{
			name: "a VIP that is a host", old: "host: 192.0.2.10", with: "host: k8s.example.com\n  loadBalancer: {vip: 192.0.2.22}",
			want: `f:10:23: spec.loadBalancer.vip: the own address of spec.hosts[4] (line 24); want a free address of the balancers' network`,
		},
		{
			name: "a VIP that is not the endpoint", old: "  hosts:\n", with: `  loadBalancer: {vip: 192.0.2.9}
  hosts:
`,
			want: `f:10:23: spec.loadBalancer.vip: 192.0.2.9 is not the address that clients use, spec.endpoint.host (line 9); remove vip, or write 192.0.2.10`,
		},
		{name: "a VIP that is the endpoint", old: "  hosts:\n", with: `  loadBalancer: {vip: 192.0.2.10}
  hosts:
`},
		{
			name: "a VIP inside the service network",
			old:  "host: 192.0.2.10", with: "host: k8s.example.com\n  loadBalancer: {vip: 10.96.0.10}",
			want: `f:10:23: spec.loadBalancer.vip: 10.96.0.10 is inside the service network 10.96.0.0/12, the default of spec.network.serviceCIDR; want the cluster's own networks where no machine is`,
		},
		{
			name: "an endpoint inside the pod network", old: "host: 192.0.2.10", with: "host: 10.244.0.10",
			want: `f:9:11: spec.endpoint.host: 10.244.0.10 is inside the pod network 10.244.0.0/16, the default of spec.network.podCIDR; want the cluster's own networks where no machine is`,
		},
		{
			name: "the API servers' own port, with the balancer beside them",
			old:  "    host: 192.0.2.10\n" + hostsOfBase, with: "    host: 192.0.2.10\n    port: 6443\n  loadBalancer: {mode: masters}\n" + mastersOfBase,
			want: `f:10:11: spec.endpoint.port: 6443 is where the API server of each master listens itself, and spec.loadBalancer.mode (line 11) is masters: HAProxy on the same host needs another port; remove it for 8443, or take another one`,
		},
		{
			name: "the kubelet's port, with the balancer beside it",
			old:  "    host: 192.0.2.10\n" + hostsOfBase, with: "    host: 192.0.2.10\n    port: 10250\n  loadBalancer: {mode: masters}\n" + mastersOfBase,
			want: `f:10:11: spec.endpoint.port: 10250 is where the kubelet of each master listens itself, and spec.loadBalancer.mode (line 11) is masters: HAProxy on the same host needs another port; remove it for 8443, or take another one`,
		},
		{
			name: "a balancer on the masters", old: hostsOfBase,
			with: "  loadBalancer: {mode: masters, interface: eth1, virtualRouterID: 7}\n" + mastersOfBase,
		},
		{
			name: "a balancer on the masters behind a name without a VIP",
			old:  "host: 192.0.2.10\n" + hostsOfBase, with: "host: k8s.example.com\n  loadBalancer: {mode: masters}\n" + mastersOfBase,
			want: `f:10:3: spec.loadBalancer.vip: missing; endpoint.host is a DNS name: want the address behind it, for keepalived to move`,
		},
		{
			name: "a router ID out of range", old: "  hosts:\n", with: `  loadBalancer: {virtualRouterID: 0}
  hosts:
`,
			want: `f:10:35: spec.loadBalancer.virtualRouterID: 0 is out of range; want 1 to 255, one that no other VRRP on this network uses`,
		},
		{
			name: "a router ID of 256", old: "  hosts:\n", with: `  loadBalancer: {virtualRouterID: 256}
  hosts:
`,
			want: `f:10:35: spec.loadBalancer.virtualRouterID: 256 is out of range; want 1 to 255, one that no other VRRP on this network uses`,
		},
		{
			name: "an interface that is none", old: "  hosts:\n", with: `  loadBalancer: {interface: eth0 eth1}
  hosts:
`,
			want: `f:10:29: spec.loadBalancer.interface: "eth0 eth1" is not an interface's name; want a name such as eth0`,
		},
		{
			name: "a network that is none", old: "  software:\n", with: `  network: {podCIDR: 10.244.0.0}
  software:
`,
			want: `f:26:22: spec.network.podCIDR: "10.244.0.0" is not a network; want one such as 10.244.0.0/16`,
		},
		{
			name: "a network with host bits", old: "  software:\n", with: `  network: {serviceCIDR: 10.96.0.1/16}
  software:
`,
			want: `f:26:26: spec.network.serviceCIDR: 10.96.0.1/16 has bits set after its first 16; write 10.96.0.0/16`,
		},
		{
			name: "two networks where one is wanted",
			old:  "  software:\n", with: `  network: {podCIDR: "10.244.0.0/16,2001:db8::/56"}
  software:
`,
			want: `f:26:22: spec.network.podCIDR: more than one network; want one: dual stack is not supported`,
		},
		{
			name: "an IPv4 network in IPv6 form", old: "  software:\n", with: `  network: {podCIDR: "::ffff:10.244.0.0/112"}
  software:
`,
			want: `f:26:22: spec.network.podCIDR: ::ffff:10.244.0.0/112 is an IPv4 network in IPv6 form; want one such as 10.244.0.0/16`,
		},
		{
			name: "a service network that is too large",
			old:  "  software:\n", with: `  network: {serviceCIDR: 10.0.0.0/11, podCIDR: 172.16.0.0/16}
  software:
`,
			want: `f:26:26: spec.network.serviceCIDR: 10.0.0.0/11 is too large for Services; want a /12 to /28`,
		},
		{
			name: "a service network that is too small", old: "  software:\n", with: `  network: {serviceCIDR: 10.96.0.0/29}
  software:
`,
			want: `f:26:26: spec.network.serviceCIDR: 10.96.0.0/29 is too small for Services; want a /12 to /28`,
		},
		{
			name: "a pod network that is too small for a node", old: "  software:\n", with: `  network: {podCIDR: 10.244.0.0/25}
  software:
`,
			want: `f:26:22: spec.network.podCIDR: 10.244.0.0/25 is too small: every node takes a /24 of it; want a /8 to /22`,
		},
		{
			name: "a pod network that is too small for these nodes",
			old:  "  software:\n", with: `  network: {podCIDR: 10.244.0.0/23}
  software:
`,
			want: `f:26:22: spec.network.podCIDR: 10.244.0.0/23 has room for 2 nodes of a /24 each, and there are 3; want a larger network`,
		},
		{
			name: "a pod network that is too large", old: "  software:\n", with: `  network: {podCIDR: 172.0.0.0/7}
  software:
`,
			want: `f:26:22: spec.network.podCIDR: 172.0.0.0/7 is too large: kubeadm takes at most a /8; want a /8 to /22`,
		},
		{name: "a small pod network with a node mask of its own",
			old: "  software:\n", with: `  network: {podCIDR: 10.244.0.0/25}
  kubeadm: {clusterConfiguration: {controllerManager: {extraArgs: [{name: node-cidr-mask-size, value: "27"}]}}}
  software:
`},
		{
			name: "networks that overlap",
			old:  "  software:\n", with: `  network: {podCIDR: 10.100.0.0/16, serviceCIDR: 10.96.0.0/12}
  software:
`,
			want: `f:26:22: spec.network.podCIDR: the pod network 10.100.0.0/16 and the service network 10.96.0.0/12 overlap; want two networks that share no address; the other is spec.network.serviceCIDR`,
		},
		{
			name: "a network that overlaps with a default",
			old:  "  software:\n", with: `  network: {serviceCIDR: 10.244.128.0/20}
  software:
`,
			want: `f:26:26: spec.network.serviceCIDR: the pod network 10.244.0.0/16 and the service network 10.244.128.0/20 overlap; want two networks that share no address; the other is spec.network.podCIDR`,
		},
		{
			name: "networks of different families", old: "  software:\n", with: `  network: {podCIDR: "2001:db8:1::/56"}
  software:
`,
			want: `f:26:22: spec.network.podCIDR: 2001:db8:1::/56 and 10.96.0.0/12 are of different IP families; want both IPv4 or both IPv6`,
		},
		{
			name: "hosts of another family",
			old:  "  software:\n", with: `  network: {podCIDR: "2001:db8:1::/56", serviceCIDR: "2001:db8:2::/112"}
  software:
`,
			want: `f:11:7: spec.hosts[0].internalAddress: 192.0.2.11 and the pod network 2001:db8:1::/56 are of different IP families; want both IPv4 or both IPv6; the networks are set in spec.network
f:14:7: spec.hosts[1].internalAddress: 192.0.2.12 and the pod network 2001:db8:1::/56 are of different IP families; want both IPv4 or both IPv6; the networks are set in spec.network
f:17:7: spec.hosts[2].internalAddress: 192.0.2.13 and the pod network 2001:db8:1::/56 are of different IP families; want both IPv4 or both IPv6; the networks are set in spec.network`,
		},
		{
			name: "a host inside the pod network", old: "  software:\n", with: `  network: {podCIDR: 192.0.0.0/16}
  software:
`,
			want: `f:9:11: spec.endpoint.host: 192.0.2.10 is inside the pod network 192.0.0.0/16, spec.network.podCIDR (line 26); want the cluster's own networks where no machine is
f:12:16: spec.hosts[0].address: 192.0.2.11 is inside the pod network 192.0.0.0/16, spec.network.podCIDR (line 26); want the cluster's own networks where no machine is
f:15:16: spec.hosts[1].address: 192.0.2.12 is inside the pod network 192.0.0.0/16, spec.network.podCIDR (line 26); want the cluster's own networks where no machine is
f:18:16: spec.hosts[2].address: 192.0.2.13 is inside the pod network 192.0.0.0/16, spec.network.podCIDR (line 26); want the cluster's own networks where no machine is
f:21:16: spec.hosts[3].address: 192.0.2.21 is inside the pod network 192.0.0.0/16, spec.network.podCIDR (line 26); want the cluster's own networks where no machine is
f:24:16: spec.hosts[4].address: 192.0.2.22 is inside the pod network 192.0.0.0/16, spec.network.podCIDR (line 26); want the cluster's own networks where no machine is`,
		},
		{
			name: "a host inside the default service network", old: "address: 192.0.2.11", with: "address: 10.100.0.1",
			want: `f:12:16: spec.hosts[0].address: 10.100.0.1 is inside the service network 10.96.0.0/12, the default of spec.network.serviceCIDR; want the cluster's own networks where no machine is`,
		},
		{
			name: "an internal address inside the pod network",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      internalAddress: 10.244.3.4
`,
			want: `f:13:24: spec.hosts[0].internalAddress: 10.244.3.4 is inside the pod network 10.244.0.0/16, the default of spec.network.podCIDR; want the cluster's own networks where no machine is`,
		},
		{
			name: "a domain that is none", old: "  software:\n", with: `  network: {dnsDomain: Cluster.Local}
  software:
`,
			want: `f:26:24: spec.network.dnsDomain: "Cluster.Local" is not a DNS domain; want one such as cluster.local`,
		},
		{
			name: "an unknown CNI plugin", old: "  software:\n", with: `  network: {cni: {plugin: manifest}}
  software:
`,
			want: `f:26:27: spec.network.cni.plugin: "manifest" is not known; did you mean manifests?`,
		},
		{
			name: "manifests that are not applied", old: "  software:\n", with: `  network: {cni: {manifests: [a.yaml]}}
  software:
`,
			want: `f:26:19: spec.network.cni.manifests: manifests are not applied with plugin flannel; set plugin: manifests, or remove them`,
		},
		{
			name: "no manifests", old: "  software:\n", with: `  network: {cni: {plugin: manifests}}
  software:
`,
			want: `f:26:13: spec.network.cni.manifests: missing, and plugin is manifests; list the files to apply, in order`,
		},
		{
			name: "an empty manifest", old: "  software:\n", with: `  network: {cni: {plugin: manifests, manifests: [""]}}
  software:
`,
			want: `f:26:50: spec.network.cni.manifests[0]: an empty item; fill it in or remove it`,
		},
		{
			name: "an unknown backend", old: "  software:\n", with: `  network: {cni: {backend: hostgw2}}
  software:
`,
			want: `f:26:28: spec.network.cni.backend: "hostgw2" is not known; did you mean host-gw?`,
		},
		{
			name: "a backend of no flannel", old: "  software:\n", with: `  network: {cni: {plugin: none, backend: vxlan}}
  software:
`,
			want: `f:26:42: spec.network.cni.backend: a backend is flannel's, and plugin is none; set plugin: flannel, or remove it`,
		},
	} {
		r.run(t)
	}
}
