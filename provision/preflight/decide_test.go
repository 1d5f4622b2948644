package preflight

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
)

// healthy are the facts of a host on which nothing is wrong.
func healthy(h inventory.Host) Facts {
	f := Facts{
		Kernel: "Linux", Machine: "x86_64", Hostname: h.Name,
		OS:    map[string]string{"ID": "debian", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"},
		Cores: 2, MemoryMB: 4000, Systemd: true,
		BootID: "boot-" + h.Name, MachineID: "machine-" + h.Name, ProductUUID: "uuid-" + h.Name,
		CgroupFS: "cgroup2fs", CgroupControllers: []string{"cpu", "memory", "pids"},
		Tools: map[string]bool{}, SysctlWritable: map[string]bool{"net/ipv4/ip_forward": true, "net/netfilter/nf_conntrack_max": true},
		Sysctls: map[string]string{"net/ipv4/ip_forward": "0", "net/netfilter/nf_conntrack_max": "262144"},
		Modules: map[string]bool{"overlay": true, "br_netfilter": true, "vxlan": true},
		MACs:    map[string]string{"eth0": "02:00:00:00:00:" + h.Name},
		Now:     time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC),
	}
	for _, tool := range slices.Concat(toolsEverywhere, toolsOfNodes, toolsOfBalancers, []string{"dpkg"}) {
		f.Tools[tool] = true
	}
	for _, path := range []string{"/", "/var/lib/etcd", "/var/lib/containerd", "/var/lib/kubelet", "/etc/kubernetes"} {
		f.Disks = append(f.Disks, Disk{Path: path, Mount: "/", SizeMB: 40000, AvailMB: 30000, Inodes: 1e6, InodesFree: 9e5})
	}
	if a := internal(h); a.IsValid() {
		f.Addresses = []Address{{"lo", netip.MustParsePrefix("127.0.0.1/8")}, {"eth0", netip.PrefixFrom(a, 24)}}
	}
	return f
}

func hostNamed(c *inventory.Cluster, name string) inventory.Host {
	i := slices.IndexFunc(c.Spec.Hosts, func(h inventory.Host) bool { return h.Name == name })
	return c.Spec.Hosts[i]
}

// problems are "Check severity" of everything that is not OK, in order.
func problems(findings []Finding) string {
	var out []string
	for _, f := range findings {
		if f.Severity != OK {
			out = append(out, f.Check+" "+f.Severity.String())
		}
	}
	return strings.Join(out, ", ")
}

// onMasters has the masters balance, and no other host.
func onMasters(c *inventory.Cluster) {
	c.Spec.LoadBalancer.Mode, c.Spec.Endpoint.Port = inventory.BalancerMasters, 8443
	c.Spec.Hosts = slices.DeleteFunc(c.Spec.Hosts, func(h inventory.Host) bool { return h.Role == inventory.RoleLoadBalancer })
}

type hostRow struct {
	name   string
	host   string
	change func(*inventory.Cluster, *Facts, *Options)
	want   string // problems
	seen   string // part of the first problem
}

func kubeletConf(c *inventory.Cluster, key string, value any) {
	c.Spec.Kubeadm.KubeletConfiguration = map[string]any{key: value}
}

