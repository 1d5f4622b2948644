//go:build e2e

package e2e

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/lab"
)

// older makes bare hosts a cluster of the release that upgrades start from, or takes
// the one that fault 3 has left, and returns inventories of it and of the lab's own
// release.
func older(t *testing.T) (before, after string) {
	t.Helper()
	before, after = writeInventoryOf(t, lab.OlderVersion, nil, nil), writeInventory(t, nil, nil)
	if !olderLeft {
		recreate(t, baseHosts...)
		r := ha(t, "apply", "-o", "json", before)
		r.want(t, 0)
		t.Logf("bare hosts to a verified cluster of %s: %s", lab.OlderVersion, r.took.Round(100*time.Millisecond))
	}
	olderLeft = false
	awaitFaultless(t, before, time.Minute)
	return before, after
}

// upgradeUnnoticed takes a cluster one minor further under clients that write
// and a workload with a budget, none of which may notice, nor that the installer
// is killed half way and runs again; and then asks the hosts themselves what has
// become of them.
func upgradeUnnoticed(t *testing.T) {
	needUndisturbed(t)
	before, after := older(t)
	t.Run("apply says that upgrade is meant", func(t *testing.T) { onlyUpgradeIsMeant(t, after) })
	t.Run("plan", func(t *testing.T) { planOfUpgrade(t, after) })
	ids, certificates := memberIDs(t, masters), leavesOf(t, masters)
	kubeconfig := kubeconfigOf(t, before)
	crew := startCrew(t, kubeconfig)
	ps := startProbes(t, kubeconfig, asTheyAre)
	killedInAMastersTurn(t, after)
	r := ha(t, "upgrade", "--yes", "-o", "json", after)
	const what = "upgrade from " + lab.OlderVersion + " to " + lab.DefaultVersion
	ps.unnoticed(t, what)
	crew.end(t, what)
	r.want(t, 0)
	t.Logf("%s: the run after the killed one took %s", what, r.took.Round(100*time.Millisecond))
	for _, span := range spansOf(t, r) {
		if span.took() > time.Second {
			t.Logf("%-24s %-6s %s", span.phase, span.host, span.took().Round(100*time.Millisecond))
		}
	}
	awaitFaultless(t, after, time.Minute)

	t.Run("all of the new release", func(t *testing.T) { wantRelease(t, lab.DefaultVersion, masters, "w-1") })
	t.Run("votes", func(t *testing.T) {
		wantMembers(t, masters)
		if now := memberIDs(t, masters); now != ids {
			t.Errorf("members before:\n%s\nafter:\n%s", ids, now)
		}
	})
	t.Run("no etcd starts on an empty directory", func(t *testing.T) { wantExisting(t, masters) })
	t.Run("certificates", func(t *testing.T) { wantRenewed(t, certificates) })
	t.Run("backends", func(t *testing.T) { wantBackends(t, masters) })
	t.Run("as a cluster that was made with the new release", func(t *testing.T) { wantAsNew(t) })
	t.Run("nothing is left to do", func(t *testing.T) { nothingLeft(t, after) })
}

// wantAsNew wants the hosts as an installation of the new release leaves them, but
// for two things: the copies of before, and what etcd's manifest says of the
// members that there were when this one joined, which kubeadm writes anew.
func wantAsNew(t *testing.T) {
	t.Helper()
	const kept, etcds = "var/lib/ha-install/before d 700 root", "  etc/kubernetes/manifests/etcd.yaml"
	made, is := maps.Clone(undisturbed.state), lasting(t)
	for _, host := range masters {
		for _, state := range []map[string]string{made, is} {
			lines := slices.DeleteFunc(strings.Split(state[host], "\n"), func(line string) bool {
				return strings.TrimSpace(line) == kept || strings.HasSuffix(line, etcds)
			})
			state[host] = strings.Join(lines, "\n")
		}
	}
	wantSame(t, "compared with an installation of "+lab.DefaultVersion, made, is)
}

// onlyUpgradeIsMeant has apply meet an inventory with the newer release.
func onlyUpgradeIsMeant(t *testing.T, after string) {
	unchanged(t, "a refused apply", func() {
		ha(t, "apply", "--yes", after).want(t, 3, lab.OlderVersion, lab.DefaultVersion, "ha-install upgrade")
	})
}

// planOfUpgrade wants the sequence, and nothing done.
func planOfUpgrade(t *testing.T, after string) {
	s, _ := statusOf(t, after)
	var r result
	unchanged(t, "a plan", func() { r = ha(t, "upgrade", "--plan", after) })
	if r.code != 0 && r.code != 2 {
		t.Errorf("exit %d\n%s", r.code, r.tail())
	}
	for _, text := range append(slices.Clone(baseHosts[2:]), lab.OlderVersion, lab.DefaultVersion, "can lose  1 -> 0") {
		if !strings.Contains(r.stdout, text) {
			t.Errorf("the plan does not say %q\n%s", text, r.stdout)
		}
	}
	for _, master := range masters {
		if master != s.Quorum.Leader && strings.LastIndex(r.stdout, master) > strings.LastIndex(r.stdout, s.Quorum.Leader) {
			t.Errorf("%s is planned after %s, which leads etcd and comes last\n%s", master, s.Quorum.Leader, r.stdout)
		}
	}
}

// nothingLeft wants another upgrade, and an apply, to find all as it should be.
func nothingLeft(t *testing.T, after string) {
	unchanged(t, "a second upgrade", func() {
		r := ha(t, "upgrade", "--yes", after)
		r.want(t, 0)
		if !strings.Contains(r.stdout+r.stderr, "nothing to upgrade") {
			t.Errorf("a second upgrade does not say that there is nothing to upgrade\n%s", r.tail())
		}
	})
	unchanged(t, "an apply after it", func() {
		if n := ha(t, "apply", "-o", "json", after).changed(t); n != 0 {
			t.Errorf("an apply after the upgrade changed %d steps", n)
		}
	})
	awaitFaultless(t, after, time.Minute)
}

// unchanged wants no host of the cluster to be changed meanwhile.
func unchanged(t *testing.T, what string, meanwhile func()) {
	t.Helper()
	awaitProbePodsGone(t)
	before := onEach(t, baseHosts, clusterFootprint)
	meanwhile()
	wantSame(t, what, before, onEach(t, baseHosts, clusterFootprint))
}
