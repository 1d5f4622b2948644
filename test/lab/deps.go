package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// packages are what the lab, the fault primitives and the box's build call.
var packages = []struct{ name, command string }{
	{"lxc", "lxc-create"},
	{"vagrant", "vagrant"},
	{"vagrant-lxc", ""},
	{"mmdebstrap", "mmdebstrap"},
	{"iproute2", "ip"},
	{"iptables", "iptables"},
	{"openssh-client", "ssh"},
	{"rsync", "rsync"},
	{"sudo", "sudo"}, // vagrant-lxc calls it even as root
	{"util-linux", "nsenter"},
}

// Deps installs the Debian packages that the lab needs and does not find. It
// does nothing, and asks no package source, when all are there.
func Deps(ctx context.Context, log io.Writer) error {
	var missing []string
	for _, p := range packages {
		if !installed(ctx, p.name, p.command) {
			missing = append(missing, p.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := needRoot(); err != nil {
		return err
	}
	fmt.Fprintf(log, "lab: installing %v\n", missing)
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	if _, err := run(ctx, env, nil, "apt-get", "update", "--quiet"); err != nil {
		return fmt.Errorf("lab: refresh the package lists: %w", err)
	}
	install := append([]string{"apt-get", "install", "--yes", "--quiet", "--no-install-recommends"}, missing...)
	if _, err := run(ctx, env, nil, install...); err != nil {
		return fmt.Errorf("lab: install %v: %w", missing, err)
	}
	return nil
}

// installed prefers the command, so that a tool from elsewhere will do too.
func installed(ctx context.Context, pkg, command string) bool {
	if command != "" {
		_, err := exec.LookPath(command)
		return err == nil
	}
	out, err := Run(ctx, "dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", pkg)
	return err == nil && len(out) >= 2 && string(out[:2]) == "ii"
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("lab: it makes containers and a bridge: run it as root, or with sudo")
	}
	return nil
}
