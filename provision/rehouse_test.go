package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/kubeapi"
	"github.com/ha-install/ha-install/test/sim"
)

// lostCluster is a backup of a cluster all of whose hosts are gone.
type lostCluster struct {
	start *sim.State // its data are what the next etcd of a restore serves
	o     RestoreOptions
	ca    string
	// encryption is the configuration by which its Secrets can be read.
	encryption string
}

// loseAll makes the cluster, takes a backup with its keys, and goes.
func loseAll(t *testing.T, c *inventory.Cluster, dir string) lostCluster {
	t.Helper()
	seal, identity := sealed(t)
	openers, err := backup.Openers(identity, "")
	if err != nil {
		t.Fatal(err)
	}
	o, lost := BackupOptions{Directory: t.TempDir(), Seal: seal}, lostCluster{}
	lost.start = madeBy(t, c, func(t *testing.T, w *sim.World) {
		w.SnapshotObjects = true
		running(t, w, c, dir)
		w.API.Set("configmaps", "default", "precious", kubeapi.Object{"data": kubeapi.Object{"is": "here"}})
		w.API.Set("pods", "kube-system", "flannel-on-w-1", corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "flannel"}}, Spec: corev1.PodSpec{NodeName: "w-1"}})
		b, err := backUp(t.Context(), w, c, o, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		lost.o, lost.ca = RestoreOptions{From: b.Path, Openers: openers}, fingerprintOn(w.Host("cp-1"))
		lost.encryption = string(w.Host("cp-1").Files[templates.EncryptionConfigPath].Content)
	})
	return lost
}

// elsewhere is the inventory of hosts with other addresses, and another endpoint.
// Of the names some are new, and some are those of before.
func elsewhere(t *testing.T) *inventory.Cluster {
	t.Helper()
	c := testCluster(t)
	c.Spec.PKI.Directory = ""
	c.Spec.Endpoint.Host, c.Spec.LoadBalancer.VIP = "198.51.100.200", "198.51.100.200"
	names := map[string]string{"cp-2": "cp-7", "cp-3": "cp-8", "lb-1": "lb-7", "lb-2": "lb-8"} // cp-1 and w-1 keep theirs
	for i := range c.Spec.Hosts {
		h := &c.Spec.Hosts[i]
		if name := names[h.Name]; name != "" {
			h.Name = name
		}
		h.Address = fmt.Sprintf("198.51.100.%d", 70+i)
		h.InternalAddress = h.Address
	}
	return c
}

// onto is where the restore begins: bare hosts.
func (l lostCluster) onto(t *testing.T, c *inventory.Cluster) *sim.State {
	t.Helper()
	var state *sim.State
	bubble(t, func(t *testing.T) {
		w := l.start.World(t, c)
		for _, ih := range c.Spec.Hosts {
			w.Wipe(c, ih.Name)
		}
		w.Begin(t.Context(), nil)
		state = w.Keep()
	})
	return state
}

// notRehoused says what is not as a restore onto other hosts has to leave it.
func (l lostCluster) notRehoused(w *sim.World, c *inventory.Cluster) string {
	wrong := []string{notRestored(w, c)}
	if got := fingerprintOn(w.Host(c.ControlPlanes()[0].Name)); got != l.ca {
		wrong = append(wrong, fmt.Sprintf("the CA set is %.12s, the backup's %.12s", got, l.ca))
	}
	if got := string(w.Host(c.ControlPlanes()[0].Name).Files[templates.EncryptionConfigPath].Content); got != l.encryption {
		wrong = append(wrong, "the backup's Secrets cannot be read")
	}
	if w.API.Get("configmaps", "default", "precious") == nil {
		wrong = append(wrong, "an object of the backup is gone")
	}
	var want []string
	for _, ih := range c.Nodes() {
		want = append(want, "/"+ih.Name)
	}
	slices.Sort(want)
	if nodes := w.API.Names("nodes"); !slices.Equal(nodes, want) {
		wrong = append(wrong, fmt.Sprintf("nodes %q, want %q", nodes, want))
	}
	if pods := w.API.Names("pods"); slices.Contains(pods, "kube-system/flannel-on-w-1") {
		wrong = append(wrong, "a pod of a lost host is left")
	}
	for _, ih := range c.Nodes() {
		uid := w.API.Get("nodes", "", ih.Name)["metadata"].(kubeapi.Object)["uid"]
		if old := l.nodes()[ih.Name]; old == uid {
			wrong = append(wrong, ih.Name+" has the Node of the host that is lost")
		}
		if of := w.Host(ih.Name).Bridge; of != uid {
			wrong = append(wrong, fmt.Sprintf("%s has the pod network of %q, its Node is %v", ih.Name, of, uid))
		}
	}
	config := fmt.Sprint(w.API.Get("configmaps", "kube-system", "kubeadm-config"))
	if !strings.Contains(config, "controlPlaneEndpoint: "+c.Spec.Endpoint.Host) {
		wrong = append(wrong, "kubeadm-config has the endpoint of before: "+config)
	}
	return strings.Trim(strings.Join(wrong, "; "), "; ")
}

