//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ha-install/ha-install/provision/probe"
)

const (
	mega = 1 << 20
	// pageful is what the filler writes at once: an object may have a megabyte.
	pageful = 900 << 10
	// room is how much the cluster may write until its lowered quota is reached.
	room = 24 * mega
	// spaceExceeded is etcd's word for it, as the API hands it on.
	spaceExceeded = "database space exceeded"
)

// etcdNoSpace has etcd's databases be mostly free room, and then as full as they
// may be, on real disks: what the program does about either, what clients see of it,
// and what a kill in the middle leaves.
func etcdNoSpace(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	f := newFiller(t, kubeconfigOf(t, path))
	t.Run("free room is given back", func(t *testing.T) { freeRoom(t, path, f) })
	t.Run("killed while members are defragmented", func(t *testing.T) { defragmentKilled(t, path, f) })
	t.Run("NOSPACE", func(t *testing.T) { noSpace(t, path, f) })
	f.remove(t)
	wantMembers(t, masters)
	if n := ha(t, "apply", "-o", "json", path).changed(t); n != 0 {
		t.Errorf("apply after it changed %d steps", n)
	}
}

// filler writes one large object over and over again: the history of it fills
// databases, and compacting frees all but the last of it.
type filler struct {
	client     *kubernetes.Clientset
	kubeconfig string
}

const fillerName = "filler"

func newFiller(t *testing.T, kubeconfig string) *filler {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	f := &filler{client, kubeconfig}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_ = client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Delete(ctx, fillerName, metav1.DeleteOptions{}) // of a suite that was killed
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fillerName}}
	if _, err := client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Create(ctx, object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // of a test that went wrong; deleting works with an alarm, too
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Delete(ctx, fillerName, metav1.DeleteOptions{})
	})
	return f
}

