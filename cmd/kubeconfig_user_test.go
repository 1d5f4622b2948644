package cmd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
		"shorter than the API signs": {"jane", nil, 9 * time.Minute, "--ttl 9m0s: want 10m0s to 7d"},
		"longer than a week":         {"jane", nil, 8 * 24 * time.Hour, "--ttl 8d"},
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

func TestKubeconfigUserWritesOverNothing(t *testing.T) {
	inventory, file := writeInventory(t, nil), filepath.Join(t.TempDir(), "jane")
	if err := os.WriteFile(file, []byte("dear"), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"kubeconfig", "user", "jane", "--file", file, inventory}
	if code, _, errOut := run(t, "", args...); code != exitUsage || !strings.Contains(errOut, "is there already") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
	if code, _, errOut := run(t, "", append(args, "--overwrite")...); code != exitUnreachable {
		t.Errorf("--overwrite: exit code %d, %s", code, errOut)
	}
	// It may also come while the cluster signs.
	if err := writeNewFile(file, []byte("new")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file that is there was no obstacle: %v", err)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "dear" {
		t.Errorf("the file has %q, %v", data, err)
	}
	fresh := filepath.Join(t.TempDir(), "new")
	if err := writeNewFile(fresh, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(fresh); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info, err)
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		t.Errorf("something is left: %v, %v", left, err)
	}
}
