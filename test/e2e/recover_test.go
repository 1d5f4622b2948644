//go:build e2e

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"
)

// survivor is the master that is left; kubectl runs there.
const survivor = "cp-1"

// recovers loses quorum in the ways that there are, and comes back by what loses least.
func recovers(t *testing.T) {
	t.Run("what is only stopped", broughtBack)
	t.Run("two of three are lost", fromASurvivor)
	t.Run("two of three are lost, the third was rebooted", fromARebootedSurvivor)
	t.Run("all data are lost", fromTheBackup)
}

// stopControlPlane ends a master's control plane, and keeps it from coming back.
const stopControlPlane = `systemctl stop kubelet
for c in kube-apiserver etcd; do pkill -KILL -x $c || true; done
while pgrep -x etcd >/dev/null; do sleep 0.1; done
`

// broughtBack stops two masters while clients write: they are started again, and
// nothing is lost.
func broughtBack(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	ids := memberIDs(t, masters)
	ps := startProbes(t, kubeconfigOf(t, path), asTheyAre)
	onEach(t, []string{"cp-1", "cp-3"}, stopControlPlane)
	recovery := []string{"recover", "--backup-directory", t.TempDir()}
	if plan := ha(t, append(recovery, "--plan", path)...); plan.code != 2 || !strings.Contains(plan.stdout, "way      bring-back") {
		t.Errorf("exit %d of the plan\n%s", plan.code, plan.tail())
	}
	r := ha(t, append(recovery, "--confirm", clusterName, path)...)
	r.want(t, 0)
	t.Logf("two masters that were stopped, brought back in %s", r.took.Round(100*time.Millisecond))
	ps.await(t, 40, time.Minute)
	ps.readBack(t, "a recovery that brings members back")
	awaitFaultless(t, path, 2*time.Minute)
	if now := memberIDs(t, masters); now != ids {
		t.Errorf("members before:\n%s\nafter:\n%s", ids, now)
	}
}

// fromTheBackup takes etcd's data from all masters, whose kubelets go on starting etcd.
func fromTheBackup(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	store := t.TempDir()
	makeConfigMap(t, "before-backup")
	deleteConfigMap(t, "after-backup")
	ha(t, "backup", "create", "--directory", store, path).want(t, 0)
	makeConfigMap(t, "after-backup")
	onEach(t, masters, stopControlPlane+"rm -rf /var/lib/etcd/member; systemctl start kubelet")
	for _, host := range masters {
		awaitOnHost(t, host, "an etcd that has found no data", "[ -e /var/lib/etcd/member/snap/db ]")
	}
	recovery := []string{"recover", "--backup-directory", store}
	plan := ha(t, append(recovery, "--plan", path)...)
	for _, want := range []string{"way      backup", "cp-1     its data are gone", "cp-2     its data are gone"} {
		if plan.code != 2 || !strings.Contains(plan.stdout, want) {
			t.Errorf("exit %d of the plan, want %q in\n%s", plan.code, want, plan.tail())
		}
	}
	const least = 5
	killedAtEveryEnd(t, least, append(recovery, "--confirm", clusterName, "-o", "json", path)...)
	if names := kubectl(t, "get", "configmaps", "-o", "name"); !strings.Contains(names, "before-backup") || strings.Contains(names, "after-backup") {
		t.Errorf("recovered are\n%s", names)
	}
	deleteConfigMap(t, "before-backup")
	wantWhole(t, path, masters, "w-1")
}

