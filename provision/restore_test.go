package provision

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/kubeapi"
	"github.com/ha-install/ha-install/test/sim"
)

// teachRestores teaches hosts what a restore sends.
func teachRestores(w *sim.World) {
	w.Script(restoreLookScript, func(h *sim.Host, _ []string) ([]byte, error) { return h.RestoreFacts(), nil })
	w.Script(exchangeScript, func(h *sim.Host, args []string) ([]byte, error) { return nil, h.ExchangeData(args[0]) })
	w.Script(kube.EndPodNetwork()[2], func(h *sim.Host, _ []string) ([]byte, error) { h.Bridge = ""; return nil, nil })
	w.StepScript(unpackScript, func(h *sim.Host, args []string) []func() error {
		return h.Unpack(args[0], args[1], args[2], args[3], args[5])
	})
	w.StepScript(readDataScript, func(h *sim.Host, _ []string) []func() error { return h.ReadData() })
	w.Talk(fetchScript, func(h *sim.Host, args []string, _ io.Reader, out io.Writer) error {
		_, err := out.Write(h.Files[args[0]].Content)
		return err
	})
	w.StepScript(stopScript, func(h *sim.Host, args []string) []func() error { return h.StopColumn(args[0]) })
	w.StepScript(startEtcdScript, func(h *sim.Host, args []string) []func() error { return h.StartEtcdAlone(args[0]) })
	w.StepScript(placeScript, func(h *sim.Host, args []string) []func() error { return h.Place(args[0], args[1], args[2:]) })
}

