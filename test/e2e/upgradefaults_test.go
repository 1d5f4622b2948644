//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/fault"
	"github.com/ha-install/ha-install/test/lab"
)

// upgradeThroughFaults upgrades a cluster through one trouble after the other:
// each stops the run with the cluster in a supported state, and the next run goes
// on from what it finds, until one comes through. Clients that write see none of
// it, but for the death of an etcd.
func upgradeThroughFaults(t *testing.T) {
	before, after := older(t)
	kubeconfig := kubeconfigOf(t, before)
	stale := restoredBefore(t, before)
	images, ids := imagesOf(t, lab.DefaultVersion), memberIDs(t, masters)
	ps := startProbes(t, kubeconfig, asTheyAre)
	for _, trouble := range []struct {
		name string
		run  func(t *testing.T, after string)
	}{
		{"an operator's edit of kubeadm-config", editedConfig},
		{"fault 15: /etc/kubernetes is full", fullDisk},
		{"fault 4: etcd of another master is down", etcdDownElsewhere},
		{"fault 12: an etcd of before a restore runs on a master", func(t *testing.T, after string) { etcdOfBefore(t, after, stale) }},
		{"fault 5: the API server of another master is down", apiServerDownElsewhere},
		{"fault 7: etcd's leader is cut off", leaderCutOff},
		{"fault 15: the disk fills when it is a master's turn", diskFills},
		{"an image is another one on the second master", otherImage},
		{"fault 27: the second master's API server does not start", apiServerDoesNotStart},
		{"fault 26: an image is gone from the last master", imageGone},
	} {
		t.Run(trouble.name, func(t *testing.T) { trouble.run(t, after) })
		if t.Failed() {
			t.FailNow()
		}
	}
	awaitFaultless(t, after, 2*time.Minute)
	wantRelease(t, lab.DefaultVersion, masters, "w-1")
	wantColumn(t, masters[0], images)
	wantMembers(t, masters)
	wantExisting(t, masters)
	if now := memberIDs(t, masters); now != ids {
		t.Errorf("members before:\n%s\nafter:\n%s", ids, now)
	}
	ps.await(t, 40, time.Minute)
	ps.stop(t, "an upgrade through faults")
	nothingLeft(t, after)
}

// slowFsync is what each fsync of etcd takes more on a slow disk: thirty times what
// status warns of, and more than an API server calls ready at all times.
const slowFsync = 300 * time.Millisecond

// upgradeBesideASlowDisk (fault 16) upgrades a cluster in which one follower's disk is
// slow. Either all comes through, or it stops before it exchanges a master that the
// slow one would have to stand in for, and says whose fault it is; the next run
// finishes when the disk is well. Nothing that was acknowledged is lost.
func upgradeBesideASlowDisk(t *testing.T) {
	before, after := older(t)
	s, _ := statusOf(t, before)
	slow := slices.DeleteFunc(slices.Clone(masters), func(m string) bool { return m == s.Quorum.Leader })[1]
	ids := memberIDs(t, masters)
	undo := injectAll(t, []string{slow}, func(ctx context.Context, host string) (fault.Undo, error) {
		return inject.SlowDisk(ctx, host, "etcd", slowFsync)
	})
	ps := startProbes(t, kubeconfigOf(t, before), asTheyAre)
	r := ha(t, "upgrade", "--yes", "-o", "json", after)
	t.Logf("etcd of %s waits %s more for each fsync: exit %d after %s: %s", slow, slowFsync, r.code, r.took.Round(100*time.Millisecond), r.stderr)
	h, err := theLab.Host(slow)
	if err != nil {
		t.Fatal(err)
	}
	if r.code != 0 && !strings.Contains(r.stderr, slow) && !strings.Contains(r.stderr, h.Address) {
		t.Errorf("it stopped, and does not name %s\n%s", slow, r.tail())
	}
	undo()
	again := ha(t, "upgrade", "--yes", "-o", "json", after)
	again.want(t, 0)
	t.Logf("with the disk well again: %s", again.took.Round(100*time.Millisecond))
	ps.await(t, 40, time.Minute)
	ps.stop(t, "an upgrade beside a slow disk")
	awaitFaultless(t, after, 2*time.Minute)
	wantRelease(t, lab.DefaultVersion, masters, "w-1")
	wantExisting(t, masters)
	if now := memberIDs(t, masters); now != ids {
		t.Errorf("members before:\n%s\nafter:\n%s", ids, now)
	}
}

