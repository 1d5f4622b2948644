package main

import (
	"bufio"
	"context"
	_ "embed" // for the script and its configuration
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"text/template"
	"time"

	"github.com/ha-install/ha-install/test/lab"
)

var (
	//go:embed byhand.sh
	byHandScript string
	//go:embed kubeadm.yaml.tmpl
	kubeadmText     string
	kubeadmTemplate = template.Must(template.New("kubeadm.yaml").Parse(kubeadmText))
)

// verifiedCheck is how ha-install has HAProxy check an API server's
// certificate. The CA of a cluster made by hand does not exist before
// kubeadm init; the documentation's own example does not verify.
var verifiedCheck = regexp.MustCompile(`verify required ca-file \S+ verifyhost \S+`)

// balancerFiles are what `ha-install reset` moves away from a balancer.
var balancerFiles = []string{"/etc/haproxy/haproxy.cfg", "/etc/keepalived/keepalived.conf"}

// byHand makes control planes by the documented commands, on hosts that
// `ha-install apply` has prepared and `ha-install reset` has left: software,
// images, containerd and kernel settings are there. So are the balancers, with
// ha-install's own short check intervals, so that nobody waits for them; only
// the verification of the API servers' certificates is left out, as in the
// documentation. Its API servers have less to do: no audit log, no encryption
// at rest. Nobody proves its quorum.
type byHand struct {
	lab       *lab.Lab
	dir       string
	balancers map[string]map[string]string // host -> path -> content
}

// newByHand keeps the balancers' configuration of a cluster that is up, for
// both sides to have the same.
func newByHand(ctx context.Context, l *lab.Lab, dir string) (*byHand, error) {
	b := &byHand{lab: l, dir: dir, balancers: map[string]map[string]string{}}
	for _, name := range named(l, "load-balancer") {
		b.balancers[name] = map[string]string{}
		for _, path := range balancerFiles {
			content, err := l.Exec(ctx, name, "cat", path)
			if err != nil {
				return nil, err
			}
			b.balancers[name][path] = verifiedCheck.ReplaceAllString(string(content), "verify none")
		}
	}
	return b, writeSSHConfig(l, b.sshConfig())
}

// writeSSHConfig writes what lets ssh in to the hosts by their names.
func writeSSHConfig(l *lab.Lab, path string) error {
	var config strings.Builder
	for _, h := range l.Hosts {
		fmt.Fprintf(&config, "Host %s\n  HostName %s\n", h.Name, h.Address)
	}
	fmt.Fprintf(&config, "Host *\n  User vagrant\n  BatchMode yes\n  IdentitiesOnly yes\n  IdentityFile %s\n  UserKnownHostsFile %s\n", l.Key(), l.KnownHosts())
	return os.WriteFile(path, []byte(config.String()), 0o600)
}

func (b *byHand) sshConfig() string { return filepath.Join(b.dir, "ssh_config") }

// prepare puts back what apply prepares and reset takes: the balancers, the
// kubelet's unit, and kubeadm's configuration on the first master. None of it
// is timed. The marker lets `ha-install reset` clean up after both sides.
func (b *byHand) prepare(ctx context.Context) error {
	var config strings.Builder
	err := kubeadmTemplate.Execute(&config, map[string]string{"Version": lab.DefaultVersion, "Endpoint": b.lab.VIP + ":6443"})
	if err != nil {
		return err
	}
	for name, files := range b.balancers {
		for path, content := range files {
			if err := b.put(ctx, name, path, content); err != nil {
				return err
			}
		}
		if _, err := b.lab.Exec(ctx, name, "systemctl", "enable", "--now", "haproxy.service", "keepalived.service"); err != nil {
			return err
		}
	}
	masters := named(b.lab, "control-plane")
	for _, name := range masters {
		if _, err := b.lab.Exec(ctx, name, "systemctl", "enable", "kubelet.service"); err != nil {
			return err
		}
	}
	for _, name := range append(masters, named(b.lab, "load-balancer")...) {
		if err := b.put(ctx, name, "/var/lib/ha-install/cluster.json", `{"cluster":"`+clusterName+`"}`); err != nil {
			return err
		}
	}
	if err := b.put(ctx, masters[0], "/root/kubeadm.yaml", config.String()); err != nil {
		return err
	}
	return lab.Await(ctx, "the VIP to be held", time.Minute, func(ctx context.Context) error {
		for name := range b.balancers {
			out, err := b.lab.Exec(ctx, name, "ip", "-oneline", "address", "show", "to", b.lab.VIP)
			if err == nil && len(out) > 0 {
				return nil
			}
		}
		return errors.New("no balancer holds " + b.lab.VIP)
	})
}

func (b *byHand) put(ctx context.Context, host, path, content string) error {
	_, err := b.lab.Exec(ctx, host, "sh", "-c", `umask 022; mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1"`, "sh", path, content)
	return err
}

// step is a part of a run and how long it took.
type step struct {
	name string
	took time.Duration
}

// run times the script and its steps, and proves that three masters came of it.
func (b *byHand) run(ctx context.Context, log io.Writer) ([]step, error) {
	masters := named(b.lab, "control-plane")
	steps, err := runScript(ctx, log, byHandScript, append([]string{"byhand.sh", b.sshConfig()}, masters...)...)
	if err != nil {
		return nil, fmt.Errorf("kubeadm by hand: %w", err)
	}
	nodes, err := b.lab.Exec(ctx, masters[0], "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf",
		"get", "nodes", "--selector", "node-role.kubernetes.io/control-plane", "--output", "name")
	if err != nil {
		return nil, err
	}
	if n := len(strings.Fields(string(nodes))); n != len(masters) {
		return nil, fmt.Errorf("kubeadm by hand: %d masters came of it, %d were wanted", n, len(masters))
	}
	return steps, nil
}

// runScript runs a script with its name and arguments, copies what it prints to
// log and times its steps.
func runScript(ctx context.Context, log io.Writer, script string, args ...string) ([]step, error) {
	cmd := exec.CommandContext(ctx, "bash", append([]string{"-c", script}, args...)...)
	log = &stamped{to: log}
	cmd.Stderr = log
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	steps, err := readSteps(io.TeeReader(out, log), time.Now)
	return steps, errors.Join(err, cmd.Wait())
}

// stamped puts the time before each line, as ha-install's own events have it.
type stamped struct {
	mu sync.Mutex // the script's two outputs are read by one goroutine each
	to io.Writer
}

func (s *stamped) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().UTC().Format("15:04:05.000")
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Fprintf(s.to, "%s  %s\n", now, strings.TrimSuffix(line, "\n")); err != nil {
			return 0, err
		}
	}
	return len(text), nil
}

// readSteps times the script's steps by the lines "step NAME" that it prints.
func readSteps(output io.Reader, now func() time.Time) ([]step, error) {
	var steps []step
	var began time.Time
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		name, ok := strings.CutPrefix(lines.Text(), "step ")
		if !ok {
			continue
		}
		at := now()
		if n := len(steps); n > 0 {
			steps[n-1].took = at.Sub(began)
		}
		if name == "end" {
			return steps, nil
		}
		steps, began = append(steps, step{name: name}), at
	}
	return nil, errors.Join(errors.New("it stopped before its end"), lines.Err())
}

// named are the hosts of a role that the lab's own inventory has.
func named(l *lab.Lab, role string) []string {
	var names []string
	for _, h := range l.Hosts {
		if h.Role == role && !h.Spare {
			names = append(names, h.Name)
		}
	}
	return names
}
