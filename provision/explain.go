package provision

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/aymanbagabas/go-udiff"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/bundle"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// What a plan calls the kinds of change.
const (
	changeFile        = "file"
	changePackage     = "package"
	changeBinary      = "binary"
	changeImage       = "image"
	changeSecret      = "secret"
	changeCertificate = "certificate"
	changeMembership  = "membership"
	changeStart       = "start"
	changeRestart     = "restart"
	changeReload      = "reload"
	changeRun         = "run"
	changeObject      = "object"
	changeClean       = "clean"
)

// Why a plan withholds a content.
const (
	withheldSecret = "secret"
	withheldDrawn  = "drawn by the run itself"
)

// forecast is what a plan knows of the states between its steps. A run leaves
// it empty.
type forecast struct {
	fmu      sync.Mutex
	willBear map[string]marker // by host: what it will bear
	etcd     *etcd.Verdict     // with the joins so far
}

// plannedMarker is what an earlier step of the plan will have written.
func (a *apply) plannedMarker(host string) (marker, bool) {
	a.fmu.Lock()
	defer a.fmu.Unlock()
	m, ok := a.willBear[host]
	return m, ok
}

func (a *apply) explainMarker(ctx context.Context, h host.Host, m marker) ([]phase.Change, error) {
	content, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	before, planned := a.plannedMarker(h.Name())
	a.fmu.Lock()
	if a.willBear == nil {
		a.willBear = map[string]marker{}
	}
	a.willBear[h.Name()] = m
	a.fmu.Unlock()
	f := host.File{Path: markerFile, Mode: 0o644, Content: content}
	if !planned {
		return a.explainFiles(ctx, h, []host.File{f})
	}
	old, err := json.Marshal(before)
	if err != nil {
		return nil, err
	}
	return []phase.Change{a.explainFile(f, old, true)}, nil
}