// backedUpCluster is a finished cluster with a backup of it.
func backedUpCluster(t *testing.T, c *inventory.Cluster, dir string) (*sim.State, string) {
	t.Helper()
	o := BackupOptions{Directory: t.TempDir()}
	var path string
	state := madeBy(t, c, func(t *testing.T, w *sim.World) {
		running(t, w, c, dir)
		b, err := backUp(t.Context(), w, c, o, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		path = b.Path
	})
	return state, path
}

func restoreAll(ctx context.Context, w *sim.World, c *inventory.Cluster, dir string, o RestoreOptions, cut *sim.Cut, say func(phase.Event)) (phase.Tally, error) {
	w.MayEnd = true
	ctx = w.Begin(ctx, cut)
	site := Connect(ctx, c, dir, w.Dial)
	defer site.Close()
	o.Backup = backupsIn(w)
	run := phase.Runner{Events: say}
	err := Restore(ctx, site, o, &run)
	return run.Tally(), err
}

// restoring is `ha-install restore` as a workflow.
func restoring(name string, c *inventory.Cluster, start *sim.State, dir, from string) workflow {
	return workflow{
		name: name, c: c, start: start,
		run: func(ctx context.Context, w *sim.World, _ bool, cut *sim.Cut) error {
			_, err := restoreAll(ctx, w, c, dir, RestoreOptions{From: from}, cut, nil)
			return err
		},
		wrong: func(w *sim.World) string { return notRestored(w, c) },
	}
}

// notRestored says what is not as a restore has to leave it.
func notRestored(w *sim.World, c *inventory.Cluster) string {
	wrong := []string{unfinished(w, c)}
	token, bump := w.Restored()
	if token == "" || !strings.HasSuffix(bump, "000000000") {
		wrong = append(wrong, fmt.Sprintf("the cluster is of the restore %q, bumped by %q", token, bump))
	}
	if foreign := w.Foreign(); len(foreign) > 0 {
		wrong = append(wrong, fmt.Sprintf("members of the cluster before run on %q", foreign))
	}
	for _, ih := range c.ControlPlanes() {
		h := w.Host(ih.Name)
		if note := string(h.Files[restoreFile].Content); !strings.Contains(note, token) || !strings.Contains(note, `"done":true`) {
			wrong = append(wrong, ih.Name+": its note is "+note)
		}
		for p := range h.Files {
			if strings.HasPrefix(p, restoreDir+"/") || strings.HasPrefix(p, keptManifests) || strings.HasPrefix(p, "/var/lib/etcd/restore-") {
				wrong = append(wrong, ih.Name+" still has "+p)
			}
		}
	}
	return strings.TrimLeft(strings.Join(wrong, "; "), "; ")
}

func TestRestoreInTheSimulator(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, from := backedUpCluster(t, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		led := []string{"kube-controller-manager", "kube-scheduler"}
		for _, component := range led { // by one that will not be there to give it back
			w.API.Set("leases", "kube-system", component, kubeapi.Object{"spec": kubeapi.Object{"holderIdentity": "of-before_x"}})
		}
		var said []string
		o := RestoreOptions{From: from}
		if _, err := restoreAll(t.Context(), w, c, dirs[0], o, nil, func(e phase.Event) { said = append(said, e.Message) }); err != nil {
			t.Fatal(err)
		}
		if bad := append(w.Broken(), notRestored(w, c)); strings.Join(bad, "") != "" {
			t.Errorf("%q", bad)
		}
		for _, component := range led {
			if spec := w.API.Get("leases", "kube-system", component)["spec"].(kubeapi.Object); spec["holderIdentity"] == "of-before_x" {
				t.Errorf("%s: who starts waits for the leader of before", component)
			}
		}
		if text := strings.Join(said, "\n"); !strings.Contains(text, "lost      all that was written between") || !strings.Contains(text, ": 0 revisions") || !strings.Contains(text, "is kept as "+etcdMember+".ha-install-") {
			t.Errorf("what was lost and kept is not said:\n%s", text)
		}
		before, err := backup.In(w.TempDir(), "prod").List()
		if err != nil || len(before) != 1 {
			t.Errorf("backups of what was there before: %v, %v", before, err)
		}
		first, bump := w.Restored()
		if bump != "1000000000" {
			t.Errorf("bumped by %s", bump)
		}
		if tally, err := restoreAll(t.Context(), w, c, dirs[0], o, nil, nil); err != nil || tally.Changed > 0 {
			t.Errorf("a second restore changed %d, error %v", tally.Changed, err)
		}
		if tally, err := applyAll(t.Context(), w, withoutCA(c), dirs[0], nil, nil); err != nil || tally.Changed > 0 {
			t.Errorf("apply after it changed %d, error %v", tally.Changed, err)
		}
		o.Again = true
		if _, err := restoreAll(t.Context(), w, c, dirs[0], o, nil, nil); err != nil {
			t.Fatal(err)
		}
		if token, bump := w.Restored(); token == first || bump != "2000000000" || notRestored(w, c) != "" {
			t.Errorf("restored again: %s after %s, bumped by %s; %s", token, first, bump, notRestored(w, c))
		}
	})
}

func TestRestoreStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, from := backedUpCluster(t, c, dirs[0])
	f := restoring("restore", c, start, dirs[0], from)
	f.about = notTheLock
	f.everywhere(t)
}

// withoutData is the cluster after all masters have lost etcd's data.
func withoutData(t *testing.T, c *inventory.Cluster, start *sim.State) *sim.State {
	t.Helper()
	var state *sim.State
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.MayEnd = true
		for _, ih := range c.ControlPlanes() {
			w.LoseData(ih.Name)
		}
		state = w.Keep()
	})
	return state
}

func TestRestoreWhereAllDataAreLostStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, from := backedUpCluster(t, c, dirs[0])
	f := restoring("restore where all masters have lost their data", c, withoutData(t, c, start), dirs[0], from)
	f.about = func(c sim.Call) bool { return notTheLock(c) && !strings.Contains(c.Name, "/api") }
	f.everywhere(t)
}