// heldData is where a master's etcd data of before a restore wait for it to be over.
const heldData = "/root/held-member"

// swapData stops a master's etcd and gives it other data, or sets some aside; the
// kubelet starts it again. The API server is ended with it: beside one that hangs, the
// kubelet takes two minutes.
const swapData = `set -eu
systemctl stop kubelet
pkill -KILL -x kube-apiserver || true
pkill -KILL -x etcd || true
while pgrep -x etcd >/dev/null; do sleep 0.1; done
%s
systemctl start kubelet
`

// restoredBefore restores a cluster from a backup of its own, keeps what the etcd of
// one follower had before, and returns that master's name.
func restoredBefore(t *testing.T, path string) string {
	t.Helper()
	s, _ := statusOf(t, path)
	stale := slices.DeleteFunc(slices.Clone(masters), func(m string) bool { return m == s.Quorum.Leader })[0]
	shell(t, stale, fmt.Sprintf(swapData, "cp -a /var/lib/etcd/member "+heldData))
	awaitFaultless(t, path, 2*time.Minute)
	store := t.TempDir()
	r := ha(t, "backup", "create", "-o", "json", "--directory", store, path)
	r.want(t, 0)
	r = ha(t, "restore", "--confirm", clusterName, "--backup-directory", store, "--from", filepath.Base(backedUp(t, r).Path), "-o", "json", path)
	r.want(t, 0)
	t.Logf("restored on the same masters: %s", r.took.Round(100*time.Millisecond))
	awaitFaultless(t, path, 2*time.Minute)
	return stale
}

// etcdOfBefore has the etcd of a master come back with its data of before a restore: it
// is of another cluster, merges with nobody, and no upgrade begins beside it.
func etcdOfBefore(t *testing.T, after, stale string) {
	shell(t, stale, fmt.Sprintf(swapData, "mv /var/lib/etcd/member /root/member-of-now; cp -a "+heldData+" /var/lib/etcd/member"))
	shell(t, stale, "timeout 60 sh -c 'until pgrep -x etcd >/dev/null; do sleep 0.2; done'")
	r := ha(t, "upgrade", "--yes", after)
	t.Logf("refused after %s: exit %d: %s", r.took.Round(100*time.Millisecond), r.code, r.stderr)
	if r.code == 0 || !strings.Contains(r.stderr, stale+" is foreign") || !strings.Contains(r.stderr, "replace") {
		t.Errorf("exit %d; want it to stop, to say what %s is, and what brings it back\n%s", r.code, stale, r.tail())
	}
	s, _ := statusOf(t, after)
	for _, m := range s.Quorum.Members {
		if want := map[bool]string{true: "foreign", false: "healthy"}[m.Name == stale]; string(m.State) != want {
			t.Errorf("%s is %s, want %s: %s", m.Name, m.State, want, m.Why)
		}
	}
	if n := s.Quorum.Numbers; n.Healthy != 2 || n.Voters != 3 {
		t.Errorf("%d of %d voters are healthy, want 2 of 3", n.Healthy, n.Voters)
	}
	shell(t, stale, fmt.Sprintf(swapData, "mv /var/lib/etcd/member /root/member-of-before; mv /root/member-of-now /var/lib/etcd/member"))
	wantUntouched(t, after)
	wantMembers(t, masters)
}

// editedConfig changes what kubeadm remembers behind the installer's back.
func editedConfig(t *testing.T, after string) {
	const was, is = `value: "100"`, `value: "200"` // of audit-log-maxsize
	edit := func(from, to string) {
		kubectlShell(t, `$k -n kube-system get configmap kubeadm-config -o yaml | sed 's|`+from+`|`+to+`|' | $k replace -f -`)
	}
	edit(was, is)
	defer edit(is, was)
	unchanged(t, "an upgrade of a cluster whose configuration was edited", func() {
		r := ha(t, "upgrade", "--yes", after)
		if r.code == 0 {
			t.Errorf("it was upgraded\n%s", r.tail())
		}
		for _, text := range []string{"kubeadm-config", "-" + is, "+" + was} {
			if said := strings.ReplaceAll(r.stdout+r.stderr, " ", ""); !strings.Contains(said, strings.ReplaceAll(text, " ", "")) {
				t.Errorf("it does not say %q\n%s", text, r.tail())
			}
		}
	})
	wantKubelets(t, lab.OlderVersion, append(slices.Clone(masters), "w-1")...)
}

