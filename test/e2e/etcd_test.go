//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/probe"
)

// members is what `etcd members -o json` says.
type members struct {
	State   string
	Leader  string
	Alarms  []struct{}
	Members []struct {
		Name, Host, Role, Version string
		Healthy                   bool
		DBSize, DBInUse, DBQuota  int64
		Behind                    uint64
	}
}

func membersOf(t *testing.T, path string) members {
	t.Helper()
	r := ha(t, "etcd", "members", "-o", "json", path)
	r.want(t, 0)
	var m members
	if err := json.Unmarshal([]byte(r.stdout), &m); err != nil {
		t.Fatalf("%v\n%s", err, r.tail())
	}
	return m
}

// etcdMembers looks at members, and has leadership go round under clients: to each
// by name, to whoever is best, and to who leads already. No write is dropped.
func etcdMembers(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	now := membersOf(t, path)
	if now.State != "PASS" || len(now.Members) != len(masters) || len(now.Alarms) != 0 {
		t.Fatalf("%+v", now)
	}
	for i, m := range now.Members {
		if m.Host != masters[i] || m.Name != masters[i] || m.Role != "voter" || !m.Healthy || m.DBSize < m.DBInUse || m.DBInUse <= 0 || m.DBQuota <= 0 || m.Version == "" || m.Behind > 1000 {
			t.Errorf("%+v", m)
		}
	}
	if r := ha(t, "etcd", "alarms", "list", path); r.code != 0 || !strings.Contains(r.stdout, "no alarm is raised  (PASS)") {
		t.Errorf("no alarm: %s\n%s", r.stdout, r.tail())
	}
	ha(t, "etcd", "move-leader", path, "w-1").want(t, 3, "w-1 is no master of the inventory")
	// Twice as many writes as usual: a hand-over lasts a tenth of a second.
	ps := startProbes(t, kubeconfigOf(t, path), asTheyAre, func(c *probe.Config) { c.Rate = 40 })
	moves := 0
	for _, to := range append(masters, "") {
		before := membersOf(t, path).Leader
		args := []string{"etcd", "move-leader", path}
		if to != "" {
			args = append(args, to)
		}
		began := time.Now()
		ha(t, args...).want(t, 0)
		took := time.Since(began).Round(100 * time.Millisecond)
		after := membersOf(t, path).Leader
		if to != "" && after != to || to == "" && after == before {
			t.Errorf("to %q: %s led, %s leads", to, before, after)
		}
		if after != before {
			moves++
			t.Logf("leadership went from %s to %s: %s", before, after, took)
		}
	}
	leads := membersOf(t, path).Leader
	if r := ha(t, "etcd", "move-leader", "-o", "json", path, leads); r.code != 0 || r.changed(t) != 0 {
		t.Errorf("to who leads already: %s", r.tail())
	}
	if moves < 3 {
		t.Errorf("%d moves, want 3 or more", moves)
	}
	ps.unnoticed(t, fmt.Sprintf("leadership moved %d times", moves))
}
