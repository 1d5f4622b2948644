//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/fault"
	"github.com/ha-install/ha-install/test/lab"
)

// ghostURL is where no host of the lab is.
const ghostURL = "https://198.51.100.99:2380"

// fault9 has a member listed that is on no host: first a learner, then a
// voter. Nobody joins then, and the command that the refusal shows mends it.
func fault9(t *testing.T) {
	for _, role := range []string{"learner", "voter"} {
		args := []string{"member", "add", "ghost", "--peer-urls", ghostURL}
		if role == "learner" {
			args = append(args, "--learner")
		}
		etcdctl(t, "cp-1", args...)
		list := etcdctl(t, "cp-1", "member", "list")
		t.Cleanup(func() { removeGhost(t) })
		id := ""
		for line := range strings.Lines(list) {
			if strings.Contains(line, ghostURL) {
				id, _, _ = strings.Cut(line, ",")
			}
		}
		r := refusedOnCluster(t, with(t, "cp-4"), "cp-4", 10, "ghost "+role, id, ghostURL, "etcdctl member remove "+id)
		t.Logf("a ghost %s was refused in %s:\n%s", role, r.took.Round(100*time.Millisecond), r.stderr)
		command := regexp.MustCompile(`on (\S+): etcdctl (member remove [0-9a-f]+)`).FindStringSubmatch(r.stderr)
		if command == nil {
			t.Fatalf("no command in\n%s", r.stderr)
		}
		etcdctl(t, command[1], strings.Fields(command[2])...)
	}
	memberIDs(t, masters)
}

// removeGhost is for a test that went wrong.
func removeGhost(t *testing.T) {
	for _, m := range listedMembers(t) {
		if m.peerURL == ghostURL {
			etcdctl(t, "cp-1", "member", "remove", m.id)
		}
	}
}

const (
	schedulerManifest = "/etc/kubernetes/manifests/kube-scheduler.yaml"
	schedulerAside    = "/root/kube-scheduler.yaml"
)

// fault20 takes the schedulers away, on one master first, then on all: status
// names them, and nobody joins.
func fault20(t *testing.T) {
	path := with(t, "cp-4")
	take := func(host string) {
		onHost(t, host, "mv", schedulerManifest, schedulerAside)
		t.Cleanup(func() { shell(t, host, "[ ! -e "+schedulerAside+" ] || mv "+schedulerAside+" "+schedulerManifest) })
		// Its pod ends a moment after its process, and footprints compare what runs.
		awaitOnHost(t, host, "the scheduler's pod to end", `for id in $(ctr -n k8s.io containers ls -q 'labels."io.kubernetes.pod.name"==kube-scheduler-`+host+`'); do
	if ctr -n k8s.io tasks ls | awk '$3 == "RUNNING" { print $1 }' | grep -qx "$id"; then exit 1; fi
done`)
	}
	take("cp-3")
	awaitStatus(t, "status to name the dead scheduler", func(s status) bool {
		return slices.ContainsFunc(s.Hosts, func(h hostStatus) bool { return h.Name == "cp-3" && h.Pods["kube-scheduler"] != "ready" })
	})
	take("cp-1")
	take("cp-2")
	r := refusedOnCluster(t, path, "cp-4", 10, "kube-scheduler", "ha-install status")
	t.Logf("with no scheduler a join was refused in %s:\n%s", r.took.Round(100*time.Millisecond), r.stderr)
	for _, host := range masters {
		onHost(t, host, "mv", schedulerAside, schedulerManifest)
	}
	awaitFaultless(t, writeInventory(t, nil, nil), 2*time.Minute)
}

