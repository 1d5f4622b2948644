package preflight

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/inventory"
)

// Names of the checks: what a report shows, and what the inventory's
// spec.preflight.ignoreErrors takes.
const (
	CheckConnection       = "Connection"
	CheckHostKey          = "HostKey"
	CheckLogin            = "Login"
	CheckSudo             = "Sudo"
	CheckFacts            = "Facts"
	CheckOS               = "OS"
	CheckArchitecture     = "Architecture"
	CheckSystemd          = "Systemd"
	CheckCores            = "Cores"
	CheckMemory           = "Memory"
	CheckReadOnlyRoot     = "ReadOnlyRoot"
	CheckTools            = "Tools"
	CheckDisk             = "Disk"
	CheckInodes           = "Inodes"
	CheckSwap             = "Swap"
	CheckKernelModules    = "KernelModules"
	CheckIPForward        = "IPForward"
	CheckConntrack        = "Conntrack"
	CheckCgroups          = "Cgroups"
	CheckInternalAddress  = "InternalAddress"
	CheckVIPSubnet        = "VIPSubnet"
	CheckVirtualRouterID  = "VirtualRouterID"
	CheckPorts            = "Ports"
	CheckForeignFiles     = "ForeignFiles"
	CheckContainerRuntime = "ContainerRuntime"
	CheckFirewall         = "Firewall"
	CheckSELinux          = "SELinux"
	CheckTime             = "Time"
	CheckEndpointName     = "EndpointName"
	CheckHostname         = "Hostname"
	CheckMachineID        = "MachineID"
	CheckProductUUID      = "ProductUUID"
	CheckMACAddress       = "MACAddress"
	CheckClusterCA        = "ClusterCA"
	CheckClock            = "Clock"
	CheckTunnels          = "Tunnels"
	CheckReachability     = "Reachability"
	CheckPodNetwork       = "PodNetwork"
	CheckEndpoint         = "Endpoint"
	CheckFsync            = "Fsync"
)

// Names returns the checks that ignoreErrors can name, in the report's order.
func Names() []string {
	var names []string
	for _, n := range order {
		if !slices.Contains(unignorable, n) {
			names = append(names, n)
		}
	}
	return names
}

// unignorable are the checks without which nothing can be done with a host,
// and those that keep another cluster from being taken for this one.
var unignorable = []string{CheckConnection, CheckHostKey, CheckLogin, CheckSudo, CheckFacts, CheckForeignFiles, CheckClusterCA}

// order is the order of a host's findings in a report.
var order = []string{
	CheckConnection, CheckHostKey, CheckLogin, CheckSudo, CheckFacts, CheckOS, CheckArchitecture, CheckSystemd, CheckCores, CheckMemory,
	CheckReadOnlyRoot, CheckTools, CheckDisk, CheckInodes, CheckFsync, CheckSwap, CheckKernelModules,
	CheckIPForward, CheckConntrack, CheckCgroups, CheckInternalAddress, CheckVIPSubnet, CheckVirtualRouterID, CheckPorts,
	CheckForeignFiles, CheckClusterCA, CheckContainerRuntime, CheckFirewall, CheckSELinux, CheckTime,
	CheckClock, CheckHostname, CheckMachineID, CheckProductUUID, CheckMACAddress, CheckTunnels,
	CheckReachability, CheckPodNetwork, CheckEndpointName, CheckEndpoint,
}

// verdict is a finding before it has a host and a name.
type verdict struct {
	Severity          Severity
	Seen, Wanted, Fix string
}

func ok(seen string, args ...any) []verdict {
	return []verdict{{Severity: OK, Seen: fmt.Sprintf(seen, args...)}}
}

func warn(seen, wanted, fix string) []verdict { return []verdict{{Warning, seen, wanted, fix}} }
func fail(seen, wanted, fix string) []verdict { return []verdict{{Error, seen, wanted, fix}} }

// hostCheck decides on one host from its facts alone. No roles means all.
type hostCheck struct {
	name   string
	roles  []inventory.Role
	decide func(subject) []verdict
}

var (
	masters = []inventory.Role{inventory.RoleControlPlane}
	nodes   = []inventory.Role{inventory.RoleControlPlane, inventory.RoleWorker}
)

var hostChecks = []hostCheck{
	{CheckOS, nil, decideOS},
	{CheckArchitecture, nil, decideArchitecture},
	{CheckSystemd, nil, decideSystemd},
	{CheckCores, masters, decideCores},
	{CheckMemory, masters, decideMemory},
	{CheckReadOnlyRoot, nil, decideReadOnlyRoot},
	{CheckTools, nil, decideTools},
	{CheckDisk, nil, decideDisk},
	{CheckInodes, nil, decideInodes},
	{CheckSwap, nodes, decideSwap},
	{CheckKernelModules, nodes, decideModules},
	{CheckIPForward, nodes, decideIPForward},
	{CheckConntrack, nodes, decideConntrack},
	{CheckCgroups, nodes, decideCgroups},
	{CheckInternalAddress, nil, decideInternalAddress},
	{CheckVIPSubnet, nil, decideVIPSubnet},
	{CheckPorts, nil, decidePorts},
	{CheckForeignFiles, nil, decideForeignFiles},
	{CheckContainerRuntime, nodes, decideRuntime},
	{CheckFirewall, nil, decideFirewall},
	{CheckSELinux, nil, decideSELinux},
	{CheckTime, nil, decideTime},
	{CheckHostname, nil, decideHostname},
	{CheckEndpointName, nil, decideEndpointName},
}

// decideHost runs every check that applies to the host's role.
func decideHost(s subject) []Finding {
	var findings []Finding
	for _, c := range hostChecks {
		if len(c.roles) > 0 && !slices.Contains(c.roles, s.host.Role) {
			continue
		}
		findings = append(findings, named(s.host.Name, c.name, c.decide(s))...)
	}
	return findings
}

func named(host, check string, verdicts []verdict) []Finding {
	var findings []Finding
	for _, v := range verdicts {
		findings = append(findings, Finding{Host: host, Check: check,
			Severity: v.Severity, Seen: v.Seen, Wanted: v.Wanted, Fix: v.Fix})
	}
	return findings
}

// listed joins up to n items and says how many more there are.
func listed(items []string, n int) string {
	if len(items) <= n {
		return strings.Join(items, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(items[:n], ", "), len(items)-n)
}
