package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/provision/host"
)

// stepHost knows steps only: which were begun and the state of the newest's
// unit. Everything else is a nil pointer.
type stepHost struct {
	host.Host
	begun  []string
	states map[string]string // by unit
	result host.StepResult
	err    error
	ran    []host.Step
}

func (h *stepHost) Name() string { return "cp-1" }

func (h *stepHost) Query(_ context.Context, argv ...string) ([]byte, error) {
	switch argv[0] {
	case "find":
		if len(h.begun) == 0 {
			return nil, &host.RunError{Host: "cp-1", Argv: argv, Code: 1, Stderr: "No such file or directory"}
		}
		return []byte(strings.Join(h.begun, "\n")), nil
	case "systemctl":
		state, ok := h.states[argv[len(argv)-1]]
		if !ok {
			return nil, fmt.Errorf("asked for %q", argv)
		}
		return []byte(state + "\n"), nil
	}
	return nil, fmt.Errorf("unknown command %q", argv)
}

func (h *stepHost) Step(_ context.Context, s host.Step) (host.StepResult, error) {
	h.ran = append(h.ran, s)
	return h.result, h.err
}

func TestStepNames(t *testing.T) {
	rows := []struct {
		name    string
		begun   []string
		states  map[string]string
		step    string
		want    string
		running bool
	}{
		{"the first of its kind", nil, nil, "kubeadm-init", "kubeadm-init-1", false},
		{"after one that ended", []string{"kubeadm-init-1"}, map[string]string{"ha-install-kubeadm-init-1.service": "inactive"}, "kubeadm-init", "kubeadm-init-2", false},
		{"after one that failed", []string{"kubeadm-init-1"}, map[string]string{"ha-install-kubeadm-init-1.service": "failed"}, "kubeadm-init", "kubeadm-init-2", false},
		{"one that runs is attached to", []string{"kubeadm-init-1"}, map[string]string{"ha-install-kubeadm-init-1.service": "active"}, "kubeadm-init", "kubeadm-init-1", true},
		{"one that is only starting, too", []string{"kubeadm-init-1"}, map[string]string{"ha-install-kubeadm-init-1.service": "activating"}, "kubeadm-init", "kubeadm-init-1", true},
		{"numbers are numbers, not text", []string{"kubeadm-init-9", "kubeadm-init-10"}, map[string]string{"ha-install-kubeadm-init-10.service": "inactive"}, "kubeadm-init", "kubeadm-init-11", false},
		{"a longer name is another step", []string{"kubeadm-join-phase-all-3"}, nil, "kubeadm-join", "kubeadm-join-1", false},
		{"blanks become dashes", []string{"kubeadm-join-phase-all-3"}, map[string]string{"ha-install-kubeadm-join-phase-all-3.service": "inactive"}, "kubeadm-join phase all", "kubeadm-join-phase-all-4", false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			h := &stepHost{begun: row.begun, states: row.states}
			got, err := nextStep(t.Context(), h, row.step)
			if err != nil || got != row.want {
				t.Errorf("%q, %v; wanted %q", got, err, row.want)
			}
			if running, err := StepRunning(t.Context(), h, row.step); running != row.running || err != nil {
				t.Errorf("running %t, %v", running, err)
			}
		})
	}
}

func TestKubeadmRunsOneVerbAsAStep(t *testing.T) {
	h := &stepHost{}
	if err := Kubeadm(t.Context(), h, "init phase certs", nil, "--config", InitConfig); err != nil {
		t.Fatal(err)
	}
	want := []string{"kubeadm", "init", "phase", "certs", "--config", InitConfig}
	if len(h.ran) != 1 || h.ran[0].ID != "kubeadm-init-phase-certs-1" || !slices.Equal(h.ran[0].Argv, want) {
		t.Errorf("ran %+v", h.ran)
	}
}

func TestStepThatFailsShowsItsLastLines(t *testing.T) {
	var lines []string
	for i := range 40 {
		lines = append(lines, fmt.Sprintf("line %d", i))
	}
	h := &stepHost{
		result: host.StepResult{Code: 1, Output: []byte(strings.Join(lines, "\n") + "\n")},
		err:    &host.RunError{Host: "cp-1", Code: 1},
	}
	err := Kubeadm(t.Context(), h, "init", nil)
	var step *StepError
	if !errors.As(err, &step) {
		t.Fatalf("error %v", err)
	}
	want := &StepError{Host: "cp-1", Name: "kubeadm-init", Code: 1, Tail: lines[28:], ID: "kubeadm-init-1"}
	if diff := cmp.Diff(want, step); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
	for _, part := range []string{"cp-1: kubeadm-init ended with code 1", "line 39", "cp-1:/var/lib/ha-install/steps/kubeadm-init-1/output"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %q", part, err)
		}
	}
}

func TestStepThatWasLostKeepsItsCause(t *testing.T) {
	h := &stepHost{err: &host.RebootError{Host: "cp-1", Step: "kubeadm-init-1", Before: "a", After: "b"}}
	err := Kubeadm(t.Context(), h, "init", nil)
	var reboot *host.RebootError
	var step *StepError
	if !errors.As(err, &reboot) || errors.As(err, &step) || !strings.HasPrefix(err.Error(), "kubeadm-init: ") {
		t.Errorf("error %v", err)
	}
}

func TestStepsThatCannotBeListed(t *testing.T) {
	h := &stepHost{begun: []string{"kubeadm-init-1"}} // no state: systemctl fails
	if err := Kubeadm(t.Context(), h, "init", nil); err == nil || len(h.ran) > 0 {
		t.Errorf("error %v, ran %d: a step must not be begun blindly", err, len(h.ran))
	}
}
