package sim

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/templates"
)

const (
	etcdDir   = "/var/lib/etcd"
	pkiDir    = "/etc/kubernetes/pki"
	stepsDir  = "/var/lib/ha-install/steps"
	installed = "installed"
)

// unitKind is what a unit needs to start, and what it reads when it does.
type unitKind struct {
	needs  []string // files
	from   string   // or the package that brings it
	config string   // a directory
}

func unitKinds() map[string]unitKind {
	return map[string]unitKind{
		"containerd.service":           {needs: []string{"/usr/local/bin/containerd", "/etc/systemd/system/containerd.service"}, config: "/etc/containerd"},
		"kubelet.service":              {needs: []string{"/usr/local/bin/kubelet", "/etc/systemd/system/kubelet.service"}, config: "/etc/systemd/system/kubelet.service.d"},
		"haproxy.service":              {from: "haproxy", config: "/etc/haproxy"},
		"keepalived.service":           {from: "keepalived", config: "/etc/keepalived"},
		templates.BackupTimer:          {needs: templates.BackupUnits(), config: "/etc/ha-install"},
		templates.BackupService:        {needs: templates.BackupUnits()},
		templates.ReceiveSocket:        {needs: templates.ReceiveUnits(), config: "/etc/systemd/system"},
		"systemd-modules-load.service": {from: "dpkg", config: "/etc/modules-load.d"},
	}
}

// failure is a command that ran and exited with a code other than 0.
func (h *Host) failure(argv []string, code int, stderr string) error {
	return &host.RunError{Host: h.name, Argv: argv, Code: code, Stderr: stderr}
}

func (h *Host) unknown(argv []string) error {
	text := fmt.Sprintf("sim: %s: unknown command %.300q", h.name, argv)
	h.w.t.Error(text)
	return h.failure(argv, 127, text)
}

// Run is host.Writer's.
func (h *Host) Run(ctx context.Context, cmd host.Command) (out []byte, err error) {
	argv := cmd.Argv
	if cmd.Stdout != nil {
		return nil, h.talk(ctx, cmd)
	}
	var stdin []byte
	if cmd.Stdin != nil {
		if stdin, err = io.ReadAll(cmd.Stdin); err != nil {
			return nil, err
		}
	}
	parts, part := 1, once(func() (err error) { out, err = h.run(argv, stdin); return err })
	if argv[0] == "dpkg" {
		parts, part = len(argv)-3, func(i int) error { return h.install(argv, argv[3+i]) }
	}
	err = h.call(ctx, name(argv), true, parts, part)
	return out, err
}

// talk is a script that is talked to while it runs. It is cut off, if it is, before
// the first word.
func (h *Host) talk(ctx context.Context, cmd host.Command) error {
	talk, known := h.w.talks[cmd.Argv[min(2, len(cmd.Argv)-1)]]
	if !known {
		return h.unknown(cmd.Argv)
	}
	if err := h.call(ctx, name(cmd.Argv), true, 1, once(func() error { return nil })); err != nil {
		return err
	}
	return talk(h, cmd.Argv[min(4, len(cmd.Argv)):], cmd.Stdin, cmd.Stdout)
}

// name is a command without the text of its scripts.
func name(argv []string) string {
	argv = slices.DeleteFunc(slices.Clone(argv), func(a string) bool { return len(argv) > 5 && strings.Contains(a, "\nprint while") })
	if argv[0] == "perl" {
		argv = append([]string{"perl", "..."}, argv[3:]...)
	}
	if len(argv) > 2 && argv[0] == "sh" {
		argv = append([]string{"sh", "..."}, argv[3:]...)
	}
	return host.Quote(argv)
}