func (l lostCluster) nodes() map[string]string {
	then, err := readBackedUp(l.o.From + "/" + backup.SnapshotFile)
	if err != nil {
		panic(err)
	}
	return then.nodes
}

func TestABackupIsRestoredOntoOtherHosts(t *testing.T) {
	t.Parallel()
	c, dirs := elsewhere(t), baseDirs(t)
	lost := loseAll(t, testCluster(t), dirs[0])
	start := lost.onto(t, c)
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		site := Connect(w.Begin(t.Context(), nil), c, dirs[0], w.Dial)
		var told string
		plan, err := PlanRestore(t.Context(), site, lost.o, func(text string) { told = text })
		if err != nil || plan.Nothing() {
			t.Fatalf("the plan: %v", err)
		}
		for _, text := range []string{"onto     cp-1, cp-7, cp-8, which are bare: cp-1 starts etcd", "nodes    cp-1, cp-2, cp-3, w-1 of the backup", "198.51.100.21, 198.51.100.22, 198.51.100.23) have to stay off",
			"no host of before may run (198.51.100.21, 198.51.100.22, 198.51.100.23, 198.51.100.31)"} {
			if !strings.Contains(told, text) {
				t.Errorf("%q is not said:\n%s", text, told)
			}
		}
		for _, call := range w.Trace() {
			if call.Writes {
				t.Errorf("the plan changed %s by %q", call.Host, call.Name)
			}
		}
		site.Close()
		var said []string
		if _, err := restoreAll(t.Context(), w, c, dirs[0], lost.o, nil, func(e phase.Event) { said = append(said, e.Message) }); err != nil {
			t.Fatal(err)
		}
		if bad := append(w.Broken(), lost.notRehoused(w, c)); strings.Join(bad, "") != "" {
			t.Errorf("%q", bad)
		}
		if text := strings.Join(said, "\n"); !strings.Contains(text, "lost      all that was written between") || !strings.Contains(text, "nodes     those of the backup are taken out: cp-1, cp-2, cp-3, w-1") {
			t.Errorf("what was lost is not said:\n%s", text)
		}
		if tally, err := applyAll(t.Context(), w, c, dirs[0], nil, nil); err != nil || tally.Changed > 0 {
			t.Errorf("apply after it changed %d, error %v", tally.Changed, err)
		}
		if tally, err := restoreAll(t.Context(), w, c, dirs[0], lost.o, nil, nil); err != nil || tally.Changed > 0 {
			t.Errorf("a second restore changed %d, error %v", tally.Changed, err)
		}
	})
}

func TestRestoreOntoOtherHostsStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := elsewhere(t), baseDirs(t)
	lost := loseAll(t, testCluster(t), dirs[0])
	f := workflow{
		name: "restore onto other hosts", c: c, start: lost.onto(t, c),
		run: func(ctx context.Context, w *sim.World, _ bool, cut *sim.Cut) error {
			_, err := restoreAll(ctx, w, c, dirs[0], lost.o, cut, nil)
			return err
		},
		wrong: func(w *sim.World) string { return lost.notRehoused(w, c) },
		about: notTheLock,
	}
	f.everywhere(t)
}

