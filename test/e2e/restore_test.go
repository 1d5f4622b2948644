//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/backup"
)

// restores takes etcd back to a backup: refused with every damage while the
// cluster goes on, then with all data directories lost.
func restores(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	store := t.TempDir()
	makeConfigMap(t, "before-backup")
	deleteConfigMap(t, "after-backup") // of an earlier run
	r := ha(t, "backup", "create", "-o", "json", "--directory", store, path)
	r.want(t, 0)
	made := backedUp(t, r)
	t.Run("damaged", func(t *testing.T) { damagedNotRestored(t, path, store, made.Path) })
	t.Run("all data lost", func(t *testing.T) { allDataLost(t, path, store, made) })
}

// makeConfigMap makes one of that name anew, deleteConfigMap deletes it.
func makeConfigMap(t *testing.T, name string) {
	t.Helper()
	deleteConfigMap(t, name)
	kubectl(t, "create", "configmap", name)
}

func deleteConfigMap(t *testing.T, name string) {
	t.Helper()
	kubectl(t, "delete", "configmap", name, "--ignore-not-found")
}

// damagedNotRestored wants each kind of a corrupt snapshot named, and nothing
// stopped: etcd's processes are the same after it.
func damagedNotRestored(t *testing.T, path, store, good string) {
	const running = `for p in /proc/[0-9]*; do read -r n <$p/comm && case $n in etcd|kube-apiserver|kubelet) echo "$n ${p#/proc/}";; esac; done 2>/dev/null; cat /var/lib/ha-install/restore.json 2>/dev/null; exit 0`
	before := onEach(t, masters, running)
	for kind, change := range map[backup.DamageKind]func([]byte) []byte{
		backup.SnapshotTruncated: func(d []byte) []byte { return d[:len(d)-7] },
		backup.SnapshotEmpty:     func([]byte) []byte { return nil },
		backup.SnapshotAltered:   func(d []byte) []byte { d[len(d)/3] ^= 4; return d },
	} {
		bad := filepath.Join(store, clusterName, "bad", filepath.Base(good))
		if err := os.CopyFS(bad, os.DirFS(good)); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(bad, backup.SnapshotFile)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, change(data), 0o600); err != nil {
			t.Fatal(err)
		}
		ha(t, "restore", "--confirm", clusterName, "--from", bad, path).want(t, 15, string(kind))
		if err := os.RemoveAll(filepath.Dir(bad)); err != nil {
			t.Fatal(err)
		}
	}
	ha(t, "restore", "--confirm", "production", "--from", good, path).want(t, 64, "nothing was changed")
	wantSame(t, "refused restores", before, onEach(t, masters, running))
}

// allDataLost takes etcd's data from all masters, as broken disks do, and has
// the backup restored by runs of which all but the last are killed.
func allDataLost(t *testing.T, path, store string, made backedUpAs) {
	makeConfigMap(t, "after-backup")
	onEach(t, masters, `systemctl stop kubelet; for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" = etcd ] && kill -9 ${p#/proc/}; done; rm -rf /var/lib/etcd/member; systemctl start kubelet`)
	began := time.Now()
	restore := []string{"restore", "--confirm", clusterName, "--backup-directory", store, "--from", filepath.Base(made.Path), "-o", "json", path}
	killed := haWatched(t, func(line string) bool {
		return strings.Contains(line, `"started"`) && strings.Contains(line, `"exchange"`)
	}, restore...)
	if killed.code != -1 {
		t.Fatalf("it was not killed: exit %d\n%s", killed.code, killed.tail())
	}
	ha(t, "apply", "--yes", path).want(t, 3, "a restore of the cluster is half done", "ha-install restore INVENTORY --from "+made.Path)
	const least = 6 // exchanged, etcd, API servers, controllers, the worker, tried, finished
	killedAtEveryEnd(t, least, restore...)
	t.Logf("all data lost, restored from %d bytes in %s, with apply's refusal", made.Manifest.Snapshot.Bytes, time.Since(began).Round(time.Second))
	if names := kubectl(t, "get", "configmaps", "-o", "name"); !strings.Contains(names, "before-backup") || strings.Contains(names, "after-backup") {
		t.Errorf("restored are\n%s", names)
	}
	wantMembers(t, masters)
	for host, kept := range onEach(t, masters, `ls -d /var/lib/etcd/* /var/lib/ha-install/restore /etc/kubernetes/ha-install-restore 2>/dev/null; exit 0`) {
		if strings.Contains(kept, "restore") {
			t.Errorf("%s: left are\n%s", host, kept)
		}
	}
	deleteConfigMap(t, "before-backup")
	if tally := ha(t, restore...); tally.changed(t) != 0 {
		t.Errorf("a second restore changed something:\n%s", tally.tail())
	}
	awaitFaultless(t, path, time.Minute)
	if again := ha(t, "apply", "--yes", "-o", "json", path); again.code != 0 || again.changed(t) > 1 { // the data path is proved anew when it is noted otherwise
		t.Errorf("apply after it: exit %d, %d changed\n%s", again.code, again.changed(t), again.tail())
	}
}
