package main

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
)

// release is one Kubernetes release and what its kubeadm goes with
// (cmd/kubeadm/app/constants of that release); the check after a build asks
// kubeadm itself.
type release struct {
	kubernetes string // "v1.36.3"
	etcd       string // module version, without the v
	etcdTag    string // of the image
	coredns    string // module version, without the v
	pauseTag   string // of the image
	// modules is the directory of its go.mod, "" for that of its minor. Such a
	// release is built only when it is named: for the upgrade by a patch.
	modules string
}

// releases are those that can be built, newest first.
var releases = []release{
	{kubernetes: "v1.36.3", etcd: "3.6.8", etcdTag: "3.6.8-0", coredns: "1.14.2", pauseTag: "3.10.2"},
	{kubernetes: "v1.36.1", etcd: "3.6.8", etcdTag: "3.6.8-0", coredns: "1.14.2", pauseTag: "3.10.2", modules: "k8s-1.36.1"},
	{kubernetes: "v1.35.4", etcd: "3.6.6", etcdTag: "3.6.6-0", coredns: "1.13.1", pauseTag: "3.10.1"},
}

// The versions that every release shares.
const (
	containerdVersion = "2.4.2"
	cniVersion        = "1.9.1"
	cniFlannelVersion = "0.9.1" // the last release of the plugins that had it
	flannelVersion    = "0.28.10"
	echoTag           = "1"
)

func choose(version string, all bool) ([]release, error) {
	if all {
		return slices.DeleteFunc(slices.Clone(releases), func(r release) bool { return r.modules != "" }), nil
	}
	for _, r := range releases {
		if r.kubernetes == version {
			return []release{r}, nil
		}
	}
	return nil, fmt.Errorf("no modules are pinned for Kubernetes %q; see -list", version)
}

// minor returns "1.36".
func (r release) minor() string {
	return strings.Join(strings.Split(strings.TrimPrefix(r.kubernetes, "v"), ".")[:2], ".")
}

// component is a set of commands that one module builds.
type component struct {
	dir      string // below test/software
	version  string
	nested   bool     // has a go.mod of its own
	packages []string // built to files named by their last element, but for rename
	rename   map[string]string
	vars     []string // -X
	cgo      bool     // linked statically with gcc
}

// names are the files that a build gives.
func (c component) names() []string {
	var names []string
	for _, pkg := range c.packages {
		name := path.Base(pkg)
		if len(name) == 2 && name[0] == 'v' { // a major version: go build takes the element before it
			name = path.Base(path.Dir(pkg))
		}
		names = append(names, name)
	}
	return names
}

func (r release) kubernetesComponent() component {
	c := component{dir: cmp.Or(r.modules, "k8s-"+r.minor()), version: r.kubernetes, nested: true}
	for _, name := range []string{"kubeadm", "kubelet", "kubectl", "kube-apiserver", "kube-controller-manager",
		"kube-scheduler", "kube-proxy"} {
		c.packages = append(c.packages, "k8s.io/kubernetes/cmd/"+name)
	}
	major, minor, _ := strings.Cut(r.minor(), ".")
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		c.vars = append(c.vars, pkg+".gitVersion="+r.kubernetes, pkg+".gitMajor="+major,
			pkg+".gitMinor="+minor, pkg+".gitTreeState=clean")
	}
	return c
}

func (r release) etcdComponent() component {
	return component{dir: "etcd-" + r.etcd, version: "v" + r.etcd, nested: true,
		packages: []string{"go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/etcdctl/v3", "go.etcd.io/etcd/etcdutl/v3"},
		rename:   map[string]string{"server": "etcd"}}
}

func (r release) corednsComponent() component {
	return component{dir: "coredns-" + r.coredns, version: "v" + r.coredns, nested: true,
		packages: []string{"github.com/coredns/coredns"}}
}

func containerdComponent() component {
	const module = "github.com/containerd/containerd/v2"
	return component{dir: "containerd", version: "v" + containerdVersion, nested: true,
		packages: []string{module + "/cmd/containerd", module + "/cmd/containerd-shim-runc-v2", module + "/cmd/ctr"},
		vars:     []string{module + "/version.Version=v" + containerdVersion}}
}

const pluginsModule = "github.com/containernetworking/plugins"

func cniComponent() component {
	c := component{dir: "cni", version: "v" + cniVersion, nested: true,
		vars: []string{pluginsModule + "/pkg/utils/buildversion.BuildVersion=v" + cniVersion}}
	for _, plugin := range []string{"ipam/dhcp", "ipam/host-local", "ipam/static", "main/bridge", "main/dummy",
		"main/host-device", "main/ipvlan", "main/loopback", "main/macvlan", "main/ptp", "main/tap", "main/vlan",
		"meta/bandwidth", "meta/firewall", "meta/portmap", "meta/sbr", "meta/tuning", "meta/vrf"} {
		c.packages = append(c.packages, pluginsModule+"/plugins/"+plugin)
	}
	return c
}

func cniFlannelComponent() component {
	return component{dir: "cni-flannel", version: "v" + cniFlannelVersion, nested: true,
		packages: []string{pluginsModule + "/plugins/meta/flannel"},
		vars:     []string{pluginsModule + "/pkg/utils/buildversion.BuildVersion=v" + cniFlannelVersion}}
}

func flannelComponent() component {
	const module = "github.com/flannel-io/flannel"
	return component{dir: "flannel", version: "v" + flannelVersion, nested: true,
		packages: []string{module, module + "/cmd/install_conf"},
		rename:   map[string]string{"flannel": "flanneld", "install_conf": "install-conf"},
		vars:     []string{module + "/pkg/version.Version=v" + flannelVersion},
		cgo:      true} // its udp backend does not compile without
}

func pauseComponent(tag string) component {
	return component{dir: "pause", version: tag, packages: []string{"./test/software/pause"},
		vars: []string{"main.version=" + tag}}
}

func echoComponent() component {
	return component{dir: "echo", version: echoTag, packages: []string{"./test/software/echo"}}
}
