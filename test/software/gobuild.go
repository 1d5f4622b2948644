package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// built is a component's commands in the cache.
type built struct {
	component
	dir string
	key string // of everything that went into it
}

// file is the path of one command.
func (b built) file(name string) string { return filepath.Join(b.dir, name) }

// build compiles the component, or finds that it has been.
func (w *workshop) build(ctx context.Context, c component) (built, error) {
	key, err := w.key(c)
	if err != nil {
		return built{}, fmt.Errorf("%s: %w", c.dir, err)
	}
	b := built{component: c, key: key, dir: w.builtIn(c, key)}
	if _, err := os.Stat(b.dir); err == nil {
		return b, nil
	}
	w.say("build %s %s: %s", c.dir, c.version, strings.Join(c.names(), " "))
	tmp, err := os.MkdirTemp(filepath.Dir(b.dir), "build-*.part")
	if err != nil {
		return built{}, err
	}
	defer os.RemoveAll(tmp)
	if _, err := capture(w.goBuild(ctx, c, tmp)); err != nil {
		return built{}, fmt.Errorf("%s: %w", c.dir, err)
	}
	for from, to := range c.rename {
		if err := os.Rename(filepath.Join(tmp, from), filepath.Join(tmp, to)); err != nil {
			return built{}, err
		}
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return built{}, err
	}
	return b, os.Rename(tmp, b.dir)
}

// builtIn is where a component lies in the cache when it is built.
func (w *workshop) builtIn(c component, key string) string {
	return filepath.Join(w.cache, "bin", fmt.Sprintf("%s-%s-%s", filepath.Base(c.dir), c.version, key[:12]))
}

// fetchAhead has the modules of all that is not built yet downloaded, while the
// first of it compiles: the one waits for the network, the other for the
// processor. What goes wrong here goes wrong again in the build, which says so.
func (w *workshop) fetchAhead(ctx context.Context, releases []release) {
	for _, r := range releases {
		for _, s := range new(parts).steps(r) {
			key, err := w.key(s.what)
			if err != nil {
				return
			}
			if _, err := os.Stat(w.builtIn(s.what, key)); err == nil {
				continue
			}
			if _, err := capture(w.goCommand(ctx, s.what, "list", "-deps", "-f", "")); err != nil {
				return
			}
		}
	}
}

// goBuild is the command that compiles into out.
func (w *workshop) goBuild(ctx context.Context, c component, out string) *exec.Cmd {
	return w.goCommand(ctx, c, "build", "-buildvcs=false", "-trimpath", "-ldflags", c.ldflags(), "-o", out+"/")
}

// compilersMemory is GOGC for the compiler: a tenth of its time goes into
// collecting garbage otherwise.
const compilersMemory = "400"

// goCommand runs the go command on the component's packages. -mod=readonly: what
// is not pinned in go.mod and go.sum does not get in.
func (w *workshop) goCommand(ctx context.Context, c component, verb string, flags ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", slices.Concat([]string{verb, "-mod=readonly"}, flags, c.arguments())...)
	cmd.Dir = w.root
	if c.nested {
		cmd.Dir = w.source(c)
	}
	cgo := "CGO_ENABLED=0"
	if c.cgo {
		cgo = "CGO_ENABLED=1"
	}
	cmd.Env = append(os.Environ(), cgo, "GOOS=linux", "GOARCH="+w.arch, "GOWORK=off", "GOFLAGS=", "GOGC="+compilersMemory)
	return cmd
}

// arguments are the packages, after a tag that keeps the C library's resolver
// out of a static binary.
func (c component) arguments() []string {
	if c.cgo {
		return append([]string{"-tags", "netgo,osusergo"}, c.packages...)
	}
	return c.packages
}

func (c component) ldflags() string {
	flags := []string{"-s", "-w"}
	for _, v := range c.vars {
		flags = append(flags, "-X", v)
	}
	if c.cgo {
		flags = append(flags, "-extldflags", "-static")
	}
	return strings.Join(flags, " ")
}

func (w *workshop) source(c component) string {
	return filepath.Join(w.root, "test", "software", c.dir)
}

// key hashes the version, the flags, the compiler and every file of the
// component's directory but tests: go.mod and go.sum pin the rest.
func (w *workshop) key(c component) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), w.arch, c.version, c.packages, c.rename, c.ldflags())
	err := filepath.WalkDir(w.source(c), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = io.WriteString(h, fmt.Sprintf("%s %d\n%s", d.Name(), len(data), data))
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}