// explainFiles says which of the files differ on the host, and how.
func (a *apply) explainFiles(ctx context.Context, h host.Reader, files []host.File) ([]phase.Change, error) {
	differ, err := differing(ctx, h, files)
	if err != nil {
		return nil, err
	}
	var explained []phase.Change
	for _, f := range files {
		if !slices.Contains(differ, f.Path) {
			continue
		}
		old, err := h.ReadFile(ctx, f.Path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		explained = append(explained, a.explainFile(f, old, err == nil))
	}
	return explained, nil
}

// explainFile compares a file with what is there. What is secret, and what was
// drawn at random, is not shown.
func (a *apply) explainFile(f host.File, old []byte, there bool) phase.Change {
	c := phase.Change{Kind: changeFile, Name: f.Path, Mode: fmt.Sprintf("%04o", f.Mode.Perm()), New: !there}
	switch {
	case f.Secret:
		c.Withheld = withheldSecret
	case a.drawn(f):
		c.Withheld = withheldDrawn
	case there && bytes.Equal(old, f.Content):
		c.Text = "only its mode"
	default:
		from := f.Path
		if !there {
			from = "/dev/null"
		}
		c.Diff, c.Bytes = udiff.Unified(from, f.Path, string(old), string(f.Content)), int64(len(f.Content))
	}
	return c
}

// drawn says whether a file holds anything of a CA set that only this process
// has: the next plan would show another.
func (a *apply) drawn(f host.File) bool {
	if a.secrets == nil || !a.secrets.drawn {
		return false
	}
	return strings.HasPrefix(f.Path, kube.PKIDir+"/") || bytes.Contains(f.Content, bytes.TrimSpace(a.secrets.ca.CAPEM())) ||
		bytes.Contains(f.Content, []byte(a.secrets.ca.Fingerprint()))
}

func (a *apply) explainSecrets(context.Context) ([]phase.Change, error) {
	set := phase.Change{Kind: changeSecret, Name: "CA set", New: true, Withheld: withheldDrawn}
	if dir := a.Cluster.Spec.PKI.Directory; dir != "" {
		set = phase.Change{Kind: changeSecret, Name: "CA set", New: true, Withheld: withheldSecret, Text: fmt.Sprintf("taken from %s, fingerprint %.12s", dir, a.secrets.ca.Fingerprint())}
	}
	return []phase.Change{set, {Kind: changeSecret, Name: "key of the encryption at rest", New: true, Withheld: withheldDrawn}}, nil
}

func (a *apply) explainSoftware(ctx context.Context, ih inventory.Host) ([]phase.Change, error) {
	missing, err := a.missingSoftware(ctx, ih)
	if err != nil {
		return nil, err
	}
	if a.bundle == nil {
		return nil, missing.notInstalled()
	}
	h, err := a.host(ih.Name)
	if err != nil {
		return nil, err
	}
	var explained []phase.Change
	for _, item := range missing.packages {
		explained = append(explained, phase.Change{Kind: changePackage, Name: item.Package.Name, Text: item.Package.Version, New: true, Bytes: item.Size})
	}
	var dests []string
	for _, item := range missing.binaries {
		dests = append(dests, item.Dest)
	}
	seen, err := h.Stat(ctx, dests...)
	if err != nil {
		return nil, err
	}
	for _, item := range missing.binaries {
		_, there := seen[item.Dest]
		explained = append(explained, phase.Change{Kind: changeBinary, Name: item.Dest, Text: item.Version, New: !there, Bytes: item.Size})
	}
	return explained, nil
}

func explainImages(items []bundle.Item) []phase.Change {
	var explained []phase.Change
	for _, item := range items {
		explained = append(explained, phase.Change{Kind: changeImage, Name: strings.Join(item.Images, ", "), New: true, Bytes: item.Size})
	}
	return explained
}

// containerdState is there when containerd has ever run: it may know images
// that it cannot be asked for while it does not run.
const containerdState = "/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db"

// foreseeImages knows all where containerd runs, or has never run.
func (a *apply) foreseeImages(ctx context.Context, ih inventory.Host) (phase.State, []phase.Change, error) {
	if a.bundle == nil {
		return phase.AlreadyDone, nil, nil
	}
	h, err := a.host(ih.Name)
	if err != nil {
		return phase.NotKnown, nil, err
	}
	if missing, err := a.missingImages(ctx, ih); err == nil {
		if len(missing) == 0 {
			return phase.AlreadyDone, nil, nil
		}
		return phase.ToChange, explainImages(missing), nil
	}
	var all []bundle.Item
	for _, item := range a.bundle.For(a.Cluster.SoftwareRoles(ih)...) {
		if item.Kind == bundle.KindImage {
			all = append(all, item)
		}
	}
	seen, err := h.Stat(ctx, containerdState)
	switch {
	case err != nil:
		return phase.NotKnown, nil, err
	case len(all) == 0:
		return phase.AlreadyDone, nil, nil
	case len(seen) > 0:
		return phase.NotKnown, explainImages(all), nil
	}
	return phase.ToChange, explainImages(all), nil
}

func (a *apply) explainConfigure(ctx context.Context, ih inventory.Host) ([]phase.Change, error) {
	h, files, err := a.nodeFiles(ih)
	if err != nil {
		return nil, err
	}
	explained, err := a.explainFiles(ctx, h, files)
	if err != nil {
		return nil, err
	}
	changed, err := changes(ctx, h, "configure", files)
	if err != nil {
		return nil, err
	}
	explained = append(explained, owed(explained, changed)...)
	if len(changed) > 0 {
		explained = append(explained, phase.Change{Kind: changeReload, Name: "systemd, kernel modules, sysctl"})
	}
	up, err := active(ctx, h, "containerd")
	if err != nil {
		return nil, err
	}
	return append(explained, daemon("containerd", changeRestart, slices.Contains(changed, templates.ContainerdConfigPath), up)...), nil
}

func (a *apply) explainBalancer(ctx context.Context, ih inventory.Host, guests []inventory.Host) ([]phase.Change, error) {
	h, files, err := a.balancerFiles(ctx, ih, guests)
	if err != nil {
		return nil, err
	}
	explained, err := a.explainFiles(ctx, h, files)
	if err != nil {
		return nil, err
	}
	changed, err := changes(ctx, h, "balancer", files)
	if err != nil {
		return nil, err
	}
	explained = append(explained, owed(explained, changed)...)
	for _, unit := range balancerUnits {
		up, err := active(ctx, h, unit.name)
		if err != nil {
			return nil, err
		}
		explained = append(explained, daemon(unit.name, changeReload, slices.ContainsFunc(changed, func(p string) bool { return strings.HasPrefix(p, unit.dir) }), up)...)
	}
	return explained, nil
}

// daemon says what becomes of one whose files change, or that does not run.
func daemon(unit, verb string, changed, up bool) []phase.Change {
	switch {
	case !up:
		return []phase.Change{{Kind: changeStart, Name: unit}}
	case changed:
		return []phase.Change{{Kind: verb, Name: unit}}
	}
	return nil
}

// owed are the files that an earlier run changed without telling their readers.
func owed(explained []phase.Change, changed []string) []phase.Change {
	left := map[string]bool{}
	for _, p := range changed {
		if !slices.ContainsFunc(explained, func(c phase.Change) bool { return c.Name == p }) {
			left[p] = true
		}
	}
	var more []phase.Change
	for _, p := range slices.Sorted(maps.Keys(left)) {
		more = append(more, phase.Change{Kind: changeFile, Name: p, Text: "in place since an earlier run; its readers were not told"})
	}
	return more
}

// certificateNames are those that kubeadm makes on a master, without their keys.
func certificateNames(missing []string) []phase.Change {
	var made []phase.Change
	for _, p := range missing {
		made = append(made, phase.Change{Kind: changeCertificate, Name: p, New: true, Withheld: withheldSecret})
	}
	return made
}

// notThere are those of the paths that a host does not have.
func notThere(ctx context.Context, h host.Reader, paths []string) ([]string, error) {
	seen, err := h.Stat(ctx, paths...)
	missing := slices.DeleteFunc(slices.Clone(paths), func(p string) bool { _, ok := seen[p]; return ok })
	return missing, err
}

// diff is a unified diff of two texts, "" when they are equal.
func diff(is, wanted string) string { return udiff.Unified("the cluster", "the inventory", is, wanted) }