// TestARestoreIsRefusedBeforeAnythingStops has every reason once.
func TestARestoreIsRefusedBeforeAnythingStops(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, good := backedUpCluster(t, c, dirs[0])
	damaged := func(t *testing.T, change func(data []byte) []byte) string {
		t.Helper()
		dir := filepath.Join(t.TempDir(), filepath.Base(good))
		if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, backup.SnapshotFile)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, change(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, w *sim.World, c *inventory.Cluster) (from string)
		want    string
	}{
		{"a snapshot without its end", func(t *testing.T, _ *sim.World, _ *inventory.Cluster) string {
			return damaged(t, func(d []byte) []byte { return d[:len(d)-512] })
		}, "snapshot-truncated"},
		{"an empty snapshot", func(t *testing.T, _ *sim.World, _ *inventory.Cluster) string {
			return damaged(t, func([]byte) []byte { return nil })
		}, "snapshot-empty"},
		{"a flipped bit", func(t *testing.T, _ *sim.World, _ *inventory.Cluster) string {
			return damaged(t, func(d []byte) []byte { d[len(d)/2] ^= 1; return d })
		}, "snapshot-altered"},
		{"a directory without a backup", func(t *testing.T, _ *sim.World, _ *inventory.Cluster) string { return t.TempDir() }, "manifest-missing"},
		{"another CA on the hosts", func(_ *testing.T, w *sim.World, _ *inventory.Cluster) string {
			for _, name := range []string{"cp-1", "cp-2", "cp-3"} {
				w.Host(name).Put(markerFile, 0o644, `{"cluster":"prod","caSHA256":"0123456789abcdef","established":true}`)
			}
			return good
		}, "other-cluster"},
		{"a master of another CA", func(_ *testing.T, w *sim.World, _ *inventory.Cluster) string {
			w.Host("cp-2").Put(markerFile, 0o644, `{"cluster":"prod","caSHA256":"0123456789abcdef","established":true}`)
			return good
		}, "the backup is not of the cluster that cp-2 belongs to"},
		{"a bare master", func(_ *testing.T, w *sim.World, c *inventory.Cluster) string {
			w.Wipe(c, "cp-3")
			return good
		}, "cp-3 is no master of cluster prod"},
		{"a master without a key", func(_ *testing.T, w *sim.World, _ *inventory.Cluster) string {
			delete(w.Host("cp-1").Files, "/etc/kubernetes/pki/etcd/ca.key")
			return good
		}, "cp-1 is not whole: it has no /etc/kubernetes/pki/etcd/ca.key"},
		{"a full disk", func(_ *testing.T, w *sim.World, _ *inventory.Cluster) string {
			w.Host("cp-1").Filled = 30<<20 - 1<<10
			return good
		}, "cp-1 has no room for the snapshot"},
		{"no etcdutl", func(_ *testing.T, w *sim.World, _ *inventory.Cluster) string {
			w.Host("cp-2").NoEtcdutl = true
			return good
		}, "cp-2 has no etcdutl"},
		{"another version in the inventory", func(_ *testing.T, _ *sim.World, c *inventory.Cluster) string {
			c.Spec.Kubernetes.Version = olderVersion
			return good
		}, "cp-1 runs kube-"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				now := *c
				w := start.World(t, c)
				from := test.prepare(t, w, &now)
				before := w.Snapshot(nil)
				_, err := restoreAll(t.Context(), w, &now, dirs[0], RestoreOptions{From: from}, nil, nil)
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want %q", err, test.want)
				}
				if after := w.Snapshot(nil); after != before {
					t.Errorf("hosts were changed:\n%s", after)
				}
			})
		})
	}
}

func TestNothingElseRunsWhileARestoreIsHalfDone(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, from := backedUpCluster(t, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		cut := sim.Cut{Host: "cp-2", Name: "step restore-stop-1", Nth: 1, When: sim.After, Fault: sim.Dies}
		if _, err := restoreAll(t.Context(), w, c, dirs[0], RestoreOptions{From: from}, &cut, nil); err == nil || !w.Struck() {
			t.Fatalf("it was not killed: %v", err)
		}
		w.Back()
		for verb, run := range map[string]func() error{
			"apply": func() error { _, err := applyAll(t.Context(), w, withoutCA(c), dirs[0], nil, nil); return err },
			"upgrade": func() error {
				return upgradeWith(t.Context(), w, withoutCA(c), dirs[0], UpgradeOptions{Backup: backupsIn(w)})
			},
		} {
			var conflict *ConflictError
			if err := run(); !errors.As(err, &conflict) || !strings.Contains(conflict.Error(), "a restore of the cluster is half done") || !strings.Contains(conflict.Run, "ha-install restore INVENTORY --from "+from) {
				t.Errorf("%s: %v", verb, err)
			}
		}
		if err := reset(t.Context(), w, c, nil); err != nil {
			t.Errorf("reset: %v", err)
		}
		if _, left := w.Host("cp-1").Files[restoreFile]; left {
			t.Error("after a reset cp-1 still bears the note")
		}
	})
}

