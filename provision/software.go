package provision

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/bundle"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
)

// packageDir is where packages of the bundle lie on a host before dpkg reads them.
const packageDir = "/var/lib/ha-install/packages"

// software puts packages and binaries of the bundle on a host. What is there
// with the right version or sum is not sent again.
func (a *apply) software(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "software", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			missing, err := a.missingSoftware(ctx, ih)
			if len(missing.others) > 0 {
				phase.Tell(ctx, fmt.Sprintf("%s: left as they are, although the bundle has others: %s", ih.Name, strings.Join(missing.others, ", ")))
			}
			return err == nil && missing.empty(), err
		},
		Do: func(ctx context.Context) error {
			missing, err := a.missingSoftware(ctx, ih)
			if err != nil {
				return err
			}
			if a.bundle == nil {
				return missing.notInstalled()
			}
			h, err := a.host(ih.Name)
			if err != nil {
				return err
			}
			phase.Expect(ctx, sizes(missing.packages)+sizes(missing.binaries))
			if err := a.installPackages(ctx, h, missing.packages); err != nil {
				return err
			}
			files := make([]host.File, 0, len(missing.binaries))
			for _, item := range missing.binaries {
				files = append(files, a.bundleFile(ctx, item, item.Dest, fs.FileMode(item.Mode)))
			}
			return putFiles(ctx, h, files)
		},
		Explain: func(ctx context.Context) ([]phase.Change, error) { return a.explainSoftware(ctx, ih) },
	}
}

// missing is what a host does not have yet.
type missing struct {
	packages []bundle.Item
	binaries []bundle.Item
	tools    []string // with software.source installed: what was not found
	// others are binaries of a running node that differ from the bundle's.
	// They stay: exchanging what runs is an upgrade, one host at a time.
	others []string
}

// notInstalled is the refusal where no bundle could bring what is missing.
func (m missing) notInstalled() error {
	return fmt.Errorf("the inventory says that software is installed (spec.software.source), but the host does not have %s", strings.Join(m.tools, ", "))
}

func (m missing) empty() bool { return len(m.packages)+len(m.binaries)+len(m.tools) == 0 }

func (a *apply) missingSoftware(ctx context.Context, ih inventory.Host) (missing, error) {
	h, err := a.host(ih.Name)
	if err != nil {
		return missing{}, err
	}
	if a.bundle == nil {
		return missingTools(ctx, h, a.Cluster.SoftwareRoles(ih), a.Cluster.Spec.Kubernetes.Version)
	}
	var m missing
	installed, err := installedPackages(ctx, h)
	if err != nil {
		return m, err
	}
	var dests []string
	items := a.bundle.For(a.Cluster.SoftwareRoles(ih)...)
	for _, item := range items {
		if item.Dest != "" {
			dests = append(dests, item.Dest)
		}
	}
	seen, err := h.Stat(ctx, dests...)
	if err != nil {
		return m, err
	}
	for _, item := range items {
		switch item.Kind {
		case bundle.KindPackage:
			// A package that the distribution has brought itself, in whatever
			// version, is the host's own business; it is never up- or downgraded.
			if _, ok := installed[item.Package.Name]; !ok {
				m.packages = append(m.packages, item)
			}
		case bundle.KindBinary, bundle.KindCNIPlugin:
			at, ok := seen[item.Dest]
			switch same := at.Sum == item.SHA256 && at.Mode.Perm() == fs.FileMode(item.Mode); {
			case ok && same:
			case ok && a.facts[ih.Name].node:
				m.others = append(m.others, item.Dest)
			default:
				m.binaries = append(m.binaries, item)
			}
		}
	}
	return m, nil
}

// installedPackages are the names of the packages that dpkg has installed.
func installedPackages(ctx context.Context, h host.Reader) (map[string]bool, error) {
	out, err := h.Query(ctx, "dpkg-query", "-W", "-f", `${Package} ${db:Status-Status}\n`)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if name, status, _ := strings.Cut(strings.TrimSpace(line), " "); status == "installed" {
			names[name] = true
		}
	}
	return names, nil
}