func (h *Host) run(argv []string, stdin []byte) ([]byte, error) {
	switch argv[0] {
	case "systemctl":
		return nil, h.systemctl(argv)
	case "sysctl":
		if slices.Equal(argv[1:], []string{"--system"}) {
			h.Sysctls = h.sums("/etc/sysctl.d")
			return nil, nil
		}
	case "ctr":
		if slices.Equal(argv[1:], []string{"-n", "k8s.io", "images", "import", "-"}) {
			return nil, h.importImage(argv, stdin)
		}
	case "haproxy":
		if len(argv) == 4 && slices.Equal(argv[1:3], []string{"-c", "-f"}) {
			return nil, h.checkHAProxy(argv)
		}
	case "containerd":
		if len(argv) == 5 && argv[1] == "--config" && slices.Equal(argv[3:], []string{"config", "dump"}) {
			if !h.hasContainerd() {
				return nil, h.failure(argv, 127, "not found")
			}
			if f, ok := h.Files[argv[2]]; ok && !strings.Contains(string(f.Content), "version = ") {
				return nil, h.failure(argv, 1, "failed to unmarshal TOML")
			}
			return nil, nil // also without a file
		}
	case "keepalived":
		if len(argv) == 4 && slices.Equal(argv[1:3], []string{"--config-test", "--use-file"}) {
			if h.Packages["keepalived"] != installed {
				return nil, h.failure(argv, 127, "not found")
			}
			if f, ok := h.Files[argv[3]]; ok && !strings.Contains(string(f.Content), "vrrp_instance ") {
				return nil, h.failure(argv, 5, "Unknown keyword")
			}
			return nil, nil // also without a file
		}
	case "rm":
		for _, p := range argv[2:] {
			h.remove(p)
		}
		return nil, nil
	case "sh":
		return h.shell(argv)
	}
	return nil, h.unknown(argv)
}

func (h *Host) shell(argv []string) ([]byte, error) {
	if len(argv) > 2 && argv[1] == "-c" {
		if s, ok := h.w.script[argv[2]]; ok {
			return s(h, argv[min(4, len(argv)):])
		}
		if len(argv) > 3 && argv[3] == "ha-install-facts" {
			return h.facts(argv[4:]), nil
		}
		if len(argv) > 3 && argv[3] == "ha-install-fsync" {
			return []byte("2300 bytes (2.3 kB, 2.2 KiB) copied, 0.0012 s, 1.9 MB/s\n"), nil
		}
	}
	return nil, h.unknown(argv)
}

// install is dpkg on one package. Debian's packages start their service at
// once, keepalived's only when it has a configuration.
func (h *Host) install(argv []string, file string) error {
	if !slices.Equal(argv[:3], []string{"dpkg", "--install", "--force-confold"}) {
		return h.unknown(argv)
	}
	if h.DpkgLocked > 0 {
		h.DpkgLocked--
		return h.failure(argv, 2, "dpkg: error: dpkg frontend lock was locked by another process with pid 1")
	}
	deb, ok := h.Files[file]
	if !ok {
		return h.failure(argv, 2, "cannot access archive "+file)
	}
	name, found := strings.CutPrefix(string(deb.Content), "deb ")
	if !found {
		return h.failure(argv, 1, file+" is not a package")
	}
	name, version, _ := strings.Cut(name, " ")
	h.Packages[name], h.PackageVersions[name] = installed, version
	if unit := name + ".service"; h.w.units[unit].from == name {
		h.unit(unit).Enabled = true
	}
	if name == "haproxy" {
		if _, ok := h.Files["/etc/haproxy/haproxy.cfg"]; !ok {
			h.Put("/etc/haproxy/haproxy.cfg", 0o644, "# Debian's own")
		}
		return h.start(argv, "haproxy.service")
	}
	return nil
}

// hasContainerd says whether containerd's programs are there.
func (h *Host) hasContainerd() bool {
	_, ok := h.Files["/usr/local/bin/containerd"]
	return ok
}

// ctr is the complaint of containerd's client when it cannot work.
func (h *Host) ctr(argv []string) error {
	switch {
	case !h.hasContainerd():
		return h.failure(argv, 127, "not found")
	case !h.active("containerd.service"):
		return h.failure(argv, 1, "containerd is not running")
	}
	return nil
}

func (h *Host) importImage(argv []string, archive []byte) error {
	if err := h.ctr(argv); err != nil {
		return err
	}
	f := strings.Fields(string(archive))
	if len(f) != 3 || f[0] != "image" {
		return h.failure(argv, 1, "not an archive")
	}
	h.Images[f[1]] = f[2]
	return nil
}

