package provision

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// configure puts the files of a node in place (kernel settings, containerd,
// units) and starts containerd. The kubelet is left to kubeadm.
func (a *apply) configure(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "configure", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			h, files, err := a.nodeFiles(ih)
			if err != nil {
				return false, err
			}
			owed, err := changes(ctx, h, "configure", files)
			if err != nil || len(owed) > 0 {
				return false, err
			}
			return active(ctx, h, "containerd")
		},
		Do: func(ctx context.Context) error {
			h, files, err := a.nodeFiles(ih)
			if err != nil {
				return err
			}
			changed, err := owe(ctx, h, "configure", files)
			if err != nil {
				return err
			}
			if err := testContainerd(ctx, h, files); err != nil {
				return err
			}
			if err := putFiles(ctx, h, files); err != nil {
				return err
			}
			verb := "start"
			if slices.Contains(changed, templates.ContainerdConfigPath) {
				verb = "restart"
			}
			return settle(ctx, h, "configure",
				[]string{"systemctl", "daemon-reload"},
				[]string{"systemctl", "restart", "systemd-modules-load.service"},
				[]string{"sysctl", "--system"},
				[]string{"systemctl", "enable", "containerd.service", "kubelet.service"},
				[]string{"systemctl", verb, "containerd.service"})
		},
		Explain: func(ctx context.Context) ([]phase.Change, error) { return a.explainConfigure(ctx, ih) },
	}
}

// reconfigure is configure for a host that the cluster relies on: in turn, and
// after a master the next one only when its control plane runs. It starts a
// kubelet that an earlier run had to stop and could not start again.
func (a *apply) reconfigure(ih inventory.Host) phase.Phase {
	p := a.configure(ih)
	configured, configure, explain := p.Done, p.Do, p.Explain
	kubelet := func(ctx context.Context) (host.Host, bool, error) {
		h, err := a.host(ih.Name)
		if err != nil {
			return nil, false, err
		}
		up, err := active(ctx, h, "kubelet")
		return h, up, err
	}
	p.Done = func(ctx context.Context) (bool, error) {
		if done, err := configured(ctx); err != nil || !done {
			return false, err
		}
		_, up, err := kubelet(ctx)
		return up, err
	}
	p.Do = func(ctx context.Context) error {
		if err := configure(ctx); err != nil {
			return err
		}
		h, _, err := kubelet(ctx)
		if err != nil {
			return err
		}
		return runAll(ctx, h, []string{"systemctl", "start", "kubelet.service"})
	}
	p.Explain = func(ctx context.Context) ([]phase.Change, error) {
		changes, err := explain(ctx)
		if err != nil {
			return nil, err
		}
		_, up, err := kubelet(ctx)
		if err == nil && !up {
			changes = append(changes, phase.Change{Kind: changeStart, Name: "kubelet"})
		}
		return changes, err
	}
	if ih.Role == inventory.RoleControlPlane {
		p.Gate = []phase.Check{a.kubeletHealthy(ih), a.columnRuns(ih)}
		p.GateTimeout = restartGate
	}
	return p
}

func (a *apply) nodeFiles(ih inventory.Host) (host.Host, []host.File, error) {
	h, err := a.host(ih.Name)
	if err != nil {
		return nil, nil, err
	}
	rendered, err := templates.HostFiles(a.Cluster, ih)
	return h, hostFiles(rendered), err
}

// testContainerd has containerd itself read its new configuration before it
// takes the place of the old one.
func testContainerd(ctx context.Context, h host.Host, files []host.File) error {
	for _, f := range files {
		if f.Path != templates.ContainerdConfigPath {
			continue
		}
		f.Path += ".candidate"
		if _, err := h.Upload(ctx, f); err != nil {
			return err
		}
		if _, err := h.Run(ctx, host.Command{Argv: []string{"containerd", "--config", f.Path, "config", "dump"}}); err != nil {
			return fmt.Errorf("containerd refuses its new configuration, the old one stays: %w", err)
		}
		return runAll(ctx, h, []string{"rm", "-f", f.Path})
	}
	return nil
}

func hostFiles(rendered []templates.File) []host.File {
	files := make([]host.File, 0, len(rendered))
	for _, f := range rendered {
		files = append(files, host.File{Path: f.Path, Mode: f.Mode, Content: f.Content, Secret: f.Secret})
	}
	return files
}

// differing returns the paths whose content or mode is not as wanted, asking
// the host once for all of them.
func differing(ctx context.Context, h host.Reader, files []host.File) ([]string, error) {
	paths := make([]string, 0, len(files))
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	seen, err := h.Stat(ctx, paths...)
	if err != nil {
		return nil, err
	}
	var differ []string
	for _, f := range files {
		at, ok := seen[f.Path]
		if !ok || at.Sum != sum(f) || at.Mode.Perm() != f.Mode.Perm() {
			differ = append(differ, f.Path)
		}
	}
	return differ, nil
}

// sum is the SHA-256 of what the file should hold, in hex.
func sum(f host.File) string {
	if f.Sum != "" {
		return f.Sum
	}
	digest := sha256.Sum256(f.Content)
	return hex.EncodeToString(digest[:])
}

// putFiles uploads what differs; none is replaced before all have arrived.
func putFiles(ctx context.Context, h host.Host, files []host.File) error {
	_, err := host.UploadAll(ctx, h, files)
	return err
}

// owedFile notes on a host which files a phase has begun to change; it is
// there until those who read them have been told. Without it a run that broke
// off in between would leave equal files, a running daemon, and the old
// configuration in force.
func owedFile(phase string) string { return path.Join(stateDir, "owed", phase) }

// changes are the paths that differ, and those that an earlier run changed
// without telling their readers.
func changes(ctx context.Context, h host.Reader, phase string, files []host.File) ([]string, error) {
	differ, err := differing(ctx, h, files)
	if err != nil {
		return nil, err
	}
	owed, err := h.ReadFile(ctx, owedFile(phase))
	if errors.Is(err, fs.ErrNotExist) {
		return differ, nil
	}
	return append(differ, strings.Fields(string(owed))...), err
}

// owe notes on the host what is about to change, and others beside the files, and
// returns it.
func owe(ctx context.Context, h host.Host, phase string, files []host.File, others ...string) ([]string, error) {
	changed, err := changes(ctx, h, phase, files)
	if err != nil {
		return nil, err
	}
	changed = append(changed, others...)
	_, err = h.Upload(ctx, host.File{Path: owedFile(phase), Mode: 0o600, Content: []byte(strings.Join(changed, "\n"))})
	return changed, err
}

// settle runs the commands that tell the readers of changed files, and then
// takes the note away.
func settle(ctx context.Context, h host.Host, phase string, commands ...[]string) error {
	return runAll(ctx, h, append(commands, []string{"rm", "-f", owedFile(phase)})...)
}

// runAll runs commands one after the other and stops at the first that fails.
func runAll(ctx context.Context, h host.Host, commands ...[]string) error {
	for _, argv := range commands {
		if _, err := h.Run(ctx, host.Command{Argv: argv}); err != nil {
			return err
		}
	}
	return nil
}

// active says whether systemd has the unit running. One that reads its
// configuration anew just now runs, too.
func active(ctx context.Context, h host.Reader, unit string) (bool, error) {
	out, err := h.Query(ctx, "systemctl", "show", "--property", "ActiveState", "--value", unit)
	state := strings.TrimSpace(string(out))
	return state == "active" || state == "reloading", err
}
