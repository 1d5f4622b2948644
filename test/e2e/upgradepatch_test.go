//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/lab"
)

// patchVersion is a release of the same minor; `make e2e-long` builds its bundle.
const patchVersion = "v1.36.1"

// upgradeByAPatch upgrades within a minor, for which no Node is drained, and then
// the balancers' packages alone.
func upgradeByAPatch(t *testing.T) {
	before, after := writeInventoryOf(t, patchVersion, nil, nil), writeInventory(t, nil, nil)
	recreate(t, baseHosts...)
	r := ha(t, "apply", "-o", "json", before)
	r.want(t, 0)
	t.Logf("bare hosts to a verified cluster of %s: %s", patchVersion, r.took.Round(100*time.Millisecond))
	awaitFaultless(t, before, time.Minute)
	ids, kubeconfig := memberIDs(t, masters), kubeconfigOf(t, before)
	ps := startProbes(t, kubeconfig, asTheyAre)
	r = ha(t, "upgrade", "--yes", "-o", "json", after)
	ps.unnoticed(t, "upgrade from "+patchVersion+" to "+lab.DefaultVersion)
	r.want(t, 0)
	t.Logf("upgraded in %s", r.took.Round(100*time.Millisecond))
	for _, span := range spansOf(t, r) {
		if span.phase == "upgrade" {
			t.Logf("%s %s", span.host, span.took().Round(100*time.Millisecond))
		}
	}
	changed := changes(t, r)
	for _, host := range append(slices.Clone(masters), "w-1") {
		if slices.Contains(changed, "drain "+host) || !slices.Contains(changed, "upgrade "+host) {
			t.Errorf("%s: what changed: %q", host, changed)
		}
	}
	wantRelease(t, lab.DefaultVersion, masters, "w-1")
	wantMembers(t, masters)
	wantExisting(t, masters)
	if now := memberIDs(t, masters); now != ids {
		t.Errorf("members before:\n%s\nafter:\n%s", ids, now)
	}
	nothingLeft(t, after)
	t.Run("packages of the balancers", func(t *testing.T) { olderPackages(t, after, kubeconfig) })
}

// olderPackages has dpkg believe that the balancers have an older HAProxy, and
// keepalived too: the next upgrade brings the bundle's, the VIP's holder last.
func olderPackages(t *testing.T, path, kubeconfig string) {
	const versions = `dpkg-query -W -f '${Package} ${Version}\n' haproxy keepalived`
	holder := vipHolder(t, path)
	before := map[string]string{}
	for _, host := range []string{"lb-1", "lb-2"} {
		before[host] = shell(t, host, versions)
		shell(t, host, `sed -i -E '/^Package: (haproxy|keepalived)$/,/^$/ s/^Version: .*/Version: 0~older/' /var/lib/dpkg/status`)
		if now := shell(t, host, versions); !strings.Contains(now, "haproxy 0~older") {
			t.Fatalf("%s: dpkg says %s", host, now)
		}
	}
	ps := startProbes(t, kubeconfig)
	r := ha(t, "upgrade", "--yes", "-o", "json", path)
	ps.await(t, 40, time.Minute)
	ps.stop(t, "new packages on the balancers")
	r.want(t, 0)
	order := changes(t, r)
	if len(order) != 2 || order[1] != "packages "+holder {
		t.Errorf("what changed: %q; %s held the VIP, and comes last", order, holder)
	}
	for host, was := range before {
		if now := shell(t, host, versions); now != was {
			t.Errorf("%s has %s, want %s", host, now, was)
		}
	}
	awaitFaultless(t, path, time.Minute)
	nothingLeft(t, path)
}

// changes are the phases of a run that changed something, "phase host", in order.
func changes(t *testing.T, r result) []string {
	t.Helper()
	var list []string
	for _, e := range r.events(t) {
		if e.Kind == "finished" {
			list = append(list, strings.TrimSpace(e.Phase+" "+e.Host))
		}
	}
	return list
}