// awaitOnHost waits until a script ends with success.
func awaitOnHost(t *testing.T, host, what, script string) {
	t.Helper()
	err := lab.Await(t.Context(), what+" on "+host, time.Minute, func(ctx context.Context) error {
		_, err := theLab.Exec(ctx, host, "sh", "-c", script)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// awaitStatus waits until a status of the lab's own hosts is as wanted.
func awaitStatus(t *testing.T, what string, good func(status) bool) {
	t.Helper()
	path := writeInventory(t, nil, nil)
	for began := time.Now(); ; time.Sleep(time.Second) {
		s, r := statusOf(t, path)
		if good(s) {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("waiting for %s: last seen\n%s", what, r.stdout)
		}
	}
}

// How long the cuts last: longer than an election, and long enough for the
// installer to notice that its connections are dead.
const (
	leaderCut   = 12 * time.Second
	operatorCut = 20 * time.Second
)

// faults7and2 adds a master while first etcd's leader is cut off from the other
// members, and then, between the add and the promotion, the operator from the
// joiner, and from all hosts. One and the same run comes through.
func faults7and2(t *testing.T) {
	path := with(t, "cp-4")
	s, _ := statusOf(t, writeInventory(t, nil, nil))
	leader, before := s.Quorum.Leader, memberIDs(t, masters)
	others := slices.DeleteFunc(slices.Clone(masters), func(m string) bool { return m == leader })
	var learner string
	moments := map[string]func(){
		"started": func() {
			undo := cutAll(t, leader, others, 2380)
			time.Sleep(leaderCut)
			for _, host := range masters {
				if host != leader && etcdctl(t, host, "member", "list") != before && !sameLines(etcdctl(t, host, "member", "list"), before) {
					t.Errorf("while %s, the leader, was cut off, members became\n%s\nbefore:\n%s", leader, etcdctl(t, host, "member", "list"), before)
				}
			}
			undo()
		},
		"Creating static Pod manifest for local etcd": func() {
			if m := memberAt(t, "cp-4"); m == nil || !m.learner {
				t.Errorf("cp-4 is no learner when its etcd starts: %+v", m)
			} else {
				learner = m.id
			}
			undo := cutAll(t, fault.Operator, []string{"cp-4"}, 22)
			time.Sleep(operatorCut)
			undo()
		},
		"gets its vote when it has caught up": func() {
			undo := cutAll(t, fault.Operator, slices.Concat(masters, []string{"cp-4", "lb-1", "lb-2", "w-1"}), 22)
			time.Sleep(operatorCut)
			undo()
		},
	}
	r := haActing(t, func(line string, _ *os.Process) {
		var e event
		if json.Unmarshal([]byte(line), &e) != nil || e.Phase != "join" || e.Host != "cp-4" {
			return
		}
		for text, act := range moments {
			if e.Kind == text || e.Kind == "output" && strings.Contains(e.Message, text) {
				delete(moments, text)
				t.Logf("%s: %s %s", e.Kind, text, e.Message)
				act()
			}
		}
	}, "apply", "-o", "json", path)
	r.want(t, 0)
	if len(moments) > 0 {
		t.Errorf("faults that never came: %d", len(moments))
	}
	waited := slices.ContainsFunc(r.events(t), func(e event) bool {
		return e.Phase == "join" && e.Host == "cp-4" && e.Kind == "waiting" && strings.Contains(e.Message, leader)
	})
	if !waited {
		t.Errorf("no gate of the join waited for %s, the leader that was cut off\n%s", leader, r.tail())
	}
	four := append(slices.Clone(masters), "cp-4")
	wantMembers(t, four)
	if m := memberAt(t, "cp-4"); m == nil || m.id != learner {
		t.Errorf("cp-4 was learner %s when it was cut off, and is %+v: it joined twice", learner, m)
	}
	if now := memberIDs(t, four); !containsLines(now, before) {
		t.Errorf("the members of before are not all there:\n%s\nnow:\n%s", before, now)
	}
	steps := shell(t, "cp-4", "ls /var/lib/ha-install/steps | grep -c column-start")
	t.Logf("through three cuts in %s; column-start was run %s times on cp-4 in all", r.took.Round(100*time.Millisecond), steps)
}

func sameLines(a, b string) bool { return containsLines(a, b) && containsLines(b, a) }
