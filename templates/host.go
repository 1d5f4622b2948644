package templates

import (
	"embed"
	"fmt"
	"net/netip"
	"strings"

	"github.com/ha-install/ha-install/inventory"
)

//go:embed files
var files embed.FS

// embedded is a file of the same bytes on every host.
func embedded(name, path string) File {
	content, err := files.ReadFile("files/" + name)
	if err != nil {
		panic(err) // a name that the compiler did not embed
	}
	return File{Path: path, Mode: 0o644, Content: content}
}

// HostFiles are what a master or a worker holds before kubeadm runs, but for
// the CA set and the encryption key. Software that was found installed keeps
// its own systemd units.
func HostFiles(c *inventory.Cluster, h inventory.Host) ([]File, error) {
	if h.Role != inventory.RoleControlPlane && h.Role != inventory.RoleWorker {
		return nil, fmt.Errorf("%s: host files: role is %s, want %s or %s", h.Name, h.Role, inventory.RoleControlPlane, inventory.RoleWorker)
	}
	containerd, err := containerdConfig(c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.Name, err)
	}
	list := []File{
		embedded("modules.conf", "/etc/modules-load.d/ha-install.conf"),
		{Path: "/etc/sysctl.d/90-ha-install.conf", Mode: 0o644, Content: sysctls(c)},
		embedded("crictl.yaml", "/etc/crictl.yaml"),
		{Path: ContainerdConfigPath, Mode: 0o644, Content: containerd},
	}
	if c.Spec.Software.Source != inventory.SourceInstalled {
		list = append(list,
			embedded("containerd.service", "/etc/systemd/system/containerd.service"),
			embedded("kubelet.service", "/etc/systemd/system/kubelet.service"),
			embedded("10-kubeadm.conf", "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf"),
		)
	}
	if c.Spec.Network.CNI.Plugin == inventory.CNIFlannel {
		list = append(list, embedded("10-flannel.conflist", FlannelConflistPath))
	}
	if h.Role == inventory.RoleControlPlane {
		own, err := apiServerFiles(c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name, err)
		}
		list = append(list, own...)
	}
	return list, nil
}

// sysctls turns forwarding on. A leading dash lets a setting fail: in a
// container bridge and inotify settings are the machine's own.
func sysctls(c *inventory.Cluster) []byte {
	lines := []string{
		"# Written by ha-install.",
		"net.ipv4.ip_forward = 1",
		"-net.bridge.bridge-nf-call-iptables = 1",
		"-net.bridge.bridge-nf-call-ip6tables = 1",
		"-fs.inotify.max_user_instances = 8192",
		"-fs.inotify.max_user_watches = 524288",
	}
	if hasIPv6(c.Spec.Network.PodCIDR) {
		lines = append(lines, "net.ipv6.conf.all.forwarding = 1")
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

// hasIPv6 reports whether one of the comma-separated networks is IPv6.
func hasIPv6(cidrs string) bool {
	for _, cidr := range strings.Split(cidrs, ",") {
		if prefix, err := netip.ParsePrefix(strings.TrimSpace(cidr)); err == nil && prefix.Addr().Is6() {
			return true
		}
	}
	return false
}
