package templates

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"text/template"

	"github.com/ha-install/ha-install/inventory"
)

// Balancer is what a balancer's files need beside the inventory.
type Balancer struct {
	Interface string // carries the VIP on this host
	CAPEM     []byte // the cluster's CA, which the health checks verify against
	// Guests are peers beside the hosts that balance: those that begin to, or
	// end it, while others still do.
	Guests []inventory.Host
}

type server struct{ Name, Address string }

// balancerView is what both templates see.
type balancerView struct {
	Cluster, Name, Address           string
	Socket, Backend, Bind, CA, Check string
	Interface, VIP                   string
	HealthPort, RouterID             int
	Servers                          []server
	Peers                            []string
}

var balancerTemplates = template.Must(template.ParseFS(files, "files/*.tmpl"))

// KeepalivedFile is what keepalived reads on a host that balances, or that did
// and is to announce itself to those that will.
func KeepalivedFile(c *inventory.Cluster, h inventory.Host, b Balancer) (File, error) {
	content, err := render("keepalived.conf.tmpl", newBalancerView(c, h, b))
	return File{Path: KeepalivedPath, Mode: 0o644, Content: content}, err
}

// BalancerFiles are what a host that balances holds: HAProxy in front of every
// master of the inventory, keepalived between the hosts that balance.
func BalancerFiles(c *inventory.Cluster, h inventory.Host, b Balancer) ([]File, error) {
	if err := checkBalancer(c, h, b); err != nil {
		return nil, fmt.Errorf("%s: balancer files: %w", h.Name, err)
	}
	view := newBalancerView(c, h, b)
	haproxy, err := render("haproxy.cfg.tmpl", view)
	if err != nil {
		return nil, err
	}
	keepalived, err := KeepalivedFile(c, h, b)
	if err != nil {
		return nil, err
	}
	check := embedded("check-haproxy", KeepalivedCheckPath)
	check.Mode = 0o755
	return []File{
		{Path: HAProxyCAPath, Mode: 0o644, Content: b.CAPEM},
		{Path: HAProxyConfigPath, Mode: 0o644, Content: haproxy},
		check,
		keepalived,
		embedded("restart-always.conf", "/etc/systemd/system/haproxy.service.d/10-ha-install.conf"),
		embedded("restart-always.conf", "/etc/systemd/system/keepalived.service.d/10-ha-install.conf"),
	}, nil
}

func checkBalancer(c *inventory.Cluster, h inventory.Host, b Balancer) error {
	switch {
	case c.Spec.LoadBalancer.Mode == inventory.BalancerExternal:
		return fmt.Errorf("spec.loadBalancer.mode is %s: the balancer is the user's own", inventory.BalancerExternal)
	case !c.Balances(h):
		return fmt.Errorf("role is %s, and with spec.loadBalancer.mode %s that one does not balance", h.Role, c.Spec.LoadBalancer.Mode)
	case virtualIP(c) == "":
		return fmt.Errorf("no VIP: spec.endpoint.host %q is no IP address and spec.loadBalancer.vip is empty", c.Spec.Endpoint.Host)
	case net.ParseIP(virtualIP(c)) == nil:
		return fmt.Errorf("spec.loadBalancer.vip %q: want an IP address", virtualIP(c))
	case b.Interface == "":
		return fmt.Errorf("no interface for the VIP %s", virtualIP(c))
	case len(b.CAPEM) == 0:
		return fmt.Errorf("no CA: the health checks would trust anybody")
	}
	return nil
}

func newBalancerView(c *inventory.Cluster, h inventory.Host, b Balancer) balancerView {
	vip := netip.MustParseAddr(virtualIP(c)) // checkBalancer has looked
	view := balancerView{
		Cluster: c.Metadata.Name, Name: h.Name, Address: internalAddress(h),
		Socket: HAProxySocket, Backend: HAProxyBackend, CA: HAProxyCAPath, Check: KeepalivedCheckPath,
		// Every address, not the VIP alone: the host that does not hold it can
		// be asked too, and takes it over with its listener open.
		Bind:       net.JoinHostPort("", strconv.Itoa(c.Spec.Endpoint.Port)),
		Interface:  b.Interface,
		VIP:        netip.PrefixFrom(vip, vip.BitLen()).String(),
		HealthPort: BalancerHealthPort,
		RouterID:   c.Spec.LoadBalancer.VirtualRouterID,
	}
	if vip.Is6() {
		view.Bind = fmt.Sprintf("[::]:%d v4v6", c.Spec.Endpoint.Port)
	}
	for _, m := range hostsWith(c, inventory.RoleControlPlane) {
		view.Servers = append(view.Servers, server{m.Name, net.JoinHostPort(internalAddress(m), strconv.Itoa(apiServerPort))})
	}
	for _, peer := range append(c.Balancers(), b.Guests...) {
		if peer.Name != h.Name {
			view.Peers = append(view.Peers, internalAddress(peer))
		}
	}
	if len(view.Peers) == 0 {
		// Without a peer keepalived turns to multicast, and obeys whoever
		// announces more than it does. Nobody else speaks from loopback.
		view.Peers = []string{"127.0.0.1"}
		if vip.Is6() {
			view.Peers = []string{"::1"}
		}
	}
	return view
}

func render(name string, view balancerView) ([]byte, error) {
	var out bytes.Buffer
	if err := balancerTemplates.ExecuteTemplate(&out, name, view); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return out.Bytes(), nil
}