// kubectlShell runs a script on a master in which $k is kubectl.
func kubectlShell(t *testing.T, script string) string {
	t.Helper()
	return shell(t, "cp-1", "k='kubectl --kubeconfig /etc/kubernetes/admin.conf'; "+script)
}

// hook writes a program that does something on this machine before the n-th host
// is touched, whose name is in $1, and returns its path and that of a file with
// the names of all hosts that it was called for, one a line.
func hook(t *testing.T, n int, does string) (program, called string) {
	t.Helper()
	dir := t.TempDir()
	program, called = filepath.Join(dir, "hook"), filepath.Join(dir, "called")
	script := "#!/bin/sh\nset -eu\necho \"$1\" >>" + called + "\n[ $(wc -l <" + called + ") = " + string(rune('0'+n)) + " ] || exit 0\n" + does + "\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return program, called
}

// inHost is a shell's command that runs one inside the host whose name is in a variable.
func inHost(variable, command string) string {
	return `lxc-attach --name "ha-lab-$` + variable + `" --clear-env --set-var PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin -- ` + command
}

// namesIn reads the file of a hook.
func namesIn(t *testing.T, called string) []string {
	t.Helper()
	return strings.Fields(readFile(t, called))
}

// heldAside is where a manifest waits whose pod is to be down.
const heldAside = "/root/held.yaml"

// etcdDownElsewhere takes the etcd of a master that is not the first to go, just
// before the first goes.
func etcdDownElsewhere(t *testing.T, after string) {
	down := downElsewhere(t, after, "etcd")
	if text := "voters 3, quorum 2, healthy 2, can lose 0"; !strings.Contains(down.stdout+down.stderr, text) {
		t.Errorf("exit %d, without the numbers %q\n%s", down.code, text, down.tail())
	}
}

// apiServerDownElsewhere takes the API server of such a master.
func apiServerDownElsewhere(t *testing.T, after string) {
	down := downElsewhere(t, after, "kube-apiserver")
	if text := "apiserver https://"; !strings.Contains(down.stderr, text) {
		t.Errorf("exit %d, without the reason %q\n%s", down.code, text, down.tail())
	}
}

// downElsewhere takes a component of the master that leads etcd, which is the last
// to go, just before the first goes, and wants the upgrade to stop before it
// exchanges anything. The component is back afterwards.
func downElsewhere(t *testing.T, after, component string) result {
	s, _ := statusOf(t, after)
	down, manifest := s.Quorum.Leader, "/etc/kubernetes/manifests/"+component+".yaml"
	program, _ := hook(t, 1, "other="+down+"\n"+inHost("other", "mv "+manifest+" "+heldAside)+"\n"+
		inHost("other", "pkill -KILL -x "+component))
	r := ha(t, "upgrade", "--yes", "--before-host", program, after)
	shell(t, down, "mv "+heldAside+" "+manifest)
	if r.code == 0 || !strings.Contains(r.stderr, down) {
		t.Errorf("exit %d; want it to stop, and to name %s\n%s", r.code, down, r.tail())
	}
	t.Logf("refused after %s: exit %d: %s", r.took.Round(100*time.Millisecond), r.code, r.stderr)
	wantUntouched(t, after)
	return r
}

// wantUntouched wants every node to be of the older release still, and waits until
// the cluster is whole.
func wantUntouched(t *testing.T, after string) {
	t.Helper()
	for _, node := range append(slices.Clone(masters), "w-1") {
		if v := versionOf(t, node); v != lab.OlderVersion {
			t.Errorf("%s has %s; want it untouched", node, v)
		}
	}
	awaitFaultless(t, after, 3*time.Minute)
	for _, master := range masters {
		for _, component := range column { // startup probes first look after 10 s
			kubectl(t, "-n", "kube-system", "wait", "--for=condition=Ready", "pod/"+component+"-"+master, "--timeout=50s")
		}
		wantColumn(t, master, imagesOf(t, lab.OlderVersion))
	}
}

