package fidelity

import (
	"context"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/preflight"
)

// recorder keeps what scripts have answered.
type recorder struct {
	host.Host
	out []byte
}

func (r *recorder) Query(ctx context.Context, argv ...string) ([]byte, error) {
	out, err := r.Host.Query(ctx, argv...)
	if argv[0] == "sh" {
		r.out = append(r.out, out...)
	}
	return out, err
}

// facts are the names of what a simulated host tells to preflight. A real host
// tells more; what a container cannot tell (its firmware's UUID, the modules and
// the controllers of its kernel) is not among them.
var facts = strings.Fields(`addr boot_id cgroup_fs clock_begin clock_end cores disk hostname kernel mac machine
	machine_id memory_kb os sysctl_net/ipv4/ip_forward systemd tool`)

// Facts are claims about what preflight reads of a bare host.
func Facts() []Claim {
	return []Claim{{"a host tells its facts, each under its name", []string{"sh ... ha-install-facts", "sh ... ha-install-fsync"}, func(ctx context.Context, s *Scene) string {
		r := &recorder{Host: s.Host}
		ih, _ := s.Cluster.HostByName(s.Host.Name())
		alone := *s.Cluster
		alone.Spec.Hosts = []inventory.Host{ih}
		probed := false
		preflight.Run(ctx, &alone, map[string]host.Reader{ih.Name: r}, preflight.Options{DiskProbe: func(ctx context.Context, _ string, cmd host.Command) ([]byte, error) {
			out, err := s.Host.Run(ctx, cmd)
			probed = err == nil && strings.Contains(string(out), " bytes (")
			return out, err
		}})
		var told []string
		for line := range strings.Lines(string(r.out)) {
			name, _, _ := strings.Cut(strings.TrimSpace(line), "=")
			told = append(told, name)
		}
		var missing []string
		for _, name := range facts {
			if !slices.Contains(told, name) {
				missing = append(missing, name)
			}
		}
		if !probed && ih.Role == inventory.RoleControlPlane {
			missing = append(missing, "the latency of its disk")
		}
		return strings.Join(missing, " ")
	}, ""}}
}
