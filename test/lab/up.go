package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// bootLimit is how long a host may take from its start to a login over SSH.
const bootLimit = 60 * time.Second

// Up brings the named hosts up, or all but the spares, and writes the lab's
// keys, known_hosts and inventory. What a killed lab or another checkout left
// is taken over or removed; hosts that are up already stay as they are.
func (l *Lab) Up(ctx context.Context, log io.Writer, wanted ...string) error {
	hosts, err := l.Select(wanted...)
	if err != nil {
		return err
	}
	if l.Provider != providerLXC {
		return l.upMachines(ctx, log, hosts)
	}
	if err := needRoot(); err != nil {
		return err
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	b, err := l.ensureBox(ctx, log)
	if err != nil {
		return err
	}
	if err := l.addBox(ctx, b); err != nil {
		return err
	}
	if err := l.takeOver(ctx, log, b); err != nil {
		return err
	}
	if err := l.ensureBridge(ctx); err != nil {
		return err
	}
	if err := l.writeFiles(); err != nil {
		return err
	}
	if err := l.vagrantUp(ctx, log, b, hosts); err != nil {
		return err
	}
	if err := l.awaitLogins(ctx, hosts); err != nil {
		return err
	}
	return l.WriteInventory(l.Inventory(), InventoryOptions{})
}

// vagrantUp asks Vagrant for the hosts that are not running; it takes seconds
// to find out that there is nothing to do.
func (l *Lab) vagrantUp(ctx context.Context, log io.Writer, b box, hosts []Host) error {
	var off []string
	for _, h := range hosts {
		state, err := l.State(ctx, h.Name)
		if err != nil {
			return err
		}
		if state != StateRunning {
			off = append(off, h.Name)
		}
	}
	if len(off) == 0 {
		return nil
	}
	fmt.Fprintf(log, "lab: vagrant up %s\n", strings.Join(off, " "))
	args := append([]string{"up", "--provider=lxc", "--parallel", "--no-provision"}, off...)
	if _, err := l.vagrant(ctx, b, args...); err != nil {
		return fmt.Errorf("lab: vagrant up: %w", err)
	}
	return nil
}

func (l *Lab) awaitLogins(ctx context.Context, hosts []Host) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, h := range hosts {
		group.Go(func() error { return l.AwaitLogin(ctx, h.Name, bootLimit) })
	}
	return group.Wait()
}

// takeOver removes containers that this checkout's Vagrant did not make of
// this box, and thaws those that a killed test left frozen.
func (l *Lab) takeOver(ctx context.Context, log io.Writer, b box) error {
	stamp := filepath.Join(l.Dir, "box")
	last, _ := os.ReadFile(stamp)
	_, bridgeErr := os.Stat(filepath.Join("/sys/class/net", l.Bridge))
	ours := string(last) == b.name && bridgeErr == nil
	existing, err := l.containers(ctx)
	if err != nil {
		return err
	}
	for _, name := range existing {
		if intact, err := isIntact(ctx, name); err != nil {
			return err
		} else if !intact {
			fmt.Fprintf(log, "lab: removing what is left of %s\n", name)
			if err := destroy(ctx, name); err != nil {
				return err
			}
			continue
		}
		i := slices.IndexFunc(l.Hosts, func(h Host) bool { return h.Container() == name })
		if i < 0 || !ours || !l.knownToVagrant(l.Hosts[i]) || !l.startsFromHere(ctx, name) {
			fmt.Fprintf(log, "lab: removing %s, left by another lab\n", name)
			if err := destroy(ctx, name); err != nil {
				return err
			}
			continue
		}
		if state, err := l.State(ctx, l.Hosts[i].Name); err != nil {
			return err
		} else if state == StateFrozen {
			if _, err := Run(ctx, "lxc-unfreeze", "--name", name); err != nil {
				return fmt.Errorf("lab: thaw %s: %w", name, err)
			}
		}
	}
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		return fmt.Errorf("lab: make its directory: %w", err)
	}
	if err := os.WriteFile(stamp, []byte(b.name), 0o644); err != nil {
		return fmt.Errorf("lab: note the box: %w", err)
	}
	return nil
}

