package kube

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ha-install/ha-install/provision/host"
)

// Where kubeadm's inputs lie on a host. They are 0600: the discovery file
// holds a token while a join runs.
const (
	ConfigDir     = "/var/lib/ha-install/kubeadm"
	InitConfig    = ConfigDir + "/init.yaml"
	JoinConfig    = ConfigDir + "/join.yaml"
	DiscoveryFile = ConfigDir + "/discovery.conf"
	AdminConf     = "/etc/kubernetes/admin.conf"
	KubeletConf   = "/etc/kubernetes/kubelet.conf"
	KubeletConfig = "/var/lib/kubelet/config.yaml" // written when a kubelet is started

	BootstrapKubeletConf = "/etc/kubernetes/bootstrap-kubelet.conf"

	ManifestDir = "/etc/kubernetes/manifests"
	PKIDir      = "/etc/kubernetes/pki"
	EtcdDir     = "/var/lib/etcd"
	stepsDir    = "/var/lib/ha-install/steps"
)

// StepError is a detached step, most often a kubeadm, that ended with an error.
type StepError struct {
	Host string
	Name string // "kubeadm-init", "kubeadm-join", ...
	Code int
	Tail []string // the last lines of its output, the reason among them
	ID   string   // under which the whole output is kept on the host
}

func (e *StepError) Error() string {
	return fmt.Sprintf("%s: %s ended with code %d\n  %s\n  whole output: %s:%s/%s/output",
		e.Host, e.Name, e.Code, strings.Join(e.Tail, "\n  "), e.Host, stepsDir, e.ID)
}

// tailLines is how much of a failed step's output an error carries.
const tailLines = 12

// Kubeadm runs one kubeadm verb as a detached step; see RunStep.
func Kubeadm(ctx context.Context, h host.Host, verb string, output func(string), args ...string) error {
	argv := append([]string{"kubeadm"}, strings.Fields(verb)...)
	return RunStep(ctx, h, "kubeadm-"+verb, output, append(argv, args...)...)
}

// RunStep runs a command as a detached step under the given name. When an
// earlier run of the same step is still under way on the host, that one is
// awaited instead: a second installer never starts a second kubeadm. The argv
// is kept on the host, so it must not hold a secret. output may be nil.
func RunStep(ctx context.Context, h host.Host, name string, output func(string), argv ...string) error {
	id, err := nextStep(ctx, h, name)
	if err != nil {
		return err
	}
	result, err := h.Step(ctx, host.Step{ID: id, Argv: argv, Output: output})
	var run *host.RunError
	if errors.As(err, &run) {
		return &StepError{Host: h.Name(), Name: name, Code: result.Code, Tail: tail(result.Output), ID: id}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func tail(output []byte) []string {
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	return lines[max(0, len(lines)-tailLines):]
}

// AwaitStep waits for a step that an earlier run of the installer has begun and
// that still runs. How it ended is for the caller to see from its effects.
func AwaitStep(ctx context.Context, h host.Host, name string, output func(string)) error {
	newest, running, err := newestStep(ctx, h, stepBase(name))
	if err != nil || !running {
		return err
	}
	return attach(ctx, h, stepID(name, newest), output)
}

// attach waits for a step that has begun. It does not begin one: it gives the
// command "true" for the case that the step's files were removed meanwhile.
func attach(ctx context.Context, h host.Host, id string, output func(string)) error {
	_, err := h.Step(ctx, host.Step{ID: id, Argv: []string{"true"}, Output: output})
	var run *host.RunError
	var reboot *host.RebootError
	var lost *host.StepLostError
	if errors.As(err, &run) || errors.As(err, &reboot) || errors.As(err, &lost) {
		return nil
	}
	return err
}

// RunningSteps are the IDs of all steps that are under way on the host, begun
// by whichever run of the installer.
func RunningSteps(ctx context.Context, h host.Reader) ([]string, error) {
	out, err := h.Query(ctx, "systemctl", "list-units", "--plain", "--no-legend", "--no-pager", "--type", "service",
		"--state", "active,activating,deactivating,reloading", "ha-install-*.service")
	if err != nil {
		return nil, fmt.Errorf("reading the steps: %w", err)
	}
	var ids []string
	for line := range strings.Lines(string(out)) {
		unit, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if id, ok := strings.CutSuffix(strings.TrimPrefix(unit, "ha-install-"), ".service"); ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// AwaitSteps waits for the given steps, as AwaitStep does for one.
func AwaitSteps(ctx context.Context, h host.Host, ids []string, output func(string)) error {
	for _, id := range ids {
		if err := attach(ctx, h, id, output); err != nil {
			return err
		}
	}
	return nil
}

// StepRunning says whether a step of that kind is under way on the host, begun
// by whichever run of the installer. A step that was lost to a reboot is not.
func StepRunning(ctx context.Context, h host.Reader, name string) (bool, error) {
	_, running, err := newestStep(ctx, h, stepBase(name))
	return running, err
}

// nextStep finds the ID to use: that of the newest attempt while it runs, else
// the one after it.
func nextStep(ctx context.Context, h host.Reader, name string) (string, error) {
	newest, running, err := newestStep(ctx, h, stepBase(name))
	if err != nil {
		return "", err
	}
	if !running {
		newest++
	}
	return stepID(name, newest), nil
}

func stepBase(name string) string { return strings.ReplaceAll(name, " ", "-") }

func stepID(name string, n int) string { return fmt.Sprintf("%s-%d", stepBase(name), n) }

// newestStep is the number of the last attempt of a step, 0 for none, and
// whether its unit is still there.
func newestStep(ctx context.Context, h host.Reader, base string) (newest int, running bool, err error) {
	listing, err := h.Query(ctx, "find", stepsDir, "-mindepth", "1", "-maxdepth", "1", "-name", base+"-*", "-printf", `%f\n`)
	var run *host.RunError
	if err != nil && !errors.As(err, &run) { // find fails when no step was ever run
		return 0, false, fmt.Errorf("reading the steps: %w", err)
	}
	for name := range strings.FieldsSeq(string(listing)) {
		if n, err := strconv.Atoi(strings.TrimPrefix(name, base+"-")); err == nil {
			newest = max(newest, n)
		}
	}
	if newest == 0 {
		return 0, false, nil
	}
	state, err := h.Query(ctx, "systemctl", "show", "--property", "ActiveState", "--value", "ha-install-"+stepID(base, newest)+".service")
	if err != nil {
		return 0, false, fmt.Errorf("reading the steps: %w", err)
	}
	switch strings.TrimSpace(string(state)) {
	case "inactive", "failed", "":
		return newest, false, nil
	default:
		return newest, true, nil
	}
}
