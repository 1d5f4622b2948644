package provision

import (
	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/haproxy"
	"github.com/ha-install/ha-install/templates"
)

// apiServers is the backend of every balancer.
var apiServers = haproxy.Backend{Socket: templates.HAProxySocket, Name: templates.HAProxyBackend}

// backend names the API servers that a balancer sends nobody to, and those
// that it does not know.
func (c *conclusion) backend(h HostStatus) {
	if h.BackendErr != "" && h.Units["haproxy"] == ok {
		c.problem("%s: haproxy does not say how its backends are: %s", h.Name, h.BackendErr)
	}
	if h.Backend == nil {
		return
	}
	for _, server := range h.Backend.Servers {
		switch {
		case server.Out():
			c.problem("%s: backend %s is %s: by order, it gets nobody new; a restart may be under way, else `ha-install apply` takes that back, as the balancer itself does after %s", h.Name, server.Name, server, drainExpiry)
		case server.State != haproxy.Up:
			c.problem("%s: backend %s is %s; if its API server is well, `ha-install preflight` says what is between them", h.Name, server.Name, server)
		}
	}
	for _, master := range c.st.Hosts {
		if _, there := h.Backend.Server(master.Name); !there && master.Role == inventory.RoleControlPlane {
			c.problem("%s: backend %s is not configured; `ha-install apply` adds it", h.Name, master.Name)
		}
	}
}