// leaderCutOff cuts the master that leads etcd off from the others when the first
// master's turn begins: nothing may be exchanged while one of the three is away.
func leaderCutOff(t *testing.T, after string) {
	s, _ := statusOf(t, after)
	leader := s.Quorum.Leader
	others := slices.DeleteFunc(slices.Clone(masters), func(m string) bool { return m == leader })
	heal := func() {}
	r := haWatched(t, func(line string) bool {
		if e := parseEvent(t, line); e.Kind == "started" && e.Phase == "drain" {
			heal = cutAll(t, leader, others, 2380)
		}
		return false
	}, "upgrade", "--yes", "-o", "json", after)
	heal()
	if r.code == 0 || !strings.Contains(r.stderr, "voters 3, quorum 2, healthy 2, can lose 0") {
		t.Errorf("exit %d, without the numbers\n%s", r.code, r.tail())
	}
	t.Logf("refused after %s: exit %d", r.took.Round(100*time.Millisecond), r.code)
	wantUntouched(t, after)
}

// kubernetesFiles is a directory that an upgrade stages new files in.
const kubernetesFiles = "/etc/kubernetes"

// smallKubernetesFiles makes it a small file system on every master, with more room
// than an upgrade asks for, and returns what takes that back.
func smallKubernetesFiles(t *testing.T) func() {
	return injectAll(t, masters, func(ctx context.Context, host string) (fault.Undo, error) {
		return inject.Shrink(ctx, host, kubernetesFiles, 64<<20)
	})
}

// fullDisk has one master with too little room: it is said before any is touched.
func fullDisk(t *testing.T, after string) {
	defer smallKubernetesFiles(t)()
	const full = "cp-2"
	injectAll(t, []string{full}, func(ctx context.Context, host string) (fault.Undo, error) {
		return inject.Fill(ctx, host, kubernetesFiles, 20<<20)
	})
	unchanged(t, "an upgrade of a master without room", func() {
		ha(t, "upgrade", "--yes", after).want(t, 4, full, kubernetesFiles, "free")
	})
}

// diskFills takes that room away when the first master's turn has begun: nothing of
// it is exchanged, and what was staged does not stay.
func diskFills(t *testing.T, after string) {
	defer smallKubernetesFiles(t)()
	program, called := hook(t, 1, "host=$1\n"+inHost("host", "fallocate --length 40M "+kubernetesFiles+"/.ha-lab-filler"))
	before := onEach(t, masters, kubernetesFootprint)
	r := ha(t, "upgrade", "--yes", "--before-host", program, after)
	names := namesIn(t, called)
	if r.code == 0 || len(names) != 1 {
		t.Fatalf("exit %d after %v; want it to stop at one master\n%s", r.code, names, r.tail())
	}
	for _, text := range []string{names[0], "no room", kubernetesFiles, "nothing was exchanged"} {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("it does not say %q\n%s", text, r.tail())
		}
	}
	t.Logf("stopped at %s after %s: exit %d: %s", names[0], r.took.Round(100*time.Millisecond), r.code, r.stderr)
	wantSame(t, "an upgrade that found no room", before, onEach(t, masters, kubernetesFootprint))
}

// kubernetesFootprint are a master's files of Kubernetes, without that of the fault.
const kubernetesFootprint = `cd ` + kubernetesFiles + ` && find . -type f ! -name .ha-lab-filler | sort | xargs sha256sum`

// otherImage puts an image that has no API server in it under the name of the new
// one on the second master, after all images have been checked: it is seen before
// anything of that master is stopped.
func otherImage(t *testing.T, after string) {
	image := imagesOf(t, lab.DefaultVersion)["kube-apiserver"]
	program, called := hook(t, 2, "host=$1\n"+inHost("host", "ctr -n k8s.io images tag --force ha-install.test/echo:1 "+image))
	r := ha(t, "upgrade", "--yes", "--before-host", program, after)
	names := stoppedAtTheSecond(t, r, called)
	if text := r.stdout + r.stderr; !strings.Contains(text, names[1]+" had "+image) {
		t.Errorf("it does not say what is missing\n%s", r.tail())
	}
	wantColumn(t, names[1], imagesOf(t, lab.OlderVersion))
}