// fromASurvivor loses two of three masters while clients write, has the one that is
// left make a cluster of its own, powers the others on again, which must not
// merge, and has them join: no acknowledged write is lost on the way.
func fromASurvivor(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	leadAt(t, survivor)
	store := t.TempDir()
	ha(t, "recover", "--backup-directory", store, "--way", "survivor", "--confirm", clusterName, path).want(t, 3, "has its quorum")
	if r := ha(t, "recover", "--backup-directory", store, "--confirm", clusterName, "-o", "json", path); r.code != 0 || r.changed(t) != 0 {
		t.Errorf("on a cluster that is well: exit %d, %d changed\n%s", r.code, r.changed(t), r.tail())
	}
	ps := startProbes(t, kubeconfigOf(t, path))
	others := []string{"cp-2", "cp-3"}
	recovery := func(args ...string) []string {
		return append([]string{"recover", "--backup-directory", store}, append(args, path)...)
	}
	// One after the other: what was acknowledged last is on the survivor.
	turnOff(t, "cp-3")
	onEach(t, []string{"cp-2"}, `systemctl stop kubelet ssh; for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" = etcd ] && kill -9 ${p#/proc/}; done; exit 0`)
	word := []string{"--lost", strings.Join(others, ","), "--confirm", clusterName, "-o", "json"}
	ha(t, recovery(word...)...).want(t, 10, "cp-2 is not dead", "is refused by it, so that it runs")
	turnOff(t, "cp-2")

	plan := ha(t, recovery("--plan")...)
	for _, want := range []string{"way      survivor", "cp-2     cannot be reached", "power them on instead", "--lost cp-2,cp-3"} {
		if plan.code != 2 || !strings.Contains(plan.stdout, want) {
			t.Errorf("exit %d, want %q in\n%s", plan.code, want, plan.tail())
		}
	}
	t.Logf("the plan of it:\n%s", plan.stdout)
	ha(t, recovery("--confirm", clusterName)...).want(t, 3, "cp-2, cp-3 cannot be reached, and may still run")
	ha(t, "apply", "--yes", path).want(t, 5) // it needs all hosts
	const least = 4                          // stopped, exchanged, etcd started, the rest
	killedAtEveryEnd(t, least, recovery(word...)...)
	wantMembers(t, []string{survivor})
	ps.await(t, 20, time.Minute)

	turnOn(t, others...)
	awaitOnHost(t, "cp-2", "a leader among the members of the cluster before", `etcdctl --endpoints https://127.0.0.1:2379 --cacert /etc/kubernetes/pki/etcd/ca.crt \
		--cert /etc/kubernetes/pki/etcd/healthcheck-client.crt --key /etc/kubernetes/pki/etcd/healthcheck-client.key get --consistency=l nothing`)
	wantMembers(t, []string{survivor})
	seen := ha(t, "status", path)
	for began := time.Now(); seen.code != 12 && time.Since(began) < time.Minute; time.Sleep(time.Second) {
		seen = ha(t, "status", path) // hosts that boot may not answer within what a status takes
	}
	if seen.code != 12 {
		t.Errorf("members of two clusters run, and status ends with %d\n%s", seen.code, seen.tail())
	}
	ha(t, "apply", "--yes", path).want(t, 12)
	ps.await(t, 20, time.Minute) // the balancers send nobody to the other two

	if plan := ha(t, recovery("--plan")...); plan.code != 2 || !strings.Contains(plan.stdout, "way      clean: cp-2, cp-3 came back") {
		t.Errorf("exit %d of the plan when they came back\n%s", plan.code, plan.tail())
	}
	back := ha(t, recovery("--confirm", clusterName)...)
	back.want(t, 0)
	t.Logf("the two that came back were cleaned, and joined, in %s", back.took.Round(time.Second))
	awaitFaultless(t, path, 2*time.Minute)
	wantMembers(t, masters)
	ps.await(t, 20, time.Minute)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for _, p := range ps {
		report, err := p.Stop(ctx)
		t.Logf("recover: %s", report)
		if err != nil || !report.Verified || len(report.Lost) > 0 {
			t.Errorf("acknowledged writes lost: %v, read back: %v, %v", report.Lost, report.Verified, err)
		}
	}
}

// turnOff takes a host's power until it is given back.
func turnOff(t *testing.T, host string) {
	t.Helper()
	undo, err := inject.PowerOff(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = undo(context.Background()) }) // it is on again by then, or the part has failed
}

func turnOn(t *testing.T, hosts ...string) {
	t.Helper()
	for _, host := range hosts {
		if err := theLab.PowerOn(t.Context(), host); err != nil {
			t.Fatal(err)
		}
	}
}

// fromARebootedSurvivor takes the power of all masters and gives it back to one: its
// etcd runs and answers nobody, and there is no backup. The cluster is made of its data.
// It led at the end, alone for a while, so that it knows all to be committed that was
// acknowledged.
func fromARebootedSurvivor(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	leadAt(t, survivor)
	ps := startProbes(t, kubeconfigOf(t, path))
	others := []string{"cp-2", "cp-3"}
	for _, host := range append(others, survivor) {
		turnOff(t, host)
	}
	turnOn(t, survivor)
	awaitOnHost(t, survivor, "an etcd that waits for the others", "pgrep -x etcd")

	recovery := []string{"recover", "--backup-directory", t.TempDir(), "--lost", strings.Join(others, ","), path}
	plan := ha(t, append(recovery, "--plan")...)
	for _, want := range []string{"way      survivor", survivor + "     its etcd does not answer; its data are there", "backup   none"} {
		if plan.code != 2 || !strings.Contains(plan.stdout, want) {
			t.Errorf("exit %d, want %q in\n%s", plan.code, want, plan.tail())
		}
	}
	data := shell(t, survivor, "cd /var/lib/etcd/member/wal && ls *.wal")
	const least = 6 // read, the backup made, stopped, exchanged, etcd started, the rest
	killedAtEveryEnd(t, least, append(recovery, "--confirm", clusterName, "-o", "json")...)
	wantMembers(t, []string{survivor})
	ps.await(t, 20, time.Minute)
	if kept := shell(t, survivor, `[ ! -e /var/lib/etcd/survivor ] && cd "$(ls -d /var/lib/etcd/member.ha-install-* | tail -n 1)/wal" && ls *.wal`); kept != data {
		t.Errorf("the survivor's data were\n%s\nkept are\n%s", data, kept)
	}

	turnOn(t, others...)
	for _, host := range others {
		awaitOnHost(t, host, "an etcd of the cluster before", "pgrep -x etcd")
	}
	ha(t, append(recovery[:3:3], "--confirm", clusterName, path)...).want(t, 0)
	awaitFaultless(t, path, 2*time.Minute)
	wantMembers(t, masters)
	ps.await(t, 20, time.Minute)
	ps.readBack(t, "a recovery from a survivor that was rebooted")
}

// leadAt moves etcd's leadership to a master.
func leadAt(t *testing.T, host string) {
	t.Helper()
	s, _ := statusOf(t, writeInventory(t, nil, nil))
	if s.Quorum.Leader == host {
		return
	}
	etcdctl(t, s.Quorum.Leader, "move-leader", memberAt(t, host).id)
	awaitStatus(t, host+" to lead etcd", func(s status) bool { return s.Quorum.Leader == host })
}
