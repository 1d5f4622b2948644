//go:build e2e

package e2e

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var masters = []string{"cp-1", "cp-2", "cp-3"}

// install brings bare hosts to a verified cluster, and then asks the hosts
// themselves, not the installer, what has become of them.
func install(t *testing.T) {
	recreate(t, baseHosts...)
	path := writeInventory(t, nil, nil)
	w := watch(t, baseHosts)
	lockDpkg(t, "lb-1")
	r := oneOfTwo(t, path)
	w.stop()
	r.want(t, 0)
	t.Logf("bare hosts to a verified cluster in %s, %d steps", r.took.Round(100*time.Millisecond), r.changed(t))

	t.Run("dpkg's lock is waited for", func(t *testing.T) { wantDpkgAwaited(t, "lb-1", r) })
	t.Run("votes", func(t *testing.T) { wantMembers(t, masters) })
	t.Run("status says so too", func(t *testing.T) {
		awaitFaultless(t, path, time.Minute) // a busy machine answers late at times
		if s, _ := statusOf(t, path); len(s.Leaders) != 2 {
			t.Errorf("leaders %v, want one of each of two components", s.Leaders)
		}
	})
	t.Run("kubeconfig through the endpoint", func(t *testing.T) { wantNodes(t, path, append(slices.Clone(masters), "w-1")) })
	t.Run("backends", func(t *testing.T) { wantBackends(t, masters) })
	t.Run("pods reach each other", func(t *testing.T) { wantDataPathProven(t, r) })
	t.Run("no etcd starts on an empty directory", func(t *testing.T) { wantExisting(t, masters) })
	t.Run("no bootstrap token is left", wantNoTokens)
	t.Run("CA set", func(t *testing.T) { wantEqualCA(t, masters) })
	t.Run("encryption at rest", wantEncryption)
	t.Run("no secret was shown", func(t *testing.T) { wantNothingShown(t, w, r) })
	undisturbed.run, undisturbed.state = r, lasting(t)
}

// dpkgAtWork holds dpkg's lock as another dpkg does.
const dpkgAtWork = `use Fcntl; open(my $f, ">>", "/var/lib/dpkg/lock-frontend") or die; my $l = pack("s s l! l! i", F_WRLCK, 0, 0, 0, 0);
fcntl($f, F_SETLK, $l) or die; sleep 25`

// lockDpkg has a dpkg at work on a host, as after a first boot.
func lockDpkg(t *testing.T, host string) {
	t.Helper()
	shell(t, host, "systemd-run --quiet --collect --unit e2e-dpkg perl -e '"+dpkgAtWork+"'")
}

// wantDpkgAwaited wants a run to have waited for it.
func wantDpkgAwaited(t *testing.T, host string, r result) {
	t.Helper()
	for _, e := range r.events(t) {
		if e.Kind == "waiting" && e.Host == host && strings.Contains(e.Message, "dpkg") {
			return
		}
	}
	t.Errorf("nothing waited for the dpkg that was at work on %s", host)
}

// oneOfTwo has two operators begin on bare hosts at the same moment: one makes
// the cluster, the other is refused at once and has changed nothing.
func oneOfTwo(t *testing.T, path string) result {
	t.Helper()
	var both [2]result
	var wg sync.WaitGroup
	for i := range both {
		wg.Go(func() { both[i] = ha(t, "apply", "-o", "json", path) })
	}
	wg.Wait()
	won, lost := both[0], both[1]
	if won.code == 7 {
		won, lost = lost, won
	}
	lost.want(t, 7, me(t), "ha-install apply "+path, "nothing was changed")
	for _, e := range lost.events(t) {
		if e.Kind == "started" {
			t.Errorf("the second operator began %s %s", e.Phase, e.Host)
		}
	}
	t.Logf("of two operators on bare hosts one was refused after %s", lost.took.Round(10*time.Millisecond))
	return won
}

// etcdctl asks the member on a host with the host's own certificate.
func etcdctl(t *testing.T, host string, args ...string) string {
	t.Helper()
	return onHost(t, host, etcdctlArgs(args...)...)
}

func etcdctlArgs(args ...string) []string {
	const pki = "/etc/kubernetes/pki/etcd/"
	argv := []string{"etcdctl", "--endpoints", "https://127.0.0.1:2379", "--cacert", pki + "ca.crt",
		"--cert", pki + "healthcheck-client.crt", "--key", pki + "healthcheck-client.key"}
	return append(argv, args...)
}

