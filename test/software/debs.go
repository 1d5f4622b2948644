package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// What a bare host is taken to have: Debian's essential packages and these.
var bareHost = []string{"apt", "systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "iproute2", "ca-certificates"}

// What each role needs beyond that. kubeadm's preflight wants conntrack, losetup
// and mount; the kubelet wants the latter two for volumes; the CNI plugins want
// iptables.
var (
	nodePackages     = []string{"runc", "conntrack", "iptables", "ethtool", "socat", "mount", "kmod", "procps"}
	balancerPackages = []string{"haproxy", "keepalived", "procps"}
	imagePackages    = []string{"iptables", "nftables"} // in the root below kube-proxy and flannel
)

// deb is a package of the distribution.
type deb struct{ name, version, arch, file string }

// apt asks the machine's configured package sources with a state of its own,
// so that neither root's rights nor what is installed here matter.
type apt struct {
	dir, debs string
	say       func(string, ...any)
	bare      []deb // what a bare host has; asked once
}

func (w *workshop) openApt() (*apt, error) {
	a := &apt{dir: filepath.Join(w.cache, "apt"), debs: filepath.Join(w.cache, "debs"), say: w.say}
	for _, d := range []string{"lists/partial", "cache/archives/partial", "answers"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	// An empty status: nothing is installed, so a closure is complete.
	return a, os.WriteFile(filepath.Join(a.dir, "status"), nil, 0o644)
}

func (a *apt) run(ctx context.Context, dir, command string, args ...string) (string, error) {
	argv := append([]string{
		"-o", "APT::Sandbox::User=root",
		"-o", "Dir::State::lists=" + filepath.Join(a.dir, "lists"),
		"-o", "Dir::State::status=" + filepath.Join(a.dir, "status"),
		"-o", "Dir::Cache=" + filepath.Join(a.dir, "cache"),
		"-o", "Acquire::http::Timeout=20", "-o", "Acquire::Retries=1",
	}, args...)
	cmd := exec.CommandContext(ctx, command, argv...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	return capture(cmd)
}

// query is run for a question whose answer depends on the lists alone; it is
// kept beside them, as apt takes a second for each.
func (a *apt) query(ctx context.Context, command string, args ...string) (string, error) {
	lists, err := os.ReadDir(filepath.Join(a.dir, "lists"))
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, command, args)
	for _, list := range lists {
		info, err := list.Info()
		if err != nil {
			return "", err
		}
		if info.Mode().IsRegular() {
			fmt.Fprintln(h, list.Name(), info.Size(), info.ModTime().UnixNano())
		}
	}
	kept := filepath.Join(a.dir, "answers", hex.EncodeToString(h.Sum(nil))[:16])
	if data, err := os.ReadFile(kept); err == nil {
		return string(data), nil
	}
	out, err := a.run(ctx, "", command, args...)
	if err != nil {
		return "", err
	}
	return out, writeFile(kept, func(w io.Writer) error {
		_, err := io.WriteString(w, out)
		return err
	})
}

// packages returns the debs that the names need, downloaded, without those that
// a bare host has if onBare. Lists that have grown old fail the download: they
// are fetched again, once.
func (a *apt) packages(ctx context.Context, onBare bool, names []string) ([]deb, error) {
	debs, err := a.fetch(ctx, onBare, names)
	if err == nil || ctx.Err() != nil {
		return debs, err
	}
	a.say("apt-get update")
	// A source that is unreachable is not necessarily one that we need.
	_, updateErr := a.run(ctx, "", "apt-get", "update")
	a.bare = nil
	if debs, err = a.fetch(ctx, onBare, names); err != nil {
		return nil, errors.Join(err, updateErr)
	}
	return debs, nil
}

func (a *apt) fetch(ctx context.Context, onBare bool, names []string) ([]deb, error) {
	if !onBare {
		all, err := a.closure(ctx, names)
		if err != nil {
			return nil, err
		}
		return all, a.download(ctx, all)
	}
	essential, err := a.essential(ctx)
	if err != nil {
		return nil, err
	}
	base := append(essential, bareHost...)
	if a.bare == nil {
		if a.bare, err = a.closure(ctx, base); err != nil {
			return nil, err
		}
	}
	all, err := a.closure(ctx, append(base, names...))
	if err != nil {
		return nil, err
	}
	missing := slices.DeleteFunc(all, func(d deb) bool { return slices.Contains(a.bare, d) })
	return missing, a.download(ctx, missing)
}

// essential names the packages that every installation has.
func (a *apt) essential(ctx context.Context) ([]string, error) {
	out, err := a.query(ctx, "apt", "list", "?essential")
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(out) {
		if name, _, ok := strings.Cut(line, "/"); ok {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("apt knows no essential package")
	}
	return names, nil
}

// closure returns the packages and all that they depend on, sorted.
func (a *apt) closure(ctx context.Context, names []string) ([]deb, error) {
	out, err := a.query(ctx, "apt-get", append([]string{"-s", "--no-install-recommends", "install"}, names...)...)
	if err != nil {
		return nil, err
	}
	return parseSimulation(out), nil
}

// parseSimulation reads "Inst NAME (VERSION ORIGIN... [ARCH])", which packages
// still to be configured may follow in brackets.
func parseSimulation(out string) []deb {
	var debs []deb
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 4 || f[0] != "Inst" || !strings.HasPrefix(f[2], "(") {
			continue
		}
		for _, field := range f[3:] {
			if arch, ok := strings.CutSuffix(field, "])"); ok {
				debs = append(debs, deb{name: f[1], version: f[2][1:], arch: strings.TrimPrefix(arch, "[")})
				break
			}
		}
	}
	slices.SortFunc(debs, func(x, y deb) int { return strings.Compare(x.name, y.name) })
	return debs
}

// download fetches what is not in the cache and fills in the files.
func (a *apt) download(ctx context.Context, debs []deb) error {
	var wanted []string
	for i := range debs {
		d := &debs[i]
		// apt's own name for the file: an epoch's colon is escaped.
		d.file = filepath.Join(a.debs, fmt.Sprintf("%s_%s_%s.deb", d.name, strings.ReplaceAll(d.version, ":", "%3a"), d.arch))
		if _, err := os.Stat(d.file); err != nil {
			wanted = append(wanted, d.name+"="+d.version)
		}
	}
	if len(wanted) > 0 {
		a.say("download %d packages", len(wanted))
		if _, err := a.run(ctx, a.debs, "apt-get", append([]string{"download"}, wanted...)...); err != nil {
			return err
		}
	}
	for _, d := range debs {
		if _, err := os.Stat(d.file); err != nil {
			return fmt.Errorf("package %s %s: %w", d.name, d.version, err)
		}
	}
	return nil
}

// iptablesRoot returns the tar of a root with iptables and nft and nothing else:
// the files of the packages without documentation, and the names that Debian's
// alternatives would make.
func (w *workshop) iptablesRoot(ctx context.Context, a *apt) (string, error) {
	debs, err := a.packages(ctx, false, imagePackages)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, imageFormat)
	for _, d := range debs {
		fmt.Fprintln(h, d.name, d.version, d.arch)
	}
	file := filepath.Join(w.cache, "images", "root-"+hex.EncodeToString(h.Sum(nil))[:12]+".tar.layer")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	return file, writeFile(file, func(out io.Writer) error {
		t := tar.NewWriter(out)
		seen := map[string]bool{}
		for _, d := range debs {
			if err := copyDeb(ctx, t, d, seen); err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
		}
		for _, name := range []string{"iptables", "ip6tables"} {
			for _, suffix := range []string{"", "-save", "-restore"} {
				link := &tar.Header{Typeflag: tar.TypeSymlink, Name: "usr/sbin/" + name + suffix, Linkname: "xtables-nft-multi", Mode: 0o777}
				if err := t.WriteHeader(link); err != nil {
					return err
				}
			}
		}
		return t.Close()
	})
}

// copyDeb adds a package's files to t, leaving out what no program there reads.
func copyDeb(ctx context.Context, t *tar.Writer, d deb, seen map[string]bool) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", d.file)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	copyErr := copyTar(t, tar.NewReader(pipe), seen)
	if copyErr != nil {
		pipe.Close()
	}
	return errors.Join(copyErr, cmd.Wait())
}

func copyTar(t *tar.Writer, from *tar.Reader, seen map[string]bool) error {
	for {
		head, err := from.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, from)
			return err
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(head.Name, "./")
		if name == "" || seen[name] || unread(name) {
			continue
		}
		seen[name] = true
		head.Name, head.Uname, head.Gname = name, "", ""
		if err := t.WriteHeader(head); err != nil {
			return err
		}
		if _, err := io.Copy(t, from); err != nil {
			return err
		}
	}
}

func unread(name string) bool {
	for _, prefix := range []string{"usr/share/", "usr/lib/x86_64-linux-gnu/gconv/", "usr/lib/aarch64-linux-gnu/gconv/"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// distribution is the one of this machine, whose packages are bundled, as ID and
// VERSION_ID of os-release ("debian 12").
func distribution() (string, error) {
	raw, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[key] = strings.Trim(value, `"'`)
		}
	}
	return strings.TrimSpace(values["ID"] + " " + values["VERSION_ID"]), nil
}
