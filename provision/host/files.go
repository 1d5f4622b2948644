package host

import (
	"bytes"
	"context"
	_ "embed" // for the scripts
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"
)

// The scripts are constant; what varies is given to them as arguments.
var (
	//go:embed scripts/stat.sh
	statScript string
	//go:embed scripts/read.sh
	readScript string
	//go:embed scripts/aside.sh
	asideScript string
)

// script is the argv that runs a constant script with arguments. Comments stay
// here: sudo logs every command line on the host.
func script(text, name string, args ...string) []string {
	var code []string
	for _, line := range strings.Split(text, "\n") {
		if t := strings.TrimSpace(line); t != "" && t[0] != '#' {
			code = append(code, line)
		}
	}
	return append([]string{"sh", "-c", strings.Join(code, "\n"), name}, args...)
}

// maxArguments keeps one command line below the 128 KiB that Linux permits for
// a single argument, which the line is to the user's login shell.
const maxArguments = 64 << 10

// ReadFile returns a file's bytes, read as root; a missing file is fs.ErrNotExist.
func (h *SSH) ReadFile(ctx context.Context, name string) ([]byte, error) {
	out, err := h.Query(ctx, script(readScript, "read", name)...)
	if err != nil {
		return nil, h.fileError("read", name, err)
	}
	return out, nil
}

const exitMissing = 44

// fileError says what was done to which file, in place of the script.
func (h *SSH) fileError(verb, name string, err error) error {
	var run *RunError
	if !errors.As(err, &run) {
		return err
	}
	if run.Code == exitMissing {
		return fmt.Errorf("%s: %w", h.cfg.Name, &fs.PathError{Op: verb, Path: name, Err: fs.ErrNotExist})
	}
	brief := *run
	brief.Argv = []string{verb, name}
	return &brief
}

// Stat describes the paths in one round trip (more for thousands); a missing
// path has no entry. Symbolic links are followed; one that leads nowhere is
// described itself. Sum is filled for regular files only.
func (h *SSH) Stat(ctx context.Context, paths ...string) (map[string]FileInfo, error) {
	found := map[string]FileInfo{}
	for len(paths) > 0 {
		n := chunk(paths)
		if err := h.statSome(ctx, statScript, "", paths[:n], found); err != nil {
			return nil, err
		}
		paths = paths[n:]
	}
	return found, nil
}

// chunk is how many of the arguments fit into one command line.
func chunk(args []string) int {
	size := 0
	for i, a := range args {
		if size += len(a) + 3; size > maxArguments && i > 0 {
			return i
		}
	}
	return len(args)
}

// statSome describes some paths; how is for a script that also changes something.
func (h *SSH) statSome(ctx context.Context, text, how string, paths []string, found map[string]FileInfo) error {
	var out []byte
	errs := &tail{max: maxArguments * 4}
	argv := script(text, "stat", paths...)
	err := h.idempotent(ctx, func(l *link) (err error) {
		*errs = tail{max: errs.max}
		out, err = h.exec(ctx, l, execution{argv: argv, stderr: errs, fenced: how})
		return err
	})
	if err == nil {
		err = onlyMissing(errs.String())
	}
	if err == nil {
		err = parseStat(out, found, strings.Contains(errs.String(), "sha256sum: "))
	}
	if err != nil {
		return h.named([]string{"stat", paths[0]}, h.fileError("stat", paths[0], err))
	}
	return nil
}

// onlyMissing passes complaints about paths that are not there and no others:
// an I/O error must not look like a missing file. What sudo or the login shell
// has to say is not about files.
func onlyMissing(stderr string) error {
	for _, line := range strings.Split(strings.TrimSpace(stderr), "\n") {
		if !strings.HasPrefix(line, "stat: ") && !strings.HasPrefix(line, "sha256sum: ") {
			continue
		}
		if !strings.HasSuffix(line, ": No such file or directory") && !strings.HasSuffix(line, ": Not a directory") {
			return errors.New(line)
		}
	}
	return nil
}

// parseStat adds what the script printed to found. A regular file without a
// sum has vanished between the two if sha256sum said so.
func parseStat(out []byte, found map[string]FileInfo, vanished bool) error {
	sums := false
	for _, record := range bytes.Split(out, []byte{0}) {
		switch r := string(record); {
		case r == "":
		case r == "--":
			sums = true
		case sums && len(r) > 66 && r[64:66] == "  ":
			if info, ok := found[r[66:]]; ok && isHex(r[:64]) {
				info.Sum = r[:64]
				found[r[66:]] = info
			}
		default:
			name, info, err := parseStatRecord(r)
			if err != nil {
				return err
			}
			found[name] = info
		}
	}
	for name, info := range found {
		switch {
		case !info.Mode.IsRegular() || info.Sum != "":
		case vanished:
			delete(found, name)
		default:
			return fmt.Errorf("stat: no sum of %s", name)
		}
	}
	return nil
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

func parseStatRecord(r string) (string, FileInfo, error) {
	f := strings.SplitN(r, " ", 4)
	if len(f) != 4 {
		return "", FileInfo{}, fmt.Errorf("stat: cannot understand %.80q", r)
	}
	mode, err1 := strconv.ParseUint(f[0], 16, 32)
	size, err2 := strconv.ParseInt(f[1], 10, 64)
	mtime, err3 := strconv.ParseInt(f[2], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return "", FileInfo{}, fmt.Errorf("stat: cannot understand %.80q: %w", r, err)
	}
	return f[3], FileInfo{Mode: fileMode(uint32(mode)), Size: size, MTime: time.Unix(mtime, 0).UTC()}, nil
}

// fileMode translates Linux's st_mode.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & 0xf000 {
	case 0x4000:
		mode |= fs.ModeDir
	case 0xa000:
		mode |= fs.ModeSymlink
	case 0x1000:
		mode |= fs.ModeNamedPipe
	case 0xc000:
		mode |= fs.ModeSocket
	case 0x6000:
		mode |= fs.ModeDevice
	case 0x2000:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	}
	if m&0o4000 != 0 {
		mode |= fs.ModeSetuid
	}
	if m&0o2000 != 0 {
		mode |= fs.ModeSetgid
	}
	if m&0o1000 != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}

// unixMode is the permission part of fileMode, backwards.
func unixMode(m fs.FileMode) uint32 {
	u := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		u |= 0o4000
	}
	if m&fs.ModeSetgid != 0 {
		u |= 0o2000
	}
	if m&fs.ModeSticky != 0 {
		u |= 0o1000
	}
	return u
}

// MoveAside renames path to "<path>.ha-install-<UTC time>" and returns the new
// name; a missing path is no error and returns "".
func (h *SSH) MoveAside(ctx context.Context, name string) (string, error) {
	name = path.Clean(name)
	to := name + ".ha-install-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	argv := script(asideScript, "aside", name, to)
	var out []byte
	err := h.idempotent(ctx, func(l *link) (err error) { // safe to repeat: the script sees that it is done
		out, err = h.exec(ctx, l, execution{argv: argv, fenced: fencedWork})
		return err
	})
	if err != nil {
		return "", h.fileError("move aside", name, h.named(argv, err))
	}
	if strings.TrimSpace(string(out)) != "moved" {
		return "", nil
	}
	return to, nil
}