// TestNoNewClusterStartsBesideAStrayEtcd has an etcd of the cluster before come to
// life when all data have been exchanged, which nothing that was stopped explains.
func TestNoNewClusterStartsBesideAStrayEtcd(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, from := backedUpCluster(t, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		exchanged := map[string]bool{}
		w.Watch(func(m sim.Moment) {
			if h := w.Host(m.Host); strings.HasPrefix(m.Name, "upload /var/lib/ha-install/kubeadm/restore-etcd") || !strings.Contains(string(h.RestoreFacts()), "token prod-") {
				return
			}
			if exchanged[m.Host] = true; len(exchanged) == 3 {
				w.Host("cp-3").Haunt()
			}
		})
		_, err := restoreAll(t.Context(), w, c, dirs[0], RestoreOptions{From: from}, nil, nil)
		w.Watch(nil)
		if err == nil || !strings.Contains(err.Error(), "cp-3: an etcd runs that has other data open than those in their place") {
			t.Fatalf("it went on: %v", err)
		}
		if token, _ := w.Restored(); token != "" {
			t.Error("the new cluster has started")
		}
		if _, err := restoreAll(t.Context(), w, c, dirs[0], RestoreOptions{From: from}, nil, nil); err != nil {
			t.Fatalf("the second run: %v", err)
		}
		if bad := append(w.Broken(), notRestored(w, c)); strings.Join(bad, "") != "" {
			t.Errorf("%q", bad)
		}
	})
}

func TestARestoreLeavesOutAWorkerThatIsAway(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, from := backedUpCluster(t, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow, w.MayEnd = true, true
		ctx := w.Begin(t.Context(), nil)
		site := Connect(ctx, c, dirs[0], without(w, "w-1"))
		defer site.Close()
		var told string
		plan, err := PlanRestore(ctx, site, RestoreOptions{From: from, Backup: backupsIn(w)}, func(text string) { told = text })
		if err != nil || plan.Nothing() || !strings.Contains(told, "w-1 cannot be reached and is left out") {
			t.Errorf("%v, told %q", err, told)
		}
		for _, call := range w.Trace() {
			if call.Writes {
				t.Errorf("the plan changed %s by %q", call.Host, call.Name)
			}
		}
		if err := Restore(ctx, site, RestoreOptions{From: from, Backup: backupsIn(w)}, &phase.Runner{}); err != nil {
			t.Fatal(err)
		}
		if bad := notRestored(w, c); bad != "" {
			t.Error(bad)
		}
		ctx = w.Begin(t.Context(), nil)
		lame := Connect(ctx, c, dirs[0], without(w, "cp-2"))
		defer lame.Close()
		var away *UnreachableError
		if err := Restore(ctx, lame, RestoreOptions{From: from}, &phase.Runner{}); !errors.As(err, &away) {
			t.Errorf("without a master: %v", err)
		}
	})
}

// without dials all hosts but one.
func without(w *sim.World, name string) Dial {
	return func(ctx context.Context, c *inventory.Cluster, ih inventory.Host, dir string) (host.Host, error) {
		if ih.Name == name {
			return nil, &host.UnreachableError{Host: name, Address: ih.Address + ":22", Err: os.ErrDeadlineExceeded}
		}
		return w.Dial(ctx, c, ih, dir)
	}
}
