package provision

import (
	"context"
	"fmt"
	"io/fs"
	"path"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/bundle"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
)

const staged = stateDir + "/staged"

// stageDir is where the new binaries of a version wait on a host for its turn,
// each under the path that it will have.
func (u *upgrade) stageDir() string { return path.Join(staged, u.Cluster.Spec.Kubernetes.Version) }

const beforeUpgrade = stateDir + "/before"

// keptDir is where a master keeps its manifests, keys and kubeconfigs as they
// were before an upgrade to the version.
func (u *upgrade) keptDir() string {
	return path.Join(beforeUpgrade, u.Cluster.Spec.Kubernetes.Version)
}

// stage sends the new binaries to a host, beside the ones that run.
func (u *upgrade) stage(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "stage", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			waiting, err := u.unstaged(ctx, ih)
			return err == nil && len(waiting) == 0, err
		},
		Do: func(ctx context.Context) error {
			waiting, err := u.unstaged(ctx, ih)
			if err != nil {
				return err
			}
			h, err := u.host(ih.Name)
			if err != nil {
				return err
			}
			phase.Expect(ctx, sizes(waiting))
			files := make([]host.File, 0, len(waiting))
			for _, item := range waiting {
				files = append(files, u.bundleFile(ctx, item, path.Join(u.stageDir(), item.Dest), fs.FileMode(item.Mode)))
			}
			return putFiles(ctx, h, files)
		},
		Explain: func(ctx context.Context) ([]phase.Change, error) {
			waiting, err := u.unstaged(ctx, ih)
			var changes []phase.Change
			for _, item := range waiting {
				changes = append(changes, phase.Change{Kind: changeBinary, Name: path.Join(u.stageDir(), item.Dest), Text: item.Version, New: true, Bytes: item.Size})
			}
			return changes, err
		},
	}
}

// exchanged are the binaries of the bundle that a host has otherwise, or not at all.
func (u *upgrade) exchanged(ctx context.Context, ih inventory.Host) ([]bundle.Item, error) {
	h, err := u.host(ih.Name)
	if err != nil {
		return nil, err
	}
	if u.bundle == nil {
		missing, err := missingTools(ctx, h, u.Cluster.SoftwareRoles(ih), u.Cluster.Spec.Kubernetes.Version)
		if err == nil && !missing.empty() {
			err = missing.notInstalled()
		}
		return nil, err
	}
	var items []bundle.Item
	var dests []string
	for _, item := range u.bundle.For(u.Cluster.SoftwareRoles(ih)...) {
		if item.Kind == bundle.KindBinary || item.Kind == bundle.KindCNIPlugin {
			items, dests = append(items, item), append(dests, item.Dest)
		}
	}
	seen, err := h.Stat(ctx, dests...)
	if err != nil {
		return nil, err
	}
	var others []bundle.Item
	for _, item := range items {
		if at, ok := seen[item.Dest]; !ok || at.Sum != item.SHA256 || at.Mode.Perm() != fs.FileMode(item.Mode) {
			others = append(others, item)
		}
	}
	return others, nil
}

// unstaged are those of the exchanged binaries that do not wait on the host yet.
func (u *upgrade) unstaged(ctx context.Context, ih inventory.Host) ([]bundle.Item, error) {
	others, err := u.exchanged(ctx, ih)
	if err != nil || len(others) == 0 {
		return nil, err
	}
	h, err := u.host(ih.Name)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, item := range others {
		paths = append(paths, path.Join(u.stageDir(), item.Dest))
	}
	seen, err := h.Stat(ctx, paths...)
	if err != nil {
		return nil, err
	}
	var waiting []bundle.Item
	for i, item := range others {
		if seen[paths[i]].Sum != item.SHA256 || seen[paths[i]].Mode.Perm() != fs.FileMode(item.Mode) {
			waiting = append(waiting, item)
		}
	}
	return waiting, nil
}

// keepScript copies a directory as it is; what is under the final name is whole.
const keepScript = `set -eu
[ ! -e "$2" ] || exit 0
umask 077
mkdir -p -- "${2%/*}"
rm -rf -- "$2.part"
cp -a -- "$1" "$2.part"
mv -- "$2.part" "$2"
`

// keepFiles copies a master's manifests, keys and kubeconfigs before anything
// of them is changed. An earlier copy for the same version stays: it is older.
func (u *upgrade) keepFiles(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "keep", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			if due, err := u.due(ctx, ih); !due || err != nil {
				return err == nil, err
			}
			h, err := u.host(ih.Name)
			if err != nil {
				return false, err
			}
			seen, err := h.Stat(ctx, u.keptDir()+"/admin.conf")
			return len(seen) > 0, err
		},
		Do: func(ctx context.Context) error {
			h, err := u.host(ih.Name)
			if err != nil {
				return err
			}
			return runAll(ctx, h, []string{"sh", "-c", keepScript, "sh", "/etc/kubernetes", u.keptDir()})
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeFile, Name: u.keptDir(), New: true, Withheld: withheldSecret, Text: fmt.Sprintf("a copy of /etc/kubernetes of %s", ih.Name)}}, nil
		},
	}
}

// backup takes a verified snapshot to the operator's machine, as long as any
// node has not arrived: kubeadm's own way back restores nothing.
func (u *upgrade) backup() phase.Phase {
	return phase.Phase{
		Name: "backup",
		Done: func(ctx context.Context) (bool, error) {
			for _, ih := range u.Cluster.Nodes() {
				if due, err := u.due(ctx, ih); due || err != nil {
					return false, err
				}
			}
			return true, nil
		},
		Do: func(ctx context.Context) error {
			_, err := u.backupTo(ctx, u.Backup)
			return err
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return explainBackup(u.Backup), nil
		},
	}
}

// tidy takes away what was staged, when all of it is where it belongs.
func (u *upgrade) tidy(ih inventory.Host) phase.Phase {
	explain := func() []phase.Change { return []phase.Change{{Kind: changeClean, Name: staged}} }
	return phase.Phase{
		Name: "tidy", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			h, err := u.host(ih.Name)
			if err != nil {
				return false, err
			}
			seen, err := h.Stat(ctx, staged)
			return len(seen) == 0, err
		},
		Do: func(ctx context.Context) error {
			h, err := u.host(ih.Name)
			if err != nil {
				return err
			}
			return runAll(ctx, h, []string{"rm", "-rf", staged})
		},
		After:   []string{"stage"},
		Explain: func(context.Context) ([]phase.Change, error) { return explain(), nil },
		Foresee: func(context.Context, []string) (phase.State, []phase.Change, error) {
			return phase.ToChange, explain(), nil
		},
	}
}