// kubectl runs on a master with the administrator's own credentials.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return onHost(t, "cp-1", append([]string{"kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"}, args...)...)
}

// memberIDs asks every member for its own list: they must be the same, with as
// many voters as there are masters and nothing else.
func memberIDs(t *testing.T, masters []string) string {
	t.Helper()
	lists := map[string]bool{}
	for _, host := range masters {
		lines := strings.Split(etcdctl(t, host, "member", "list"), "\n")
		slices.Sort(lines)
		lists[strings.Join(lines, "\n")] = true
		if len(lines) != len(masters) {
			t.Errorf("%s lists %d members, want %d:\n%s", host, len(lines), len(masters), strings.Join(lines, "\n"))
		}
		for _, line := range lines {
			// ID, status, name, peer URLs, client URLs, is a learner
			if f := strings.Split(line, ", "); len(f) != 6 || f[1] != "started" || f[5] != "false" || !slices.Contains(masters, f[2]) {
				t.Errorf("%s lists %q, want a started voter on a master", host, line)
			}
		}
	}
	if len(lists) != 1 {
		t.Errorf("members disagree about who they are: %v", slices.Collect(maps.Keys(lists)))
	}
	return slices.Sorted(maps.Keys(lists))[0]
}

// wantMembers wants one cluster of voters on the masters with equal data.
func wantMembers(t *testing.T, masters []string) {
	t.Helper()
	memberIDs(t, masters)
	ids, hashes := map[string]bool{}, map[string]bool{}
	revision := field(t, etcdctl(t, masters[0], "endpoint", "status", "-w", "fields"), "Revision")
	for _, host := range masters {
		ids[field(t, etcdctl(t, host, "endpoint", "status", "-w", "fields"), "ClusterID")] = true
		hashes[field(t, etcdctl(t, host, "endpoint", "hashkv", "--rev", revision, "-w", "fields"), "Hash")] = true
	}
	if len(ids) != 1 || len(hashes) != 1 {
		t.Errorf("cluster IDs %v, hashes at revision %s %v; want one of each", ids, revision, hashes)
	}
}

// field reads `"Name" : value` out of etcdctl's fields.
func field(t *testing.T, text, name string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, " : "); ok && strings.Trim(key, `" `) == name {
			return strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	t.Fatalf("no field %q in\n%s", name, text)
	return ""
}

// kubeconfigOf has the program write a kubeconfig for the endpoint.
func kubeconfigOf(t *testing.T, inventory string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	ha(t, "kubeconfig", "-f", file, inventory).want(t, 0)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("kubeconfig has mode %o, want 600", info.Mode().Perm())
	}
	return file
}

// wantBackends wants each master's own serving certificate at the endpoint.
func wantBackends(t *testing.T, masters []string) {
	t.Helper()
	wantBackendsAt(t, net.JoinHostPort(theLab.VIP, "6443"), masters)
}

func wantBackendsAt(t *testing.T, endpoint string, masters []string) {
	t.Helper()
	want := map[string]bool{}
	for _, host := range masters {
		want[fingerprint(t, onHost(t, host, "cat", "/etc/kubernetes/pki/apiserver.crt"))] = true
	}
	seen := map[string]bool{}
	for range 8 * len(masters) {
		print, err := servedFingerprint(endpoint)
		if err != nil {
			t.Fatal(err)
		}
		seen[print] = true
	}
	if !maps.Equal(want, seen) {
		t.Errorf("at the endpoint answer %v, want the masters' %v", slices.Sorted(maps.Keys(seen)), slices.Sorted(maps.Keys(want)))
	}
}

// wantDataPathProven wants this run to have had pods on every node reach each
// other.
func wantDataPathProven(t *testing.T, r result) {
	t.Helper()
	for _, e := range r.events(t) {
		if e.Phase == "data-path" && e.Kind == "finished" {
			return
		}
	}
	t.Errorf("the run has not proven the data path\n%s", r.tail())
}

const existing = "--initial-cluster-state=existing"

