//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/boot"
	"github.com/ha-install/ha-install/provision/units"
)

// backups takes one of the running cluster while it is written to, and proves
// it; then one is killed, one finds its disk full, and one is damaged.
func backups(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, time.Minute)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir, identity := t.TempDir(), filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(identity, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	create := []string{"backup", "create", "-o", "json", "--directory", dir, "--recipient", id.Recipient().String(), path}

	ps := startProbes(t, kubeconfigOf(t, path))
	r := ha(t, create...)
	ps.await(t, 20, 30*time.Second)
	for _, report := range ps.stop(t, "backup under load") {
		if n := len(report.Failures); n > 0 {
			t.Errorf("%d requests failed while a backup was taken", n)
		}
	}
	r.want(t, 0)
	made := backedUp(t, r)
	m := made.Manifest
	t.Logf("backup of %s, revision %d, %d keys, from %s in %s (whole command %s)", units.Bytes(m.Snapshot.Bytes), m.Snapshot.Revision, m.Snapshot.Keys, m.From, m.Took, r.took.Round(time.Millisecond))
	leader, _ := statusOf(t, path)
	if m.From == leader.Quorum.Leader || m.Leader || !m.Quorum || m.Snapshot.Hash == nil || !strings.HasPrefix(m.KubernetesVersion, "v1.") {
		t.Errorf("%+v; etcd's leader is %s", m, leader.Quorum.Leader)
	}
	verify := []string{"backup", "verify", "--identity", identity, "--directory", dir, path}
	if r := ha(t, verify...); r.code != 0 || !strings.Contains(r.stdout, "secrets opened, of this CA") {
		t.Errorf("exit %d\n%s", r.code, r.tail())
	}

	t.Run("copies on masters", func(t *testing.T) { copiesOnMasters(t, made, dir, path) })
	t.Run("booted", func(t *testing.T) { booted(t, append(verify, "--boot", "-o", "json")) })
	t.Run("killed", func(t *testing.T) {
		r := haWatched(t, func(line string) bool {
			return strings.Contains(line, `"started"`) && strings.Contains(line, `"snapshot"`)
		}, create...)
		left, err := filepath.Glob(filepath.Join(dir, clusterName, ".*.part"))
		if r.code != -1 || err != nil || len(left) != 1 {
			t.Fatalf("exit %d, left %v, %v\n%s", r.code, left, err, r.tail())
		}
		again := ha(t, create...)
		again.want(t, 0)
		if !strings.Contains(again.stdout, "removed "+left[0]) {
			t.Errorf("what the killed one left is not said:\n%s", again.tail())
		}
		if left, err := filepath.Glob(filepath.Join(dir, clusterName, ".*")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	t.Run("disk full", func(t *testing.T) {
		small := t.TempDir()
		if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=1m"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := syscall.Unmount(small, 0); err != nil {
				t.Error(err)
			}
		}()
		ha(t, "backup", "create", "--directory", small, path).want(t, 1, "no room for a backup in "+small, "earlier backups are as they were")
		if left, err := filepath.Glob(filepath.Join(small, clusterName, "*")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	t.Run("damaged", func(t *testing.T) { damaged(t, made, path, dir, verify) })
}

// damaged flips a bit, and wants it named, by a command that asks no host too;
// pruning does not count what is damaged.
func damaged(t *testing.T, made backedUpAs, path, dir string, verify []string) {
	file := filepath.Join(made.Path, backup.SnapshotFile)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r := ha(t, "backup", "verify", made.Path)
	if r.code != 15 || !strings.Contains(r.stdout, "DAMAGED") || !strings.Contains(r.stdout, string(backup.SnapshotAltered)) {
		t.Errorf("exit %d\n%s", r.code, r.tail())
	}
	if r := ha(t, append(verify, "--all", "-o", "json")...); r.code != 15 || strings.Count(r.stdout, `"whole": true`) != 1 || strings.Count(r.stdout, `"whole": false`) != 1 {
		t.Errorf("exit %d\n%s", r.code, r.tail())
	}
	r = ha(t, "backup", "prune", "--keep", "1", "--directory", dir, path)
	if left, err := filepath.Glob(filepath.Join(dir, clusterName, "*")); r.code != 0 || err != nil || len(left) != 1 || left[0] == made.Path {
		t.Errorf("exit %d, left %v, %v\n%s", r.code, left, err, r.tail())
	}
	ha(t, verify...).want(t, 0)
}

// backedUpAs is what `backup create -o json` tells of what it has made.
type backedUpAs struct {
	Path     string
	Manifest backup.Manifest
}

func backedUp(t *testing.T, r result) backedUpAs {
	t.Helper()
	for line := range strings.Lines(r.stdout) {
		var e struct{ Data struct{ Backup *backedUpAs } }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if e.Data.Backup != nil {
			return *e.Data.Backup
		}
	}
	t.Fatalf("no event tells the backup\n%s", r.tail())
	return backedUpAs{}
}

// copiesOnMasters sends a backup to every master, and has it back.
func copiesOnMasters(t *testing.T, made backedUpAs, dir, path string) {
	const place = "masters:///tmp/ha-install-backups-e2e"
	name := filepath.Base(made.Path)
	r := ha(t, "backup", "copy", "--directory", dir, "--copy-to", place, path, name)
	r.want(t, 0)
	if n := strings.Count(r.stdout, "sent and read back"); n != 3 {
		t.Errorf("%d copies were made, want 3\n%s", n, r.tail())
	}
	elsewhere := t.TempDir()
	ha(t, "backup", "fetch", "--directory", elsewhere, path, place+"/"+clusterName+"/"+name).want(t, 0)
	if e := backup.Read(filepath.Join(elsewhere, clusterName, name)); e.Err != nil || e.Manifest.Digest != made.Manifest.Digest {
		t.Errorf("%+v", e)
	}
}

// booted starts what was backed up on this machine, and finds the cluster in it.
func booted(t *testing.T, args []string) {
	r := ha(t, args...)
	r.want(t, 0)
	var told struct{ Boot boot.Result }
	if err := json.Unmarshal([]byte(r.stdout), &told); err != nil {
		t.Fatalf("%v\n%s", err, r.tail())
	}
	seen := map[string]int64{}
	for _, k := range told.Boot.Kinds {
		seen[k.Resource] = k.Objects
	}
	t.Logf("booted in %s (restored in %s, ready %s later): %d objects", told.Boot.Took, told.Boot.Restore, told.Boot.Ready, told.Boot.Objects)
	if seen["nodes"] < 4 || seen["pods"] == 0 || len(told.Boot.Unread) > 0 {
		t.Errorf("%+v", told.Boot)
	}
}
