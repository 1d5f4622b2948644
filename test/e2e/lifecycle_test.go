//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	allHosts   = slices.Concat(baseHosts, moreHosts)
	allMasters = []string{"cp-1", "cp-2", "cp-3", "cp-4", "cp-5"}
)

// scaleOut adds two masters and a worker to the inventory and applies it.
func scaleOut(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := theLab.Up(ctx, os.Stderr, moreHosts...); err != nil {
		t.Fatal(err)
	}
	recreate(t, moreHosts...)
	ids := memberIDs(t, masters)
	path := writeInventory(t, allHosts, nil)
	r := ha(t, "apply", "-o", "json", path)
	r.want(t, 0)
	t.Logf("two masters and a worker more in %s", r.took.Round(100*time.Millisecond))
	wantMembers(t, allMasters)
	if now := memberIDs(t, allMasters); !containsLines(now, ids) {
		t.Errorf("the members of before are not all there:\n%s\nnow:\n%s", ids, now)
	}
	wantNodes(t, path, append(slices.Clone(allMasters), "w-1", "w-2"))
	wantBackends(t, allMasters)
	wantExisting(t, allMasters)
	wantEqualCA(t, allMasters)
	wantDataPathProven(t, r)
	wantNoTokens(t)
	awaitFaultless(t, path, 2*time.Minute) // nine hosts on one small machine answer late at times
	s, _ := statusOf(t, path)
	if n := s.Quorum.Numbers; n.Voters != 5 || n.Quorum != 3 || n.Healthy != 5 || n.CanLose != 2 {
		t.Errorf("numbers %+v, want 5 voters, quorum 3, 5 healthy, can lose 2", n)
	}
}

func containsLines(text, lines string) bool {
	have := strings.Split(text, "\n")
	for _, line := range strings.Split(lines, "\n") {
		if !slices.Contains(have, line) {
			return false
		}
	}
	return true
}

// reset takes the cluster off all hosts: refused without its name, and with it
// nothing of the cluster runs and what may be dear is moved aside.
func reset(t *testing.T) {
	path := writeInventory(t, allHosts, nil)
	awaitProbePodsGone(t)
	before := onEach(t, allHosts, clusterFootprint)
	ha(t, "reset", "--confirm", "production", path).want(t, 64, "production", clusterName, "nothing was changed")
	ha(t, "reset", path).want(t, 64, "--confirm")
	wantSame(t, "a refused reset", before, onEach(t, allHosts, clusterFootprint))

	r := ha(t, "reset", "--confirm", clusterName, path)
	r.want(t, 0)
	t.Logf("reset of nine hosts in %s", r.took.Round(100*time.Millisecond))
	const alive = `for p in /proc/[0-9]*; do read -r name <$p/comm && case $name in
		kubelet|etcd|kube-apiserver|kube-controller*|kube-scheduler|kube-proxy|flanneld|coredns|haproxy|keepalived) echo "$name";; esac; done 2>/dev/null
		ip -oneline address show | grep -o -e ' 198.51.100.10/[0-9]*' -e cni0 -e flannel.1
		ls -d /etc/kubernetes/manifests/*.yaml /etc/kubernetes/*.conf /var/lib/etcd/member /var/lib/ha-install/cluster.json 2>/dev/null
		mount | grep /var/lib/kubelet
		exit 0`
	for host, left := range onEach(t, allHosts, alive) {
		if left != "" {
			t.Errorf("%s: left after reset:\n%s", host, left)
		}
	}
	for host, kept := range onEach(t, allMasters, `ls /etc/kubernetes.ha-install-*/pki/ca.key /var/lib/etcd.ha-install-*/member/snap/db`) {
		if !strings.Contains(kept, "/pki/ca.key") || !strings.Contains(kept, "/member/snap/db") {
			t.Errorf("%s: moved aside is %q, want the CA's key and etcd's data", host, kept)
		}
	}
}

// killedInstaller installs again on hosts that were reset, and kills the
// installer twice on the way, as a crash would: in the middle of init, and of
// a join after its member was added. Each next run takes up what it finds.
func killedInstaller(t *testing.T) {
	path := writeInventory(t, nil, nil)
	began := time.Now()
	r := killedAt(t, path, "init", "[kubelet-start] Starting the kubelet")
	t.Logf("killed in the middle of init after %s", r.took.Round(100*time.Millisecond))
	r = killedAt(t, path, "join", "Creating static Pod manifest for local etcd")
	if list := etcdctl(t, "cp-1", "member", "list"); !strings.Contains(list, ", true") {
		t.Errorf("it was killed too late: no learner is listed:\n%s", list)
	}
	t.Logf("killed in the middle of a join after %s", r.took.Round(100*time.Millisecond))
	r = ha(t, "apply", "-o", "json", path)
	r.want(t, 0)
	t.Logf("reset hosts to a verified cluster, twice killed: %s, the last run %s", time.Since(began).Round(100*time.Millisecond), r.took.Round(100*time.Millisecond))
	wantMembers(t, masters)
	wantNodes(t, path, append(slices.Clone(masters), "w-1"))
	wantExisting(t, masters)
	wantEqualCA(t, masters)
	wantBackends(t, masters)
	wantNoTokens(t)
	s, _ := statusOf(t, path)
	if err := s.faultless(); err != nil {
		t.Error(err)
	}
	if n := ha(t, "apply", "-o", "json", path).changed(t); n != 0 {
		t.Errorf("one more apply changed %d steps", n)
	}
}

// killedAt runs apply and kills it with SIGKILL when a step of the phase says
// the text.
func killedAt(t *testing.T, path, phase, text string) result {
	t.Helper()
	r := haWatched(t, func(line string) bool {
		var e event
		return json.Unmarshal([]byte(line), &e) == nil && e.Phase == phase && e.Kind == "output" && strings.Contains(e.Message, text)
	}, "apply", "-o", "json", path)
	if r.code != -1 {
		t.Fatalf("it was not killed: phase %q never said %q; exit %d\n%s", phase, text, r.code, r.tail())
	}
	return r
}
