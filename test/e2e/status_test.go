//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/ha-install/ha-install/test/lab"
)

// A status promises its answer within five seconds of the begin of connecting,
// whatever is dead. The process may take a second more to start and to end.
const (
	statusPromise = 5.0
	statusLimit   = 6 * time.Second
)

// statusWithFaults asks a whole cluster, and one that loses hosts, members,
// API servers and quorum: the right verdict, the right names, in time.
func statusWithFaults(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	t.Run("all is well", func(t *testing.T) { statusWhole(t, path) })
	t.Run("a master is off", func(t *testing.T) { statusMasterOff(t, path) })
	t.Run("a master hangs", func(t *testing.T) { statusMasterHangs(t, path) })
	t.Run("etcd is stopped on a master", func(t *testing.T) { statusEtcdStopped(t, path) })
	t.Run("a member has an alarm", func(t *testing.T) { statusAlarm(t, path) })
	t.Run("all API servers are down", func(t *testing.T) { statusNoAPI(t, path) })
	t.Run("two masters are off", func(t *testing.T) { statusNoQuorum(t, path) })
}

func statusWhole(t *testing.T, path string) {
	r := ha(t, "status", path)
	r.want(t, 0)
	for _, text := range []string{"cp-1", "cp-2", "cp-3", "w-1", "lb-1", "lb-2", "voters 3  quorum 2  healthy 3  can lose 1", "PASS", "holds it", "v1.36.3", "in 36",
		"restart cp-1, cp-2, cp-3", "(asked from cp-1, cp-2, cp-3)"} {
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
		if h.Role == "control-plane" && (h.ControllerManager != "ok" || h.Scheduler != "ok") {
			t.Errorf("%s: controller-manager %q, scheduler %q", h.Name, h.ControllerManager, h.Scheduler)
		}
	}
	if holders != 1 || s.Schema != 1 {
		t.Errorf("%d balancers hold the VIP, want 1; schema %d", holders, s.Schema)
	}
	for _, op := range s.Operations {
		if !op.Allowed {
			t.Errorf("%s %s is refused in a whole cluster", op.Op.Kind, op.Op.Host)
		}
	}
}

