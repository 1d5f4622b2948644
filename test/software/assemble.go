package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/bundle"
)

// bundle builds everything that the release needs and writes its bundle.
func (w *workshop) bundle(ctx context.Context, r release, out string) error {
	p, err := w.parts(ctx, r)
	if err != nil {
		return err
	}
	if err := w.checkVersions(ctx, r, p); err != nil {
		return err
	}
	sources := binaries(p)
	a, err := w.openApt()
	if err != nil {
		return err
	}
	root, err := w.iptablesRoot(ctx, a)
	if err != nil {
		return err
	}
	for _, img := range images(r, p) {
		file, digest, err := w.archive(ctx, img, root)
		if err != nil {
			return err
		}
		name := strings.NewReplacer("/", "_", ":", "_").Replace(img.ref)
		sources = append(sources, bundle.FromFile(bundle.Item{Path: "images/" + name + ".tar", Kind: bundle.KindImage,
			Roles: img.roles, Version: img.version, Mode: 0o644, Images: []string{img.ref},
			Digests: map[string]string{img.ref: digest}, Purpose: img.purpose}, file))
	}
	packages, err := packageSources(ctx, a)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	distribution, err := distribution()
	if err != nil {
		return err
	}
	changed, err := bundle.Create(ctx, out, bundle.Manifest{KubernetesVersion: r.kubernetes, Arch: w.arch, Distribution: distribution},
		append(sources, packages...))
	if err != nil {
		return err
	}
	if changed {
		w.say("wrote %s", out)
	} else {
		w.say("%s is up to date", out)
	}
	return w.checkImages(ctx, r, p, out)
}

// parts builds the release's components, the slowest first. What another
// release has in the same version is found built.
func (w *workshop) parts(ctx context.Context, r release) (parts, error) {
	var p parts
	for _, step := range p.steps(r) {
		b, err := w.build(ctx, step.what)
		if err != nil {
			return p, err
		}
		*step.into = b
	}
	return p, nil
}

// binaries are the executables that lie on the hosts themselves.
func binaries(p parts) []bundle.Source {
	var sources []bundle.Source
	add := func(b built, kind bundle.Kind, dir string, roles []inventory.Role, names ...string) {
		for _, name := range names {
			sources = append(sources, bundle.FromFile(bundle.Item{Path: path.Join(string(kind), name), Kind: kind,
				Roles: roles, Version: b.version, Mode: 0o755, Dest: path.Join(dir, name)}, b.file(name)))
		}
	}
	const bin = "/usr/local/bin"
	add(p.kubernetes, bundle.KindBinary, bin, nodes, "kubeadm", "kubelet")
	add(p.kubernetes, bundle.KindBinary, bin, masters, "kubectl")
	add(p.containerd, bundle.KindBinary, bin, nodes, p.containerd.names()...)
	add(p.etcd, bundle.KindBinary, bin, masters, "etcdctl", "etcdutl")
	add(p.cni, bundle.KindCNIPlugin, "/opt/cni/bin", nodes, p.cni.names()...)
	add(p.cniFlannel, bundle.KindCNIPlugin, "/opt/cni/bin", nodes, "flannel")
	return sources
}

// packageSources are the debs of all roles; one that two roles need is there once.
func packageSources(ctx context.Context, a *apt) ([]bundle.Source, error) {
	onNodes, err := a.packages(ctx, true, nodePackages)
	if err != nil {
		return nil, err
	}
	onBalancers, err := a.packages(ctx, true, balancerPackages)
	if err != nil {
		return nil, err
	}
	var sources []bundle.Source
	add := func(d deb, roles []inventory.Role) {
		sources = append(sources, bundle.FromFile(bundle.Item{Path: "packages/" + filepath.Base(d.file),
			Kind: bundle.KindPackage, Roles: roles, Version: d.version, Mode: 0o644,
			Package: &bundle.Package{Name: d.name, Version: d.version}}, d.file))
	}
	for _, d := range onNodes {
		if slices.Contains(onBalancers, d) {
			add(d, slices.Concat(nodes, balancers))
		} else {
			add(d, nodes)
		}
	}
	for _, d := range onBalancers {
		if !slices.Contains(onNodes, d) {
			add(d, balancers)
		}
	}
	return sources, nil
}

// checkVersions runs what can be run here and compares what it says it is.
func (w *workshop) checkVersions(ctx context.Context, r release, p parts) error {
	for _, c := range []struct {
		want string
		argv []string
	}{
		{r.kubernetes, []string{p.kubernetes.file("kubeadm"), "version", "-o", "short"}},
		{"Kubernetes " + r.kubernetes, []string{p.kubernetes.file("kubelet"), "--version"}},
		{"Kubernetes " + r.kubernetes, []string{p.kubernetes.file("kube-apiserver"), "--version"}},
		{"Kubernetes " + r.kubernetes, []string{p.kubernetes.file("kube-proxy"), "--version"}},
		{"etcd Version: " + r.etcd + "\n", []string{p.etcd.file("etcd"), "--version"}},
		{"etcdutl version: " + r.etcd + "\n", []string{p.etcd.file("etcdutl"), "version"}},
		{" v" + containerdVersion + " ", []string{p.containerd.file("containerd"), "--version"}},
		{"CoreDNS-" + r.coredns + "\n", []string{p.coredns.file("coredns"), "-version"}},
		{"v" + flannelVersion, []string{p.flannel.file("flanneld"), "--version"}},
		{"pause " + r.pauseTag + "\n", []string{p.pause.file("pause"), "-v"}},
	} {
		// Some say it on standard output, some (flanneld) on standard error.
		out, err := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want) {
			return fmt.Errorf("%s says %q (%v), want %q", strings.Join(c.argv, " "), out, err, c.want)
		}
	}
	return nil
}

// checkImages asks the release's own kubeadm what it wants and looks for it in
// the finished bundle.
func (w *workshop) checkImages(ctx context.Context, r release, p parts, file string) error {
	out, err := output(ctx, "", p.kubernetes.file("kubeadm"), "config", "images", "list", "--kubernetes-version", r.kubernetes)
	if err != nil {
		return err
	}
	b, err := bundle.Open(file)
	if err != nil {
		return err
	}
	defer b.Close()
	have := b.Images(inventory.RoleControlPlane)
	for _, ref := range strings.Fields(out) {
		if !slices.Contains(have, ref) {
			return fmt.Errorf("kubeadm wants the image %s, which the bundle does not have", ref)
		}
	}
	if _, ok := b.Probe(); !ok {
		return fmt.Errorf("the bundle has no probe image")
	}
	return nil
}