// stoppedAtTheSecond wants a run to have ended with the first master upgraded, the
// third untouched and the API answering; the names are those of the first two.
func stoppedAtTheSecond(t *testing.T, r result, called string) (names []string) {
	t.Helper()
	names = namesIn(t, called)
	if r.code == 0 || len(names) != 2 {
		t.Fatalf("exit %d after %v; want it to stop at the second\n%s", r.code, names, r.tail())
	}
	t.Logf("stopped at %s after %s: exit %d", names[1], r.took.Round(100*time.Millisecond), r.code)
	third := slices.DeleteFunc(slices.Clone(masters), func(m string) bool { return slices.Contains(names, m) })[0]
	if v := versionOf(t, names[0]); v != lab.DefaultVersion {
		t.Errorf("%s, the first, has %s; want it upgraded", names[0], v)
	}
	if v := versionOf(t, third); v != lab.OlderVersion {
		t.Errorf("%s, the third, has %s; want it untouched", third, v)
	}
	wantColumn(t, third, imagesOf(t, lab.OlderVersion))
	return names
}

// apiServerDoesNotStart puts a file where the second master to go keeps the
// directory of its audit logs. The first has gone in the run before.
func apiServerDoesNotStart(t *testing.T, after string) {
	const logs = "/var/log/kubernetes/audit"
	program, called := hook(t, 1, "host=$1\n"+inHost("host", "mv "+logs+" "+logs+".held")+"\n"+inHost("host", "touch "+logs))
	r := ha(t, "upgrade", "--yes", "--before-host", program, after)
	names := namesIn(t, called)
	if r.code == 0 || len(names) != 1 {
		t.Fatalf("exit %d after %v; want it to stop at one master\n%s", r.code, names, r.tail())
	}
	t.Logf("stopped at %s after %s: exit %d", names[0], r.took.Round(100*time.Millisecond), r.code)
	if text := r.stdout + r.stderr; !strings.Contains(text, names[0]) || !strings.Contains(text, "apiserver") {
		t.Errorf("it does not say whose API server does not start\n%s", r.tail())
	}
	left := 0
	for _, m := range masters {
		if versionOf(t, m) == lab.OlderVersion && m != names[0] {
			wantColumn(t, m, imagesOf(t, lab.OlderVersion))
			left++
		}
	}
	if left != 1 {
		t.Errorf("%d masters beside %s are untouched, want one", left, names[0])
	}
	shell(t, names[0], "rm "+logs+" && mv "+logs+".held "+logs)
}

// stuckManifest is a workload whose budget allows no disruption, on the worker.
const stuckManifest = `apiVersion: apps/v1
kind: Deployment
metadata: {name: stuck, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: stuck}}
  template:
    metadata: {labels: {app: stuck}}
    spec:
      nodeSelector: {kubernetes.io/hostname: w-1}
      containers: [{name: echo, image: "ha-install.test/echo:1"}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: stuck-budget, namespace: default}
spec: {minAvailable: 1, selector: {matchLabels: {app: stuck}}}
`

// imageGone removes an image of the new release from a master that has not been
// upgraded yet; the run then comes to the worker, whose drain a budget blocks.
func imageGone(t *testing.T, after string) {
	var last string
	for _, m := range masters {
		if versionOf(t, m) == lab.OlderVersion {
			last = m
		}
	}
	if last == "" {
		t.Fatal("all masters are upgraded already")
	}
	shell(t, last, "ctr -n k8s.io images rm --sync "+imagesOf(t, lab.DefaultVersion)["etcd"])
	applyManifest(t, "stuck", stuckManifest)
	kubectl(t, "rollout", "status", "deployment/stuck", "--timeout=50s")
	r := ha(t, "upgrade", "--yes", "--drain-timeout", "10s", after)
	if r.code == 0 {
		t.Errorf("the worker was drained against a budget\n%s", r.tail())
	}
	for _, text := range []string{"w-1", "default/stuck-", "stuck-budget"} {
		if !strings.Contains(r.stdout+r.stderr, text) {
			t.Errorf("it does not say %q\n%s", text, r.tail())
		}
	}
	t.Logf("stopped at a blocked drain after %s: exit %d", r.took.Round(100*time.Millisecond), r.code)
	kubectl(t, "wait", "--for=condition=Available", "deployment/stuck", "--timeout=10s")
	deleteManifest(t, "stuck")
	r = ha(t, "upgrade", "--yes", after)
	r.want(t, 0)
	t.Logf("the next run came through in %s", r.took.Round(100*time.Millisecond))
}
