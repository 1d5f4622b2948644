package provision

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/preflight"
	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/sim"
)

func TestPrepareBareHostsAndAgain(t *testing.T) {
	ctx, c, dirs := context.Background(), testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	tally, err := prepare(ctx, w, c, dirs[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	if tally.Changed == 0 {
		t.Error("nothing was changed on bare hosts")
	}
	before := w.Snapshot(nil)
	if strings.Contains(before, "old configuration") || strings.Contains(before, "read: false") {
		t.Errorf("something does not run what is on disk:\n%s", before)
	}
	tally, err = prepare(ctx, w, c, dirs[1], nil)
	if err != nil || tally.Changed != 0 {
		t.Errorf("the second run changed %d phases, error %v", tally.Changed, err)
	}
	if diff := cmp.Diff(before, w.Snapshot(nil)); diff != "" {
		t.Errorf("the second run changed hosts (-before +after):\n%s", diff)
	}
	for _, call := range w.Trace() {
		if call.Writes && !strings.Contains(call.Name, "fsync") && notTheLock(call) {
			t.Errorf("the second run wrote: %+v", call)
		}
	}
}

// heldBefore is the CA set that some master holds together with the
// encryption key: from then on it is the cluster's.
func heldBefore(w *sim.World, c *inventory.Cluster) string {
	for _, ih := range c.ControlPlanes() {
		h := w.Host(ih.Name)
		if _, ok := h.Files[templates.EncryptionConfigPath]; ok && fingerprintOn(h) != "" {
			return fingerprintOn(h)
		}
	}
	return ""
}

func TestPrepareRefuses(t *testing.T) {
	rows := []struct {
		name   string
		change func(w *sim.World)
		want   string
	}{
		{"etcd data on a master, and no CA set anywhere", func(w *sim.World) {
			w.Host("cp-2").Put(markerFile, 0o644, `{"cluster":"prod"}`)
			w.Host("cp-2").Put(etcdMember+"/snap/db", 0o600, "data")
		}, "no master has the cluster's CA set"},
		{"a host that belongs to another cluster", func(w *sim.World) {
			w.Host("w-1").Put(markerFile, 0o644, `{"cluster":"other"}`)
		}, "belongs to the cluster other"},
		{"files of a cluster that nobody claims", func(w *sim.World) {
			w.Host("cp-3").Put(kube.AdminConf, 0o600, "kubeconfig")
		}, "/etc/kubernetes/admin.conf"},
		{"etcd data that nobody claims", func(w *sim.World) {
			w.Host("cp-1").Put(etcdMember+"/snap/db", 0o600, "data")
		}, etcdMember},
		{"a host that no other reaches", func(w *sim.World) { w.Host("cp-3").Down = true }, "no answer from cp-3"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c, dirs := testCluster(t), baseDirs(t)
			w := newWorld(t, c)
			row.change(w)
			before := w.Snapshot(nil)
			_, err := prepare(context.Background(), w, c, dirs[0], nil)
			if err == nil {
				t.Fatal("nothing was refused")
			}
			var failure *preflight.Failure
			text := err.Error()
			if errors.As(err, &failure) {
				if diff := cmp.Diff(before, w.Snapshot(nil)); diff != "" {
					t.Errorf("preflight refused, and yet hosts were changed:\n%s", diff)
				}
			}
			if !strings.Contains(text, row.want) {
				t.Errorf("the error is\n%s\nwanted %q in it", text, row.want)
			}
			if lost := w.Lost(); len(lost) > 0 {
				t.Errorf("lost: %q", lost)
			}
		})
	}
}

func TestPackagesWaitForAnotherDpkg(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Host("lb-1").DpkgLocked = 30
		waited := false
		_, err := applyAll(t.Context(), w, c, dirs[0], nil, func(e phase.Event) {
			waited = waited || e.Kind == phase.Waiting && e.Host == "lb-1" && strings.Contains(e.Message, "dpkg")
		})
		if err != nil || !waited || w.Host("lb-1").Packages["haproxy"] != "installed" {
			t.Errorf("%v; it waited: %t", err, waited)
		}
	})
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Host("lb-1").DpkgLocked = 1 << 20
		if _, err := applyAll(t.Context(), w, c, dirs[0], nil, nil); err == nil || !strings.Contains(err.Error(), "locked by another process") {
			t.Errorf("%v, want dpkg's own words", err)
		}
	})
}
