//go:build e2e

// Package e2e drives the program as its user does, on the lab's real hosts.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/ha-install/ha-install/test/fault"
	"github.com/ha-install/ha-install/test/lab"
)

var (
	theLab *lab.Lab
	inject *fault.Injector
	binary string
)

// The hosts of the lab's own inventory, and those that join later.
var (
	baseHosts = []string{"lb-1", "lb-2", "cp-1", "cp-2", "cp-3", "w-1"}
	moreHosts = []string{"cp-4", "cp-5", "w-2"}
)

// long adds the parts that would take the suite past half an hour; `make
// e2e-long` sets it.
var long = flag.Bool("long", false, "also the parts that make e2e-long adds")

// clusterName is what the lab's inventory calls its cluster.
const clusterName = "lab"

func TestMain(m *testing.M) {
	if err := setUp(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// setUp finds the program and brings up what of the lab is not up. HA_INSTALL_BIN
// names another program than the one that `make build` made.
func setUp(ctx context.Context) error {
	var err error
	if theLab, err = lab.Open(); err != nil {
		return err
	}
	inject = fault.New(theLab)
	if binary = os.Getenv("HA_INSTALL_BIN"); binary == "" {
		binary = filepath.Join(theLab.Root, "bin", "ha-install")
	}
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("%w; `make build` makes it", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := inject.Heal(ctx); err != nil { // what a killed suite left; Up says what is wrong beyond that
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
	return theLab.Up(ctx, os.Stderr)
}

// TestCluster is one story in order: each part finds the lab as the one before
// it left it, so that nothing is installed twice without need. A single part
// can be run (-run TestCluster/status) on a lab in which those before it ran.
func TestCluster(t *testing.T) {
	type part struct {
		name string
		run  func(*testing.T)
		long bool
	}
	parts := []part{
		{"refusals", refusals, false},
		{"bare hosts are as simulated", bareHosts, false},
		{"plan of bare hosts", planBare, false},
		{"install", install, false},
		{"second apply", secondApply, false},
		{"a cluster is as simulated", madeCluster, false},
		{"lock and history", lockAndHistory, false},
		{"plan of a finished cluster", planFinished, false},
		{"asked on a terminal", askedOnTerminal, false},
		{"status", statusWithFaults, false},
		{"backup", backups, false},
		{"backups by schedule", backupsBySchedule, true},
		{"power off a master", powerOffMasters, false},
		{"power off the balancer with the VIP", powerOffBalancer, false},
		{"both balancers start anew", restartBalancers, true},
		{"a configuration that HAProxy refuses", badConfiguration, true},
		{"a stranger announces the VIP", strangersAdverts, true},
		{"planned restarts are not noticed", plannedRestarts, true},
		{"certificates", expiring, true},
		{"kubeconfig of a user", kubeconfigOfAUser, false},
		{"etcd members", etcdMembers, false},
		{"etcd NOSPACE", etcdNoSpace, true},
		{"drill", drills, true},
		{"drill with the power taken", drillWithPower, true},
		{"drill killed", drillsKilled, true},
		{"restore", restores, true},
		{"recover", recovers, true},
		{"conflicts", conflicts, false},
		{"replace", replaced, true},
		{"grow through faults", grow, false},
		{"reset", reset, false},
		{"reset hosts are as simulated", resetHosts, false},
		{"trial", trial, true},
		{"fault 3: installer killed along the way", fault3, false},
		{"upgrade", upgradeUnnoticed, false},
		{"upgrade through faults", upgradeThroughFaults, true},
		{"upgrade beside a slow disk", upgradeBesideASlowDisk, true},
		{"upgrade killed everywhere", upgradeKilled, true},
		{"upgrade by a patch", upgradeByAPatch, true},
		{"variants", variants, true},
		{"balancer on the masters", balancerOnMasters, true},
		{"restore onto other hosts", restoredElsewhere, true},
		{"external balancer", externalBalancer, true},
		{"stopped and planned", stoppedAndPlanned, true},
		{"fault 3: installer killed once", killedOnce, true},
	}
	parts = slices.DeleteFunc(parts, func(p part) bool { return p.long && !*long })
	for _, part := range parts {
		began := time.Now()
		passed := t.Run(part.name, part.run)
		if took := time.Since(began); took > time.Second { // else -run has left it out
			t.Logf("%-36s %s", part.name, took.Round(100*time.Millisecond))
		}
		if !passed {
			explain(t)
		}
		if !passed && part.name != "refusals" {
			t.Fatalf("%s went wrong: what follows would stand on it", part.name)
		}
	}
}

// lastSteps shows the end of the newest steps' output.
const lastSteps = `cd /var/lib/ha-install/steps 2>/dev/null || exit 0
for step in $(ls -t | head -n 2); do echo "== $step"; tail -n 8 "$step/output"; done`

// explain shows what the hosts have to say after a part that went wrong.
func explain(t *testing.T) {
	t.Helper()
	t.Logf("status now:\n%s", ha(t, "status", writeInventory(t, nil, nil)).tail())
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, host := range masters {
		out, err := theLab.Exec(ctx, host, "sh", "-c", lastSteps)
		t.Logf("%s, its last steps: %v\n%s", host, err, out)
	}
}

// document is an inventory as a test edits it.
type document map[string]any

func (d document) spec() map[string]any { return d["spec"].(map[string]any) }

func (d document) ssh() map[string]any { return d.spec()["ssh"].(map[string]any) }

func (d document) network() map[string]any { return d.spec()["network"].(map[string]any) }

// writeInventory writes the lab's inventory of the named hosts, edited, and
// returns its path.
func writeInventory(t *testing.T, hosts []string, edit func(document)) string {
	t.Helper()
	return writeInventoryOf(t, lab.DefaultVersion, hosts, edit)
}

// writeInventoryOf does so for a release of Kubernetes and its bundle.
func writeInventoryOf(t *testing.T, version string, hosts []string, edit func(document)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "inventory.yaml")
	if err := theLab.WriteInventory(path, lab.InventoryOptions{Hosts: hosts, Version: version}); err != nil {
		t.Fatal(err)
	}
	if edit == nil {
		return path
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := yaml.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	edit(d)
	if data, err = yaml.Marshal(d); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
