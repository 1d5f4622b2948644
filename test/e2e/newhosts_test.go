//go:build e2e

package e2e

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

// The hosts that a lost cluster comes back on, by their names in the lab, and what
// the inventory calls them: the first has an old name at another address, cp-3's
// machine comes as another one.
var (
	otherMasters = []string{"cp-4", "cp-5", "cp-3"}
	otherNames   = map[string]string{"cp-4": "cp-1", "cp-3": "cp-9"}
)

// otherVIP is an endpoint that the cluster in the backup does not know.
const otherVIP = "198.51.100.99"

// restoredElsewhere loses all hosts of a cluster but for its backup, and has it
// made anew on bare ones, with other addresses, names and endpoint.
func restoredElsewhere(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := theLab.Up(ctx, os.Stderr, moreHosts...); err != nil {
		t.Fatal(err)
	}
	recreate(t, baseHosts...)
	before := writeInventory(t, nil, nil)
	ha(t, "apply", "--yes", before).want(t, 0)
	store, identity := t.TempDir(), filepath.Join(t.TempDir(), "identity")
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(identity, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "create", "configmap", "counter", "--from-literal=n=41")
	kubectl(t, "create", "secret", "generic", "sealed", "--from-literal=word=openly")
	kubectl(t, "create", "deployment", "kept", "--image=registry.k8s.io/pause:3.10.2", "--replicas=2")
	kubectl(t, "rollout", "status", "deployment/kept", "--timeout=120s")
	old := kubeconfigOf(t, before)
	ca := shell(t, "cp-1", "sha256sum </etc/kubernetes/pki/ca.crt")
	r := ha(t, "backup", "create", "-o", "json", "--directory", store, "--recipient", id.Recipient().String(), before)
	r.want(t, 0)
	made := backedUp(t, r)
	kubectl(t, "create", "configmap", "after-backup")

	after := writeInventory(t, []string{"lb-1", "lb-2", "cp-4", "cp-5", "cp-3", "w-2"}, func(d document) {
		d["spec"].(map[string]any)["endpoint"] = map[string]any{"host": otherVIP}
		for _, h := range d.spec()["hosts"].([]any) {
			if host := h.(map[string]any); otherNames[host["name"].(string)] != "" {
				host["name"] = otherNames[host["name"].(string)]
			}
		}
	})
	restore := []string{"restore", "--confirm", clusterName, "--backup-directory", store, "--from", filepath.Base(made.Path), "--identity", identity, "-o", "json", after}
	recreate(t, append([]string{"lb-1", "lb-2", "cp-3"}, moreHosts...)...)
	ha(t, restore...).want(t, 3, "masters of the cluster in the backup still serve", "Nodes of the cluster in the backup still run") // cp-1, cp-2 and w-1 are on yet
	for _, host := range []string{"cp-1", "cp-2", "w-1"} {
		if err := theLab.PowerOff(t.Context(), host); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { recreate(t, slices.Concat(baseHosts, moreHosts)...) }) // who comes next finds none of it
	ha(t, "restore", "--confirm", clusterName, "--backup-directory", store, "--from", filepath.Base(made.Path), after).want(t, 3, "keys.tar.age", "--identity")
	shown := ha(t, "restore", "--plan", "--backup-directory", store, "--from", filepath.Base(made.Path), "--identity", identity, after)
	shown.want(t, 2)
	for _, text := range []string{"which are bare: cp-1 starts etcd", "nodes    cp-1, cp-2, cp-3, w-1 of the backup", "have to stay off"} {
		if !strings.Contains(shown.stdout+shown.stderr, text) {
			t.Errorf("the plan lacks %q:\n%s", text, shown.stdout)
		}
	}
	t.Logf("the plan of it:\n%s", shown.tail())

	killed := haWatched(t, func(line string) bool {
		return strings.Contains(line, `"started"`) && strings.Contains(line, `"exchange"`)
	}, restore...)
	if killed.code != -1 {
		t.Fatalf("it was not killed: exit %d\n%s", killed.code, killed.tail())
	}
	ha(t, "apply", "--yes", after).want(t, 3, "a restore of the cluster is half done", "with the same --identity")
	const least = 16 // hosts prepared, the first member, lost Nodes, three joins, what follows
	killedAtEveryEnd(t, least, restore...)
	wantElsewhere(t, after, old, ca)
	if again := ha(t, "apply", "-o", "json", after); again.code != 0 || again.changed(t) != 0 {
		t.Errorf("apply after it: exit %d, %d changed\n%s", again.code, again.changed(t), again.tail())
	}
	if again := ha(t, restore...); again.code != 0 || again.changed(t) != 0 {
		t.Errorf("a second restore: exit %d, %d changed\n%s", again.code, again.changed(t), again.tail())
	}
}

