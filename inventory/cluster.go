package inventory

import (
	"net/netip"
	"path/filepath"
)

// ControlPlanes lists the hosts with role control-plane, in the file's order;
// the first is where a cluster begins.
func (c *Cluster) ControlPlanes() []Host { return c.withRole(RoleControlPlane) }

// Workers lists the hosts with role worker, in the file's order.
func (c *Cluster) Workers() []Host { return c.withRole(RoleWorker) }

// Balancers lists the hosts with role load-balancer, in the file's order.
func (c *Cluster) Balancers() []Host { return c.withRole(RoleLoadBalancer) }

// Nodes lists the hosts that are Nodes of the cluster: control planes first, then workers.
func (c *Cluster) Nodes() []Host { return append(c.ControlPlanes(), c.Workers()...) }

func (c *Cluster) withRole(role Role) []Host {
	var hosts []Host
	for _, h := range c.Spec.Hosts {
		if h.Role == role {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// HostByName finds a host by its name.
func (c *Cluster) HostByName(name string) (Host, bool) {
	for _, h := range c.Spec.Hosts {
		if h.Name == name {
			return h, true
		}
	}
	return Host{}, false
}

// IP is the host's internal address; invalid only for a Host that no Parse has seen.
func (h Host) IP() netip.Addr {
	ip, err := netip.ParseAddr(h.InternalAddress)
	if err != nil {
		return netip.Addr{}
	}
	return ip
}

// NoBastion as a host's bastion address means that this host is reached
// directly although the others are not.
const NoBastion = "none"

// EffectiveSSH is how h is reached: the defaults for all hosts, overridden
// field by field with the host's own; a list or a bastion replaces the default
// as a whole. Files are resolved with Path. User "", Port 0 and Sudo nil mean
// that nobody said: ~/.ssh/config decides, else root, 22 and "unless root".
func (c *Cluster) EffectiveSSH(h Host) SSH {
	s, own := c.Spec.SSH, h.SSH
	override(&s.User, own.User)
	override(&s.Port, own.Port)
	override(&s.Agent, own.Agent)
	override(&s.Bastion, own.Bastion)
	override(&s.Sudo, own.Sudo)
	if own.IdentityFiles != nil {
		s.IdentityFiles = own.IdentityFiles
	}
	if own.KnownHosts != nil {
		s.KnownHosts = own.KnownHosts
	}
	s.HostKeys = own.HostKeys // pinned per host only
	s.IdentityFiles = c.paths(s.IdentityFiles)
	s.KnownHosts = c.paths(s.KnownHosts)
	switch {
	case s.Bastion == nil:
	case s.Bastion.Address == NoBastion:
		s.Bastion = nil
	default:
		bastion := *s.Bastion
		bastion.IdentityFiles = c.paths(bastion.IdentityFiles)
		s.Bastion = &bastion
	}
	return s
}

func override[T comparable](field *T, own T) {
	var zero T
	if own != zero {
		*field = own
	}
}

// Path resolves a path written in the inventory: a relative one starts at the
// inventory's directory; "" and those that begin with "~" stay as they are.
func (c *Cluster) Path(path string) string {
	if path == "" || path[0] == '~' || filepath.IsAbs(path) || c.source == nil {
		return path
	}
	return filepath.Join(filepath.Dir(c.source.file), path)
}

func (c *Cluster) paths(list []string) []string {
	if list == nil {
		return nil
	}
	out := make([]string, len(list))
	for i, path := range list {
		out[i] = c.Path(path)
	}
	return out
}
