package cmd

import (
	"strings"
	"testing"
	"time"
)

func TestCheckUser(t *testing.T) {
	for name, row := range map[string]struct {
		user   string
		groups []string
		ttl    time.Duration
		want   string // of the error; "" for none
	}{
		"a user in two groups":       {"jane", []string{"developers", "oncall"}, time.Hour, ""},
		"an e-mail address":          {"jane@example.com", nil, defaultUserTTL, ""},
		"no name":                    {"", nil, time.Hour, "need a name"},
		"a component":                {"system:kube-scheduler", nil, time.Hour, "the cluster's own"},
		"the administrators":         {"jane", []string{"system:masters"}, time.Hour, "the cluster's own"},
		"kubeadm's administrators":   {"jane", []string{"kubeadm:cluster-admins"}, time.Hour, "the cluster's own"},
		"shorter than the API signs": {"jane", nil, 9 * time.Minute, "--ttl 9m0s: want 10m0s to 365d"},
		"longer than a year":         {"jane", nil, 366 * 24 * time.Hour, "--ttl 366d"},
	} {
		err := checkUser(row.user, row.groups, row.ttl)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
}

func TestKubeconfigUserIsAWrongCommandLine(t *testing.T) {
	file := writeInventory(t, nil)
	for _, args := range [][]string{{"kubeconfig", "user", file}, {"kubeconfig", "user", "system:admin", file}, {"kubeconfig", "user", "--ttl", "1m", "jane", file}} {
		if code, _, errOut := run(t, "", args...); code != exitUsage {
			t.Errorf("%q: exit code %d, %s", args, code, errOut)
		}
	}
	if code, out, errOut := run(t, "", "kubeconfig", "user", "jane", file); code != exitUnreachable || out != "" || !strings.Contains(errOut, "no API server is ready") {
		t.Errorf("no host answers: exit code %d, %s%s", code, out, errOut)
	}
}