// toolsFor are the programs that must be found when the bundle brings none.
var toolsFor = map[inventory.Role][]string{
	inventory.RoleControlPlane: {"kubeadm", "kubelet", "containerd", "ctr", "runc"},
	inventory.RoleWorker:       {"kubeadm", "kubelet", "containerd", "ctr", "runc"},
	inventory.RoleLoadBalancer: {"haproxy", "keepalived"},
}

// toolsScript prints those of its arguments that are no command.
const toolsScript = `for t; do command -v "$t" >/dev/null || echo "$t"; done`

// versionsScript prints what kubeadm and containerd say of themselves.
const versionsScript = `kubeadm version -o short && containerd --version`

func missingTools(ctx context.Context, h host.Reader, roles []inventory.Role, version string) (missing, error) {
	var m missing
	argv := []string{"sh", "-c", toolsScript, "sh"}
	for _, role := range roles {
		argv = append(argv, toolsFor[role]...)
	}
	out, err := h.Query(ctx, argv...)
	if err != nil {
		return m, err
	}
	if m.tools = strings.Fields(string(out)); len(m.tools) > 0 || !slices.ContainsFunc(roles, func(r inventory.Role) bool { return r != inventory.RoleLoadBalancer }) {
		return m, nil
	}
	said, err := h.Query(ctx, "sh", "-c", versionsScript)
	if err != nil {
		return m, err
	}
	return m, installedFits(string(said), version)
}

// containerdVersion finds the major version in "containerd github.com/... v2.4.2 <commit>".
var containerdVersion = regexp.MustCompile(`(?m)^containerd .* v?([0-9]+)\.[0-9]+\.[0-9]+`)

// installedFits compares installed software with what is to be made of it:
// kubeadm makes its own release, and our containerd configuration has the
// layout of containerd 2.
func installedFits(said, version string) error {
	kubeadm, _, _ := strings.Cut(said, "\n")
	if kubeadm = strings.TrimSpace(kubeadm); kubeadm != version {
		return fmt.Errorf("kubeadm is %s, spec.kubernetes.version is %s: install that release, or change the inventory", kubeadm, version)
	}
	m := containerdVersion.FindStringSubmatch(said)
	if m == nil {
		return fmt.Errorf("containerd does not say its version: %q", said)
	}
	if major, err := strconv.Atoi(m[1]); err != nil || major < 2 {
		return fmt.Errorf("containerd is %s, 2 or later is needed: install it, or use a bundle", m[1])
	}
	return nil
}

func (a *apply) installPackages(ctx context.Context, h host.Host, items []bundle.Item) error {
	if len(items) == 0 {
		return nil
	}
	files := make([]host.File, 0, len(items))
	// Debian starts haproxy at once, with a configuration that serves nothing;
	// the phase "balancer" reloads it with ours.
	argv := []string{"dpkg", "--install", "--force-confold"}
	for _, item := range items {
		at := path.Join(packageDir, path.Base(item.Path))
		files = append(files, a.bundleFile(ctx, item, at, 0o644))
		argv = append(argv, at)
	}
	if err := putFiles(ctx, h, files); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, dpkgPatience)
	defer cancel()
	err := phase.Wait(ctx, phase.Check{Name: "dpkg", Run: func(ctx context.Context) error {
		_, err := h.Run(ctx, host.Command{Argv: argv, Env: map[string]string{"DEBIAN_FRONTEND": "noninteractive"}})
		if err == nil || dpkgIsLocked(err) {
			return err
		}
		return phase.Final(err)
	}})
	if err != nil {
		return fmt.Errorf("installing packages: %w", err)
	}
	return nil
}

// dpkgPatience is for another dpkg to end: a machine that has just been set up
// brings its packages up to date first.
const dpkgPatience = 15 * time.Minute

