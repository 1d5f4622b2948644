package host

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ha-install/ha-install/test/sshd"
)

// process is an operator in a process of its own, which can be killed and
// frozen. It holds the host for the operation "one", with the epoch "1.one".
type process struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
	dir string // where it acts
}

// operatorEnv has the test's own program be such a process.
const operatorEnv = "HA_INSTALL_TEST_OPERATOR"

// orders are what the process has to know.
type orders struct {
	Config                        Config
	StepsDir, LockDir, JournalDir string
	Dir                           string
	Expiry                        time.Duration
}

func newProcess(t testing.TB, like *SSH, s *sshd.Server) *process {
	t.Helper()
	o := orders{configFor(t, s, "ops"), like.stepsDir, like.lockDir, like.journalDir, t.TempDir(), like.lockExpiry}
	text := must[[]byte](t)(json.Marshal(o))
	p := &process{cmd: exec.Command(os.Args[0], "-test.run=^TestOperatorProcess$"), dir: o.Dir}
	p.cmd.Env = append(os.Environ(), operatorEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	p.in = must[io.WriteCloser](t)(p.cmd.StdinPipe())
	p.out = bufio.NewScanner(must[io.ReadCloser](t)(p.cmd.StdoutPipe()))
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	if !p.out.Scan() || p.out.Text() != "held" {
		t.Fatalf("the operator says %q", p.out.Text())
	}
	return p
}

func (p *process) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// act has the process try every way to change the host, and gives its answers.
func (p *process) act(t testing.TB) map[string]string {
	t.Helper()
	if _, err := io.WriteString(p.in, "act\n"); err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for p.out.Scan() && p.out.Text() != "." {
		way, _, _ := strings.Cut(p.out.Text(), ": ")
		said[way] = p.out.Text()
	}
	return said
}

// TestOperatorProcess is the process; there is nothing to test without orders.
func TestOperatorProcess(t *testing.T) {
	text := os.Getenv(operatorEnv)
	if text == "" {
		return
	}
	var o orders
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	h := must[*SSH](t)(Dial(testContext(t), o.Config))
	h.stepsDir, h.lockDir, h.journalDir, h.lockExpiry = o.StepsDir, o.LockDir, o.JournalDir, o.Expiry
	told := make(chan *FencedError, 1)
	locked(t, h, "one", "1.one", LockHooks{Fenced: func(e *FencedError) { told <- e }})
	fmt.Println("held")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		select { // it finds out by itself, before it acts
		case e := <-told:
			fmt.Println("told:", e)
		case <-time.After(10 * time.Second):
		}
		for way, err := range ways(testContext(t), h, o.Dir) {
			fmt.Printf("%s: %v\n", way, err)
		}
		fmt.Println(".")
	}
}