var hostRows = []hostRow{
	{"a bare Debian master is fine", "cp-1", func(*inventory.Cluster, *Facts, *Options) {}, "", ""},
	{"a bare worker is fine", "w-1", func(*inventory.Cluster, *Facts, *Options) {}, "", ""},
	{"a bare balancer is fine", "lb-1", func(*inventory.Cluster, *Facts, *Options) {}, "", ""},
	{"another distribution is a warning", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.OS = map[string]string{"ID": "rocky"} }, "OS warning", "rocky"},
	{"another system is refused", "lb-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Kernel, f.OS = "FreeBSD", nil }, "OS error", "FreeBSD"},
	{"an ARM host with a bundle for amd64 is refused", "cp-1", func(_ *inventory.Cluster, f *Facts, o *Options) { f.Machine, o.Arch = "aarch64", "amd64" }, "Architecture error", "arm64"},
	{"an ARM host without a bundle is fine", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Machine = "aarch64" }, "", ""},
	{"a host without systemd is refused", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Systemd = false }, "Systemd error", "process 1"},
	{"a master with one core is refused", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Cores = 1 }, "Cores error", "1 core"},
	{"a worker with one core and little memory is fine", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Cores, f.MemoryMB = 1, 900 }, "", ""},
	{"a master with 1699 MB is refused", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.MemoryMB = 1699 }, "Memory error", "1699 MB"},
	{"a master with 1700 MB is fine", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.MemoryMB = 1700 }, "", ""},
	{"a read-only root is refused", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.ReadOnly = []string{"/", "/etc"} }, "ReadOnlyRoot error", "/, /etc"},
	{"a node without losetup is refused", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { delete(f.Tools, "losetup") }, "Tools error", "losetup"},
	{"a balancer needs no losetup", "lb-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { delete(f.Tools, "losetup") }, "", ""},
	{"dpkg is needed for a bundle with Debian packages", "lb-1", func(_ *inventory.Cluster, f *Facts, o *Options) { delete(f.Tools, "dpkg"); o.Debs = true }, "Tools error", "dpkg"},
	{"a balancer without perl is refused", "lb-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { delete(f.Tools, "perl") }, "Tools error", "missing: perl"},
	{"a master that balances needs perl", "cp-1", func(c *inventory.Cluster, f *Facts, _ *Options) {
		onMasters(c)
		delete(f.Tools, "perl")
	}, "Tools error", "missing: perl"},
	{"a master beside dedicated balancers needs no perl", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { delete(f.Tools, "perl") }, "", ""},
	{"dpkg is not needed without", "lb-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { delete(f.Tools, "dpkg") }, "", ""},
	{"packages of another release are refused", "lb-1", func(_ *inventory.Cluster, f *Facts, o *Options) {
		f.OS["VERSION_ID"] = "13"
		o.Distribution = "debian 12"
	}, "OS error", "Debian GNU/Linux 12"},
	{"packages of another distribution are refused", "w-1", func(_ *inventory.Cluster, f *Facts, o *Options) { f.OS["ID"] = "ubuntu"; o.Distribution = "debian 12" }, "OS error", "Debian GNU/Linux 12"},
	{"packages of the host's own are fine", "lb-1", func(_ *inventory.Cluster, f *Facts, o *Options) {
		f.OS["VERSION_ID"] = "12"
		o.Distribution = "debian 12"
	}, "", ""},
	{"the needs of one file system are summed", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { setDisk(f, 4373, 5000) }, "Disk error", "4373 MB free"},
	{"exactly the sum is enough", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { setDisk(f, 4374, 5000) }, "", ""},
	{"less than 15 % free makes the kubelet delete images", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { setDisk(f, 14000, 100000) }, "Disk warning", "14000 MB"},
	{"a master of this cluster has its images already", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { setDisk(f, 1000, 5000); f.Journal = "lab" }, "", ""},
	{"a small disk under etcd alone is named", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) {
		f.Disks[1].Mount, f.Disks[1].AvailMB = "/var/lib/etcd", 500
	}, "Disk error", "on /var/lib/etcd"},
	{"a running master keeps room for an exchange of its files", "cp-1", func(_ *inventory.Cluster, f *Facts, o *Options) {
		f.Disks[4].Mount, f.Disks[4].SizeMB, f.Disks[4].AvailMB = "/etc/kubernetes", 64, ExchangeMB-1
		o.Ours = func(string) bool { return true }
	}, "Disk error", "31 MB free of 64 on /etc/kubernetes"},
	{"and needs no more", "cp-1", func(_ *inventory.Cluster, f *Facts, o *Options) {
		f.Disks[4].Mount, f.Disks[4].SizeMB, f.Disks[4].AvailMB = "/etc/kubernetes", 64, ExchangeMB
		o.Ours = func(string) bool { return true }
	}, "", ""},
	{"few inodes are refused", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Disks[0].InodesFree = 100 }, "Inodes error", "100 inodes"},
	{"etcd alone on a file system needs few inodes", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) {
		f.Disks[1] = Disk{Path: "/var/lib/etcd", Mount: "/var/lib/etcd", SizeMB: 8000, AvailMB: 8000, Inodes: 5000, InodesFree: 4998}
	}, "", ""},
	{"a file system without inodes is fine", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Disks[0].Inodes, f.Disks[0].InodesFree = 0, 0 }, "", ""},
	{"swap is refused", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Swaps = []string{"/dev/sda2"} }, "Swap error", "/dev/sda2"},
	{"swap is fine with failSwapOn: false", "w-1", func(c *inventory.Cluster, f *Facts, _ *Options) {
		f.Swaps = []string{"/dev/sda2"}
		kubeletConf(c, "failSwapOn", false)
	}, "", ""},
	{"swap is refused with the NodeSwap gate alone", "w-1", func(c *inventory.Cluster, f *Facts, _ *Options) {
		f.Swaps = []string{"/dev/sda2"}
		kubeletConf(c, "featureGates", map[string]any{"NodeSwap": true})
	}, "Swap error", "/dev/sda2"},
	{"swap on a balancer is fine", "lb-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Swaps = []string{"/dev/sda2"} }, "", ""},
	{"no overlay is refused", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { delete(f.Modules, "overlay") }, "KernelModules error", "overlay"},
	{"no br_netfilter is refused with flannel", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { delete(f.Modules, "br_netfilter") }, "KernelModules error", "br_netfilter"},
	{"no br_netfilter is a warning without flannel", "w-1", func(c *inventory.Cluster, f *Facts, _ *Options) {
		delete(f.Modules, "br_netfilter")
		c.Spec.Network.CNI.Plugin = inventory.CNINone
	}, "KernelModules warning", "br_netfilter"},
	{"no vxlan is refused where the kernel's lists say so", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) {
		delete(f.Modules, "vxlan")
		f.ModulesKnown = true
	}, "KernelModules error", "vxlan"},
	{"no vxlan is a warning where it cannot be known", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { delete(f.Modules, "vxlan") }, "KernelModules warning", "vxlan"},
	{"host-gw needs no vxlan", "w-1", func(c *inventory.Cluster, f *Facts, _ *Options) {
		delete(f.Modules, "vxlan")
		c.Spec.Network.CNI.Backend = inventory.CNIBackendHostGW
	}, "", ""},
	{"ip_forward that cannot be set is refused", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { delete(f.SysctlWritable, "net/ipv4/ip_forward") }, "IPForward error", "is 0"},
	{"ip_forward that is set is fine", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) {
		delete(f.SysctlWritable, "net/ipv4/ip_forward")
		f.Sysctls["net/ipv4/ip_forward"] = "1"
	}, "", ""},
	{"a read-only conntrack table is a warning", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) {
		delete(f.SysctlWritable, "net/netfilter/nf_conntrack_max")
	}, "Conntrack warning", "read-only"},
	{"a read-only conntrack table is fine when kube-proxy leaves it alone", "w-1", func(c *inventory.Cluster, f *Facts, _ *Options) {
		delete(f.SysctlWritable, "net/netfilter/nf_conntrack_max")
		c.Spec.Kubeadm.KubeProxyConfiguration = map[string]any{"conntrack": map[string]any{"maxPerCore": int64(0), "min": 0.0}}
	}, "", ""},
	{"cgroup v1 is refused from 1.35 on", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.CgroupFS = "tmpfs" }, "Cgroups error", "version 1"},
	{"cgroup v1 is a warning before 1.35", "w-1", func(c *inventory.Cluster, f *Facts, _ *Options) {
		f.CgroupFS = "tmpfs"
		c.Spec.Kubernetes.Version = "v1.34.4"
	}, "Cgroups warning", "version 1"},
	{"cgroup v1 is fine with failCgroupV1: false", "w-1", func(c *inventory.Cluster, f *Facts, _ *Options) {
		f.CgroupFS = "tmpfs"
		kubeletConf(c, "failCgroupV1", false)
	}, "", ""},
	{"cgroup v2 without the memory controller is refused", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.CgroupControllers = []string{"cpu", "pids"} }, "Cgroups error", "memory"},
	{"an internal address that the host does not have is refused", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) {
		f.Addresses[1].Prefix = netip.MustParsePrefix("10.0.0.99/24")
	}, "InternalAddress error", "the host has 10.0.0.99"},
	{"a VIP outside of the balancer's subnet is refused", "lb-1", func(c *inventory.Cluster, _ *Facts, _ *Options) { c.Spec.LoadBalancer.VIP = "10.9.0.10" }, "VIPSubnet error", "eth0 holds 10.0.0.0/24"},
	{"a balancer behind a router is refused: its adverts would not count", "lb-1", func(c *inventory.Cluster, _ *Facts, _ *Options) {
		c.Spec.Hosts[1].InternalAddress = "10.7.0.12"
	}, "VIPSubnet error", "the internal address of lb-2 (10.7.0.12)"},
	{"a VIP on another interface is fine when it is named", "lb-1", func(c *inventory.Cluster, f *Facts, _ *Options) {
		c.Spec.LoadBalancer.VIP, c.Spec.LoadBalancer.Interface = "10.9.0.10", "eth1"
		f.Addresses = append(f.Addresses, Address{"eth1", netip.MustParsePrefix("10.9.0.11/24")})
	}, "", ""},
	{"an interface that is not there is refused", "lb-1", func(c *inventory.Cluster, _ *Facts, _ *Options) { c.Spec.LoadBalancer.Interface = "eth9" }, "VIPSubnet error", "eth9"},
	{"an external balancer's address may be anywhere", "lb-1", func(c *inventory.Cluster, _ *Facts, _ *Options) {
		c.Spec.LoadBalancer = inventory.LoadBalancer{Mode: inventory.BalancerExternal, VIP: "10.9.0.10"}
	}, "", ""},
	{"a VIP outside of the subnet of a master that balances is refused", "cp-1", func(c *inventory.Cluster, _ *Facts, _ *Options) {
		onMasters(c)
		c.Spec.LoadBalancer.VIP = "10.9.0.10"
	}, "VIPSubnet error", "eth0 holds 10.0.0.0/24"},
	{"a worker where the masters balance needs no place for the VIP", "w-1", func(c *inventory.Cluster, _ *Facts, _ *Options) {
		onMasters(c)
		c.Spec.LoadBalancer.VIP = "10.9.0.10"
	}, "", ""},
	{"the endpoint's port is taken on a master that balances", "cp-1", func(c *inventory.Cluster, f *Facts, _ *Options) {
		onMasters(c)
		f.Listeners = []Listener{{Port: 8443, Process: "nginx (pid 7)"}}
	}, "Ports error", "8443 by nginx (pid 7)"},
	{"the endpoint's port on a master beside dedicated balancers is nobody's business", "cp-1", func(c *inventory.Cluster, f *Facts, _ *Options) {
		c.Spec.Endpoint.Port = 8443
		f.Listeners = []Listener{{Port: 8443, Process: "nginx (pid 7)"}}
	}, "", ""},
	{"our HAProxy beside our API server is fine", "cp-1", func(c *inventory.Cluster, f *Facts, _ *Options) {
		onMasters(c)
		f.Listeners = []Listener{{Port: 6443, Process: "kube-apiserver (pid 7)"}, {Port: 8443, Process: "haproxy (pid 8)"}}
		f.Journal = "lab"
	}, "", ""},
	{"a port that is taken names the process", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) {
		f.Listeners = []Listener{{Port: 6443, Process: "nginx (pid 7)"}, {Port: 2379}}
	}, "Ports error", "6443 by nginx (pid 7), 2379 by a process that is not known"},
	{"the ports of this cluster's own processes are fine", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) {
		f.Listeners = []Listener{{Port: 6443, Process: "kube-apiserver (pid 7)"}, {Port: 10257, Process: "kube-controller (pid 8)"}}
		f.Journal = "lab"
	}, "", ""},
	{"a stranger on a port of this cluster's host is refused", "lb-1", func(_ *inventory.Cluster, f *Facts, _ *Options) {
		f.Listeners = []Listener{{Port: 6443, Process: "nginx (pid 7)"}}
		f.Journal = "lab"
	}, "Ports error", "nginx"},
	{"a firewall is a warning that names the ports", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Firewalls = []string{"ufw"} }, "Firewall warning", "ufw is active"},
	{"SELinux enforcing is a warning", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.SELinuxEnforcing = true }, "SELinux warning", "enforcing"},
	{"a clock in 1970 is refused", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Now = time.Unix(90, 0) }, "Time error", "1970-01-01"},
	{"a clock in 2100 is refused", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Now = f.Now.AddDate(74, 0, 0) }, "Time error", "2100-"},
	{"another host name is a warning", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Hostname = "debian" }, "Hostname warning", "debian"},
	{"a host that does not know its own name is a warning", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Nameless = true }, "Hostname warning", "does not resolve"},
	{"a full host name is fine", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Hostname = "CP-1.example.com" }, "", ""},
	{"an endpoint name that does not resolve is refused", "cp-1", func(c *inventory.Cluster, f *Facts, _ *Options) {
		c.Spec.Endpoint.Host, c.Spec.LoadBalancer.VIP, f.ResolvedAsked = "api.example.com", "10.0.0.10", true
	}, "EndpointName error", "does not resolve"},
	{"an endpoint name that resolves elsewhere is refused", "cp-1", func(c *inventory.Cluster, f *Facts, _ *Options) {
		c.Spec.Endpoint.Host, c.Spec.LoadBalancer.VIP, f.ResolvedAsked = "api.example.com", "10.0.0.10", true
		f.Resolved = []netip.Addr{netip.MustParseAddr("10.0.0.99")}
	}, "EndpointName error", "10.0.0.99"},
	{"CRI-O beside containerd is a warning", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Runtimes = []string{"/run/crio/crio.sock"} }, "ContainerRuntime warning", "crio"},
	{"containerd and Docker are fine", "w-1", func(_ *inventory.Cluster, f *Facts, _ *Options) {
		f.Runtimes = []string{"/run/containerd/containerd.sock", "/run/docker.sock"}
	}, "", ""},
	{"a leftover admin.conf is refused", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Files = []string{"/etc/kubernetes/admin.conf"} }, "ForeignFiles error", "/etc/kubernetes/admin.conf"},
	{"another CA is refused even where the journal has our name", "cp-1", func(_ *inventory.Cluster, f *Facts, o *Options) {
		f.Files, f.CA, f.Journal = []string{"/etc/kubernetes/pki/ca.crt"}, strings.Repeat("a", 64), "lab"
		o.CAFingerprint = strings.Repeat("b", 64)
	}, "ForeignFiles error", "aaaaaaaaaaaa"},
	{"the journal of another cluster names it", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) {
		f.Files, f.Journal = []string{"/var/lib/etcd/member"}, "prod"
	}, "ForeignFiles error", "prod"},
	{"a balancer of another cluster is refused", "lb-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Journal = "prod" }, "ForeignFiles error", "prod"},
	{"our CA makes a host ours", "cp-1", func(_ *inventory.Cluster, f *Facts, o *Options) {
		f.Files, f.CA = []string{"/etc/kubernetes/pki/ca.crt", "/var/lib/etcd/member"}, strings.Repeat("a", 64)
		o.CAFingerprint = f.CA
	}, "", ""},
	{"our journal makes a half-built host ours", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) {
		f.Files, f.CA, f.Journal = []string{"/etc/kubernetes/pki/ca.crt"}, strings.Repeat("a", 64), "lab"
	}, "", ""},
	{"the caller can say that a host is ours", "cp-1", func(_ *inventory.Cluster, f *Facts, o *Options) {
		f.Files = []string{"/var/lib/etcd/member"}
		o.Ours = func(name string) bool { return name == "cp-1" }
	}, "", ""},
	{"what packages ship and what we moved aside is no cluster", "cp-1", func(_ *inventory.Cluster, f *Facts, _ *Options) {
		f.Files = []string{"/etc/kubernetes/manifests/.kubelet-keep", "/etc/kubernetes/pki/ca.crt.ha-install-20261122T140000Z"}
	}, "", ""},
	{"files on a balancer are a warning", "lb-1", func(_ *inventory.Cluster, f *Facts, _ *Options) { f.Files = []string{"/etc/kubernetes/admin.conf"} }, "ForeignFiles warning", "admin.conf"},
}

func setDisk(f *Facts, avail, size int64) {
	for i := range f.Disks {
		f.Disks[i].AvailMB, f.Disks[i].SizeMB = avail, size
	}
}

func TestDecideHost(t *testing.T) {
	for _, row := range hostRows {
		t.Run(row.name, func(t *testing.T) {
			c, opt := testCluster(), Options{}
			h := hostNamed(c, row.host)
			f := healthy(h)
			row.change(c, &f, &opt)
			got := decideHost(subject{cluster: c, opt: &opt, host: h, facts: f})
			if p := problems(got); p != row.want {
				t.Fatalf("found %q, wanted %q\n%+v", p, row.want, got)
			}
			for _, v := range got {
				if v.Severity == OK {
					continue
				}
				if !strings.Contains(v.Seen, row.seen) {
					t.Errorf("seen %q, wanted %q in it", v.Seen, row.seen)
				}
				if v.Wanted == "" || v.Fix == "" {
					t.Errorf("no way out: %+v", v)
				}
				return
			}
		})
	}
}
