package provision

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/preflight"
	"github.com/ha-install/ha-install/test/sim"
)

// TestUpgradeWhereAnImageDoesNotStart: the first master stays upgraded, the
// third is not touched, and the next run goes on when the cause is gone.
func TestUpgradeWhereAnImageDoesNotStart(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, ofOlder(c), c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		w.Host("cp-2").DoesNotStart = wantedVersion
		var touched []string
		o := UpgradeOptions{Backup: backupsIn(w), Before: func(_ context.Context, host string) error { touched = append(touched, host); return nil }}
		err := upgradeWith(t.Context(), w, withoutCA(c), dirs[0], o)
		if err == nil || !strings.Contains(err.Error(), "cp-2") || len(touched) == 0 || touched[len(touched)-1] != "cp-2" {
			t.Fatalf("touched %q, error %v", touched, err)
		}
		for _, ih := range c.Nodes() {
			want := olderVersion
			if slices.Contains(touched, ih.Name) {
				want = wantedVersion
			}
			if _, kubelet := w.Host(ih.Name).Runs(); kubelet != want {
				t.Errorf("%s has kubelet %s, want %s", ih.Name, kubelet, want)
			}
		}
		if out := w.Drained(); len(out) == 0 {
			t.Errorf("a balancer sends clients to cp-2, whose API server does not start")
		}
		before, broken := len(touched), len(w.Broken())
		if err := upgradeWith(t.Context(), w, withoutCA(c), dirs[0], o); err == nil || len(touched) == before || touched[before] != "cp-2" || len(touched) > before+1 {
			t.Errorf("the cause is still there: touched %q, error %v", touched[before:], err)
		}
		w.Host("cp-2").DoesNotStart = ""
		if broken > 0 {
			t.Errorf("%q", w.Broken())
		}
		comesThrough(t, w, c, dirs[0])
	})
}

// TestUpgradeGoesOnWhereOnlyAKubeletIsNew: a master lost its power between its
// binaries and its manifests.
func TestUpgradeGoesOnWhereOnlyAKubeletIsNew(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, ofOlder(c), c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		n := w.API.Get("nodes", "", "cp-3")
		n["status"].(map[string]any)["nodeInfo"].(map[string]any)["kubeletVersion"] = wantedVersion
		w.API.Set("nodes", "", "cp-3", n)
		comesThrough(t, w, c, dirs[0])
	})
}

// TestUpgradeWhoseScriptIsKilled with all that it runs, at each act, so that
// nothing starts the kubelet again: the next run knows that it is its own to mend.
func TestUpgradeWhoseScriptIsKilled(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	f := upgrading("upgrade", c, finished(t, ofOlder(c), c, dirs[0]), dirs)
	f.about = notTheLock
	trace, want, _ := f.undisturbed(t)
	tried := 0
	for _, cut := range faultsOf(trace)[sim.Slays] {
		if cut.Host == "cp-2" && strings.Contains(cut.Name, stepUpgrade) || cut.Host == "w-1" && strings.Contains(cut.Name, stepWorker) {
			f.cutAt(t, cut, want)
			tried++
		}
	}
	if tried < 20 {
		t.Errorf("%d acts were tried", tried)
	}
}

// TestUpgradeAfterADiskWasFull: a manifest that was cut to nothing stops neither
// the run nor its plan; apply refuses to go on with what it cannot read.
func TestUpgradeAfterADiskWasFull(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, ofOlder(c), c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		for _, of := range []string{"kube-apiserver", "kube-scheduler"} {
			w.Host("cp-3").Put(kube.ManifestDir+"/"+of+".yaml", 0o600, "")
		}
		if _, err := applyAll(t.Context(), w, withoutCA(ofOlder(c)), dirs[0], nil, nil); err == nil || !strings.Contains(err.Error(), "cp-3: "+apiServerManifest) {
			t.Errorf("apply: %v", err)
		}
		comesThrough(t, w, c, dirs[0])
	})
}

