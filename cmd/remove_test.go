package cmd

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
)

// TestRemoveAsksForTheHostsName: nothing is connected to before it was given.
func TestRemoveAsksForTheHostsName(t *testing.T) {
	file := writeInventory(t, nil)
	rows := []struct {
		name string
		in   string
		args []string
		want string
	}{
		{"no host", "", []string{"remove", file}, "accepts 2 arg(s), received 1"},
		{"nothing typed", "", []string{"remove", file, "cp-3"}, "--confirm cp-3"},
		{"the cluster's name typed", "prod\n", []string{"remove", file, "cp-3"}, `"prod" is not the name of the host, "cp-3"`},
		{"another host's name given", "", []string{"remove", "--confirm", "cp-2", file, "cp-3"}, `"cp-2" is not the name of the host`},
		{"no time to drain", "", []string{"remove", "--confirm", "cp-3", "--drain-timeout", "0s", file, "cp-3"}, "--drain-timeout 0s"},
		{"a plan that is agreed to", "", []string{"remove", "--confirm", "cp-3", "--plan", file, "cp-3"}, "none of the others can be"},
	}
	for _, row := range rows {
		code, _, errOut := run(t, row.in, row.args...)
		if code != exitUsage || !strings.Contains(errOut, row.want) {
			t.Errorf("%s: exit code %d, %s", row.name, code, errOut)
		}
	}
	if code, _, errOut := run(t, "cp-3\n", "remove", file, "cp-3"); code != exitUnreachable {
		t.Errorf("the right name: exit code %d, %s", code, errOut)
	}
}

func TestReplaceIsToldWhoComes(t *testing.T) {
	file := writeInventory(t, nil)
	rows := []struct {
		name string
		args []string
		code int
		want string
	}{
		{"by itself", []string{"--with", "cp-3", file, "cp-3"}, exitUsage, "leave it out"},
		{"a host that the inventory does not have", []string{"--with", "cp-4", "--confirm", "cp-3", file, "cp-3"}, exitInvalid, "add its lines with role control-plane"},
		{"a balancer that is lost", []string{"--confirm", "lb-1", file, "lb-1"}, exitInvalid, "no master lb-1"},
		{"another name", []string{"--confirm", "cp-2", file, "cp-3"}, exitUsage, `"cp-2" is not the name of the host`},
		{"nobody in its place", []string{"--confirm", "cp-3", file, "cp-3"}, exitInvalid, "--with NEWHOST"},
		{"nobody in its place, planned", []string{"--plan", file, "cp-3"}, exitInvalid, "--with NEWHOST"},
	}
	for _, row := range rows {
		if code, _, errOut := run(t, "", append([]string{"replace"}, row.args...)...); code != row.code || !strings.Contains(errOut, row.want) {
			t.Errorf("%s: exit code %d, %s", row.name, code, errOut)
		}
	}
}

func TestHostsAreCompleted(t *testing.T) {
	file := writeInventory(t, nil)
	_, out, _ := run(t, "", "__complete", "remove", file, "")
	if names := strings.Fields(out); !slices.Equal(names, []string{"cp-1", "cp-2", "cp-3", ":4"}) {
		t.Errorf("completed %q", names)
	}
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	if err := os.WriteFile(broken, []byte("kind: ["), 0o644); err != nil {
		t.Fatal(err)
	}
	if names := hostNames(broken, []inventory.Role{inventory.RoleWorker}); names != nil {
		t.Errorf("of a broken inventory: %q", names)
	}
}
