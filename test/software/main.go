// Command software builds what the lab installs, from pinned Go modules and
// the machine's own Debian packages, and writes it as a bundle:
//
//	go run ./test/software -k8s v1.36.3 [-out FILE]
//	go run ./test/software -all
//
// Everything is kept in ${HA_INSTALL_CACHE:-~/.cache/ha-install}, keyed by
// version, flags and module sums; a second run takes seconds. The last line of
// standard output is the bundle's path.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() {
	version := flag.String("k8s", releases[0].kubernetes, "Kubernetes release to bundle")
	out := flag.String("out", "", "bundle to write (default: below the cache)")
	all := flag.Bool("all", false, "bundle every release that the suite needs, below the cache")
	list := flag.Bool("list", false, "print the known releases, newest first")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *list {
		for _, r := range releases {
			fmt.Println(r.kubernetes)
		}
		return
	}
	if err := run(ctx, *version, *out, *all); err != nil {
		fmt.Fprintln(os.Stderr, "software:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, version, out string, all bool) error {
	wanted, err := choose(version, all)
	if err != nil {
		return err
	}
	if all && out != "" {
		return fmt.Errorf("-out and -all: one file cannot hold two releases")
	}
	w, err := openWorkshop(ctx)
	if err != nil {
		return err
	}
	defer w.close()
	ahead, stop := context.WithCancel(ctx)
	fetched := make(chan struct{})
	go func() {
		defer close(fetched)
		w.fetchAhead(ahead, wanted)
	}()
	defer func() { stop(); <-fetched }()
	for _, r := range wanted {
		path := out
		if path == "" {
			path = filepath.Join(w.cache, "bundles", fmt.Sprintf("ha-install-bundle-%s-%s.tar", r.kubernetes, w.arch))
		}
		if err := w.bundle(ctx, r, path); err != nil {
			return fmt.Errorf("%s: %w", r.kubernetes, err)
		}
		fmt.Println(path)
	}
	return nil
}

// workshop is where things are built.
type workshop struct {
	root  string // of the checkout
	cache string
	arch  string
	lock  *os.File
	began time.Time
	log   io.Writer // progress
}

// openWorkshop finds the checkout and takes the cache's lock, so that two runs
// do not build the same thing twice.
func openWorkshop(ctx context.Context) (*workshop, error) {
	root, err := output(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return nil, err
	}
	cache := os.Getenv("HA_INSTALL_CACHE")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, err
		}
		cache = filepath.Join(home, ".cache", "ha-install")
	}
	if cache, err = filepath.Abs(cache); err != nil {
		return nil, err
	}
	for _, dir := range []string{"bin", "images", "debs", "bundles"} {
		if err := os.MkdirAll(filepath.Join(cache, dir), 0o755); err != nil {
			return nil, err
		}
	}
	w := &workshop{root: strings.TrimSpace(root), cache: cache, arch: runtime.GOARCH, began: time.Now(), log: os.Stderr}
	if w.lock, err = os.OpenFile(filepath.Join(cache, "lock"), os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, err
	}
	fd := int(w.lock.Fd())
	if syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		return w, nil
	}
	w.say("waiting for another run that holds %s", w.lock.Name())
	if err := syscall.Flock(fd, syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", w.lock.Name(), err)
	}
	return w, nil
}

func (w *workshop) close() { w.lock.Close() }

// say reports progress.
func (w *workshop) say(format string, args ...any) {
	fmt.Fprintf(w.log, "[%4.0fs] %s\n", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...))
}

// output runs a command in dir and returns its standard output; its standard
// error becomes part of the error.
func output(ctx context.Context, dir string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	return capture(cmd)
}

// capture runs cmd; a failure's error holds the command and the end of what it said.
func capture(cmd *exec.Cmd) (string, error) {
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(errs.String())
		if len(said) > 4000 {
			said = "..." + said[len(said)-4000:]
		}
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, said)
	}
	return out.String(), nil
}

// writeFile puts what write gives into a file that appears whole or not at all.
func writeFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.part")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
