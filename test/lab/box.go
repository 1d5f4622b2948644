package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// boxFormat changes when this file makes a different box of the same recipe.
const boxFormat = "2"

// box is the built box of one recipe, in the cache.
type box struct {
	name string // for Vagrant; holds the recipe's hash
	dir  string
}

func (b box) file() string    { return filepath.Join(b.dir, "lab.box") }
func (b box) rootfs() string  { return filepath.Join(b.dir, "rootfs") } // unpacked, never started
func (b box) tarball() string { return filepath.Join(b.dir, "rootfs.tar.gz") }

// ensureBox builds the box of the checkout's recipe, or finds it built.
func (l *Lab) ensureBox(ctx context.Context, log io.Writer) (box, error) {
	codename, err := osRelease("VERSION_CODENAME")
	if err != nil {
		return box{}, err
	}
	sum, err := l.recipeSum(codename)
	if err != nil {
		return box{}, err
	}
	b := box{name: "ha-install-lab-" + sum, dir: filepath.Join(l.Cache, "lab", "box-"+sum)}
	if _, err := os.Stat(b.file()); err == nil {
		return b, nil
	}
	fmt.Fprintf(log, "lab: building the box from Debian packages (once, about a minute)\n")
	sources, err := aptSources(ctx, codename)
	if err != nil {
		return box{}, err
	}
	part := box{name: b.name, dir: b.dir + ".part"}
	if err := os.RemoveAll(part.dir); err != nil {
		return box{}, fmt.Errorf("lab: clear a half-built box: %w", err)
	}
	if err := os.MkdirAll(part.dir, 0o755); err != nil {
		return box{}, fmt.Errorf("lab: build the box: %w", err)
	}
	if err := l.buildBox(ctx, part, codename, sources); err != nil {
		return box{}, fmt.Errorf("lab: build the box: %w", err)
	}
	if err := os.Rename(part.dir, b.dir); err != nil {
		return box{}, fmt.Errorf("lab: put the box in place: %w", err)
	}
	return b, nil
}

func (l *Lab) buildBox(ctx context.Context, b box, codename string, sources []string) error {
	list, err := l.boxPackages()
	if err != nil {
		return err
	}
	sourcesFile := filepath.Join(b.dir, "sources.list")
	if err := os.WriteFile(sourcesFile, []byte(strings.Join(sources, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	env := []string{"LC_ALL=C.UTF-8"}
	if _, err := run(ctx, env, nil, "mmdebstrap", "--variant=minbase", "--mode=root", "--format=directory", "--quiet",
		"--include="+strings.Join(list, ","), codename, b.rootfs(), sourcesFile); err != nil {
		return err
	}
	if _, err := Run(ctx, "sh", l.source("box", "customize.sh"), b.rootfs()); err != nil {
		return err
	}
	// Vagrant's template strips two components: "./rootfs/".
	if _, err := Run(ctx, "tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", b.dir, "-I", "gzip -1", "-cf", b.tarball(), "./rootfs"); err != nil {
		return err
	}
	metadata := `{"provider":"lxc","version":"1.0.0"}` + "\n"
	if err := os.WriteFile(filepath.Join(b.dir, "metadata.json"), []byte(metadata), 0o644); err != nil {
		return err
	}
	if _, err := Run(ctx, "cp", l.source("box", "lxc-config"), b.dir); err != nil {
		return err
	}
	_, err = Run(ctx, "tar", "-C", b.dir, "-cf", b.file(), "metadata.json", "lxc-config", "rootfs.tar.gz")
	return err
}

// recipeSum is a short hash of everything that decides what is in the box.
func (l *Lab) recipeSum(codename string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "format %s\ncodename %s\n", boxFormat, codename)
	for _, name := range []string{"packages", "customize.sh", "lxc-config"} {
		raw, err := os.ReadFile(l.source("box", name))
		if err != nil {
			return "", fmt.Errorf("lab: read the box's recipe: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(raw), raw)
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

func (l *Lab) boxPackages() ([]string, error) {
	raw, err := os.ReadFile(l.source("box", "packages"))
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out, nil
}

// aptSources returns the distribution's own part of the machine's configured
// package sources as sources.list lines, and the release's name: wherever this
// machine gets its packages from, the hosts' come from there too.
func aptSources(ctx context.Context, codename string) ([]string, error) {
	if _, err := Run(ctx, "apt-get", "update", "--quiet"); err != nil {
		return nil, fmt.Errorf("lab: refresh the package lists: %w", err)
	}
	out, err := Run(ctx, "apt-get", "indextargets", "--format", "$(ORIGIN)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)", "Created-By: Packages")
	if err != nil {
		return nil, fmt.Errorf("lab: list the machine's package sources: %w", err)
	}
	var lines []string
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) != 4 || (f[0] != "Debian" && f[0] != "Ubuntu") || !strings.HasPrefix(f[2], codename) {
			continue
		}
		if source := fmt.Sprintf("deb %s %s %s", f[1], f[2], f[3]); !seen[source] {
			seen[source] = true
			lines = append(lines, source)
		}
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("lab: no package source of %s is configured on this machine", codename)
	}
	return lines, nil
}

func osRelease(key string) (string, error) {
	raw, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return strings.Trim(v, `"`), nil
		}
	}
	return "", fmt.Errorf("lab: /etc/os-release has no %s: the lab's box is made from Debian's or Ubuntu's packages", key)
}
