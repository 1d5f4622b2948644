package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Snapshot is the state of every host as lines of text, one for each file,
// package, unit and image, for comparing two worlds. same maps the contents
// that may differ between worlds (keys) to a name; nil maps none.
func (w *World) Snapshot(same func(path string) string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(w.hosts)) {
		h := w.hosts[name]
		line := func(format string, v ...any) { fmt.Fprintf(&b, name+": "+format+"\n", v...) }
		for _, p := range slices.Sorted(maps.Keys(h.Files)) {
			content := h.Files[p].sum()
			if same != nil && same(p) != "" {
				content = same(p)
			}
			line("file %s %04o %s", p, h.Files[p].Mode.Perm(), content)
		}
		for _, p := range slices.Sorted(maps.Keys(h.Packages)) {
			line("package %s %s", p, strings.TrimSpace(h.Packages[p]+" "+h.PackageVersions[p]))
		}
		for _, u := range slices.Sorted(maps.Keys(h.Units)) {
			line("unit %s active=%t enabled=%t %s", u, h.Units[u].Active, h.Units[u].Enabled, h.stale(u))
		}
		for _, i := range slices.Sorted(maps.Keys(h.Images)) {
			line("image %s %s", i, h.Images[i])
		}
		for _, p := range slices.Sorted(maps.Keys(h.drained)) {
			if !h.sendsNobodyTo(p) { // its time was over
				continue
			}
			line("sends nobody to %s", p)
		}
		line("sysctls read: %t, units read: %t, rules %d", h.Sysctls == h.sums("/etc/sysctl.d"), h.Reloaded == h.sums("/etc/systemd/system"), h.Rules)
	}
	for _, m := range w.etcd.votes() {
		fmt.Fprintf(&b, "member %s\n", m)
	}
	b.WriteString(w.withoutTheGone(w.API.Snapshot()))
	return b.String()
}

// withoutTheGone leaves out who led last where that one leads no more: of
// masters that go at once, chance says which.
func (w *World) withoutTheGone(objects string) string {
	var b strings.Builder
	for line := range strings.Lines(objects) {
		leads := func(h *Host) bool { return strings.Contains(line, `"holderIdentity":"`+h.calls()+`_`) }
		if name, _, _ := strings.Cut(line, " {"); strings.HasPrefix(name, "object leases kube-system/kube-") && !slices.ContainsFunc(w.up(), leads) {
			line = name + " led by nobody\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// stale says whether a running unit works from what is on disk now.
func (h *Host) stale(unit string) string {
	if u := h.Units[unit]; u.Active && u.Runs != h.sums(h.w.units[unit].config) {
		return "runs an old configuration"
	}
	return ""
}
