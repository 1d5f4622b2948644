//go:build e2e

package e2e

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// grow adds two masters and a worker to the running cluster, through most of
// what can befall a join. Each row finds the lab as the one before left it, and
// goes on from there whatever that is: a join that was spoilt is taken back or
// taken up by the next.
func grow(t *testing.T) {
	rows := []struct {
		name string
		run  func(*testing.T)
	}{
		{"fault 9: a ghost is listed", fault9},
		{"fault 20: no scheduler runs", fault20},
		{"fault 35: the joiner's disk is read-only", fault35},
		{"fault 33: the push of the CA files is cut half way", fault33},
		{"fault 22: the joiner's kubelet never starts", fault22},
		{"fault 8: the joiner reboots before it has a vote", fault8},
		{"faults 7 and 2: the leader, then the operator is cut off from the others", faults7and2},
		{"fault 3, and 28 in the long suite: killed between add and promote; 30 % loss", faults3and28},
		{"whole", grown},
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := theLab.Up(ctx, os.Stderr, moreHosts...); err != nil {
		t.Fatal(err)
	}
	recreate(t, moreHosts...)
	before := memberIDs(t, masters)
	for _, row := range rows {
		t.Run(row.name, row.run)
	}
	if now := memberIDs(t, allMasters); !containsLines(now, before) {
		t.Errorf("the members of before are not all there:\n%s\nnow:\n%s", before, now)
	}
}

// with is the lab's inventory with more hosts than its own.
func with(t *testing.T, more ...string) string {
	t.Helper()
	return writeInventory(t, slices.Concat(baseHosts, more), nil)
}

// grown is what must hold when all have joined.
func grown(t *testing.T) {
	path := with(t, moreHosts...)
	wantWhole(t, path, allMasters, "w-1", "w-2")
	s, _ := statusOf(t, path)
	if n := s.Quorum.Numbers; n.Voters != 5 || n.Quorum != 3 || n.CanLose != n.Healthy-3 {
		t.Errorf("numbers %+v, want 5 voters, quorum 3, can lose all healthy ones but 3", n)
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

// memberAt is the entry of a host in the member list; nil for none.
func memberAt(t *testing.T, host string) *listedMember {
	t.Helper()
	h, err := theLab.Host(host)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range listedMembers(t) {
		if strings.Contains(m.peerURL, "//"+h.Address+":") {
			return &m
		}
	}
	return nil
}

// wantTakenBack wants a join to have left nothing: not a member, and no
// control plane on the host.
func wantTakenBack(t *testing.T, host string, before string) {
	t.Helper()
	if now := memberIDs(t, masters); now != before {
		t.Errorf("members before:\n%s\nafter:\n%s", before, now)
	}
	if left := shell(t, host, "ls /etc/kubernetes/manifests /var/lib/etcd/member 2>/dev/null; exit 0"); left != "" {
		t.Errorf("%s: left of a join that was taken back: %s", host, left)
	}
}

// refusedOnCluster runs apply and wants it refused, with no member and nothing
// on the hosts of the running cluster changed, nor on the newcomers.
func refusedOnCluster(t *testing.T, path string, newcomer string, code int, texts ...string) result {
	t.Helper()
	members := etcdctl(t, "cp-1", "member", "list")
	before, bare := onEach(t, masters, clusterFootprint), onEach(t, []string{newcomer}, bareFootprint)
	r := ha(t, "apply", path)
	wantSame(t, "a refused apply", before, onEach(t, masters, clusterFootprint))
	wantSame(t, "a refused apply", bare, onEach(t, []string{newcomer}, bareFootprint))
	if now := etcdctl(t, "cp-1", "member", "list"); now != members {
		t.Errorf("members before:\n%s\nafter:\n%s", members, now)
	}
	r.want(t, code, texts...)
	return r
}