// Down removes every container of the lab, its bridge and its files. The cache
// (box, bundles) stays. It is safe to call on half a lab or none.
func (l *Lab) Down(ctx context.Context) error {
	if l.Provider != providerLXC {
		return l.downMachines(ctx)
	}
	if err := needRoot(); err != nil {
		return err
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	existing, err := l.containers(ctx)
	if err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	for _, name := range existing {
		group.Go(func() error { return destroy(gctx, name) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := l.removeBridge(ctx); err != nil {
		return err
	}
	return l.removeFiles()
}

// isIntact says whether no killed command left the container half removed or
// half made bare.
func isIntact(ctx context.Context, container string) (bool, error) {
	path, err := containersPath(ctx)
	if err != nil {
		return false, err
	}
	_, gone := os.Stat(filepath.Join(path, "."+container))
	_, config := os.Stat(filepath.Join(path, container, "config"))
	_, recreating := os.Stat(filepath.Join(path, container, recreatingMark))
	return gone != nil && config == nil && recreating != nil, nil
}

// startsFromHere says whether the hook that the container starts with is this
// directory's: one of a checkout that was moved or copied names a path that may be gone.
func (l *Lab) startsFromHere(ctx context.Context, container string) bool {
	path, err := containersPath(ctx)
	if err != nil {
		return false
	}
	config, err := os.ReadFile(filepath.Join(path, container, "config"))
	if err != nil {
		return false
	}
	return onlyHook(string(config), filepath.Join(l.Dir, "pre-start"))
}

// onlyHook says whether each of a configuration's pre-start hooks is that program.
func onlyHook(config, program string) bool {
	found := false
	for line := range strings.Lines(config) {
		key, value, _ := strings.Cut(line, "=")
		if strings.TrimSpace(key) != "lxc.hook.pre-start" {
			continue
		}
		if fields := strings.Fields(value); len(fields) == 0 || fields[0] != program {
			return false
		}
		found = true
	}
	return found
}

// recreatingMark is there while a host's root is being made bare.
const recreatingMark = "recreating"

// Remove destroys single hosts: spares that a test had brought up.
func (l *Lab) Remove(ctx context.Context, hosts ...string) error {
	for _, host := range hosts {
		h, err := l.Host(host)
		if err != nil {
			return err
		}
		if err := destroy(ctx, h.Container()); err != nil {
			return err
		}
	}
	return nil
}

// destroy kills and removes a container; one that is gone is no error.
func destroy(ctx context.Context, container string) error {
	if err := kill(ctx, container); err != nil {
		return err
	}
	path, err := containersPath(ctx)
	if err != nil {
		return err
	}
	// Not lxc-destroy: it refuses a container whose config was half written.
	// Renamed first, so that nobody who is killed here leaves half a host that
	// looks like a whole one.
	gone := filepath.Join(path, "."+container)
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("lab: remove what is left of %s: %w", container, err)
	}
	if err := os.Rename(filepath.Join(path, container), gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lab: remove %s: %w", container, err)
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("lab: remove %s: %w", container, err)
	}
	return nil
}

// kill is the power switch. lxc-stop's exit 2 says that it was off already.
func kill(ctx context.Context, container string) error {
	_, err := Run(ctx, "lxc-stop", "--name", container, "--kill")
	var exit *RunError
	if err != nil && (!errors.As(err, &exit) || exit.Code != 2) {
		return fmt.Errorf("lab: power off %s: %w", container, err)
	}
	return nil
}

// containers lists the lab's containers on this machine, whoever made them.
func (l *Lab) containers(ctx context.Context) ([]string, error) {
	path, err := containersPath(ctx)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("lab: list containers: %w", err)
	}
	var out []string
	for _, e := range entries {
		// A dot is destroy's mark on a container that it was removing.
		if name := strings.TrimPrefix(e.Name(), "."); strings.HasPrefix(name, containerPrefix) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

func containersPath(ctx context.Context) (string, error) {
	out, err := Run(ctx, "lxc-config", "lxc.lxcpath")
	if err != nil {
		return "", fmt.Errorf("lab: find where containers lie: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// lock waits until no other lab command is at work on this machine.
func (l *Lab) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(l.Cache, 0o755); err != nil {
		return nil, fmt.Errorf("lab: make the cache: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(l.Cache, "lab.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lab: lock: %w", err)
	}
	if err := Await(ctx, "another lab command on this machine ("+f.Name()+")", lockLimit, func(context.Context) error {
		return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}); err != nil {
		return nil, errors.Join(fmt.Errorf("lab: %w", err), f.Close())
	}
	return func() { f.Close() }, nil
}

// lockLimit is longer than the slowest command, a first Up.
const lockLimit = 5 * time.Minute
