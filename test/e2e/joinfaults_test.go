//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/fault"
)

// cutAll cuts one off from all the others on a port, at once, and returns what
// heals it.
func cutAll(t *testing.T, one string, others []string, port int) func() {
	t.Helper()
	return injectAll(t, others, func(ctx context.Context, other string) (fault.Undo, error) { return inject.Cut(ctx, one, other, port) })
}

// injectAll makes a fault on every host and returns what takes them back, which
// happens at the end of the test at the latest.
func injectAll(t *testing.T, hosts []string, make func(context.Context, string) (fault.Undo, error)) func() {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var undos []fault.Undo
	for _, host := range hosts {
		undo, err := make(ctx, host)
		if err != nil {
			t.Error(err)
			continue
		}
		undos = append(undos, undo)
	}
	heal := func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, undo := range undos {
			if err := undo(ctx); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(heal)
	return heal
}

// firstAt is when a run told something first.
func firstAt(t *testing.T, r result, match func(event) bool) time.Duration {
	t.Helper()
	if i := slices.IndexFunc(r.events(t), match); i >= 0 {
		return r.at[i]
	}
	t.Fatalf("the run never came there\n%s", r.tail())
	return 0
}

// promptly is how soon a run has to end after what can only fail.
const promptly = 20 * time.Second

// fault35 makes the directory of Kubernetes' files read-only on the joiner.
func fault35(t *testing.T) {
	before := memberIDs(t, masters)
	undo := injectAll(t, []string{"cp-4"}, func(ctx context.Context, host string) (fault.Undo, error) {
		return inject.ReadOnly(ctx, host, "/etc/kubernetes")
	})
	r := ha(t, "apply", "-o", "json", with(t, "cp-4"))
	r.want(t, 6, "cp-4", "Read-only file system", "/etc/kubernetes")
	var failed event
	firstAt(t, r, func(e event) bool { failed = e; return e.Kind == "failed" && e.Host == "cp-4" })
	began := firstAt(t, r, func(e event) bool { return e.Kind == "started" && e.Phase == failed.Phase && e.Host == "cp-4" })
	if took := r.took - began; took > promptly {
		t.Errorf("it ended %s after it met the read-only disk, want %s at most", took, promptly)
	}
	t.Logf("a read-only disk: %s", r.stderr)
	undo()
	wantTakenBack(t, "cp-4", before)
}

// partPattern is the temporary name of a file of the CA set that is on its way.
const partPattern = "etc/kubernetes/pki/.*.ha-install-part"

// fault33 cuts the connection to the joiner while the files of the CA set are
// on their way: the installer's time stops at the first byte, its sessions on
// the host end, and then it goes on. No partial file may be in place, and the
// run repeats the push.
func fault33(t *testing.T) {
	root := rootOf(t, "cp-4")
	cut := false
	act := func(line string, program *os.Process) {
		var e event
		if json.Unmarshal([]byte(line), &e) != nil || e.Phase != "certificates" || e.Host != "cp-4" {
			return
		}
		if ended(e) {
			program.Kill() // what comes after is for others to test
		}
		if e.Kind != "started" {
			return
		}
		for began := time.Now(); time.Since(began) < 5*time.Second; time.Sleep(100 * time.Microsecond) {
			if parts, _ := filepath.Glob(filepath.Join(root, partPattern)); len(parts) > 0 {
				cut = true
				break
			}
		}
		program.Signal(syscall.SIGSTOP)
		defer program.Signal(syscall.SIGCONT)
		if _, err := inject.DropSSH(t.Context(), "cp-4"); err != nil {
			t.Error(err)
		}
		wantNoPartialCA(t, "cp-4")
	}
	r := haActing(t, act, "apply", "-o", "json", with(t, "cp-4"))
	if !cut {
		t.Errorf("no file of the CA set was seen on its way to cp-4")
	}
	if r.code != -1 {
		t.Errorf("the run whose push was cut did not repeat it: exit %d\n%s", r.code, r.tail())
	}
	wantEqualCA(t, append(slices.Clone(masters), "cp-4"))
	if left, _ := filepath.Glob(filepath.Join(root, partPattern)); len(left) > 0 {
		t.Errorf("left on cp-4: %v", left)
	}
}

// wantNoPartialCA wants every file of the CA set that is in place on a host to
// be whole.
func wantNoPartialCA(t *testing.T, host string) {
	t.Helper()
	const sums = `cd /etc/kubernetes/pki 2>/dev/null && sha256sum ca.* front-proxy-ca.* sa.* etcd/ca.* 2>/dev/null; ls -A . etcd 2>/dev/null | grep -c ha-install-part; exit 0`
	whole := onHost(t, "cp-1", "sh", "-c", sums)
	here := strings.Split(onHost(t, host, "sh", "-c", sums), "\n")
	for _, line := range here[:len(here)-1] {
		if !containsLines(whole, line) {
			t.Errorf("%s has a partial file in place: %s", host, line)
		}
	}
	t.Logf("when the push was cut, %s had %d files in place and %s on their way", host, len(here)-1, here[len(here)-1])
}

// brokenKubelet is a unit that ends as soon as it is started.
const brokenKubelet = `mkdir -p /etc/systemd/system/kubelet.service.d &&
printf '[Service]\nExecStart=\nExecStart=/bin/false\n' >/etc/systemd/system/kubelet.service.d/99-broken.conf && systemctl daemon-reload`

const mendKubelet = `rm -rf /etc/systemd/system/kubelet.service.d/99-broken.conf && systemctl daemon-reload`

// fault22 has a kubelet that never starts on the joiner: the learner is removed
// by its ID, the host cleaned, and the voters of before go on.
func fault22(t *testing.T) {
	before := memberIDs(t, masters)
	shell(t, "cp-4", brokenKubelet)
	t.Cleanup(func() { shell(t, "cp-4", mendKubelet) })
	r := ha(t, "apply", "-o", "json", with(t, "cp-4"))
	r.want(t, 6, "cp-4", "the kubelet does not start", "journalctl -u kubelet")
	t.Logf("a kubelet that never starts: taken back after %s: %s", r.took.Round(100*time.Millisecond), r.stderr)
	if !slices.ContainsFunc(r.events(t), func(e event) bool { return e.Kind == "undoing" && e.Phase == "join" }) {
		t.Errorf("it was never undone\n%s", r.tail())
	}
	wantTakenBack(t, "cp-4", before)
}

// fault8 reboots the joiner after its manifests are written and before it has
// a vote.
func fault8(t *testing.T) {
	before := memberIDs(t, masters)
	boot := onHost(t, "cp-4", "cat", "/proc/1/stat")
	rebooted := false
	r := haActing(t, func(line string, _ *os.Process) {
		var e event
		if rebooted || json.Unmarshal([]byte(line), &e) != nil || e.Phase != "join" || !strings.Contains(e.Message, "Creating static Pod manifest for local etcd") {
			return
		}
		rebooted = true
		power(t, "cp-4", false)
		power(t, "cp-4", true)
	}, "apply", "-o", "json", with(t, "cp-4"))
	if !rebooted || onHost(t, "cp-4", "cat", "/proc/1/stat") == boot {
		t.Fatalf("cp-4 was not rebooted in its join\n%s", r.tail())
	}
	t.Logf("after a reboot in its join: exit %d after %s: %s", r.code, r.took.Round(100*time.Millisecond), r.stderr)
	if r.code == 0 {
		t.Fatalf("the join was over before the reboot: it proves nothing")
	}
	r.want(t, 6, "cp-4", "rebooted while it ran")
	wantTakenBack(t, "cp-4", before)
}

// lossy is the share of packets that a bad network loses.
const lossy = 0.3

// faults3and28 kills the installer between the add and the promotion of the
// last master; the next run, made as by another operator, finishes that join
// with the same member. Then the worker joins, in the long suite while it loses
// 30 % of all packets, those of SSH among them.
func faults3and28(t *testing.T) {
	path := with(t, moreHosts...)
	killedAt(t, path, "join", "Creating static Pod manifest for local etcd")
	m := memberAt(t, "cp-5")
	if m == nil || !m.learner {
		t.Fatalf("it was killed too late: cp-5 is %+v", m)
	}
	var r result
	if *long {
		r = joinThroughLoss(t, path)
	} else {
		r = ha(t, "apply", "-o", "json", path)
	}
	if now := memberAt(t, "cp-5"); now == nil || now.learner || now.id != m.id {
		t.Errorf("cp-5 was learner %s when the installer was killed, and is now %+v", m.id, now)
	}
	if r.code != 0 { // honest, and the next run comes through
		r = ha(t, "apply", "-o", "json", path)
	}
	r.want(t, 0)
	wantDataPathProven(t, r)
}

// joinThroughLoss has the worker w-2 join on a network that loses packets.
func joinThroughLoss(t *testing.T, path string) result {
	t.Helper()
	var heal func()
	r := haActing(t, func(line string, _ *os.Process) {
		var e event
		if json.Unmarshal([]byte(line), &e) != nil || e.Phase != "join" || e.Host != "w-2" {
			return
		}
		if e.Kind != "output" {
			t.Logf("w-2: %s %s", e.Kind, e.Message)
		}
		if e.Kind != "started" {
			return
		}
		undo := sync.OnceFunc(injectAll(t, slices.Concat(allMasters, []string{"lb-1", "lb-2", fault.Operator}), func(ctx context.Context, peer string) (fault.Undo, error) {
			return inject.Lose(ctx, "w-2", peer, lossy)
		}))
		later := time.AfterFunc(lossFor, undo)
		heal = func() { later.Stop(); undo() }
	}, "apply", "-o", "json", path)
	if heal == nil {
		t.Fatalf("w-2 never joined: exit %d\n%s", r.code, r.tail())
	}
	heal()
	t.Logf("a join through %.0f %% loss: exit %d, all in %s: %s", 100*lossy, r.code, r.took.Round(100*time.Millisecond), r.stderr)
	return r
}

// lossFor is how long the network stays bad.
const lossFor = 40 * time.Second
