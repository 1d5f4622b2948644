//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/lab"
)

// secondApply wants nothing at all to change: no file's time, no member, no
// container, no service.
func secondApply(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitProbePodsGone(t)
	ids := memberIDs(t, masters)
	before := onEach(t, baseHosts, clusterFootprint)
	r := ha(t, "apply", path)
	r.want(t, 0)
	wantSame(t, "a second apply", before, onEach(t, baseHosts, clusterFootprint))
	if now := memberIDs(t, masters); now != ids {
		t.Errorf("members before:\n%s\nafter:\n%s", ids, now)
	}
	if !strings.Contains(r.stdout, "nothing to change") {
		t.Errorf("it does not say that there was nothing to change:\n%s", r.tail())
	}
	t.Logf("an apply with nothing to do: %s", r.took.Round(100*time.Millisecond))
	const bound = time.Minute
	if r.took > bound {
		t.Errorf("an apply with nothing to do took %s, want less than %s", r.took, bound)
	}
	if n := ha(t, "apply", "-o", "json", path).changed(t); n != 0 {
		t.Errorf("a third apply changed %d steps", n)
	}
}

// awaitProbePodsGone waits for the pods of the data path's proof: the apply
// that ran them has deleted them, and did not wait for their last words.
func awaitProbePodsGone(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := lab.Await(ctx, "the pods of the data path's proof to end", 2*time.Minute, func(context.Context) error {
		if left := kubectl(t, "get", "namespace", "ha-install-verify", "--ignore-not-found", "-o", "name"); left != "" {
			return fmt.Errorf("%s is there", left)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// statusLimit is the promised answer within 5 s and the start of the process.
const statusLimit = 6 * time.Second

// statusWithFaults asks a whole cluster, and one that loses a host, a member,
// and quorum.
func statusWithFaults(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	t.Run("all is well", func(t *testing.T) { statusWhole(t, path) })
	t.Run("a master is off", func(t *testing.T) { statusMasterOff(t, path) })
	t.Run("etcd is stopped on a master", func(t *testing.T) { statusEtcdStopped(t, path) })
	t.Run("two masters are off", func(t *testing.T) { statusNoQuorum(t, path) })
}

func statusWhole(t *testing.T, path string) {
	r := ha(t, "status", path)
	r.want(t, 0)
	for _, text := range []string{"cp-1", "cp-2", "cp-3", "w-1", "lb-1", "lb-2", "voters 3  quorum 2  healthy 3  can lose 1", "PASS", "holds it", "v1.36.3", "in 36"} {
		if !strings.Contains(r.stdout, text) {
			t.Errorf("status lacks %q", text)
		}
	}
	if strings.Contains(r.stdout, "problems:") || t.Failed() {
		t.Errorf("status of a whole cluster:\n%s", r.stdout)
	}
	t.Logf("status of a whole cluster: %s", r.took.Round(10*time.Millisecond))
	s, _ := statusOf(t, path)
	if err := s.faultless(); err != nil {
		t.Error(err)
	}
	holders := 0
	for _, h := range s.Hosts {
		if h.HoldsVIP {
			holders++
		}
	}
	if holders != 1 {
		t.Errorf("%d balancers hold the VIP, want 1", holders)
	}
}

func statusMasterOff(t *testing.T, path string) {
	power(t, "cp-2", false)
	s, r := statusOf(t, path)
	wantVerdict(t, s, r, 10, "DEGRADED", 2, "cp-2")
	for _, h := range s.Hosts {
		if (h.SSH == "ok") == (h.Name == "cp-2") {
			t.Errorf("%s: ssh %q", h.Name, h.SSH)
		}
		if h.Role == "control-plane" && h.Name != "cp-2" && h.APIServer != "ok" {
			t.Errorf("%s: apiserver %q, want ok", h.Name, h.APIServer)
		}
	}
	text := ha(t, "status", path)
	if text.code != 10 || text.took > statusLimit || !strings.Contains(text.stdout, "can lose 0") || !strings.Contains(text.stdout, "DEGRADED") {
		t.Errorf("status as text: exit %d in %s\n%s", text.code, text.took, text.tail())
	}
	power(t, "cp-2", true)
	t.Logf("cp-2 was whole again %s after its boot", awaitFaultless(t, path, 3*time.Minute).Round(time.Second))
}

// statusEtcdStopped ends etcd alone, while SSH and the API server's process go
// on. The kubelet is stopped meanwhile, or it would start etcd again; it is
// not restarted: one that starts beside a dead etcd takes minutes.
func statusEtcdStopped(t *testing.T, path string) {
	const host = "cp-3"
	signal := func(name, pattern string) {
		if _, err := inject.Kill(context.Background(), host, name, pattern); err != nil {
			t.Error(err)
		}
	}
	signal("STOP", "^kubelet --")
	t.Cleanup(func() { signal("CONT", "^kubelet --") })
	signal("KILL", "^etcd --")
	s, r := statusOf(t, path)
	wantVerdict(t, s, r, 10, "DEGRADED", 2, host)
	for _, h := range s.Hosts {
		if h.SSH != "ok" {
			t.Errorf("%s: ssh %q, want ok: only etcd is down", h.Name, h.SSH)
		}
	}
	signal("CONT", "^kubelet --")
	t.Logf("etcd was whole again %s after", awaitFaultless(t, path, 3*time.Minute).Round(time.Second))
}

func statusNoQuorum(t *testing.T, path string) {
	power(t, "cp-1", false)
	power(t, "cp-2", false)
	s, r := statusOf(t, path)
	// The survivor knows of no leader: the loss is proven.
	wantVerdict(t, s, r, 11, "NO QUORUM", 0, "cp-1", "cp-2")
	power(t, "cp-1", true)
	power(t, "cp-2", true)
	// An API server without quorum is restarted by its kubelet, with longer and
	// longer pauses; the kubelet's reach five minutes.
	t.Logf("whole again %s after both booted", awaitFaultless(t, path, 6*time.Minute).Round(time.Second))
}

// wantVerdict checks a status: how many are healthy, and who is not.
func wantVerdict(t *testing.T, s status, r result, code int, state string, healthy int, sick ...string) {
	t.Helper()
	if r.code != code || s.Quorum.State != state {
		t.Errorf("exit %d, %s; want %d, %s", r.code, s.Quorum.State, code, state)
	}
	if r.took > statusLimit {
		t.Errorf("status took %s, want %s at most", r.took, statusLimit)
	}
	if n := s.Quorum.Numbers; state == "DEGRADED" && (n.Voters != 3 || n.Healthy != healthy || n.CanLose != 0) {
		t.Errorf("numbers %+v, want 3 voters, %d healthy, can lose 0", n, healthy)
	}
	for _, m := range s.Quorum.Members {
		if slices.Contains(sick, m.Name) && m.Healthy || state == "DEGRADED" && !slices.Contains(sick, m.Name) && !m.Healthy {
			t.Errorf("%s is %s, healthy %v; sick are %v", m.Name, m.State, m.Healthy, sick)
		}
	}
	if t.Failed() {
		t.Logf("%s", r.stdout)
	}
	t.Logf("%s said in %s", s.Quorum.State, r.took.Round(10*time.Millisecond))
}

// power switches a host off or on.
func power(t *testing.T, host string, on bool) {
	t.Helper()
	var err error
	if on {
		err = theLab.PowerOn(t.Context(), host)
	} else {
		err = theLab.PowerOff(t.Context(), host)
		t.Cleanup(func() { heal(t) })
	}
	if err != nil {
		t.Fatal(err)
	}
}