// wantElsewhere looks at what was restored, through the new endpoint alone.
func wantElsewhere(t *testing.T, path, old, ca string) {
	t.Helper()
	kube := func(args ...string) string {
		return onHost(t, "cp-4", append([]string{"kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"}, args...)...)
	}
	awaitFaultless(t, path, 2*time.Minute)
	for host, sum := range onEach(t, otherMasters, "sha256sum </etc/kubernetes/pki/ca.crt") {
		if sum != ca {
			t.Errorf("%s has another CA than the cluster before", host)
		}
	}
	if n := kube("get", "configmap", "counter", "-o", "jsonpath={.data.n}"); n != "41" {
		t.Errorf("the counter is %q", n)
	}
	if word := kube("get", "secret", "sealed", "-o", "jsonpath={.data.word}"); word != "b3Blbmx5" {
		t.Errorf("the secret is %q", word)
	}
	if names := kube("get", "configmaps", "-o", "name"); strings.Contains(names, "after-backup") {
		t.Errorf("what was made after the backup is there:\n%s", names)
	}
	nodes := strings.Fields(kube("get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.addresses[?(@.type=="InternalIP")].address}={.metadata.annotations.flannel\.alpha\.coreos\.com/public-ip} {end}`))
	slices.Sort(nodes)
	want := []string{"cp-1=198.51.100.24=198.51.100.24", "cp-5=198.51.100.25=198.51.100.25", "cp-9=198.51.100.23=198.51.100.23", "w-2=198.51.100.32=198.51.100.32"}
	if !slices.Equal(nodes, want) {
		t.Errorf("nodes %q, want %q", nodes, want)
	}
	kube("rollout", "status", "deployment/kept", "--timeout=120s")
	wantOwnNetworks(t, kube)
	for _, pod := range strings.Fields(kube("get", "pods", "-A", "-o", "jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}={.spec.nodeName}={.metadata.creationTimestamp}={.metadata.deletionTimestamp} {end}")) {
		if on := strings.Split(pod, "=")[1]; !slices.Contains([]string{"cp-1", "cp-5", "cp-9", "w-2"}, on) {
			t.Errorf("a pod is bound to a Node of before: %s", pod)
		}
	}
	for _, of := range []string{"-n kube-system get configmap kubeadm-config", "-n kube-system get configmap kube-proxy", "-n kube-public get configmap cluster-info"} {
		if text := kube(append(strings.Fields(of), "-o", "yaml")...); !strings.Contains(text, otherVIP) || strings.Contains(text, theLab.VIP+":") {
			t.Errorf("%s has not the new endpoint alone:\n%s", of, text)
		}
	}
	if got := kube("get", "endpointslices", "kubernetes", "-o", "jsonpath={.endpoints[*].addresses[*]}"); strings.Contains(got, "198.51.100.21") || len(strings.Fields(got)) != 3 {
		t.Errorf("the Service kubernetes leads to %s", got)
	}
	// An administrator of before is one still, at the new endpoint.
	data, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	moved := strings.ReplaceAll(string(data), theLab.VIP+":", otherVIP+":")
	shell(t, "cp-4", "umask 077; cat >/root/old.conf <<'END'\n"+moved+"\nEND\nkubectl --kubeconfig /root/old.conf get nodes -o name; rm /root/old.conf")
	if now := kubeconfigOf(t, path); now == "" {
		t.Error("no kubeconfig")
	}
	for host, kept := range onEach(t, otherMasters, `ls -d /var/lib/etcd/restore-* /var/lib/ha-install/restore 2>/dev/null; exit 0`) {
		if kept != "" {
			t.Errorf("%s: left are\n%s", host, kept)
		}
	}
}

// wantOwnNetworks has each pod's address lie in the network of its Node of now: a
// bridge that was made for the Node of before would give others.
func wantOwnNetworks(t *testing.T, kube func(...string) string) {
	t.Helper()
	networks := map[string]netip.Prefix{}
	for _, line := range strings.Fields(kube("get", "nodes", "-o", "jsonpath={range .items[*]}{.metadata.name}={.spec.podCIDR} {end}")) {
		name, network, _ := strings.Cut(line, "=")
		networks[name] = netip.MustParsePrefix(network)
	}
	looked := 0
	for _, line := range strings.Fields(kube("get", "pods", "-A", "-o", "jsonpath={range .items[*]}{.metadata.name}={.spec.nodeName}={.status.podIP}={.spec.hostNetwork} {end}")) {
		pod := strings.Split(line, "=")
		at, err := netip.ParseAddr(pod[2])
		if pod[3] == "true" || err != nil {
			continue
		}
		looked++
		if !networks[pod[1]].Contains(at) {
			t.Errorf("pod %s on %s has %s, the Node's network is %s", pod[0], pod[1], at, networks[pod[1]])
		}
	}
	if looked == 0 {
		t.Error("no pod has an address of its own")
	}
}
