//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// cliLimit is longer than any one command of the program may take.
const cliLimit = 9 * time.Minute

// result is one run of the program.
type result struct {
	args   []string
	code   int // -1: killed
	stdout string
	stderr string
	took   time.Duration
	at     []time.Duration // when each line of stdout came
}

// ha runs the program to its end.
func ha(t *testing.T, args ...string) result {
	t.Helper()
	return haWatched(t, nil, args...)
}

// haWatched runs the program and hands on each line of its standard output as
// it comes; when the function returns true, the program is killed at once.
func haWatched(t *testing.T, kill func(line string) bool, args ...string) result {
	t.Helper()
	return haActing(t, func(line string, program *os.Process) {
		if kill != nil && kill(line) {
			kill = nil
			if err := program.Kill(); err != nil {
				t.Error(err)
			}
		}
	}, args...)
}

// haActing runs the program and calls the function for each line of its
// standard output as it comes. While the function acts, no line is read; the
// program goes on.
func haActing(t *testing.T, act func(line string, program *os.Process), args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), cliLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(io.TeeReader(pipe, &stdout))
	var at []time.Duration
	for {
		line, err := lines.ReadString('\n')
		at = append(at, time.Since(began))
		if line != "" {
			act(line, cmd.Process)
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	r := result{args: args, stdout: stdout.String(), stderr: stderr.String(), took: time.Since(began), at: at}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.code = exit.ExitCode()
	} else if err != nil {
		t.Fatalf("ha-install %s: %v", strings.Join(args, " "), err)
	}
	if ctx.Err() != nil {
		t.Fatalf("ha-install %s: no end after %s\n%s", strings.Join(args, " "), cliLimit, r.tail())
	}
	return r
}

// want checks the exit code, and that standard error has each of the texts.
func (r result) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Fatalf("ha-install %s: exit %d, want %d\n%s", strings.Join(r.args, " "), r.code, code, r.tail())
	}
	for _, text := range texts {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("ha-install %s: standard error lacks %q:\n%s", strings.Join(r.args, " "), text, r.stderr)
		}
	}
}

// tail is what a failed test shows of a run.
func (r result) tail() string {
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	const shown = 40
	return "stdout: ... " + strings.Join(lines[max(0, len(lines)-shown):], "\n") + "\nstderr: " + r.stderr
}

// event is one line of `apply -o json`.
type event struct {
	Kind    string
	Phase   string
	Host    string
	Message string
	Changed *int // of the summary
}

func (r result) events(t *testing.T) []event {
	t.Helper()
	var all []event
	for line := range strings.Lines(r.stdout) {
		all = append(all, parseEvent(t, line))
	}
	return all
}

func parseEvent(t *testing.T, line string) event {
	t.Helper()
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		t.Errorf("%q is no event: %v", line, err)
	}
	return e
}

// changed is how many steps a finished run says that it has changed.
func (r result) changed(t *testing.T) int {
	t.Helper()
	all := r.events(t)
	if n := len(all); n > 0 && all[n-1].Kind == "summary" && all[n-1].Changed != nil {
		return *all[n-1].Changed
	}
	t.Fatalf("the run ended without a summary\n%s", r.tail())
	return 0
}

// status is what the tests read of `status -o json`.
type status struct {
	Schema      int
	TookSeconds float64
	State       string
	Problems    []string
	Changes     []struct{ What, From, To string }
	Operations  []struct {
		Op      struct{ Kind, Host string }
		Allowed bool
	}
	Quorum struct {
		State     string
		ClusterID string
		Leader    string
		Numbers   struct{ Voters, Quorum, Healthy, CanLose, Learners, Unnamed int }
		Members   []struct {
			ID, Name, Role, State, Why string
			Healthy                    bool
		}
	}
	Endpoint struct {
		Backends []string
		Error    string
	}
	Hosts   []hostStatus
	Leaders []struct{ Component, Node string }

	ScheduledBackups *struct {
		EverySeconds, AgeSeconds float64
		Masters                  []string
		Newest                   struct {
			Host, Path string
			Copies     []struct{ Place, Error string }
		}
	}
}

type hostStatus struct {
	Name, Role, SSH, APIServer, Kubelet, Node string
	ControllerManager, Scheduler              string
	Pods                                      map[string]string
	HoldsVIP                                  bool
}

func statusOf(t *testing.T, inventory string) (status, result) {
	t.Helper()
	r := ha(t, "status", "-o", "json", inventory)
	var s status
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil {
		t.Fatalf("status -o json: %v\n%s", err, r.tail())
	}
	return s, r
}

// faultless is nil when all masters vote, all columns, kubelets and nodes are
// well and every master answers at the endpoint.
func (s status) faultless() error {
	var bad []string
	masters := 0
	for _, h := range s.Hosts {
		if h.SSH != "ok" {
			bad = append(bad, h.Name+": ssh: "+h.SSH)
		}
		if h.Role == "load-balancer" {
			continue
		}
		if h.Kubelet != "ok" || h.Node != "Ready" {
			bad = append(bad, h.Name+": kubelet "+h.Kubelet+", node "+h.Node)
		}
		if h.Role != "control-plane" {
			continue
		}
		masters++
		if h.APIServer != "ok" {
			bad = append(bad, h.Name+": apiserver "+h.APIServer)
		}
		for component, state := range h.Pods {
			if state != "ready" {
				bad = append(bad, h.Name+": "+component+" "+state)
			}
		}
	}
	n := s.Quorum.Numbers
	if s.Quorum.State != "PASS" || n.Voters != masters || n.Healthy != masters || n.Learners+n.Unnamed > 0 {
		bad = append(bad, "quorum: "+s.Quorum.State)
	}
	if len(s.Endpoint.Backends) != masters {
		bad = append(bad, "endpoint: only "+strings.Join(s.Endpoint.Backends, ", ")+" answer "+s.Endpoint.Error)
	}
	if len(bad) > 0 {
		return errors.New(strings.Join(bad, "; "))
	}
	return nil
}

// awaitFaultless polls status until nothing is wrong, and returns how long
// that took.
func awaitFaultless(t *testing.T, inventory string, limit time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		s, r := statusOf(t, inventory)
		err := s.faultless()
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > limit {
			t.Fatalf("not whole after %s: %v\n%s", limit, err, r.tail())
		}
		time.Sleep(time.Second)
	}
}
