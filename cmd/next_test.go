package cmd

import (
	"errors"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/preflight"
)

func TestErrorsSayWhatNext(t *testing.T) {
	in := func(err error) error {
		return phase.Join(errors.New("x"), &phase.Error{Phase: "cp-1: init", Part: "do", Err: err})
	}
	rows := []struct {
		name string
		err  error
		want string
	}{
		{"a refusal says it itself", in(&etcd.QuorumError{}), ""},
		{"a master that lives does, too", in(&provision.AliveError{}), ""},
		{"a host key does, too", &provision.UnreachableError{Err: &host.HostKeyError{}}, ""},
		{"what preflight found", in(&preflight.Failure{}), "ignoreErrors"},
		{"no key was accepted", &provision.UnreachableError{Err: &host.AuthError{}}, "identityFiles"},
		{"a host that does not answer", &provision.UnreachableError{Err: &host.UnreachableError{Err: errors.New("x")}}, "firewall"},
		{"a full disk", in(&host.NoSpaceError{}), "make room"},
		{"kubeadm", in(&kube.StepError{}), "/var/lib/ha-install/steps"},
		{"a gate that did not pass", in(errors.New("boom")), "run the same command again"},
		{"a command on a host", in(&host.RunError{}), "run the same command again"},
		{"a lost connection", host.ErrConnectionLost, "run the same command again"},
		{"a wrong command line", &usageError{errors.New("x")}, ""},
		{"anything else", errors.New("x"), ""},
	}
	for _, row := range rows {
		if got := whatNext(row.err); !strings.Contains(got, row.want) || (row.want == "") != (got == "") {
			t.Errorf("%s: %q, wanted %q in it", row.name, got, row.want)
		}
	}
	file := writeInventory(t, nil)
	if _, _, errOut := run(t, "", "apply", file); !strings.Contains(errOut, "\n  next: see that the host is up") {
		t.Errorf("what is printed lacks it:\n%s", errOut)
	}
}