// TestAHalfRestoredClusterIsMadeByNothingElse has no other verb make an empty
// cluster, or go on, of what a broken restore left; reset takes it back.
func TestAHalfRestoredClusterIsMadeByNothingElse(t *testing.T) {
	t.Parallel()
	c, dirs := elsewhere(t), baseDirs(t)
	lost := loseAll(t, testCluster(t), dirs[0])
	start := lost.onto(t, c)
	for _, at := range []sim.Cut{
		{Host: "cp-1", Name: "upload " + restoreFile, Nth: 1},
		{Host: "cp-1", Name: "step restore-unpack-1", Nth: 1},
		{Host: "cp-1", Name: "step kubeadm-init-1", Nth: 1},
		{Host: "cp-7", Name: "step column-start-1", Nth: 1},
	} {
		t.Run(at.Name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				w.Slow = true
				cut := at
				cut.When, cut.Fault = sim.After, sim.Dies
				if _, err := restoreAll(t.Context(), w, c, dirs[0], lost.o, &cut, nil); err == nil || !w.Struck() {
					t.Fatalf("it was not killed: %v", err)
				}
				w.Back()
				for verb, run := range map[string]func() error{
					"apply": func() error { _, err := applyAll(t.Context(), w, c, dirs[0], nil, nil); return err },
					"recover": func() error {
						_, err := recoverAll(t.Context(), w, c, dirs[0], w.Dial, RecoverOptions{}, nil, nil)
						return err
					},
				} {
					var conflict *ConflictError
					if err := run(); !errors.As(err, &conflict) || !strings.Contains(conflict.Error(), "a restore of the cluster is half done") || !strings.Contains(conflict.Run, "restore INVENTORY --from "+lost.o.From+", with the same --identity") {
						t.Errorf("%s: %v", verb, err)
					}
				}
				w.MayEnd = true
				if err := reset(t.Context(), w, c, nil); err != nil {
					t.Fatalf("reset: %v", err)
				}
				if _, err := restoreAll(t.Context(), w, c, dirs[0], lost.o, nil, nil); err != nil {
					t.Fatalf("restore after a reset: %v", err)
				}
				if bad := lost.notRehoused(w, c); bad != "" {
					t.Error(bad)
				}
			})
		})
	}
}

// TestTheHostOfTheFirstMemberIsLostHalfWay has what is advised then lead to the end.
func TestTheHostOfTheFirstMemberIsLostHalfWay(t *testing.T) {
	t.Parallel()
	c, dirs := elsewhere(t), baseDirs(t)
	lost := loseAll(t, testCluster(t), dirs[0])
	start, less := lost.onto(t, c), withoutHost(c, "cp-1")
	for _, at := range []sim.Cut{
		{Host: "cp-1", Name: "step restore-unpack-1", Nth: 1},
		{Host: "cp-1", Name: "step kubeadm-init-1", Nth: 1},
		{Host: "cp-8", Name: "step column-start-1", Nth: 1},
	} {
		t.Run(at.Name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				w.Slow, w.Stored = true, w.API.Clone() // else what the first try has written would be left
				cut := at
				cut.When, cut.Fault = sim.After, sim.Dies
				if _, err := restoreAll(t.Context(), w, c, dirs[0], lost.o, &cut, nil); err == nil || !w.Struck() {
					t.Fatalf("it was not killed: %v", err)
				}
				w.Back()
				w.Destroy("cp-1")
				var conflict *ConflictError
				if _, err := restoreAll(t.Context(), w, less, dirs[0], lost.o, nil, nil); !errors.As(err, &conflict) || !strings.Contains(conflict.Run, "ha-install reset with this inventory") {
					t.Fatalf("without its host: %v", err)
				}
				if err := reset(t.Context(), w, less, nil); err != nil {
					t.Fatalf("reset: %v", err)
				}
				if _, err := restoreAll(t.Context(), w, less, dirs[0], lost.o, nil, nil); err != nil {
					t.Fatalf("restore after it: %v", err)
				}
				if bad := lost.notRehoused(w, less); bad != "" {
					t.Error(bad)
				}
			})
		})
	}
}

