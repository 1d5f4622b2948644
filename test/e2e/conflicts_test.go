//go:build e2e

package e2e

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"
)

// conflicts has apply meet a finished cluster with inventories that cannot be
// of it, and compares all hosts before and after.
func conflicts(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := theLab.Up(ctx, os.Stderr, "cp-4"); err != nil {
		t.Fatal(err)
	}
	recreate(t, "cp-4")
	awaitProbePodsGone(t)
	ids := memberIDs(t, masters)
	rows := []struct {
		name  string
		hosts []string
		edit  func(document)
		code  int
		texts []string
	}{
		{"other masters under the cluster's name", []string{"lb-1", "lb-2", "cp-4", "w-1"}, nil, 3,
			[]string{"lb-1, lb-2, w-1 belong to a cluster " + clusterName + " already", "no master of the inventory does", "old inventory"}},
		{"another endpoint and another network", baseHosts, func(d document) {
			d.spec()["endpoint"] = map[string]any{"host": "198.51.100.9"}
			d.network()["podCIDR"] = "10.245.0.0/16"
		}, 3, []string{"spec.endpoint: the cluster has " + theLab.VIP + ":6443, the inventory wants 198.51.100.9:6443",
			"spec.network.podCIDR: the cluster has 10.244.0.0/16, the inventory wants 10.245.0.0/16"}},
		{"a master taken out", []string{"lb-1", "lb-2", "cp-1", "cp-2", "w-1"}, nil, 10,
			[]string{"ghost voter: member ", "is on no host of the inventory", "put its host back into the inventory"}},
		{"the balancer on the masters", append(slices.Clone(masters), "w-1"), func(d document) {
			d.spec()["endpoint"] = map[string]any{"host": theLab.VIP}
			d.spec()["loadBalancer"] = map[string]any{"mode": "masters"}
		}, 3, []string{"spec.loadBalancer.mode masters, the cluster has another one", "no host of the inventory has keepalived", "leave the hosts with role load-balancer"}},
		{"another version", baseHosts, func(d document) {
			d.spec()["kubernetes"] = map[string]any{"version": "v1.35.4"}
			d.spec()["software"] = map[string]any{"source": "installed"}
		}, 3, []string{"cp-1 runs Kubernetes v1.36.3, the inventory wants v1.35.4"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) { contradicted(t, writeInventory(t, row.hosts, row.edit), row.code, row.texts...) })
	}
	t.Run("a host of another cluster of the same name", func(t *testing.T) {
		shell(t, "cp-4", `mkdir -p /var/lib/ha-install && echo '{"cluster":"`+clusterName+`","caSHA256":"0123456789abcdef","established":true}' >/var/lib/ha-install/cluster.json`)
		defer onHost(t, "cp-4", "rm", "-rf", "/var/lib/ha-install")
		contradicted(t, writeInventory(t, append(slices.Clone(baseHosts), "cp-4"), nil), 3,
			"cp-4 belong to two different clusters of the name "+clusterName, "0123456789ab")
	})
	if now := memberIDs(t, masters); now != ids {
		t.Errorf("members before:\n%s\nafter:\n%s", ids, now)
	}
}

// contradicted runs apply on the finished cluster and wants it refused, with
// nothing changed on any host.
func contradicted(t *testing.T, inventory string, code int, texts ...string) {
	t.Helper()
	bare := []string{"cp-4"}
	before, bareBefore := onEach(t, baseHosts, clusterFootprint), onEach(t, bare, bareFootprint)
	r := ha(t, "apply", inventory)
	wantSame(t, "a refused apply", before, onEach(t, baseHosts, clusterFootprint))
	wantSame(t, "a refused apply", bareBefore, onEach(t, bare, bareFootprint))
	r.want(t, code, texts...)
}
