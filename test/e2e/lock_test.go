//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is a run of the program that goes on beside the test.
type program struct {
	cmd    *exec.Cmd
	args   []string
	began  time.Time
	stderr bytes.Buffer
	stdout bytes.Buffer
	read   chan struct{} // closed at the end of its output
}

// start runs the program until its output has a line with the text, and lets it go on.
func start(t *testing.T, text string, args ...string) *program {
	t.Helper()
	p := &program{cmd: exec.Command(binary, args...), args: args, began: time.Now(), read: make(chan struct{})}
	p.cmd.Stderr = &p.stderr
	pipe, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	reached := make(chan struct{})
	go func() {
		defer close(p.read)
		lines, open := bufio.NewReader(io.TeeReader(pipe, &p.stdout)), true
		for {
			line, err := lines.ReadString('\n')
			if open && (err != nil || strings.Contains(line, text)) {
				open = false
				close(reached)
			}
			if err != nil {
				return
			}
		}
	}()
	<-reached
	return p
}

func (p *program) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// end waits for the end of the program.
func (p *program) end(t *testing.T) result {
	t.Helper()
	<-p.read
	err := p.cmd.Wait()
	r := result{args: p.args, stdout: p.stdout.String(), stderr: p.stderr.String(), took: time.Since(p.began)}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return r
}

// me is what the program calls its operator.
func me(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	machine, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username + "@" + machine
}

const (
	inPreflight = `"kind":"started","phase":"preflight"`
	// atOnce is how long a refusal may take.
	atOnce = 5 * time.Second
	// expiry is how long a host waits for a sign of life of its holder.
	expiry = 15 * time.Second
)

// lockAndHistory has several operators at one cluster.
func lockAndHistory(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, time.Minute)
	t.Run("the second is refused at once", func(t *testing.T) {
		first := start(t, inPreflight, "apply", "-o", "json", path)
		for _, second := range [][]string{{"apply", path}, {"reset", "--confirm", clusterName, path}} {
			r := ha(t, second...)
			r.want(t, 7, me(t), "ha-install apply "+path, "nothing was changed", "met on cp-1")
			if r.took > atOnce {
				t.Errorf("the refusal took %s", r.took)
			}
			t.Logf("refused after %s:\n%s", r.took.Round(10*time.Millisecond), r.stderr)
		}
		if list := pastOf(t, path); list[0].Result != "running" || list[0].Operator != me(t) {
			t.Errorf("history says of the first: %+v", list[0])
		}
		first.end(t).want(t, 0)
		wantPast(t, path, "done")
	})
	t.Run("two begin at the same moment", func(t *testing.T) {
		one, two := start(t, "", "apply", "-o", "json", path), start(t, "", "apply", "-o", "json", path)
		codes := []int{one.end(t).code, two.end(t).code}
		slices.Sort(codes)
		if !slices.Equal(codes, []int{0, 7}) {
			t.Errorf("exit codes %v, want one done and one refused", codes)
		}
	})
	t.Run("the holder is killed", func(t *testing.T) {
		first := start(t, inPreflight, "apply", "-o", "json", path)
		first.signal(t, syscall.SIGKILL)
		waited, _ := whenFree(t, path)
		if waited > expiry {
			t.Errorf("the lock was free after %s, want %s or less", waited, expiry)
		}
		t.Logf("kill -9: the next one came through after %s", waited.Round(10*time.Millisecond))
		wantPast(t, path, "done", "broke off")
	})
	t.Run("the holder is frozen, and wakes up after another took over", func(t *testing.T) { wokenUp(t, path) })
}

// whenFree applies until it is not refused any more, and says how long it was.
func whenFree(t *testing.T, path string) (time.Duration, result) {
	t.Helper()
	began := time.Now()
	for {
		tried := time.Now()
		r := ha(t, "apply", "-o", "json", path)
		if r.code != 7 {
			r.want(t, 0)
			return tried.Sub(began), r
		}
		if time.Since(began) > 4*expiry {
			t.Fatalf("the lock is still held:\n%s", r.stderr)
		}
		time.Sleep(250 * time.Millisecond)
	}
}

// wokenUp freezes an operator who was about to change a worker's labels.
func wokenUp(t *testing.T, path string) {
	const label = "ha-install.io/e2e-frozen"
	changed := withLabel(t, label)
	first := start(t, inPreflight, "apply", "-o", "json", changed)
	first.signal(t, syscall.SIGSTOP)
	ha(t, "apply", path).want(t, 7, me(t))
	waited, _ := whenFree(t, path)
	if waited < expiry/2 || waited > expiry+atOnce {
		t.Errorf("the lock was free after %s, want about %s", waited, expiry)
	}
	awaitProbePodsGone(t)
	before := onEach(t, baseHosts, clusterFootprint)
	first.signal(t, syscall.SIGCONT)
	r := first.end(t)
	r.want(t, 8, "another operation took over", me(t))
	t.Logf("frozen: free after %s; the one that woke up said\n%s", waited.Round(100*time.Millisecond), r.stderr)
	wantSame(t, "a woken operator", before, onEach(t, baseHosts, clusterFootprint))
	if labels := kubectl(t, "get", "node", "w-1", "-o", "jsonpath={.metadata.labels}"); strings.Contains(labels, label) {
		t.Errorf("the woken operator has set its label: %s", labels)
	}
	wantPast(t, path, "done", "broke off")
}

// past is what the tests read of `history -o json`.
type past struct {
	ID, Result, Operator, Command string
	Epoch                         int
	Phases                        []string
	Entries                       []struct{ Kind string }
}

func pastOf(t *testing.T, path string) []past {
	t.Helper()
	r := ha(t, "history", "-o", "json", path)
	r.want(t, 0)
	var list struct{ Operations []past }
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil || len(list.Operations) == 0 {
		t.Fatalf("%v:\n%s", err, r.tail())
	}
	return list.Operations
}

// wantPast wants the newest operations to have ended so, and one of them to be shown.
func wantPast(t *testing.T, path string, results ...string) {
	t.Helper()
	list := pastOf(t, path)
	for i, want := range results {
		if list[i].Result != want || i > 0 && list[i].Epoch != list[i-1].Epoch-1 {
			t.Errorf("operation %d from the end: %+v, want %s", i+1, list[i], want)
		}
	}
	r := ha(t, "history", "show", "-o", "json", path, list[0].ID)
	r.want(t, 0)
	var p past
	if err := json.Unmarshal([]byte(r.stdout), &p); err != nil || len(p.Entries) < 10 || p.Entries[0].Kind != "begin" {
		t.Errorf("%v:\n%s", err, r.tail())
	}
	text := ha(t, "history", path)
	text.want(t, 0)
	if !strings.Contains(text.stdout, list[0].ID) {
		t.Errorf("the list as text lacks %s:\n%s", list[0].ID, text.tail())
	}
}