// awaitTheirLeader waits until the masters but the one that is away have a leader
// among themselves: it may have been the one, and while they elect, UNKNOWN is
// the right answer.
func awaitTheirLeader(t *testing.T, away string) {
	t.Helper()
	left := slices.DeleteFunc([]string{"cp-1", "cp-2", "cp-3"}, func(host string) bool { return host == away })
	clients := map[string]*clientv3.Client{}
	for _, host := range left {
		clients[host] = etcdClient(t, host)
	}
	err := lab.Await(t.Context(), "a leader without "+away, 15*time.Second, func(ctx context.Context) error {
		ids, leaders := map[uint64]bool{}, map[uint64]bool{}
		for _, host := range left {
			s, err := clients[host].Status(ctx, clients[host].Endpoints()[0])
			if err != nil {
				return err
			}
			ids[s.Header.MemberId], leaders[s.Leader] = true, true
		}
		for leader := range leaders {
			if !ids[leader] || len(leaders) > 1 {
				return fmt.Errorf("%s follow %x", left, slices.Collect(maps.Keys(leaders)))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// statusMasterOff watches a master go and come back, beside asking once.
func statusMasterOff(t *testing.T, path string) {
	watching := startWatch(t, path)
	watching.await(t, "a first round", func(status) bool { return true })
	power(t, "cp-2", false)
	awaitTheirLeader(t, "cp-2")
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
	watching.await(t, "cp-2 gone", func(s status) bool { return s.changed("cp-2 etcd", "dead") })
	if list := pastOf(t, path); len(list) == 0 {
		t.Error("history knows of no operation while cp-2 is off")
	}
	power(t, "cp-2", true)
	t.Logf("cp-2 was whole again %s after its boot", awaitFaultless(t, path, 3*time.Minute).Round(time.Second))
	watching.await(t, "cp-2 back", func(s status) bool { return s.Quorum.State == "PASS" && s.faultless() == nil })
	watching.end(t)
}

// statusMasterHangs freezes a master: its ports are open, nothing answers.
func statusMasterHangs(t *testing.T, path string) {
	thaw, err := inject.Hang(t.Context(), "cp-1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { heal(t) })
	awaitTheirLeader(t, "cp-1")
	s, r := statusOf(t, path)
	wantVerdict(t, s, r, 10, "DEGRADED", 2, "cp-1")
	for _, m := range s.Quorum.Members {
		if m.Name == "cp-1" && m.State != "hung" {
			t.Errorf("cp-1 is %s (%s), want hung: it may be late, it is not dead", m.State, m.Why)
		}
	}
	for _, h := range s.Hosts {
		if (h.SSH == "ok") == (h.Name == "cp-1") {
			t.Errorf("%s: ssh %q", h.Name, h.SSH)
		}
	}
	if err := thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("cp-1 was whole again %s after", awaitFaultless(t, path, 3*time.Minute).Round(time.Second))
}

// statusEtcdStopped ends etcd alone, while SSH and the API server's process go
// on. The kubelet is stopped meanwhile, or it would start etcd again; it is
// not restarted: one that starts beside a dead etcd takes minutes.
func statusEtcdStopped(t *testing.T, path string) {
	const host = "cp-3"
	frozenKubelets(t, host)
	signal(t, "KILL", "^etcd --", host)
	awaitTheirLeader(t, host)
	s, r := statusOf(t, path)
	wantVerdict(t, s, r, 10, "DEGRADED", 2, host)
	for _, h := range s.Hosts {
		if h.SSH != "ok" {
			t.Errorf("%s: ssh %q, want ok: only etcd is down", h.Name, h.SSH)
		}
	}
	signal(t, "CONT", "^kubelet --", host)
	t.Logf("etcd was whole again %s after", awaitFaultless(t, path, 3*time.Minute).Round(time.Second))
}

// statusAlarm raises an alarm as a full database would.
func statusAlarm(t *testing.T, path string) {
	s, _ := statusOf(t, path)
	id := ""
	for _, m := range s.Quorum.Members {
		if m.Name == "cp-2" {
			id = m.ID
		}
	}
	client := etcdClient(t, "cp-2")
	alarm := func(action pb.AlarmRequest_AlarmAction) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		list, err := client.MemberList(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list.Members {
			if m.Name != "cp-2" {
				continue
			}
			if _, err := pb.NewMaintenanceClient(client.ActiveConnection()).Alarm(ctx, &pb.AlarmRequest{Action: action, MemberID: m.ID, Alarm: pb.AlarmType_NOSPACE}); err != nil {
				t.Fatal(err)
			}
		}
	}
	alarm(pb.AlarmRequest_ACTIVATE)
	t.Cleanup(func() { alarm(pb.AlarmRequest_DEACTIVATE) })
	s, r := statusOf(t, path)
	wantVerdict(t, s, r, 10, "DEGRADED", 2, "cp-2")
	if all := strings.Join(s.Problems, "\n"); !strings.Contains(all, "NOSPACE alarm of member "+id) || !strings.Contains(all, "ha-install etcd alarms disarm") {
		t.Errorf("the member or the remedy is not named:\n%s", all)
	}
	for _, op := range s.Operations {
		if op.Allowed && op.Op.Kind != "snapshot" && op.Op.Host != "cp-2" {
			t.Errorf("%s %s is allowed under an alarm", op.Op.Kind, op.Op.Host)
		}
	}
	alarm(pb.AlarmRequest_DEACTIVATE)
	awaitFaultless(t, path, 3*time.Minute)
}

// statusNoAPI ends all API servers, and keeps the kubelets from starting new
// ones. The votes are seen all the same, and what else runs.
func statusNoAPI(t *testing.T, path string) {
	frozenKubelets(t, masters...)
	signal(t, "KILL", "^kube-apiserver --", masters...)
	s, r := statusOf(t, path)
	if r.code != 10 || s.State != "DEGRADED" || s.Quorum.State != "PASS" || s.Quorum.Numbers.Healthy != 3 || s.TookSeconds > statusPromise || r.took > statusLimit {
		t.Errorf("exit %d, %s, quorum %s %+v, in %.1f s (%s)", r.code, s.State, s.Quorum.State, s.Quorum.Numbers, s.TookSeconds, r.took)
	}
	for _, h := range s.Hosts {
		if h.Role == "control-plane" && (h.APIServer == "ok" || h.APIServer == "" || h.ControllerManager == "") {
			t.Errorf("%s: apiserver %q, controller-manager %q", h.Name, h.APIServer, h.ControllerManager)
		}
	}
	for _, name := range masters {
		if !slices.ContainsFunc(s.Problems, func(p string) bool { return strings.HasPrefix(p, name+": apiserver: ") }) {
			t.Errorf("no problem names %s: %q", name, s.Problems)
		}
	}
	t.Logf("all API servers down, said in %s", r.took.Round(10*time.Millisecond))
	signal(t, "CONT", "^kubelet --", masters...)
	t.Logf("whole again %s after", awaitFaultless(t, path, 4*time.Minute).Round(time.Second))
}

func statusNoQuorum(t *testing.T, path string) {
	power(t, "cp-1", false)
	power(t, "cp-2", false)
	s, r := statusOf(t, path)
	// The survivor knows of no leader: the loss is proven.
	wantVerdict(t, s, r, 11, "NO QUORUM", 0, "cp-1", "cp-2")
	for _, op := range s.Operations {
		if op.Allowed {
			t.Errorf("%s %s is allowed without quorum", op.Op.Kind, op.Op.Host)
		}
	}
	power(t, "cp-1", true)
	power(t, "cp-2", true)
	// An API server without quorum is restarted by its kubelet, with longer and
	// longer pauses; the kubelet's reach five minutes.
	t.Logf("whole again %s after both booted", awaitFaultless(t, path, 6*time.Minute).Round(time.Second))
}

// signal sends a signal to processes of each of the hosts.
func signal(t *testing.T, name, pattern string, hosts ...string) {
	t.Helper()
	for _, host := range hosts {
		if _, err := inject.Kill(context.Background(), host, name, pattern); err != nil {
			t.Error(err)
		}
	}
}

// frozenKubelets keeps kubelets from starting what dies, until the test ends
// or lets them go on.
func frozenKubelets(t *testing.T, hosts ...string) {
	t.Helper()
	signal(t, "STOP", "^kubelet --", hosts...)
	t.Cleanup(func() { signal(t, "CONT", "^kubelet --", hosts...) })
}

// etcdClient speaks to a master's etcd with that host's own certificate.
func etcdClient(t *testing.T, host string) *clientv3.Client {
	t.Helper()
	read := func(name string) []byte {
		out, err := theLab.Exec(context.Background(), host, "cat", "/etc/kubernetes/pki/etcd/"+name)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	pair, err := tls.X509KeyPair(read("healthcheck-client.crt"), read("healthcheck-client.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(read("ca.crt"))
	h, err := theLab.Host(host)
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + h.Address + ":2379"}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second,
		TLS: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// changed says that the round saw something become so.
func (s status) changed(what, to string) bool {
	for _, c := range s.Changes {
		if c.What == what && c.To == to {
			return true
		}
	}
	return false
}

// statusWatch is a `status --watch` under way, and the rounds that it has shown.
type statusWatch struct {
	cmd    *exec.Cmd
	rounds chan status
	ended  chan error
	last   status
}

func startWatch(t *testing.T, path string) *statusWatch {
	t.Helper()
	w := &statusWatch{cmd: exec.Command(binary, "status", "--watch", "--interval", "1s", "-o", "json", path), rounds: make(chan status, 1000), ended: make(chan error, 1)}
	w.cmd.Stdout, w.cmd.Stderr = &roundReader{t: t, rounds: w.rounds}, os.Stderr
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { w.ended <- w.cmd.Wait() }()
	t.Cleanup(func() { _ = w.cmd.Process.Kill() }) // it has ended when all went well
	return w
}

// roundReader takes each line for a round.
type roundReader struct {
	t      *testing.T
	rounds chan<- status
	part   []byte
}

func (r *roundReader) Write(p []byte) (int, error) {
	r.part = append(r.part, p...)
	for {
		line, rest, found := bytes.Cut(r.part, []byte("\n"))
		if !found {
			return len(p), nil
		}
		var s status
		if err := json.Unmarshal(line, &s); err != nil {
			r.t.Errorf("%.200q is no round: %v", line, err)
		}
		r.rounds <- s
		r.part = rest
	}
}

// await reads rounds until one is as wanted. None may take longer than promised.
func (w *statusWatch) await(t *testing.T, what string, ok func(status) bool) {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	for n := 1; ; n++ {
		select {
		case w.last = <-w.rounds:
			if w.last.TookSeconds > statusPromise {
				t.Errorf("a round took %.1f s", w.last.TookSeconds)
			}
			if ok(w.last) {
				t.Logf("the watch: %s after %d rounds", what, n)
				return
			}
		case err := <-w.ended:
			t.Fatalf("the watch: no %s; it ended: %v", what, err)
		case <-deadline:
			t.Fatalf("the watch: no %s; last %+v", what, w.last)
		}
	}
}

// end interrupts the watch: its exit code is the last verdict's.
func (w *statusWatch) end(t *testing.T) {
	t.Helper()
	if err := w.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-w.ended:
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 10 || w.last.State == "PASS") {
			t.Errorf("the watch ended with %v; its last verdict was %s", err, w.last.State)
		}
	case <-time.After(statusLimit):
		t.Error("the watch does not end on an interrupt")
	}
}

// wantVerdict checks a status: how many are healthy, and who is not.
func wantVerdict(t *testing.T, s status, r result, code int, state string, healthy int, sick ...string) {
	t.Helper()
	if r.code != code || s.Quorum.State != state {
		t.Errorf("exit %d, %s; want %d, %s", r.code, s.Quorum.State, code, state)
	}
	if s.TookSeconds > statusPromise || r.took > statusLimit {
		t.Errorf("status took %.1f s, the process %s; %.0f s were promised", s.TookSeconds, r.took, statusPromise)
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
	t.Logf("%s said in %.1f s, by the process in %s", s.Quorum.State, s.TookSeconds, r.took.Round(10*time.Millisecond))
}
