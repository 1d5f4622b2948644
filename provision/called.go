package provision

import (
	"context"
	"strings"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
)

// masterCalled is the inventory's name of the master whose own host name is called: by
// it controller-managers and schedulers sign their leases, where Nodes, members and we
// go by the inventory's. It is most often the same, or the same with a domain; only
// otherwise the masters are asked. A name that is none of theirs comes back as it is.
func (s *Site) masterCalled(ctx context.Context, called string) (name string, master bool) {
	short, _, _ := strings.Cut(called, ".")
	for _, like := range []string{called, short} {
		for _, ih := range s.Cluster.ControlPlanes() {
			if strings.EqualFold(ih.Name, like) {
				return ih.Name, true
			}
		}
	}
	s.mu.Lock()
	name, master = s.called[called]
	s.mu.Unlock()
	if master {
		return name, true
	}
	// Who does not answer is not known by its name; the others are.
	_ = s.onAll(ctx, s.Cluster.ControlPlanes(), func(ctx context.Context, ih inventory.Host, h host.Host) error {
		out, err := h.Query(ctx, "uname", "-n")
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.called[strings.TrimSpace(string(out))] = ih.Name
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if name, master = s.called[called]; master {
		return name, true
	}
	return called, false
}