func (h *Host) checkHAProxy(argv []string) error {
	if h.Packages["haproxy"] != installed {
		return h.failure(argv, 127, "not found")
	}
	f, ok := h.Files[argv[3]]
	if !ok || !strings.Contains(string(f.Content), "backend ") {
		return h.failure(argv, 1, "cannot read "+argv[3])
	}
	if _, ok := h.Files["/etc/haproxy/kubernetes-ca.crt"]; !ok {
		return h.failure(argv, 1, "unable to load the CA file")
	}
	return nil
}

func (h *Host) systemctl(argv []string) error {
	units := slices.DeleteFunc(slices.Clone(argv[2:]), func(a string) bool { return strings.HasPrefix(a, "-") })
	now := slices.Contains(argv, "--now")
	if argv[1] == "daemon-reload" {
		h.Reloaded = h.sums("/etc/systemd/system")
		return nil
	}
	for _, unit := range units {
		var err error
		switch argv[1] {
		case "start":
			if u := h.Units[unit]; u != nil && u.Active {
				continue
			}
			err = h.start(argv, unit)
		case "restart", "reload-or-restart":
			err = h.start(argv, unit)
		case "enable":
			err = h.enable(argv, unit)
		case "stop":
			if _, ok := h.exists(unit); !ok {
				return h.failure(argv, 5, "Unit "+unit+" not loaded.")
			}
			h.halt(unit)
		case "disable":
			if _, ok := h.exists(unit); !ok {
				return h.failure(argv, 1, "Unit file "+unit+" does not exist.")
			}
			if u := h.Units[unit]; u != nil {
				u.Enabled = false
			}
			if now {
				h.halt(unit)
			}
		default:
			return h.unknown(argv)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// exists says whether systemd knows the unit.
func (h *Host) exists(unit string) (unitKind, bool) {
	kind, known := h.w.units[unit]
	if !known {
		h.w.t.Errorf("sim: %s: unknown unit %s", h.name, unit)
		return kind, false
	}
	for _, p := range kind.needs {
		if _, ok := h.Files[p]; !ok || strings.HasPrefix(p, "/etc/systemd/") && !strings.Contains(h.Reloaded, p+" ") {
			return kind, false
		}
	}
	return kind, kind.from == "" || h.Packages[kind.from] == installed
}

func (h *Host) start(argv []string, unit string) error {
	kind, ok := h.exists(unit)
	if !ok {
		return h.failure(argv, 5, "Unit "+unit+" not found")
	}
	u := h.unit(unit)
	if unit == "kubelet.service" && h.KubeletDies > 0 {
		u.Active, u.Runs = false, "" // systemctl start is a success all the same
		return nil
	}
	if _, configured := h.Files["/var/lib/kubelet/config.yaml"]; unit == "kubelet.service" && !configured {
		return nil // systemd starts it, and starts it again
	}
	h.waits = h.waits || unit == "kubelet.service" && !h.etcdProcess()
	u.Active, u.Runs = true, h.sums(kind.config)
	if unit == haproxyUnit {
		h.drained = map[string]bool{} // a new process
	}
	u.peers, u.router = peersIn(string(h.Files["/etc/keepalived/keepalived.conf"].Content))
	if unit == "kubelet.service" {
		h.startPods()
	}
	return nil
}

func (h *Host) enable(argv []string, unit string) error {
	if _, ok := h.exists(unit); !ok {
		return h.failure(argv, 1, "Unit "+unit+" does not exist")
	}
	h.unit(unit).Enabled = true
	return nil
}

// halt stops a unit. What the kubelet started goes on without it.
func (h *Host) halt(unit string) {
	if u := h.Units[unit]; u != nil {
		h.orphans = h.orphans || unit == "kubelet.service" && u.Active
		u.Active, u.Runs = false, ""
	}
}

func (h *Host) unit(name string) *Unit {
	if h.Units[name] == nil {
		h.Units[name] = &Unit{}
	}
	return h.Units[name]
}

// sums are the files below a directory with their sums: what a daemon that
// read it now would know.
func (h *Host) sums(dir string) string {
	var b strings.Builder
	for _, p := range h.under(dir) {
		if !strings.HasSuffix(p, ".candidate") {
			fmt.Fprintf(&b, "%s %s\n", p, h.Files[p].sum())
		}
	}
	return b.String()
}

// Query is host.Reader's.
func (h *Host) Query(ctx context.Context, argv ...string) (out []byte, err error) {
	err = h.call(ctx, name(argv), false, 1, once(func() (err error) { out, err = h.query(argv); return err }))
	return out, err
}

func (h *Host) query(argv []string) ([]byte, error) {
	line := strings.Join(argv, " ")
	var b strings.Builder
	switch {
	case argv[0] == "sh":
		return h.shell(argv)
	case line == `dpkg-query -W -f ${Package} ${db:Status-Status}\n`:
		for name, status := range h.Packages {
			fmt.Fprintf(&b, "%s %s\n", name, status)
		}
	case line == "uname -n":
		fmt.Fprintln(&b, h.calls())
	case line == "ctr -n k8s.io images ls":
		if err := h.ctr(argv); err != nil {
			return nil, err
		}
		fmt.Fprintln(&b, "REF TYPE DIGEST SIZE PLATFORMS LABELS")
		for ref, digest := range h.Images {
			fmt.Fprintf(&b, "%s application/vnd.oci.image.manifest.v1+json %s 1.0 MiB linux/amd64 -\n", ref, digest)
		}
	case strings.HasPrefix(line, "systemctl show --property ActiveState --value "):
		unit := argv[len(argv)-1]
		if path.Ext(unit) == "" {
			unit += ".service"
		}
		state := "inactive"
		if u := h.Units[unit]; u != nil && u.Active || h.runsStep(unit) {
			state = "active"
		}
		fmt.Fprintln(&b, state)
	case line == "systemctl show --property NRestarts --value kubelet.service":
		fmt.Fprintln(&b, h.KubeletDies)
	case strings.HasPrefix(line, "systemctl show --property LoadState --value "):
		state := "loaded"
		if _, ok := h.exists(argv[len(argv)-1]); !ok {
			state = "not-found"
		}
		fmt.Fprintln(&b, state)
	case line == "systemctl list-units --plain --no-legend --no-pager --type service --state active,activating,deactivating,reloading ha-install-*.service":
		for id := range h.steps {
			fmt.Fprintf(&b, "ha-install-%s.service loaded active running ha-install %s\n", id, id)
		}
	case strings.HasPrefix(line, "ip -oneline address show to "):
		if ip := argv[len(argv)-1]; ip == h.address || ip == h.w.vip && h.HoldsVIP() {
			fmt.Fprintf(&b, "2: eth0    inet %s/24 brd 198.51.100.255 scope global eth0\n", ip)
		}
	case argv[0] == "perl" && len(argv) == 5:
		return h.askHAProxy(argv)
	case argv[0] == "perl" && len(argv) == 7:
		return h.hear(argv)
	case argv[0] == templates.BackupProgram:
		return nil, h.checkTurn(argv)
	case argv[0] == "find" && argv[1] == stepsDir:
		return h.findSteps(argv)
	default:
		return nil, h.unknown(argv)
	}
	return []byte(b.String()), nil
}

// runsStep says whether the unit is that of a step under way.
func (h *Host) runsStep(unit string) bool {
	id, ok := strings.CutPrefix(strings.TrimSuffix(unit, ".service"), "ha-install-")
	return ok && h.steps[id] != nil
}

// findSteps is find -name on the directory of steps.
func (h *Host) findSteps(argv []string) ([]byte, error) {
	pattern := argv[slices.Index(argv, "-name")+1]
	var names []string
	for _, p := range h.under(stepsDir) {
		name, _, _ := strings.Cut(strings.TrimPrefix(p, stepsDir+"/"), "/")
		if ok, err := path.Match(pattern, name); err == nil && ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(h.under(stepsDir)) == 0 {
		return nil, h.failure(argv, 1, "No such file or directory")
	}
	return []byte(strings.Join(names, "\n")), nil
}