func wantExisting(t *testing.T, masters []string) {
	t.Helper()
	for _, host := range masters {
		if n := shell(t, host, "grep -c -e "+existing+" /etc/kubernetes/manifests/etcd.yaml; exit 0"); n != "1" {
			t.Errorf("%s: the manifest of etcd has %s lines with %s, want 1", host, n, existing)
		}
		if n := shell(t, host, `n=0; for p in /proc/[0-9]*; do
			[ "$(cat $p/comm 2>/dev/null)" = etcd ] && tr '\0' '\n' <$p/cmdline | grep -qx -e `+existing+` && n=$((n+1)); done; echo $n`); n != "1" {
			t.Errorf("%s: %s etcd processes run with %s, want 1", host, n, existing)
		}
	}
	config := kubectl(t, "-n", "kube-system", "get", "configmap", "kubeadm-config", "-o", "yaml")
	if !strings.Contains(config, "initial-cluster-state") || !strings.Contains(config, "existing") {
		t.Errorf("kubeadm-config does not remember %s:\n%s", existing, config)
	}
}

func wantNoTokens(t *testing.T) {
	if names := kubectl(t, "-n", "kube-system", "get", "secrets", "--field-selector", "type=bootstrap.kubernetes.io/token", "-o", "name"); names != "" {
		t.Errorf("bootstrap tokens are left: %s", names)
	}
}

// wantEqualCA wants the same eight files on every master, its keys 0600.
func wantEqualCA(t *testing.T, masters []string) {
	t.Helper()
	sums := onEach(t, masters, `cd /etc/kubernetes/pki && sha256sum ca.crt ca.key front-proxy-ca.crt front-proxy-ca.key sa.key sa.pub etcd/ca.crt etcd/ca.key &&
		stat -c '%a %U %n' ca.key front-proxy-ca.key sa.key etcd/ca.key`)
	for host, text := range sums {
		if text != sums[masters[0]] {
			t.Errorf("CA set of %s:\n%s\nof %s:\n%s", masters[0], sums[masters[0]], host, text)
		}
		if n := strings.Count(text, "600 root "); n != 4 {
			t.Errorf("%s: %d of 4 keys are root's and 0600:\n%s", host, n, text)
		}
	}
}

// wantEncryption reads a Secret where the API server stores it.
func wantEncryption(t *testing.T) {
	const name, text = "e2e-at-rest", "attack-at-dawn"
	kubectl(t, "-n", "default", "create", "secret", "generic", name, "--from-literal", "plan="+text)
	defer kubectl(t, "-n", "default", "delete", "secret", name)
	raw := etcdctl(t, "cp-2", "get", "/registry/secrets/default/"+name, "--print-value-only")
	if !strings.HasPrefix(raw, "k8s:enc:") || strings.Contains(raw, text) {
		t.Errorf("etcd holds the Secret as %.80q, want it encrypted", raw)
	}
}

// wantNothingShown looks for secrets wherever the run may have left or shown
// them. That the search can find them is seen where they belong.
func wantNothingShown(t *testing.T, w *watcher, r result) {
	secrets := w.secretsOf(t, masters)
	const joins = 1 // the worker's: masters sign their own certificates
	if len(w.tokens) < joins {
		t.Errorf("%d tokens were seen, want %d or more", len(w.tokens), joins)
	}
	const leastSecrets = 3 * 12 // keys, kubeconfigs and the encryption key of three masters
	if len(secrets) < leastSecrets {
		t.Errorf("only %d secrets are known, want %d or more", len(secrets), leastSecrets)
	}
	args := strings.Join(slices.Collect(maps.Keys(w.args)), "\n")
	for _, seen := range []string{"kubeadm init", "kube-apiserver --", "etcd --", binary + " apply"} {
		if !strings.Contains(args, seen) {
			t.Errorf("no process %q was seen among %d command lines", seen, len(w.args))
		}
	}
	wantNoSecret(t, "a command line", args, secrets)
	wantNoSecret(t, "the event stream", r.stdout, secrets)
	wantNoSecret(t, "standard error", r.stderr, secrets)
	wantNoSecretOnHosts(t, baseHosts, secrets)
	// the documents of kubeadm stay on the hosts: they hold none either, and no token is left
	for host, left := range onEach(t, masters, "ls /"+discoveryFile+" 2>/dev/null; exit 0") {
		if left != "" {
			t.Errorf("%s: %s is left", host, left)
		}
	}
}
