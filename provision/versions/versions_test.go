package versions

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/provision/bundle"
)

// aMaster is what the script has printed on a master and on a balancer of the
// lab, with the other manifests and most of this one left out.
const aMaster = `program=kubelet
| Kubernetes v1.36.3
program=kubeadm
| v1.36.3
program=kubectl
| Client Version: v1.36.3
| Kustomize Version: v5.8.1
program=containerd
| containerd github.com/containerd/containerd/v2 v2.4.2 
program=runc
| runc version 1.1.5+ds1
| commit: 1.1.5+ds1-1+deb12u1
| spec: 1.0.2-dev
program=haproxy
| HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/
| Status: long-term supported branch - will stop receiving fixes around Q2 2027.
| Known bugs: http://www.haproxy.org/bugs/bugs-2.6.12.html
program=keepalived
| Keepalived v2.2.7 (01/16,2022)
| 
| Copyright(C) 2001-2022 Alexandre Cassen, <acassen@gmail.com>
manifest=/etc/kubernetes/manifests/etcd.yaml
| apiVersion: v1
| kind: Pod
| metadata:
|   name: etcd
| spec:
|   containers:
|   - command:
|     - etcd
|     image: registry.k8s.io/etcd:3.6.8-0
|     name: etcd

`

func TestParse(t *testing.T) {
	want := Set{Pods: map[string]string{"etcd": "3.6.8-0"}, Programs: map[string]string{
		"kubelet": "v1.36.3", "kubeadm": "v1.36.3", "kubectl": "v1.36.3", "containerd": "v2.4.2", "runc": "1.1.5+ds1", "haproxy": "2.6.12-1+deb12u4", "keepalived": "v2.2.7",
	}}
	got := parse([]byte(aMaster))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got.Of("etcd") != "3.6.8-0" || got.Of("runc") != "1.1.5+ds1" || got.Of("nothing") != "" {
		t.Errorf("by name: %q %q %q", got.Of("etcd"), got.Of("runc"), got.Of("nothing"))
	}
	if none := parse(nil); len(none.Pods)+len(none.Programs) > 0 {
		t.Errorf("of nothing: %v", none)
	}
}

func TestVersion(t *testing.T) {
	for _, row := range []struct{ said, want string }{
		{"Kubernetes v1.36.3\n", "v1.36.3"},
		{"Kubernetes v1.37.0-rc.1\n", "v1.37.0-rc.1"},
		{"containerd containerd.io 1.7.24 88bf19b2105c8b17560993bee28a01ddc2f97182", "1.7.24"},
		{"runc version 1.1", "?"},
		{"error while loading shared libraries: libseccomp.so.2", "?"},
		{"at 10.0.0.1:80", "?"},
		{"", "?"},
	} {
		if got := version(row.said); got != row.want {
			t.Errorf("%q: %q", row.said, got)
		}
	}
}

func TestPodTag(t *testing.T) {
	container := func(name, image string) string { return "  - name: " + name + "\n    image: " + image + "\n" }
	const head = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n"
	for _, row := range []struct{ name, manifest, want string }{
		{"kubeadm's", head + container("etcd", "registry.k8s.io/etcd:3.6.8-0"), "3.6.8-0"},
		{"a registry with a port", head + container("etcd", "mirror.example.com:5000/k8s/etcd:3.6.8-0"), "3.6.8-0"},
		{"with a digest beside it", head + container("etcd", "registry.k8s.io/etcd:3.6.8-0@sha256:0123"), "3.6.8-0"},
		{"a digest alone", head + container("etcd", "registry.k8s.io/etcd@sha256:0123"), "?"},
		{"no tag", head + container("etcd", "mirror.example.com:5000/etcd"), "?"},
		{"beside another container", head + container("proxy", "example.com/proxy:9") + container("etcd", "registry.k8s.io/etcd:3.6.8-0"), "3.6.8-0"},
		{"of another name, alone", head + container("server", "registry.k8s.io/etcd:3.6.8-0"), "3.6.8-0"},
		{"of other names", head + container("a", "a:1") + container("b", "b:2"), "?"},
		{"no container", "apiVersion: v1\nkind: Pod\n", "?"},
		{"no YAML", "\tnonsense", "?"},
	} {
		if got := podTag("etcd", []byte(row.manifest)); got != row.want {
			t.Errorf("%s: %q", row.name, got)
		}
	}
}

// TestScriptInAShell runs the script with programs of a directory's.
func TestScriptInAShell(t *testing.T) {
	dir := t.TempDir()
	program := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program("kubelet", `[ "$*" = --version ] && echo Kubernetes v1.35.4`)
	program("kubeadm", `[ "$*" = "version -o short" ] && echo v1.36.3`)
	program("kubectl", `[ "$*" = "version --client" ] && printf 'Client Version: v1.36.2\nKustomize Version: v5.8.1\n'`)
	program("haproxy", `[ "$*" = -v ] && echo HAProxy version 2.6.12-1+deb12u4 2026/05/04`)
	program("keepalived", `[ "$*" = --version ] && printf 'Keepalived v2.2.7\n\na\nb\nc 9.9.9\n' >&2`)
	program("runc", `cat; exit 1`) // reads nothing of ours
	for _, tool := range []string{"sh", "sed", "cat"} {
		at, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(at, filepath.Join(dir, tool)); err != nil {
			t.Fatal(err)
		}
	}
	argv := append([]string{"-c", Script, "ha-install-versions"}, append(append([]string{}, OfNodes...), OfBalancers...)...)
	c := exec.CommandContext(t.Context(), filepath.Join(dir, "sh"), argv...)
	c.Env = []string{"PATH=" + dir}
	c.Stdin = strings.NewReader("9.9.9\n")
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := map[string]string{"kubelet": "v1.35.4", "kubeadm": "v1.36.3", "kubectl": "v1.36.2", "haproxy": "2.6.12-1+deb12u4", "keepalived": "v2.2.7", "runc": "?"}
	if diff := cmp.Diff(want, parse(out).Programs); diff != "" { // no containerd
		t.Errorf("(-want +got):\n%s\n%s", diff, out)
	}
	if strings.Contains(string(out), "9.9.9") {
		t.Errorf("more than three lines of a program, or our input:\n%s", out)
	}
}

func TestOffered(t *testing.T) {
	image := func(refs ...string) bundle.Item { return bundle.Item{Kind: bundle.KindImage, Images: refs} }
	got := Offered(bundle.Manifest{Items: []bundle.Item{
		image("registry.k8s.io/kube-apiserver:v1.36.3"), image("registry.k8s.io/etcd:3.6.8-0"), image("registry.k8s.io/pause:3.10.2"),
		{Kind: bundle.KindBinary, Dest: "/usr/local/bin/kubelet", Version: "v1.36.3"}, {Kind: bundle.KindBinary, Dest: "/usr/local/bin/ctr", Version: "v2.4.2"},
		{Kind: bundle.KindCNIPlugin, Dest: "/opt/cni/bin/runc", Version: "v9.9.9"},
		{Kind: bundle.KindPackage, Version: "x", Package: &bundle.Package{Name: "runc", Version: "1.1.5+ds1-1+deb12u1"}},
		{Kind: bundle.KindPackage, Package: &bundle.Package{Name: "kmod", Version: "30"}},
	}})
	want := Set{Pods: map[string]string{"kube-apiserver": "v1.36.3", "etcd": "3.6.8-0"}, Programs: map[string]string{"kubelet": "v1.36.3", "runc": "1.1.5+ds1-1+deb12u1"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
