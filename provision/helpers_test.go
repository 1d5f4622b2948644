//go:debug tlsmlkem=0

package provision

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/bundle"
	"github.com/ha-install/ha-install/provision/drill"
	"github.com/ha-install/ha-install/provision/haproxy"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/provision/versions"
	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/sim"
)

// testCluster is what an inventory of two balancers, three masters and a
// worker is parsed to; its CA set lies in dir/pki, its bundle in dir/bundle.tar.
func testCluster(t testing.TB) *inventory.Cluster {
	t.Helper()
	var hosts strings.Builder
	for _, h := range []struct {
		name, role string
		last       int
	}{{"lb-1", "load-balancer", 11}, {"lb-2", "load-balancer", 12}, {"cp-1", "control-plane", 21}, {"cp-2", "control-plane", 22}, {"cp-3", "control-plane", 23}, {"w-1", "worker", 31}} {
		fmt.Fprintf(&hosts, "    - {name: %s, role: %s, address: 198.51.100.%d}\n", h.name, h.role, h.last)
	}
	text := `apiVersion: ha-install.io/v1alpha1
kind: Cluster
metadata: {name: prod}
spec:
  kubernetes: {version: v1.36.3}
  endpoint: {host: 198.51.100.100}
  software: {bundle: bundle.tar}
  pki: {directory: pki}
  hosts:
` + hosts.String()
	c, _, err := inventory.Parse("inventory.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var nodeRoles = []inventory.Role{inventory.RoleControlPlane, inventory.RoleWorker}

// The versions that tests upgrade between; the first has a bundle of its own name.
const (
	olderVersion  = "v1.35.4"
	wantedVersion = "v1.36.3"
	wantedPackage = "1" // of all packages in the bundle of wantedVersion
)

// writeBundle makes the smallest bundle of a version that has one of each kind.
func writeBundle(t testing.TB, file, version string) {
	t.Helper()
	packages := wantedPackage
	if version == olderVersion {
		packages = "0"
	}
	var sources []bundle.Source
	add := func(item bundle.Item, content string) {
		item.Version = "1"
		sources = append(sources, bundle.Source{Item: item, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }})
	}
	for _, name := range []string{"kubeadm", "kubelet", "containerd"} {
		add(bundle.Item{Path: "binary/" + name, Kind: bundle.KindBinary, Roles: nodeRoles, Mode: 0o755, Dest: "/usr/local/bin/" + name}, "the program "+name+" "+version)
	}
	for i, name := range []string{"pause", "echo"} {
		ref, digest := "registry.k8s.io/"+name+":1", fmt.Sprintf("sha256:%064d", i+1)
		item := bundle.Item{Path: "images/" + name + ".tar", Kind: bundle.KindImage, Roles: nodeRoles, Mode: 0o644, Images: []string{ref}, Digests: map[string]string{ref: digest}}
		if name == "echo" {
			item.Purpose = bundle.PurposeProbe
		}
		add(item, "image "+ref+" "+digest)
	}
	for _, p := range []struct {
		name  string
		roles []inventory.Role
	}{{"runc", nodeRoles}, {"iptables", nodeRoles}, {"haproxy", []inventory.Role{inventory.RoleLoadBalancer}}, {"keepalived", []inventory.Role{inventory.RoleLoadBalancer}}} {
		add(bundle.Item{Path: "packages/" + p.name + ".deb", Kind: bundle.KindPackage, Roles: p.roles, Mode: 0o644, Package: &bundle.Package{Name: p.name, Version: packages}}, "deb "+p.name+" "+packages)
	}
	header := bundle.Manifest{KubernetesVersion: version, Arch: "amd64"}
	if _, err := bundle.Create(context.Background(), file, header, sources); err != nil {
		t.Fatal(err)
	}
}

// caSets are made once: keys take long to draw.
var caSets = sync.OnceValues(func() ([2]*pki.CASet, error) {
	var sets [2]*pki.CASet
	for i := range sets {
		var err error
		if sets[i], err = pki.New(time.Now()); err != nil {
			return sets, err
		}
	}
	return sets, nil
})

// baseDirs are two directories to run from, alike but for the CA set that each
// gives: by its set in use one sees which run decided.
func baseDirs(t testing.TB) [2]string {
	t.Helper()
	sets, err := caSets()
	if err != nil {
		t.Fatal(err)
	}
	var dirs [2]string
	for i := range dirs {
		dirs[i] = t.TempDir()
		writeBundle(t, filepath.Join(dirs[i], "bundle.tar"), wantedVersion)
		writeBundle(t, filepath.Join(dirs[i], "older.tar"), olderVersion)
		for _, f := range sets[i].Files() {
			at := filepath.Join(dirs[i], "pki", strings.TrimPrefix(f.Path, kube.PKIDir))
			if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at, f.Content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dirs
}

// newWorld is the inventory's hosts, bare.
func newWorld(t testing.TB, c *inventory.Cluster) *sim.World {
	w := sim.New(t, c)
	w.Script(entriesScript, func(h *sim.Host, args []string) ([]byte, error) { return []byte(h.Entries(args[0])), nil })
	w.Script(leftovers, func(h *sim.Host, _ []string) ([]byte, error) { h.Rules, h.Bridge = 0, ""; return nil, nil })
	w.StepScript(prepareScript, func(h *sim.Host, _ []string) []func() error { return []func() error{h.Certs, h.Kubeconfigs} })
	w.StepScript(startScript, func(h *sim.Host, args []string) []func() error {
		return []func() error{func() error { return h.EtcdManifest(args[0]) }, func() error { return h.ControlPlane(args[0]) }, h.StartKubelet}
	})
	teachJournals(w)
	w.StepScript(finishScript, func(h *sim.Host, _ []string) []func() error { return []func() error{h.StartKubelet, h.Mark} })
	w.StepScript(swapScript, func(h *sim.Host, args []string) []func() error { return h.Swap(args[0], args[1]) })
	teachUpgrades(w)
	teachRenewals(w)
	w.StepScript(goodbyeScript, func(*sim.Host, []string) []func() error { return nil }) // its kubelet starts another one
	teachRestores(w)
	w.Script(drill.StartCommand("")[2], func(h *sim.Host, args []string) ([]byte, error) { return nil, h.Strike(args[5:], drill.MostTime) })
	w.Script(drill.EndCommand()[2], func(h *sim.Host, _ []string) ([]byte, error) {
		if h.Mend() {
			return []byte(drill.Held + "\n"), nil
		}
		return nil, nil
	})
	w.Script(haproxy.DrainScript, func(h *sim.Host, args []string) ([]byte, error) { return h.Drain(args) })
	w.Script(haproxy.EnableScript, func(h *sim.Host, args []string) ([]byte, error) { return h.Enable(args) })
	w.Talk(holdScript, func(h *sim.Host, args []string, in io.Reader, out io.Writer) error { return h.Hold(args[1], in, out) })
	w.Script(endEtcdScript, func(*sim.Host, []string) ([]byte, error) { return nil, nil }) // it answers by itself, later
	w.Script(glanceScript, func(h *sim.Host, args []string) ([]byte, error) { return h.Glance(args), nil })
	w.Script(scheduleScript, func(h *sim.Host, _ []string) ([]byte, error) { return h.Schedule(), nil })
	w.Script(certificatesScript, func(h *sim.Host, args []string) ([]byte, error) { return h.Certificates(args), nil })
	w.Script(versions.Script, func(h *sim.Host, args []string) ([]byte, error) { return h.Versions(args), nil })
	w.Script(etcdCommandScript, func(h *sim.Host, _ []string) ([]byte, error) { return h.EtcdCommand(), nil })
	return w
}

// prepare runs the part of apply that comes before etcd: everything up to the
// balancers. cut may be nil.
func prepare(ctx context.Context, w *sim.World, c *inventory.Cluster, dir string, cut *sim.Cut) (phase.Tally, error) {
	ctx = w.Begin(ctx, cut)
	site := Connect(ctx, c, dir, w.Dial)
	defer site.Close()
	a := &apply{Site: site}
	if err := a.openBundle(); err != nil {
		return phase.Tally{}, err
	}
	defer a.bundle.Close()
	var run phase.Runner
	err := site.operate(ctx, "apply", &run, func(ctx context.Context) error {
		if err := site.finishSteps(ctx, &run); err != nil {
			return err
		}
		if err := a.findFirst(ctx); err != nil {
			return err
		}
		return run.Run(ctx, untilInit(a.stages()))
	})
	return run.Tally(), err
}

func untilInit(stages []phase.Stage) []phase.Stage {
	for i, s := range stages {
		if len(s.Phases) > 0 && s.Phases[0].Name == "init" {
			return stages[:i]
		}
	}
	return stages
}

// fingerprintOn is the CA set that a master holds, "" while it has no whole one.
func fingerprintOn(h *sim.Host) string {
	set, err := pki.Load(func(name string) ([]byte, error) {
		f, ok := h.Files[path.Join(kube.PKIDir, name)]
		if !ok {
			return nil, fmt.Errorf("%s: %w", name, os.ErrNotExist)
		}
		return f.Content, nil
	}, time.Now())
	if err != nil {
		return ""
	}
	return set.Fingerprint()
}

// sameSecret names what is drawn at random, for comparing two worlds.
func sameSecret(p string) string {
	switch {
	case strings.HasPrefix(p, kube.PKIDir+"/"), p == templates.HAProxyCAPath:
		return "of the CA set"
	case p == templates.EncryptionConfigPath:
		return "the encryption key"
	case p == markerFile:
		return "the cluster's marker"
	}
	return ""
}

// withoutCA is the inventory of a cluster that keeps its CA set: a run that
// made another one would make one of its own.
func withoutCA(c *inventory.Cluster) *inventory.Cluster {
	without := *c
	without.Spec.PKI.Directory = ""
	return &without
}