// TestApplyLeavesABrokenOffUpgradeAlone: it would build on two versions.
func TestApplyLeavesABrokenOffUpgradeAlone(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	for _, name := range []string{"cp-2", "w-1"} {
		bubble(t, func(t *testing.T) {
			w := start.World(t, c)
			w.Host(name).Put(owedUpgrade, 0o600, "")
			before := w.Snapshot(nil)
			_, err := applyAll(t.Context(), w, withoutCA(c), dirs[0], nil, nil)
			var conflict *ConflictError
			if !errors.As(err, &conflict) || !strings.Contains(conflict.What, name) || !strings.Contains(conflict.Run, "ha-install upgrade") {
				t.Errorf("%v", err)
			}
			if after := w.Snapshot(nil); after != before {
				t.Errorf("something was changed before it was refused:\n%s", cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")))
			}
		})
	}
}

// TestUpgradeStopsBeforeTheNextMaster when something has changed for the worse
// while the first one was upgraded.
func TestUpgradeStopsBeforeTheNextMaster(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, ofOlder(c), c, dirs[0])
	for _, row := range []struct {
		name  string
		spoil func(w *sim.World, host string)
		want  string
	}{
		{"a component has died", func(w *sim.World, host string) {
			pod := w.API.Get("pods", "kube-system", "kube-scheduler-"+host)
			pod["status"] = map[string]any{"containerStatuses": []any{map[string]any{"state": map[string]any{"waiting": map[string]any{"reason": "CrashLoopBackOff"}}}}}
			w.API.Set("pods", "kube-system", "kube-scheduler-"+host, pod)
		}, "kube-scheduler (CrashLoopBackOff)"},
		{"images are gone", func(w *sim.World, host string) { clear(w.Host(host).Images) }, "has not any more"},
	} {
		bubble(t, func(t *testing.T) {
			w := start.World(t, c)
			w.Slow = true
			first := ""
			o := UpgradeOptions{Backup: backupsIn(w), After: func(_ context.Context, host string) error {
				first = host
				for _, ih := range c.ControlPlanes() {
					if ih.Name != host {
						row.spoil(w, ih.Name)
					}
				}
				return nil
			}}
			err := upgradeWith(t.Context(), w, withoutCA(c), dirs[0], o)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: error %v", row.name, err)
			}
			for _, ih := range c.ControlPlanes() {
				want := olderVersion
				if ih.Name == first {
					want = wantedVersion
				}
				if _, kubelet := w.Host(ih.Name).Runs(); kubelet != want {
					t.Errorf("%s: %s has kubelet %s, want %s", row.name, ih.Name, kubelet, want)
				}
			}
		})
	}
}

// TestWholeMaster spoils one thing after the other, and wants the gate between
// two masters to see it.
func TestWholeMaster(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	have, older := finished(t, c, c, dirs[0]), finished(t, ofOlder(c), c, dirs[0])
	const node, scheduler = "cp-2", "kube-scheduler"
	rows := []struct {
		name  string
		start *sim.State
		spoil func(w *sim.World)
		want  []string // the checks that fail
	}{
		{"all is well", have, func(*sim.World) {}, nil},
		{"the old version runs", older, func(*sim.World) {}, []string{node + " to run " + wantedVersion, "the kubelet of " + node + " to report " + wantedVersion}},
		{"nobody leads", have, func(w *sim.World) {
			w.API.Set("leases", "kube-system", scheduler, map[string]any{"spec": map[string]any{"holderIdentity": "cp-1_x", "renewTime": "2020-01-01T00:00:00.000000Z"}})
		}, []string{"controller-manager and scheduler to have leaders"}},
		{"a component is down", have, func(w *sim.World) { w.API.Remove("pods", "kube-system", scheduler+"-"+node) },
			[]string{"the control plane of " + node, node + " to run " + wantedVersion}},
		{"its Node is not ready", have, func(w *sim.World) {
			n := w.API.Get("nodes", "", node)
			n["status"].(map[string]any)["conditions"] = []any{map[string]any{"type": "Ready", "status": "False", "message": "sick"}}
			w.API.Set("nodes", "", node, n)
		}, []string{"node " + node + " to be ready"}},
	}
	for _, row := range rows {
		bubble(t, func(t *testing.T) {
			w := row.start.World(t, c)
			w.Slow = true
			row.spoil(w)
			site := Connect(w.Begin(t.Context(), nil), withoutCA(c), dirs[0], w.Dial)
			defer site.Close()
			u, err := newUpgrade(site, UpgradeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer u.close()
			ih, _ := c.HostByName(node)
			var failed []string
			for _, check := range u.whole(ih) {
				if check.Run(t.Context()) != nil {
					failed = append(failed, check.Name)
				}
			}
			if d := cmp.Diff(row.want, failed); d != "" {
				t.Errorf("%s: (-want +got):\n%s", row.name, d)
			}
		})
	}
}

// What preflight lets pass must be enough for the exchange: else it would be
// refused on the host, when other masters have been upgraded already.
func TestAnExchangeAsksForTheRoomThatPreflightAskedFor(t *testing.T) {
	for _, row := range []struct {
		mb   int
		fits bool
	}{{preflight.ExchangeMB, true}, {preflight.ExchangeMB - 1, false}} {
		df := `df() { printf 'Filesystem\n/dev/x 0 0 ` + strconv.Itoa(row.mb<<10) + ` 0%% /\n'; }` + "\n"
		out, err := exec.Command("sh", "-c", df+roomFunction+"room /etc/kubernetes").CombinedOutput()
		if (err == nil) != row.fits {
			t.Errorf("%d MB are free: %v\n%s", row.mb, err, out)
		}
	}
}