// write makes so many writes, or those up to the first error, which it returns.
func (f *filler) write(t *testing.T, times int) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	noise := make([]byte, pageful*3/4)
	for range times {
		_, _ = rand.Read(noise) // it never fails
		patch, err := json.Marshal(map[string]any{"data": map[string]string{"noise": base64.StdEncoding.EncodeToString(noise)}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Patch(ctx, fillerName, "application/merge-patch+json", patch, metav1.PatchOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func (f *filler) remove(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := f.client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Delete(ctx, fillerName, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// membersNow is what `etcd members` says, whatever the verdict.
func membersNow(t *testing.T, path string) members {
	t.Helper()
	r := ha(t, "etcd", "members", "-o", "json", path)
	var m members
	if err := json.Unmarshal([]byte(r.stdout), &m); err != nil {
		t.Fatalf("%v\n%s", err, r.tail())
	}
	return m
}

// sizes tells databases in megabytes.
func (m members) sizes() string {
	var all []string
	for _, one := range m.Members {
		all = append(all, fmt.Sprintf("%s %d (%d in use)", one.Host, one.DBSize/mega, one.DBInUse/mega))
	}
	return strings.Join(all, ", ") + " MiB"
}

// bloat writes so many megabytes and has all members free them inside their
// databases.
func bloat(t *testing.T, path string, f *filler, megabytes int) {
	t.Helper()
	if err := f.write(t, megabytes*mega/pageful); err != nil {
		t.Fatal(err)
	}
	etcdctl(t, "cp-1", "compact", "--physical", field(t, etcdctl(t, "cp-1", "endpoint", "status", "-w", "fields"), "Revision"))
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		now := membersOf(t, path)
		least := now.Members[0].DBSize
		for _, m := range now.Members {
			least = min(least, m.DBSize-m.DBInUse)
		}
		if least > int64(megabytes)*mega/2 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("what was compacted is not free: %s", now.sizes())
		}
	}
}

// wantTight wants no database to have much free room.
func wantTight(t *testing.T, now members) {
	t.Helper()
	for _, m := range now.Members {
		if m.DBSize-m.DBInUse > 8*mega || !m.Healthy {
			t.Errorf("%s: healthy %t, %d bytes of which %d are in use", m.Host, m.Healthy, m.DBSize, m.DBInUse)
		}
	}
}

func freeRoom(t *testing.T, path string, f *filler) {
	bloat(t, path, f, 200)
	before := membersOf(t, path)
	ps := startProbes(t, f.kubeconfig, asTheyAre)
	r := ha(t, "etcd", "defragment", "--yes", "-o", "json", path)
	r.want(t, 0)
	ps.unnoticed(t, "etcd defragment of all members")
	after := membersOf(t, path)
	t.Logf("before: %s; after: %s; %s", before.sizes(), after.sizes(), r.took.Round(100*time.Millisecond))
	wantTight(t, after)
	var turns []string
	for _, span := range spansOf(t, r) {
		if span.phase == "defragment" {
			turns = append(turns, span.host)
			t.Logf("%s: %s", span.host, span.took().Round(10*time.Millisecond))
		}
	}
	if len(turns) != len(masters) || turns[len(turns)-1] != before.Leader {
		t.Errorf("turns of %q, %s led before", turns, before.Leader)
	}
	if n := ha(t, "etcd", "defragment", "--yes", "-o", "json", path).changed(t); n != 0 {
		t.Errorf("the second run changed %d steps", n)
	}
	awaitFaultless(t, path, time.Minute)
}

// endOf is the moment in which the nth phase of that name has ended; beginOf, in
// which it has begun.
func endOf(phase string, nth int) func(line string) bool {
	return func(line string) bool {
		var e event
		if json.Unmarshal([]byte(line), &e) == nil && e.Phase == phase && ended(e) {
			nth--
		}
		return nth == 0
	}
}

func beginOf(phase string, nth int) func(line string) bool {
	return func(line string) bool {
		var e event
		if json.Unmarshal([]byte(line), &e) == nil && e.Phase == phase && e.Kind == "started" {
			nth--
		}
		return nth == 0
	}
}

// leftMoment is when a phase that has begun has taken its master from behind the
// balancers, more or less.
const leftMoment = 1200 * time.Millisecond

func inside(begun func(string) bool) func(string) bool {
	return func(line string) bool {
		if !begun(line) {
			return false
		}
		time.Sleep(leftMoment)
		return true
	}
}

// killedThere kills a run there; a run that came to its end is an error.
func killedThere(t *testing.T, there func(string) bool, args ...string) {
	t.Helper()
	if r := haWatched(t, there, args...); r.code != -1 {
		t.Fatalf("it was not killed: exit %d\n%s", r.code, r.tail())
	}
}

func defragmentKilled(t *testing.T, path string, f *filler) {
	bloat(t, path, f, 60)
	run := []string{"etcd", "defragment", "--yes", "-o", "json", path}
	killedThere(t, inside(beginOf("defragment", 1)), run...)
	killedThere(t, endOf("defragment", 2), run...)
	r := ha(t, run...)
	r.want(t, 0)
	t.Logf("the run after two that were killed: %s, %d steps", r.took.Round(100*time.Millisecond), r.changed(t))
	wantTight(t, membersOf(t, path))
	awaitFaultless(t, path, time.Minute)
}

// newQuota ends what a master runs, with that quota for its etcd: as when one has
// edited the manifest. The manifest that was there is kept beside.
const newQuota = `set -e
kept=/root/etcd-manifest.kept manifest=/etc/kubernetes/manifests/etcd.yaml
cp -p $manifest $kept
systemctl stop kubelet
sed -i 's/--quota-backend-bytes=[0-9]*/--quota-backend-bytes=%d/' $manifest
set +e
`

const oldQuota = `set -e
kept=/root/etcd-manifest.kept manifest=/etc/kubernetes/manifests/etcd.yaml
[ -e $kept ] || exit 0
systemctl stop kubelet
mv $kept $manifest
set +e
`

func noSpace(t *testing.T, path string, f *filler) {
	manifests := onEach(t, masters, "sha256sum /etc/kubernetes/manifests/etcd.yaml")
	largest := int64(0)
	for _, m := range membersOf(t, path).Members {
		largest = max(largest, m.DBSize)
	}
	quota := largest + room
	t.Cleanup(func() {
		onEach(t, masters, oldQuota+startAnew)
		if t.Failed() { // else no alarm is left
			time.Sleep(20 * time.Second)
			etcdctl(t, "cp-1", "alarm", "disarm")
		}
		awaitFaultless(t, path, 6*time.Minute)
		for host, sum := range onEach(t, masters, "sha256sum /etc/kubernetes/manifests/etcd.yaml") {
			if sum != manifests[host] {
				t.Errorf("%s: etcd's manifest is not as it was", host)
			}
		}
	})
	onEach(t, masters, fmt.Sprintf(newQuota, quota)+startAnew)
	awaitFaultless(t, path, 6*time.Minute)
	for _, m := range membersOf(t, path).Members {
		if m.DBQuota != quota {
			t.Fatalf("%s: a quota of %d, want %d", m.Host, m.DBQuota, quota)
		}
	}
	t.Run("is said and mended", func(t *testing.T) { fullAndMended(t, path, f) })
	t.Run("is mended by runs that are killed", func(t *testing.T) { mendedByKilledRuns(t, path, f) })
}

// fillUp writes until etcd takes nothing more, and wants the alarm to be known.
func fillUp(t *testing.T, path string, f *filler) members {
	t.Helper()
	if err := f.write(t, 4*room/pageful); err == nil || !strings.Contains(err.Error(), spaceExceeded) {
		t.Fatalf("the quota was not reached: %v", err)
	}
	now := membersNow(t, path)
	if len(now.Alarms) == 0 {
		t.Fatalf("no alarm: %+v", now)
	}
	t.Logf("%d alarms, %s; %s", len(now.Alarms), now.State, now.sizes())
	return now
}

func fullAndMended(t *testing.T, path string, f *filler) {
	kubectl(t, "create", "configmap", "made-before", "-n", "default", "--from-literal", "a=b")
	ps := startProbes(t, f.kubeconfig, asTheyAre)
	full := fillUp(t, path, f)
	s, r := statusOf(t, path)
	if problems := strings.Join(s.Problems, "\n"); r.code < 10 || r.code > 11 || !strings.Contains(problems, "NOSPACE alarm of member") || !strings.Contains(problems, "run ha-install etcd alarms disarm") {
		t.Errorf("status ends with %d and says\n%s", r.code, problems)
	}
	if list := ha(t, "etcd", "alarms", "list", path); !strings.Contains(list.stdout, "NOSPACE") || !strings.Contains(list.stdout, "ha-install etcd alarms disarm") {
		t.Errorf("%s", list.tail())
	}
	if alone := ha(t, "etcd", "defragment", "--yes", path); alone.code != r.code || !strings.Contains(alone.stderr, "ha-install etcd alarms disarm") {
		t.Errorf("defragment alone: exit %d, want %d as of status\n%s", alone.code, r.code, alone.tail())
	}
	kubectl(t, "delete", "configmap", "made-before", "-n", "default") // which needs no room
	plan := ha(t, "etcd", "alarms", "disarm", "--plan", path)
	plan.want(t, 2)
	for _, want := range []string{"\ncompact", "\ndefragment  cp-1", "\ndefragment  cp-2", "\ndefragment  cp-3", "\ndisarm"} {
		if !strings.Contains(plan.stdout, want) {
			t.Errorf("the plan lacks %q:\n%s", want, plan.stdout)
		}
	}
	r = ha(t, "etcd", "alarms", "disarm", "--yes", "-o", "json", path)
	r.want(t, 0)
	for _, span := range spansOf(t, r) {
		t.Logf("%-12s %-6s %s", span.phase, span.host, span.took().Round(10*time.Millisecond))
	}
	t.Logf("compacted, defragmented and disarmed in %s", r.took.Round(100*time.Millisecond))
	ps.await(t, 40, time.Minute)
	refused := 0
	for _, report := range ps.readBack(t, "NOSPACE") {
		for _, failure := range report.Failures {
			if strings.Contains(failure.Err.Error(), spaceExceeded) {
				refused++
			}
		}
	}
	if refused == 0 {
		t.Error("no probe's write was refused for want of room")
	}
	wantMended(t, path, full)
	awaitFaultless(t, path, 6*time.Minute) // controller-manager and scheduler could not renew their leases, and ended
}

// wantMended wants the alarms gone and the databases smaller, and writes to go.
func wantMended(t *testing.T, path string, full members) {
	t.Helper()
	ha(t, "etcd", "alarms", "list", path).want(t, 0)
	now := membersOf(t, path)
	t.Logf("%s", now.sizes())
	if len(now.Alarms) > 0 {
		t.Errorf("%d alarms", len(now.Alarms))
	}
	for i, m := range now.Members {
		if m.DBSize > full.Members[i].DBSize-room/2 {
			t.Errorf("%s: the database had %d bytes, it has %d", m.Host, full.Members[i].DBSize, m.DBSize)
		}
	}
	kubectl(t, "create", "configmap", "made-after", "-n", "default", "--from-literal", "a=b")
	kubectl(t, "delete", "configmap", "made-after", "-n", "default")
}

func mendedByKilledRuns(t *testing.T, path string, f *filler) {
	ps := startProbes(t, f.kubeconfig, asTheyAre, func(c *probe.Config) { c.Rate = 5 })
	full := fillUp(t, path, f)
	run := []string{"etcd", "alarms", "disarm", "--yes", "-o", "json", path}
	for _, there := range []func(string) bool{
		beginOf("compact", 1), endOf("compact", 1), inside(beginOf("defragment", 1)), endOf("defragment", 2), endOf("defragment", 3), beginOf("disarm", 1),
	} {
		killedThere(t, there, run...)
	}
	r := ha(t, run...)
	r.want(t, 0)
	t.Logf("the run after those that were killed: %s, %d steps", r.took.Round(100*time.Millisecond), r.changed(t))
	if n := ha(t, run...).changed(t); n != 0 {
		t.Errorf("with no alarm raised it changed %d steps", n)
	}
	ps.await(t, 20, time.Minute)
	ps.readBack(t, "NOSPACE, mended by runs that were killed")
	wantMended(t, path, full)
	awaitFaultless(t, path, 6*time.Minute)
}
