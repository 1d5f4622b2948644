package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/sim"
)

// withQuota is the cluster with another quota for etcd in its inventory.
func withQuota(c *inventory.Cluster, bytes int64) *inventory.Cluster {
	other := *c
	other.Spec.Kubeadm.ClusterConfiguration = map[string]any{"etcd": map[string]any{"local": map[string]any{
		"extraArgs": []any{map[string]any{"name": "quota-backend-bytes", "value": fmt.Sprint(bytes)}},
	}}}
	return &other
}

// fullAndBackedUp is a cluster that takes no write, of which so much is needed, and a
// backup of it.
func fullAndBackedUp(t *testing.T, c *inventory.Cluster, dir string, kept int64, alarmed ...string) (*sim.State, string) {
	t.Helper()
	start, from := backedUpCluster(t, c, dir)
	var state *sim.State
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Bloat(33*mega, 33*mega, kept, 32*mega, alarmed...)
		state = w.Keep()
	})
	return state, from
}

func TestRestoreOfAFullDatabaseStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, from := fullAndBackedUp(t, c, dirs[0], 5*mega, "cp-1", "cp-3")
	f := restoring("restore of a full database", withQuota(c, 32*mega), start, dirs[0], from)
	f.about = func(c sim.Call) bool { return notTheLock(c) && !strings.Contains(c.Name, "/api") }
	restored := f.wrong
	f.wrong = func(w *sim.World) string { return strings.TrimSpace(restored(w) + " " + withoutAlarms(w)) }
	f.everywhere(t)
}

// TestRestoreOfWhatIsTooLargeForTheQuota: compacted and defragmented it has no room
// still; a larger quota in the inventory gives it some, and the same command goes on.
func TestRestoreOfWhatIsTooLargeForTheQuota(t *testing.T) {
	t.Parallel()
	for says, alarmed := range map[string][]string{"with an alarm": {"cp-2"}, "without one": nil} {
		t.Run(says, func(t *testing.T) {
			c, dirs := testCluster(t), baseDirs(t)
			start, from := fullAndBackedUp(t, c, dirs[0], 33*mega, alarmed...)
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				w.Slow = true
				small := withQuota(c, 32*mega)
				for range 2 {
					_, err := restoreAll(t.Context(), w, small, dirs[0], RestoreOptions{From: from}, nil, nil)
					var refused *etcd.QuorumError
					if !errors.As(err, &refused) || !strings.Contains(refused.Reason, "still has 35 MB of 34 MB") || !strings.Contains(refused.Run, "raise quota-backend-bytes in the inventory") {
						t.Fatalf("error %v", err)
					}
				}
				if _, err := restoreAll(t.Context(), w, withQuota(c, 64*mega), dirs[0], RestoreOptions{From: from}, nil, nil); err != nil {
					t.Fatalf("with a larger quota: %v", err)
				}
				if bad := append(w.Broken(), notRestored(w, c)); strings.Join(bad, "") != "" || w.Alarms() != 0 {
					t.Errorf("%q, %d alarms", bad, w.Alarms())
				}
			})
		})
	}
}

// TestAQuotaThatWasRaisedByHandIsSaidToBeLost before anybody agrees.
func TestAQuotaThatWasRaisedByHandIsSaidToBeLost(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, from := backedUpCluster(t, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Bloat(mega, mega, mega, 16<<30)
		site := Connect(w.Begin(t.Context(), nil), c, dirs[0], w.Dial)
		defer site.Close()
		var told string
		if _, err := PlanRestore(t.Context(), site, RestoreOptions{From: from, Backup: backupsIn(w)}, func(text string) { told = text }); err != nil {
			t.Fatal(err)
		}
		if want := "etcd of cp-2 runs with a quota of 17 GB; it will have 8.6 GB"; !strings.Contains(told, want) {
			t.Errorf("%q is not in:\n%s", want, told)
		}
		lost(w, "cp-2", "cp-3")
		planned(t, w, c, dirs[0], onlyMasters(w, "cp-1"), "etcd of cp-1 runs with a quota of 17 GB")
	})
}

// TestARestoreThatFillsUpWhileItServes is half done, and its cluster serves: the chore
// that takes the alarm back is not refused then.
func TestARestoreThatFillsUpWhileItServes(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, from := backedUpCluster(t, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		ctx, kill := context.WithCancel(t.Context())
		defer kill()
		small := withQuota(c, 32*mega)
		_, err := restoreAll(ctx, w, small, dirs[0], RestoreOptions{From: from}, nil, func(e phase.Event) {
			if e.Kind == phase.Started && e.Phase == "try-controllers" {
				kill()
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		w.Bloat(33*mega, 33*mega, 32*mega, 32*mega, "cp-1", "cp-2") // and more than may stay
		_, err = restoreAll(t.Context(), w, small, dirs[0], RestoreOptions{From: from}, nil, nil)
		var refused *etcd.QuorumError
		if !errors.As(err, &refused) || !strings.Contains(refused.Run, "delete objects") || !strings.Contains(refused.Run, "ha-install etcd alarms disarm") {
			t.Fatalf("error %v", err)
		}
		w.Bloat(33*mega, 31*mega, 3*mega, 32*mega, "cp-2") // some were deleted
		if _, _, err := choreAll(t.Context(), w, withoutCA(small), DisarmAlarms(), nil); err != nil || w.Alarms() != 0 {
			t.Fatalf("%d alarms, error %v", w.Alarms(), err)
		}
		if _, err := restoreAll(t.Context(), w, small, dirs[0], RestoreOptions{From: from}, nil, nil); err != nil || notRestored(w, c) != "" {
			t.Errorf("%v, %s", err, notRestored(w, c))
		}
	})
}
