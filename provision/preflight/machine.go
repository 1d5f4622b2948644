package preflight

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The floor of a control plane host; kubeadm's constants of the same names.
const (
	controlPlaneNumCPU = 2
	controlPlaneMem    = 1700 // MB
)

func decideOS(s subject) []verdict {
	f := s.facts
	name := cmp.Or(f.OS["PRETTY_NAME"], f.OS["ID"], f.Kernel, "unknown")
	switch {
	case f.Kernel != "Linux":
		return fail(name, "Linux", "use a Linux host")
	case s.opt.Distribution != "" && f.distribution() != s.opt.Distribution:
		return fail(name, s.opt.Distribution+", which the bundle's packages are made for",
			"use a bundle that was built on "+name+", or install the software yourself and set spec.software.source: installed")
	case f.OS["ID"] == "debian" || f.OS["ID"] == "ubuntu":
		return ok("%s", name)
	default:
		return warn(name, "Debian or Ubuntu", "nothing needed if it works: other distributions are not tested")
	}
}

// distribution is "debian 12".
func (f Facts) distribution() string { return strings.TrimSpace(f.OS["ID"] + " " + f.OS["VERSION_ID"]) }

// goarch maps uname -m to Go's names, which bundles use.
var goarch = map[string]string{"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64",
	"ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}

func decideArchitecture(s subject) []verdict {
	arch := cmp.Or(goarch[s.facts.Machine], s.facts.Machine)
	if want := s.opt.Arch; want != "" && arch != want {
		return fail(arch, want+", the architecture of the bundle", "use a bundle for "+arch+", or another host")
	}
	return ok("%s", arch)
}

func decideSystemd(s subject) []verdict {
	if !s.facts.Systemd {
		return fail("process 1 is not systemd", "a host booted with systemd", "install systemd-sysv and reboot")
	}
	return ok("running")
}

func decideCores(s subject) []verdict {
	n := s.facts.Cores
	if n < controlPlaneNumCPU {
		return fail(count(n, "core"), fmt.Sprintf("%d cores or more on a master", controlPlaneNumCPU), "add cores")
	}
	return ok("%s", count(n, "core"))
}

func decideMemory(s subject) []verdict {
	mb := s.facts.MemoryMB
	if mb < controlPlaneMem {
		return fail(fmt.Sprintf("%d MB", mb), fmt.Sprintf("%d MB or more on a master", controlPlaneMem), "add memory")
	}
	return ok("%d MB", mb)
}

func decideReadOnlyRoot(s subject) []verdict {
	if ro := s.facts.ReadOnly; len(ro) > 0 {
		return fail("read-only: "+strings.Join(ro, ", "), "file systems that can be written",
			"look for disk errors in dmesg; remount read-write, or use an image that allows it")
	}
	return ok("writable")
}

// The commands that steps on a host call; kubeadm itself insists on those of
// nodes. perl speaks to HAProxy's admin socket.
var (
	toolsEverywhere  = []string{"sh", "tar", "sha256sum", "stat", "env", "systemd-run", "systemctl"}
	toolsOfNodes     = []string{"mount", "losetup", "cp"}
	toolsOfBalancers = []string{"ip", "perl"}
)

func decideTools(s subject) []verdict {
	want := slices.Clone(toolsEverywhere)
	if s.node() {
		want = append(want, toolsOfNodes...)
	}
	if s.cluster.Balances(s.host) {
		want = append(want, toolsOfBalancers...)
	}
	if s.opt.Debs {
		want = append(want, "dpkg")
	}
	var missing []string
	for _, tool := range want {
		if !s.facts.Tools[tool] {
			missing = append(missing, tool)
		}
	}
	if len(missing) > 0 {
		return fail("missing: "+strings.Join(missing, ", "), "these commands in root's PATH",
			"install the packages that hold them")
	}
	return ok("all there")
}

func decideSwap(s subject) []verdict {
	if len(s.facts.Swaps) == 0 {
		return ok("off")
	}
	seen := "on: " + strings.Join(s.facts.Swaps, ", ")
	// The NodeSwap feature alone does not let the kubelet start: failSwapOn
	// is true by default whatever the feature gates say.
	if s.cluster.Spec.Kubeadm.KubeletConfiguration["failSwapOn"] == false {
		return ok("%s, allowed by failSwapOn: false", seen)
	}
	return fail(seen, "no swap",
		"swapoff -a and remove it from /etc/fstab, or set spec.kubeadm.kubeletConfiguration.failSwapOn: false")
}

// decideModules wants what containerd's snapshotter and the pod network need.
// flannel exits without bridge-nf-call-iptables; other networks may not care.
func decideModules(s subject) []verdict {
	const wanted = "loaded, built in or loadable"
	const fix = "install the kernel's full module package (linux-modules-extra on Ubuntu)"
	has := s.facts.Modules
	var out []verdict
	if !has["overlay"] {
		out = append(out, fail("overlay is missing", wanted, fix)...)
	}
	switch {
	case has["br_netfilter"]:
	case flannel(s.cluster):
		out = append(out, fail("br_netfilter is missing", wanted, fix)...)
	default:
		out = append(out, warn("br_netfilter is missing", wanted+", for most pod networks", fix)...)
	}
	if vxlan(s.cluster) && !has["vxlan"] {
		const other = "set spec.network.cni.backend: host-gw when all nodes are on one layer-2 network, or "
		v := fail("vxlan is missing", wanted, other+fix)
		if !s.facts.ModulesKnown { // a container does not see its kernel's lists
			v = warn("vxlan is not to be seen", wanted, other+fix)
		}
		out = append(out, v...)
	}
	if len(out) == 0 {
		return ok("all there")
	}
	return out
}

func decideIPForward(s subject) []verdict {
	const key = "net/ipv4/ip_forward"
	switch {
	case s.facts.Sysctls[key] == "1":
		return ok("1")
	case s.facts.SysctlWritable[key]:
		return ok("%s, can be set", s.facts.Sysctls[key])
	default:
		return fail(fmt.Sprintf("net.ipv4.ip_forward is %s and cannot be set", cmp.Or(s.facts.Sysctls[key], "missing")), "1",
			"set it where the host is made (a container's manager), then try again")
	}
}

// decideConntrack foresees that kube-proxy exits: it raises nf_conntrack_max
// at its start unless both of its settings are zero.
func decideConntrack(s subject) []verdict {
	const key = "net/netfilter/nf_conntrack_max"
	if s.facts.Sysctls[key] == "" || s.facts.SysctlWritable[key] {
		return ok("can be set")
	}
	conf := s.cluster.Spec.Kubeadm.KubeProxyConfiguration
	if zero(lookup(conf, "conntrack", "maxPerCore")) && zero(lookup(conf, "conntrack", "min")) {
		return ok("read-only, left alone by kube-proxy")
	}
	return warn("net.netfilter.nf_conntrack_max is read-only", "a value that kube-proxy can raise",
		"set spec.kubeadm.kubeProxyConfiguration.conntrack: {maxPerCore: 0, min: 0}")
}

// zero reports a number 0 of whatever type the decoder chose.
func zero(v any) bool { return v != nil && fmt.Sprint(v) == "0" }

// The kubelet refuses cgroup version 1 by default from this minor on.
const failCgroupV1Minor = 35

func decideCgroups(s subject) []verdict {
	f := s.facts
	if f.CgroupFS == "cgroup2fs" {
		var missing []string
		for _, c := range []string{"cpu", "memory", "pids"} {
			if !slices.Contains(f.CgroupControllers, c) {
				missing = append(missing, c)
			}
		}
		if len(missing) > 0 {
			return fail("version 2 without the controllers "+strings.Join(missing, ", "), "cpu, memory and pids",
				"enable them on the kernel's command line (cgroup_enable=memory), or delegate them to the container")
		}
		return ok("version 2")
	}
	const fix = "boot with systemd.unified_cgroup_hierarchy=1, or set spec.kubeadm.kubeletConfiguration.failCgroupV1: false"
	switch {
	case s.cluster.Spec.Kubeadm.KubeletConfiguration["failCgroupV1"] == false:
		return ok("version 1, allowed by failCgroupV1: false")
	case minor(s.cluster) >= failCgroupV1Minor:
		return fail("version 1", "version 2: the kubelet refuses 1 from Kubernetes 1.35 on", fix)
	default:
		return warn("version 1", "version 2: the kubelet will refuse 1 from Kubernetes 1.35 on", fix)
	}
}

func decideSELinux(s subject) []verdict {
	if s.facts.SELinuxEnforcing {
		return warn("enforcing", "permissive, or a policy for containers", "install container-selinux, or setenforce 0")
	}
	return ok("not enforcing")
}

// timeFloor is when Kubernetes 1.33, the oldest that we install, came out: a
// clock before it is wrong without asking any other.
var timeFloor = time.Date(2025, time.April, 23, 0, 0, 0, 0, time.UTC)

// timeCeiling is far enough to outlive this program and near enough to catch
// a clock that counts from the wrong epoch.
var timeCeiling = timeFloor.AddDate(40, 0, 0)

func decideTime(s subject) []verdict {
	now := s.facts.Now.UTC()
	seen := now.Format(time.RFC3339)
	if now.Before(timeFloor) || now.After(timeCeiling) {
		return fail(seen, "a date between "+timeFloor.Format(time.DateOnly)+" and "+timeCeiling.Format(time.DateOnly),
			"set the clock and run a time service (systemd-timesyncd, chrony)")
	}
	return ok("%s", seen)
}

func decideHostname(s subject) []verdict {
	name := s.facts.Hostname
	short, _, _ := strings.Cut(name, ".")
	var out []verdict
	if !strings.EqualFold(name, s.host.Name) && !strings.EqualFold(short, s.host.Name) {
		out = warn(name, s.host.Name+", the name in the inventory",
			"hostnamectl set-hostname "+s.host.Name+"; the node is called "+s.host.Name+" either way")
	}
	if s.facts.Nameless {
		out = append(out, warn(name+" does not resolve on the host itself", "an answer: sudo asks on every command and may wait 5 s for it",
			"echo 127.0.1.1 "+name+" >>/etc/hosts")...)
	}
	if len(out) == 0 {
		return ok("%s", name)
	}
	return out
}
