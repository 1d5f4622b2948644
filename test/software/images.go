package main

import (
	"maps"
	"slices"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/bundle"
)

var (
	masters   = []inventory.Role{inventory.RoleControlPlane}
	nodes     = []inventory.Role{inventory.RoleControlPlane, inventory.RoleWorker}
	balancers = []inventory.Role{inventory.RoleLoadBalancer}
)

// parts are the components of one release, built.
type parts struct {
	kubernetes, etcd, coredns, containerd, cni, cniFlannel, flannel, pause, echo built
}

// step is a component and where it goes when it is built.
type step struct {
	into *built
	what component
}

func (p *parts) steps(r release) []step {
	return []step{
		{&p.kubernetes, r.kubernetesComponent()},
		{&p.etcd, r.etcdComponent()},
		{&p.coredns, r.corednsComponent()},
		{&p.containerd, containerdComponent()},
		{&p.cni, cniComponent()},
		{&p.cniFlannel, cniFlannelComponent()},
		{&p.flannel, flannelComponent()},
		{&p.pause, pauseComponent(r.pauseTag)},
		{&p.echo, echoComponent()},
	}
}

// images lists what kubeadm asks for, the pod network and the probe.
func images(r release, p parts) []image {
	var list []image
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		list = append(list, image{ref: "registry.k8s.io/" + name + ":" + r.kubernetes, version: r.kubernetes,
			roles: masters, from: []built{p.kubernetes},
			files: map[string]string{"/usr/local/bin/" + name: p.kubernetes.file(name)}})
	}
	etcd := image{ref: "registry.k8s.io/etcd:" + r.etcdTag, version: r.etcdTag, roles: masters,
		from: []built{p.etcd}, files: map[string]string{}}
	for _, name := range []string{"etcd", "etcdctl", "etcdutl"} {
		etcd.files["/usr/local/bin/"+name] = p.etcd.file(name)
	}
	return append(list, etcd,
		image{ref: "registry.k8s.io/kube-proxy:" + r.kubernetes, version: r.kubernetes, roles: nodes,
			iptables: true, from: []built{p.kubernetes},
			files: map[string]string{"/usr/local/bin/kube-proxy": p.kubernetes.file("kube-proxy")}},
		image{ref: "registry.k8s.io/coredns/coredns:v" + r.coredns, version: "v" + r.coredns, roles: nodes,
			from: []built{p.coredns}, entrypoint: []string{"/coredns"},
			files: map[string]string{"/coredns": p.coredns.file("coredns")}},
		image{ref: "registry.k8s.io/pause:" + r.pauseTag, version: r.pauseTag, roles: nodes,
			from: []built{p.pause}, entrypoint: []string{"/pause"}, user: "65535:65535",
			files: map[string]string{"/pause": p.pause.file("pause")}},
		image{ref: "ghcr.io/flannel-io/flannel:v" + flannelVersion, version: "v" + flannelVersion, roles: nodes,
			iptables: true, from: []built{p.flannel}, entrypoint: []string{"/opt/bin/flanneld"},
			files: map[string]string{
				"/opt/bin/flanneld":     p.flannel.file("flanneld"),
				"/opt/bin/install-conf": p.flannel.file("install-conf"),
			}},
		image{ref: "ha-install.test/echo:" + echoTag, version: echoTag, roles: nodes,
			purpose: bundle.PurposeProbe, from: []built{p.echo}, entrypoint: []string{"/echo"}, user: "65532:65532",
			files: map[string]string{"/echo": p.echo.file("echo")}},
	)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
