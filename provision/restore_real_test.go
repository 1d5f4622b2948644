package provision

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/etcdtest"
)

// TestRoomInRealDatabases restores snapshots of etcd that is at its quota: one that is
// full of what nobody needs, and one that is full of what is needed.
func TestRoomInRealDatabases(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		says   string
		voters int
		filler func(*etcdtest.Cluster, testing.TB)
		fits   bool
	}{
		{"old revisions of one key, three members", 3, (*etcdtest.Cluster).Fill, true},
		{"old revisions of one key, one member", 1, (*etcdtest.Cluster).Fill, true},
		{"keys that are all needed", 1, (*etcdtest.Cluster).FillWithKeys, false},
	} {
		t.Run(row.says, func(t *testing.T) {
			t.Parallel()
			e := etcdtest.Start(t, row.voters, etcdtest.WithQuota(2<<20))
			m := e.Connect()
			e.Ready(m)
			row.filler(e, t)
			file := e.Snapshot(t, m, "cp-1")
			e.Restore(t, file, "prod-1")
			c := testCluster(t)
			c.Spec.Hosts = c.ControlPlanes()[:row.voters]
			site := newSite(c, t.TempDir())
			site.members = m
			r := &restore{apply: &apply{Site: site}}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			var run phase.Runner
			err := run.Run(ctx, []phase.Stage{phase.One(r.room()), phase.One(r.writes())})
			if row.fits {
				if v := m.Look(ctx, etcd.Options{}); err != nil || !v.State.HasQuorum() || len(v.Alarms) > 0 || v.Write == nil || v.Write.Err != "" {
					t.Errorf("%s %v, alarms %v, write %+v, error %v", v.State, v.Reasons, v.Alarms, v.Write, err)
				}
				return
			}
			var refused *etcd.QuorumError
			if !errors.As(err, &refused) || !strings.Contains(refused.Run, "raise quota-backend-bytes in the inventory") {
				t.Fatalf("error %v", err)
			}
			e.Quota(t, 64<<20) // how much was written beyond the first one depends on the machine
			if err := run.Run(ctx, []phase.Stage{phase.One(r.room()), phase.One(r.writes())}); err != nil {
				t.Errorf("with a larger quota: %v", err)
			}
		})
	}
}