// dpkgIsLocked says that another dpkg or apt is at work; ours gave up at once
// and did nothing.
func dpkgIsLocked(err error) bool {
	var run *host.RunError
	return errors.As(err, &run) && run.Code == 2 && strings.Contains(run.Stderr, "locked by another process")
}

// bundleFile is a file that comes out of the bundle; its bytes are reported
// while it is sent.
func (a *apply) bundleFile(ctx context.Context, item bundle.Item, at string, mode fs.FileMode) host.File {
	return host.File{
		Path: at, Mode: mode, Sum: item.SHA256, Size: item.Size,
		Open: func() (io.ReadCloser, error) { return phase.Count(ctx, a.bundle.Reader(item)), nil },
	}
}

func sizes(items []bundle.Item) int64 {
	var all int64
	for _, item := range items {
		all += item.Size
	}
	return all
}

// images imports the container images of the bundle that the host's containerd
// does not have under the same name with the same digest.
func (a *apply) images(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "images", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			missing, err := a.missingImages(ctx, ih)
			return len(missing) == 0, err
		},
		Do: func(ctx context.Context) error {
			missing, err := a.missingImages(ctx, ih)
			if err != nil {
				return err
			}
			h, err := a.host(ih.Name)
			if err != nil {
				return err
			}
			phase.Expect(ctx, sizes(missing))
			for _, item := range missing {
				began := time.Now()
				if err := a.importImage(ctx, h, item); err != nil {
					return fmt.Errorf("importing %s: %w", strings.Join(item.Images, ", "), err)
				}
				phase.Say(ctx, fmt.Sprintf("imported %s (%s, %s)", strings.Join(item.Images, ", "), units.Bytes(item.Size), time.Since(began).Round(100*time.Millisecond)))
			}
			return nil
		},
		After: []string{"software", "configure"},
		Explain: func(ctx context.Context) ([]phase.Change, error) {
			missing, err := a.missingImages(ctx, ih)
			return explainImages(missing), err
		},
		Foresee: func(ctx context.Context, _ []string) (phase.State, []phase.Change, error) {
			return a.foreseeImages(ctx, ih)
		},
	}
}

// importImage streams an archive into containerd and checks its sum on the way.
func (a *apply) importImage(ctx context.Context, h host.Host, item bundle.Item) error {
	archive := phase.Count(ctx, a.bundle.Reader(item))
	defer archive.Close()
	digest := sha256.New()
	_, err := h.Run(ctx, host.Command{
		Argv:  []string{"ctr", "-n", "k8s.io", "images", "import", "-"},
		Stdin: io.TeeReader(archive, digest),
	})
	if err != nil {
		return err
	}
	if _, err := io.Copy(digest, archive); err != nil { // what ctr did not need to read
		return err
	}
	if got := hex.EncodeToString(digest.Sum(nil)); got != item.SHA256 {
		remove := append([]string{"ctr", "-n", "k8s.io", "images", "rm"}, item.Images...)
		return errors.Join(fmt.Errorf("%s in the bundle is damaged: SHA-256 %s, its manifest says %s; see `ha-install bundle verify`", item.Path, got, item.SHA256),
			runAll(ctx, h, remove))
	}
	return nil
}

func (a *apply) missingImages(ctx context.Context, ih inventory.Host) ([]bundle.Item, error) {
	if a.bundle == nil {
		return nil, nil
	}
	h, err := a.host(ih.Name)
	if err != nil {
		return nil, err
	}
	out, err := h.Query(ctx, "ctr", "-n", "k8s.io", "images", "ls")
	if err != nil {
		return nil, err
	}
	have := map[string]string{} // reference -> digest
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 2 {
			have[f[0]] = f[2]
		}
	}
	var missing []bundle.Item
	for _, item := range a.bundle.For(a.Cluster.SoftwareRoles(ih)...) {
		if item.Kind != bundle.KindImage {
			continue
		}
		for _, ref := range item.Images {
			if have[ref] == "" || item.Digests[ref] != "" && have[ref] != item.Digests[ref] {
				missing = append(missing, item)
				break
			}
		}
	}
	return missing, nil
}
