package provision

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/phase"
)

// TestRecoverHeedsNoNoteOfAnotherCluster: the survivor was once part of another
// cluster, which had been restored.
func TestRecoverHeedsNoNoteOfAnotherCluster(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		note, err := json.Marshal(restoreNote{
			Token: "other-0011223344556677", Verb: "restore", Manifest: backup.Manifest{Cluster: "other"}, Cluster: "cp-3=https://198.51.100.23:2380",
			Before: 7, After: 8, Done: true, Began: time.Now().Add(-1000 * time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		w.Host("cp-1").Put(restoreFile, 0o600, string(note))
		lost(w, "cp-2", "cp-3")
		var said []string
		_, err = recoverAll(t.Context(), w, withoutCA(c), dirs[0], onlyMasters(w, "cp-1"), cp1Left, nil, func(e phase.Event) { said = append(said, e.Message) })
		if text := strings.Join(said, "\n"); err != nil || !strings.Contains(text, "way      survivor") {
			t.Errorf("%v\n%s", err, text)
		}
	})
}

// TestRecoverEndsTheBalancerOfAFencedMaster: it is here and not whole, and would send
// clients to all that it knew.
func TestRecoverEndsTheBalancerOfAFencedMaster(t *testing.T) {
	t.Parallel()
	c, dirs := onMasters(testCluster(t)), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		lost(w, "cp-3")
		delete(w.Host("cp-2").Files, "/etc/kubernetes/scheduler.conf")
		w.Host("cp-2").Mute = true
		if _, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], onlyMasters(w, "cp-1", "cp-2"), RecoverOptions{Lost: []string{"cp-3"}}, nil, nil); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"cp-1", "cp-2"} {
			h := w.Host(name)
			if config := string(h.Files["/etc/haproxy/haproxy.cfg"].Content); h.Units["haproxy.service"].Active && strings.Contains(config, "server cp-3") {
				t.Errorf("%s still sends clients to cp-3, which is left out", name)
			}
		}
	})
}
