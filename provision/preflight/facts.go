package preflight

import (
	"net/netip"
	"time"
)

// Facts is what one host said of itself.
type Facts struct {
	Kernel, Machine, Hostname string            // uname -s, -m, -n
	OS                        map[string]string // os-release
	Cores                     int
	MemoryMB                  int64
	Systemd                   bool   // booted with systemd as process 1
	Container                 string // "lxc", "docker", ...; "" on a machine
	BootID, MachineID         string
	ProductUUID               string // "" where the firmware has none
	Swaps                     []string
	SELinuxEnforcing          bool
	CgroupFS                  string // "cgroup2fs" for version 2
	CgroupControllers         []string
	Tools                     map[string]bool
	ReadOnly                  []string // paths on read-only mounts
	Sysctls                   map[string]string
	SysctlWritable            map[string]bool
	Modules                   map[string]bool // loaded, built in or loadable
	ModulesKnown              bool            // the kernel's own lists were there to look in
	Disks                     []Disk
	Addresses                 []Address
	MACs                      map[string]string // by interface
	Listeners                 []Listener
	Files                     []string // traces of a cluster
	CA                        string   // Fingerprint of /etc/kubernetes/pki/ca.crt
	Journal                   string   // cluster that our journal on the host names
	Runtimes                  []string // sockets of container runtimes
	Firewalls                 []string // active ones
	Resolved                  []netip.Addr
	ResolvedAsked             bool
	Nameless                  bool          // the host cannot resolve its own name
	Now                       time.Time     // the host's clock
	ClockOffset               time.Duration // host minus operator
	ClockError                time.Duration // the most that the offset can be off
}

// Disk is the file system that holds, or would hold, Path.
type Disk struct {
	Path, Mount        string
	SizeMB, AvailMB    int64
	Inodes, InodesFree int64 // both 0 on file systems without a fixed number
}

// Address is an address of an interface.
type Address struct {
	Interface string
	Prefix    netip.Prefix // the address itself with its prefix length
}

// Listener is a TCP port in use.
type Listener struct {
	Port    int
	Address netip.Addr
	Process string // name and pid, "" when not known
}

// has reports whether the address is one of the host's own.
func (f Facts) has(a netip.Addr) bool { return f.interfaceOf(a) != "" }

// interfaceOf names the interface that holds the address, or "".
func (f Facts) interfaceOf(a netip.Addr) string {
	for _, own := range f.Addresses {
		if own.Prefix.Addr() == a {
			return own.Interface
		}
	}
	return ""
}
