//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// newcomer is the spare that comes in the place of the first master.
const newcomer = "cp-4"

// replaced loses each of the masters once, the first one included, and takes a
// live one out and in again, while both probes write. Each row begins and ends
// with the lab's own cluster, whole.
func replaced(t *testing.T) {
	rows := []struct {
		name string
		run  func(*testing.T)
	}{
		{"a master that hangs is not dead", hungIsNotReplaced},
		{"a master that has lost its data", replacedWithoutData},
		{"fault 12: a master whose etcd is of before a restore", replacedOfBefore},
		{"a live master leaves and joins again", removedAndJoined},
		{"a master that was installed anew", replacedAnew},
		{"the first master, dead, by another host, killed everywhere", replacedByAnother},
	}
	for _, row := range rows {
		if !t.Run(row.name, row.run) {
			t.FailNow()
		}
	}
}

// place is the inventory of the lab with the newcomer in the place of a master.
func place(t *testing.T, without string, edit func(document)) string {
	t.Helper()
	hosts := slices.DeleteFunc(append(slices.Clone(baseHosts), newcomer), func(h string) bool { return h == without })
	return writeInventory(t, hosts, edit)
}

// bareSpare makes the newcomer a bare host that runs.
func bareSpare(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := theLab.Up(ctx, os.Stderr, newcomer); err != nil {
		t.Fatal(err)
	}
	bareAgain(t, newcomer)
}

// bareAgain makes one host bare and leaves all others as they are, those that
// are off among them.
func bareAgain(t *testing.T, host string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := theLab.Recreate(ctx, host); err != nil {
		t.Fatal(err)
	}
	if err := theLab.AwaitLogin(ctx, host, time.Minute); err != nil {
		t.Fatal(err)
	}
}

// through runs the program to its end while both probes write, and tells what
// each of its longer steps took.
func through(t *testing.T, path, what string, lose func(), args ...string) result {
	t.Helper()
	return throughBy(t, path, what, lose, func(args ...string) result { return ha(t, args...) }, args...)
}

// throughBy leaves it to the caller how the program runs, once or more often.
func throughBy(t *testing.T, path, what string, lose func(), run func(args ...string) result, args ...string) result {
	t.Helper()
	ps := startProbes(t, kubeconfigOf(t, path), asTheyAre)
	if lose != nil {
		lose()
	}
	args = append(args, "-o", "json")
	if args[0] != "apply" { // which takes none
		args = append(args, "--backup-directory", t.TempDir())
	}
	r := run(args...)
	ps.await(t, 40, time.Minute)
	ps.stop(t, what)
	r.want(t, 0)
	t.Logf("%s: %s", what, r.took.Round(100*time.Millisecond))
	for _, span := range spansOf(t, r) {
		if span.took() > time.Second {
			t.Logf("%-24s %-6s %s", span.phase, span.host, span.took().Round(100*time.Millisecond))
		}
	}
	return r
}

// hungIsNotReplaced: its ports are open, although nothing answers.
func hungIsNotReplaced(t *testing.T) {
	bareSpare(t)
	whole := writeInventory(t, nil, nil)
	awaitFaultless(t, whole, 3*time.Minute)
	ids := memberIDs(t, masters)
	undo, err := inject.Hang(t.Context(), "cp-3")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { heal(t) })
	r := ha(t, "replace", "--confirm", "cp-3", "--with", newcomer, place(t, "", nil), "cp-3")
	r.want(t, 10, "cp-3 is not dead", "port 2379 is open", "ha-install remove")
	if err := undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitFaultless(t, whole, 2*time.Minute)
	if now := memberIDs(t, masters); now != ids {
		t.Errorf("members before:\n%s\nafter:\n%s", ids, now)
	}
}

func replacedByAnother(t *testing.T) {
	bareSpare(t)
	whole, after := writeInventory(t, nil, nil), place(t, "cp-1", nil)
	awaitFaultless(t, whole, 3*time.Minute)
	throughBy(t, whole, "replace of cp-1, dead, by "+newcomer+", killed everywhere", func() {
		if _, err := inject.PowerOff(t.Context(), "cp-1"); err != nil { // it stays off until it is bare
			t.Fatal(err)
		}
	}, func(args ...string) result {
		const least = 6 // the old one out, the new one prepared, its column, its join, what follows
		return killedAtEveryEnd(t, least, args...)
	}, "replace", "--confirm", "cp-1", "--with", newcomer, place(t, "", nil), "cp-1")
	now := []string{"cp-2", "cp-3", newcomer}
	awaitFaultless(t, after, 2*time.Minute)
	wantMembers(t, now)
	wantNodes(t, after, append(now, "w-1"))
	wantBackends(t, now)
	wantEqualCA(t, now)
	if n := ha(t, "apply", "-o", "json", after).changed(t); n != 0 {
		t.Errorf("an apply after it changed %d steps", n)
	}

	bareAgain(t, "cp-1")
	four := place(t, "", nil)
	ha(t, "apply", "-o", "json", four).want(t, 0)
	awaitFaultless(t, four, 3*time.Minute)
	through(t, four, "remove of "+newcomer, nil, "remove", "--confirm", newcomer, four, newcomer)
	left := shell(t, newcomer, "ls -d /etc/kubernetes/pki /var/lib/etcd/member /var/lib/kubelet/config.yaml 2>/dev/null; systemctl is-active kubelet; exit 0")
	if left != "inactive" {
		t.Errorf("left on %s: %s", newcomer, left)
	}
	ha(t, "apply", "--yes", whole).want(t, 0) // the data path is proved anew, of those that are left
	wantWhole(t, whole, masters, "w-1")
}