// TestANoteOfARestoreThatWasGivenUpHarmsNoOtherCluster has a host of a first try,
// which broke off, join the inventory of the cluster that another try has made.
func TestANoteOfARestoreThatWasGivenUpHarmsNoOtherCluster(t *testing.T) {
	t.Parallel()
	c, dirs := elsewhere(t), baseDirs(t)
	lost := loseAll(t, testCluster(t), dirs[0])
	start := lost.onto(t, c)
	others := withoutHost(c, "cp-8")
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		only := onlyHost(t, c, "cp-8")
		cut := sim.Cut{Host: "cp-8", Name: "step kubeadm-init-1", Nth: 1, When: sim.After, Fault: sim.Dies}
		if _, err := restoreAll(t.Context(), w, only, dirs[0], lost.o, &cut, nil); err == nil || !w.Struck() {
			t.Fatalf("the first try was not killed: %v", err)
		}
		w.Back()
		left := w.Host("cp-8").Files[restoreFile]
		w.Wipe(c, "cp-8") // it is away while the other try comes to its end
		if _, err := restoreAll(t.Context(), w, others, dirs[0], lost.o, nil, nil); err != nil {
			t.Fatal(err)
		}
		w.Host("cp-8").Put(restoreFile, left.Mode, string(left.Content))
		w.Host("cp-8").Put(markerFile, 0o644, `{"cluster":"prod"}`)
		before := w.Snapshot(nil)
		for verb, run := range map[string]func() error{
			"apply":   func() error { _, err := applyAll(t.Context(), w, c, dirs[0], nil, nil); return err },
			"restore": func() error { _, err := restoreAll(t.Context(), w, c, dirs[0], lost.o, nil, nil); return err },
			"recover": func() error {
				_, err := recoverAll(t.Context(), w, c, dirs[0], w.Dial, RecoverOptions{}, nil, nil)
				return err
			},
		} {
			var conflict *ConflictError
			if err := run(); !errors.As(err, &conflict) || !strings.Contains(conflict.What, "a restore was begun on cp-8 and given up") || !strings.Contains(conflict.Run, "take cp-8 out of the inventory") {
				t.Errorf("%s: %v", verb, err)
			}
		}
		if after := w.Snapshot(nil); after != before {
			t.Errorf("hosts were changed:\n%s", after)
		}
		if tally, err := applyAll(t.Context(), w, others, dirs[0], nil, nil); err != nil || tally.Changed > 0 {
			t.Errorf("apply without it changed %d, error %v", tally.Changed, err)
		}
		if err := reset(t.Context(), w, only, nil); err != nil {
			t.Fatalf("the reset that is advised: %v", err)
		}
		if _, err := applyAll(t.Context(), w, c, dirs[0], nil, nil); err != nil {
			t.Fatalf("apply after that: %v", err)
		}
		if votes := w.Votes(); !slices.Equal(votes, []string{"cp-1 voter", "cp-7 voter", "cp-8 voter"}) || len(w.Broken()) > 0 {
			t.Errorf("%q, %q", votes, w.Broken())
		}
	})
}

// onlyHost is the inventory that the refusal of a note that is left advises: one
// master and no other host.
func onlyHost(t *testing.T, c *inventory.Cluster, name string) *inventory.Cluster {
	t.Helper()
	ih, _ := c.HostByName(name)
	only, problems, err := inventory.Parse("inventory.yaml", fmt.Appendf(nil, `apiVersion: ha-install.io/v1alpha1
kind: Cluster
metadata: {name: prod}
spec:
  kubernetes: {version: v1.36.3}
  endpoint: {host: %s}
  loadBalancer: {mode: masters}
  software: {bundle: bundle.tar}
  hosts:
    - {name: %s, role: control-plane, address: %s}
`, c.Spec.Endpoint.Host, name, ih.Address))
	if err != nil {
		t.Fatalf("%v %v", problems, err)
	}
	return only
}
