//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/test/fidelity"
)

// sceneOn is a scene on a real host.
func sceneOn(t *testing.T, path, name string) *fidelity.Scene {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := inventory.Parse(path, data)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(name string) host.Host {
		ih, ok := c.HostByName(name)
		if !ok {
			t.Fatalf("no host %s", name)
		}
		h, err := provision.SSH(t.Context(), c, ih, filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h
	}
	return &fidelity.Scene{T: t, Cluster: c, Dial: dial, Host: dial(name), Pause: time.Sleep}
}

// forget takes away what claims left on a host.
func forget(t *testing.T, name string) {
	shell(t, name, "rm -rf /var/lib/ha-install/fidelity* /var/lib/ha-install/steps/fidelity-*")
}

// bareHosts plays the claims about bare hosts on a spare one.
func bareHosts(t *testing.T) {
	hostLab(t)
	recreate(t, hostUnderTest)
	s := sceneOn(t, writeInventory(t, slices.Concat(baseHosts, []string{hostUnderTest}), nil), hostUnderTest)
	fidelity.Check(t.Context(), s, slices.Concat(fidelity.Bare(), fidelity.Facts()))
}

// madeCluster plays the claims about a finished cluster, and compares what an
// apply has left with what it leaves in the simulator.
func madeCluster(t *testing.T) {
	path := writeInventory(t, nil, nil)
	compareState(t, "applied", true)
	fidelity.Check(t.Context(), sceneOn(t, path, "cp-1"), fidelity.Master())
	awaitFaultless(t, path, time.Minute) // a member was away
	fidelity.Check(t.Context(), sceneOn(t, path, "lb-1"), fidelity.Balancer())
	forget(t, "cp-1")
	forget(t, "lb-1")
}

// resetHosts does so for hosts after a reset.
func resetHosts(t *testing.T) {
	compareState(t, "reset", false)
	fidelity.Check(t.Context(), sceneOn(t, writeInventory(t, nil, nil), "cp-1"), fidelity.Reset())
	forget(t, "cp-1")
}

// compareState compares the lab's hosts with the state in the simulator's golden file.
func compareState(t *testing.T, name string, serves bool) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(theLab.Root, "provision", "testdata", "fidelity", name+".golden"))
	if err != nil {
		t.Fatal(err)
	}
	simulated := fidelity.State(strings.Split(strings.TrimSpace(string(text)), "\n"))
	real := realHosts(t)
	if serves {
		real = append(real, realCluster(t)...)
	}
	missing, more := simulated.Compare(real)
	if len(missing)+len(more) > 0 {
		t.Errorf("%s: simulated hosts and real ones differ.\nonly simulated:\n  %s\nonly real:\n  %s", name, strings.Join(missing, "\n  "), strings.Join(more, "\n  "))
	}
	t.Logf("%s: %d lines of state are alike", name, len(simulated)-len(missing))
}

// realHosts is the state of the lab's hosts.
func realHosts(t *testing.T) fidelity.State {
	t.Helper()
	var all fidelity.State
	script := fidelity.Listing
	for _, unit := range fidelity.Units {
		script = fmt.Sprintf("echo unit %s $(systemctl show --property ActiveState --value %[1]s) $(systemctl show --property UnitFileState --value %[1]s)\n%s", unit, script)
	}
	for name, listing := range onEach(t, baseHosts, script) {
		modes := map[string]string{}
		for line := range strings.Lines(listing) {
			f := strings.Fields(line)
			switch {
			case f[0] != "unit":
				modes[strings.Join(f[1:], " ")] = f[0]
			case len(f) == 4:
				all = append(all, fidelity.Unit(name, f[1], f[2] == "active", f[3] == "enabled"))
			}
		}
		all = append(all, fidelity.Files(name, modes)...)
	}
	return all
}

// realCluster is the state of etcd and of the API.
func realCluster(t *testing.T) fidelity.State {
	t.Helper()
	var all fidelity.State
	for _, m := range listedMembers(t) {
		role := "voter"
		if m.learner {
			role = "learner"
		}
		all = append(all, "member "+m.name+" "+role)
	}
	for _, kind := range fidelity.Kinds {
		var list struct{ Items []map[string]any }
		if err := json.Unmarshal([]byte(kubectl(t, "get", kind, "--all-namespaces", "-o", "json")), &list); err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Items {
			meta := o["metadata"].(map[string]any)
			namespace, _ := meta["namespace"].(string)
			all = append(all, fidelity.Object(kind, namespace+"/"+meta["name"].(string), o))
		}
	}
	return all
}