// newHostKey gives a host another SSH host key, as one that was installed anew
// has, and prints it; oldHostKey takes that back.
const (
	newHostKey = `cd /etc/ssh && mv ssh_host_ed25519_key /root/host_key && ssh-keygen -q -t ed25519 -N '' -f new_key && mv new_key ssh_host_ed25519_key &&
systemctl restart ssh && cut -d' ' -f1,2 new_key.pub`
	oldHostKey = `mv /root/host_key /etc/ssh/ssh_host_ed25519_key && rm /etc/ssh/new_key.pub && systemctl restart ssh`
)

func replacedAnew(t *testing.T) {
	before := writeInventory(t, nil, nil)
	awaitFaultless(t, before, 3*time.Minute)
	old := memberIDs(t, masters)
	bareAgain(t, "cp-2")
	key := strings.TrimSpace(shell(t, "cp-2", newHostKey))
	t.Cleanup(func() { shell(t, "cp-2", oldHostKey) })
	ha(t, "replace", "--confirm", "cp-2", before, "cp-2").want(t, 3, "another SSH host key", "hostKeys of cp-2")
	pinned := writeInventory(t, nil, func(d document) {
		for _, h := range d.spec()["hosts"].([]any) {
			if host := h.(map[string]any); host["name"] == "cp-2" {
				host["ssh"] = map[string]any{"hostKeys": []any{key}}
			}
		}
	})
	through(t, pinned, "replace of cp-2, installed anew", nil, "replace", "--confirm", "cp-2", pinned, "cp-2")
	wantAnother(t, pinned, old)
}

// wantAnother wants a whole cluster in which one member is another one.
func wantAnother(t *testing.T, path, old string) {
	t.Helper()
	awaitFaultless(t, path, 2*time.Minute)
	if ids := memberIDs(t, masters); ids == old {
		t.Errorf("the members are those of before:\n%s", ids)
	}
	wantWhole(t, path, masters, "w-1")
}

func replacedWithoutData(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	old := memberIDs(t, masters)
	through(t, path, "replace of cp-3, which has lost its data", func() {
		shell(t, "cp-3", `rm -rf /var/lib/etcd/member; for p in /proc/[0-9]*; do [ "$(cat "$p/comm" 2>/dev/null)" = etcd ] && kill -9 "${p#/proc/}"; done; exit 0`)
	}, "replace", "--confirm", "cp-3", path, "cp-3")
	wantAnother(t, path, old)
}

// replacedOfBefore goes the way out that gates name of an etcd of another cluster.
func replacedOfBefore(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	stale := restoredBefore(t, path)
	old := memberIDs(t, masters)
	through(t, path, "replace of "+stale+", whose etcd is of before a restore", func() {
		shell(t, stale, fmt.Sprintf(swapData, "rm -r /var/lib/etcd/member; mv "+heldData+" /var/lib/etcd/member"))
		awaitStatus(t, stale+" to be foreign", func(s status) bool {
			for _, m := range s.Quorum.Members {
				if m.Name == stale {
					return m.State == "foreign"
				}
			}
			return false
		})
	}, "replace", "--confirm", stale, path, stale)
	wantAnother(t, path, old)
}

func removedAndJoined(t *testing.T) {
	whole := writeInventory(t, nil, nil)
	awaitFaultless(t, whole, 3*time.Minute)
	s, _ := statusOf(t, whole)
	leader := s.Quorum.Leader
	ha(t, "remove", "--confirm", leader, whole, leader).want(t, 10, "can lose 1 now, and none afterwards", "--force")
	through(t, whole, "remove of "+leader+", which leads etcd", nil, "remove", "--force", "--confirm", leader, whole, leader)
	r := through(t, whole, "apply with "+leader+" again", nil, "apply", whole)
	if !strings.Contains(r.stdout, leader+" was taken out by ha-install remove") {
		t.Errorf("apply does not say that %s was taken out\n%s", leader, r.tail())
	}
	wantWhole(t, whole, masters, "w-1")
}
