package fault

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
)

// filler is the file that takes a small file system's space.
const filler = ".ha-lab-filler"

// source names the mounts that this package makes, so that Heal finds them.
const source = "ha-lab-small"

// MaxSmallFilesystem bounds what Shrink may take: it is memory of the machine.
const MaxSmallFilesystem = 512 << 20

// Shrink lays a file system of so many bytes over the directory, with a copy
// of what is in it. (Every host's root lies on the machine's one disk; filling
// that would stop them all.) Processes that have files open there keep the old
// ones: shrink first, start them after. Undo unmounts it, and with it goes
// whatever was written since.
func (i *Injector) Shrink(ctx context.Context, host, dir string, size int64) (Undo, error) {
	if size <= 0 || size > MaxSmallFilesystem {
		return nil, fmt.Errorf("%s: shrink %s: %d bytes is not between 1 and %d", host, dir, size, int64(MaxSmallFilesystem))
	}
	dir = path.Clean(dir)
	// Filled aside and moved into place: the copy must come from what it hides.
	aside := "/run/ha-lab-" + strings.ReplaceAll(strings.Trim(dir, "/"), "/", "-")
	steps := [][]string{
		{"mkdir", "--parents", dir, aside},
		{"mount", "--types", "tmpfs", "--options", fmt.Sprintf("size=%d,mode=0755", size), source, aside},
		{"cp", "--archive", dir + "/.", aside},
		{"mount", "--bind", aside, dir},
		{"umount", aside},
		{"rmdir", aside},
	}
	undo := func(ctx context.Context) error { return i.unmount(ctx, host, dir) }
	for _, argv := range steps {
		if _, err := i.lab.Exec(ctx, host, argv...); err != nil {
			return nil, errors.Join(fmt.Errorf("shrink %s: %w", dir, err), i.unmount(ctx, host, aside), undo(ctx))
		}
	}
	return undo, nil
}

// ReadOnly makes a directory read-only, as a kernel does with a file system
// that has had an error: everything in it can be read, nothing written. What
// Shrink says of open files holds here, too. Undo makes it writable again.
func (i *Injector) ReadOnly(ctx context.Context, host, dir string) (Undo, error) {
	undo, err := i.Shrink(ctx, host, dir, readOnlySize)
	if err != nil {
		return nil, err
	}
	if _, err := i.lab.Exec(ctx, host, "mount", "--options", "remount,ro", path.Clean(dir)); err != nil {
		return nil, errors.Join(fmt.Errorf("make %s read-only: %w", dir, err), undo(ctx))
	}
	return undo, nil
}

// readOnlySize is enough for a copy of any directory of configuration.
const readOnlySize = 64 << 20

// Fill takes all the space of a directory that Shrink has made small, but for
// the bytes to leave free. Undo gives it back.
func (i *Injector) Fill(ctx context.Context, host, dir string, leave int64) (Undo, error) {
	dir = path.Clean(dir)
	out, err := i.lab.Exec(ctx, host, "findmnt", "--noheadings", "--output", "SOURCE", "--mountpoint", dir)
	if err != nil || !strings.Contains(string(out), source) {
		return nil, fmt.Errorf("%s: fill %s: it is not a file system of Shrink's: %w", host, dir, errors.Join(err, errors.New(strings.TrimSpace(string(out)))))
	}
	out, err = i.lab.Exec(ctx, host, "stat", "--file-system", "--format", "%a %S", dir)
	if err != nil {
		return nil, fmt.Errorf("fill %s: %w", dir, err)
	}
	var blocks, blockSize int64
	if _, err := fmt.Sscan(string(out), &blocks, &blockSize); err != nil {
		return nil, fmt.Errorf("%s: fill %s: read its free space from %q: %w", host, dir, out, err)
	}
	undo := func(ctx context.Context) error {
		_, err := i.lab.Exec(ctx, host, "rm", "--force", path.Join(dir, filler))
		return err
	}
	if take := blocks*blockSize - leave; take > 0 {
		if _, err := i.lab.Exec(ctx, host, "fallocate", "--length", fmt.Sprint(take), path.Join(dir, filler)); err != nil {
			return nil, errors.Join(fmt.Errorf("fill %s: %w", dir, err), undo(ctx))
		}
	}
	return undo, nil
}

// unmount is lazy: a process that still writes there must not keep the fault.
func (i *Injector) unmount(ctx context.Context, host, dir string) error {
	mounts, err := i.smallMounts(ctx, host)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m != dir {
			continue
		}
		if _, err := i.lab.Exec(ctx, host, "umount", "--lazy", dir); err != nil {
			return fmt.Errorf("take the small file system off %s: %w", dir, err)
		}
	}
	return nil
}

func (i *Injector) unmountAll(ctx context.Context, host string) error {
	mounts, err := i.smallMounts(ctx, host)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := i.unmount(ctx, host, m); err != nil {
			return err
		}
	}
	return nil
}

func (i *Injector) smallMounts(ctx context.Context, host string) ([]string, error) {
	out, err := i.lab.Exec(ctx, host, "cat", "/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var dirs []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == source {
			dirs = append(dirs, f[1])
		}
	}
	return dirs, nil
}
