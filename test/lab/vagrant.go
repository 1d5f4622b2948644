package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// vagrant runs Vagrant on this lab: its own home in the cache (boxes), its
// state in the lab's directory, no question to any update server.
func (l *Lab) vagrant(ctx context.Context, b box, args ...string) ([]byte, error) {
	env := []string{
		"VAGRANT_CWD=" + l.source(),
		"VAGRANT_HOME=" + l.vagrantHome(),
		"VAGRANT_DOTFILE_PATH=" + filepath.Join(l.Dir, "vagrant"),
		"VAGRANT_CHECKPOINT_DISABLE=1",
		"VAGRANT_BOX_UPDATE_CHECK_DISABLE=1",
		"HA_INSTALL_LAB_DIR=" + l.Dir,
		"HA_INSTALL_LAB_BOX=" + b.name,
	}
	return run(ctx, env, nil, append([]string{"vagrant"}, args...)...)
}

func (l *Lab) vagrantHome() string { return filepath.Join(l.Cache, "lab", "vagrant") }

// addBox makes the box known to Vagrant.
func (l *Lab) addBox(ctx context.Context, b box) error {
	if _, err := os.Stat(filepath.Join(l.vagrantHome(), "boxes", b.name, "0", "lxc", "metadata.json")); err == nil {
		return nil
	}
	if _, err := l.vagrant(ctx, b, "box", "add", "--force", "--provider", "lxc", "--name", b.name, b.file()); err != nil {
		return fmt.Errorf("lab: add the box to vagrant: %w", err)
	}
	return nil
}

// knownToVagrant says whether Vagrant's state of this lab made the container.
func (l *Lab) knownToVagrant(h Host) bool {
	id, err := os.ReadFile(filepath.Join(l.Dir, "vagrant", "machines", h.Name, "lxc", "id"))
	return err == nil && strings.TrimSpace(string(id)) == h.Container()
}

// upMachines is Up with virtual machines, which need neither our box nor our
// bridge; Vagrant's provisioners lay each host's files over its root.
func (l *Lab) upMachines(ctx context.Context, log io.Writer, hosts []Host) error {
	if err := l.writeFiles(); err != nil {
		return err
	}
	fmt.Fprintf(log, "lab: vagrant up --provider=%s %s\n", l.Provider, strings.Join(names(hosts), " "))
	args := append([]string{"up", "--provider=" + l.Provider, "--provision"}, names(hosts)...)
	if _, err := l.vagrant(ctx, box{}, args...); err != nil {
		return fmt.Errorf("lab: vagrant up: %w", err)
	}
	if err := l.awaitLogins(ctx, hosts); err != nil {
		return err
	}
	return l.WriteInventory(l.Inventory(), InventoryOptions{})
}

func (l *Lab) downMachines(ctx context.Context) error {
	if _, err := l.vagrant(ctx, box{}, "destroy", "--force"); err != nil {
		return fmt.Errorf("lab: vagrant destroy: %w", err)
	}
	return l.removeFiles()
}
