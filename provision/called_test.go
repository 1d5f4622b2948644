package provision

import (
	"testing"

	"github.com/ha-install/ha-install/provision/phase"
)

// Components sign their leases by the host's own name, which the inventory need not
// know: the cluster comes up all the same, status and a drill name the master, and a
// name that is nobody's stays a stranger's.
func TestMastersMayCallThemselvesOtherwise(t *testing.T) {
	t.Parallel()
	for name, calls := range map[string]string{"a name of its own": "node-17", "a domain": "cp-1.example.com", "capitals": "CP-1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, dirs := testCluster(t), baseDirs(t)
			bubble(t, func(t *testing.T) {
				w := newWorld(t, c)
				w.Slow = true
				w.Host("cp-1").Calls = calls
				running(t, w, c, dirs[0])
				ctx := w.Begin(t.Context(), nil)
				site := Connect(ctx, c, dirs[0], w.Dial)
				defer site.Close()
				st := TakeStatus(ctx, site)
				for _, l := range st.Leaders {
					if l.Node != "cp-1" {
						t.Errorf("%s is led by %s, want cp-1", l.Component, l.Node)
					}
				}
				if len(st.Leaders) != 2 || len(st.Problems) > 0 {
					t.Errorf("%d leaders, problems %q", len(st.Leaders), st.Problems)
				}
				if called, known := site.masterCalled(ctx, "cp-17"); known || called != "cp-17" {
					t.Errorf("cp-17 is taken for %s", called)
				}
				r, err := drillAll(t.Context(), w, c, dirs[0], &phase.Runner{}, "scheduler")
				if err != nil || len(r.Scenarios) != 1 || r.Scenarios[0].Host != "cp-1" {
					t.Errorf("%+v, %v", r.Scenarios, err)
				}
			})
		})
	}
}
