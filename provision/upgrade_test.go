package provision

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/kubeapi"
	"github.com/ha-install/ha-install/test/sim"
)

// teachUpgrades teaches hosts what an upgrade sends.
func teachUpgrades(w *sim.World) {
	w.Script(keepScript, func(h *sim.Host, args []string) ([]byte, error) { return nil, h.Copy(args[0], args[1]) })
	w.Script(olderScript, func(h *sim.Host, args []string) ([]byte, error) { return h.Older(args), nil })
	w.StepScript(upgradeScript, func(h *sim.Host, args []string) []func() error {
		return h.Exchange(args[0], args[1], args[5] == "restart")
	})
	w.StepScript(workerScript, func(h *sim.Host, args []string) []func() error {
		return h.ExchangeWorker(args[0], args[1] == "restart")
	})
	w.StepScript(configScript, func(h *sim.Host, args []string) []func() error {
		return []func() error{h.UploadKubelet, func() error { return h.InitToken(args[0]) }, func() error { return h.UploadConfig(args[0]) }}
	})
	w.StepScript(addonScript, func(h *sim.Host, args []string) []func() error {
		return []func() error{func() error { return h.Addon(args[0], args[1]) }}
	})
}

// ofOlder is the cluster in the version before.
func ofOlder(c *inventory.Cluster) *inventory.Cluster {
	older := *c
	older.Spec.Kubernetes.Version = olderVersion
	older.Spec.Software.Bundle = "older.tar"
	return &older
}

// backupsIn is a directory for the backups of a world.
func backupsIn(w *sim.World) BackupOptions { return BackupOptions{Directory: w.TempDir()} }

func upgradeAll(ctx context.Context, w *sim.World, c *inventory.Cluster, dir string, cut *sim.Cut) (phase.Tally, error) {
	ctx = w.Begin(ctx, cut)
	site := Connect(ctx, c, dir, w.Dial)
	defer site.Close()
	var run phase.Runner
	err := Upgrade(ctx, site, UpgradeOptions{Backup: backupsIn(w)}, nil, &run)
	return run.Tally(), err
}

func upgradeWith(ctx context.Context, w *sim.World, c *inventory.Cluster, dir string, o UpgradeOptions) error {
	ctx = w.Begin(ctx, nil)
	site := Connect(ctx, c, dir, w.Dial)
	defer site.Close()
	return Upgrade(ctx, site, o, nil, &phase.Runner{})
}

// comesThrough upgrades to the end.
func comesThrough(t *testing.T, w *sim.World, c *inventory.Cluster, dir string) {
	t.Helper()
	if _, err := upgradeAll(t.Context(), w, withoutCA(c), dir, nil); err != nil {
		t.Fatal(err)
	}
	if bad := append(w.Broken(), notUpgraded(w, c)...); len(bad) > 0 {
		t.Errorf("%q", bad)
	}
}

// upgrading is `ha-install upgrade` as a workflow.
func upgrading(name string, c *inventory.Cluster, start *sim.State, dirs [2]string) workflow {
	return workflow{
		name: name, c: c, start: start,
		run: func(ctx context.Context, w *sim.World, _ bool, cut *sim.Cut) error {
			_, err := upgradeAll(ctx, w, withoutCA(c), dirs[0], cut)
			return err
		},
		wrong: func(w *sim.World) string { return strings.Join(notUpgraded(w, c), "; ") },
	}
}

// notUpgraded says what is not of the wanted version.
func notUpgraded(w *sim.World, c *inventory.Cluster) []string {
	var wrong []string
	if text := unfinished(w, c); text != "" {
		wrong = append(wrong, text)
	}
	for _, ih := range c.Nodes() {
		h := w.Host(ih.Name)
		if api, kubelet := h.Runs(); kubelet != c.Spec.Kubernetes.Version || api != c.Spec.Kubernetes.Version && ih.Role == inventory.RoleControlPlane {
			wrong = append(wrong, ih.Name+" runs "+api+" and kubelet "+kubelet)
		}
		if v := h.PackageVersions["runc"]; v != wantedPackage {
			wrong = append(wrong, ih.Name+" has runc "+v)
		}
		for p := range h.Files {
			if strings.HasSuffix(p, ".ha-install") || strings.Contains(p, "/staged/") {
				wrong = append(wrong, ih.Name+" still has "+p)
			}
		}
	}
	for _, ih := range c.Balancers() {
		if v := w.Host(ih.Name).PackageVersions["haproxy"]; v != wantedPackage {
			wrong = append(wrong, ih.Name+" has haproxy "+v)
		}
	}
	return wrong
}

func TestUpgradeInTheSimulator(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, ofOlder(c), c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		tally, err := upgradeAll(t.Context(), w, withoutCA(c), dirs[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		if bad := append(w.Broken(), notUpgraded(w, c)...); len(bad) > 0 {
			t.Errorf("after %d changes: %q", tally.Changed, bad)
		}
		if tally, err = upgradeAll(t.Context(), w, withoutCA(c), dirs[0], nil); err != nil || tally.Changed > 0 {
			t.Errorf("a second upgrade changed %d, error %v", tally.Changed, err)
		}
		if tally, err = applyAll(t.Context(), w, withoutCA(c), dirs[0], nil, nil); err != nil || tally.Changed > 0 {
			t.Errorf("apply after it changed %d, error %v", tally.Changed, err)
		}
		kept := beforeUpgrade + "/" + wantedVersion + "/pki/ca.key"
		if _, ok := w.Host("cp-2").Files[kept]; !ok {
			t.Errorf("cp-2 has not kept %s", kept)
		}
		w.MayEnd = true
		if err := reset(t.Context(), w, c, nil); err != nil {
			t.Fatal(err)
		}
		if _, ok := w.Host("cp-2").Files[kept]; ok {
			t.Errorf("after a reset cp-2 still has %s: the next cluster's upgrade would not keep its own", kept)
		}
	})
}

func TestUpgradeStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	f := upgrading("upgrade", c, finished(t, ofOlder(c), c, dirs[0]), dirs)
	f.about = notTheLock
	f.everywhere(t)
}

func TestUpgradeOrder(t *testing.T) {
	t.Parallel()
	c := testCluster(t)
	seen := func(api, etcd, kubelet, cordoned string) nodeSeen {
		return nodeSeen{kubelet: kubelet, cordoned: cordoned, manifests: map[string]string{
			"kube-apiserver": api, "kube-controller-manager": api, "kube-scheduler": api, "etcd": etcd}}
	}
	const to, from = wantedVersion, olderVersion
	old, done := seen(from, "3.6.6-0", from, ""), seen(to, "3.6.8-0", to, "")
	noScheduler := seen(from, "3.6.6-0", from, "")
	delete(noScheduler.manifests, "kube-scheduler")
	tests := []struct {
		name   string
		nodes  [3]nodeSeen
		leader string
		want   string
	}{
		{"the leader last", [3]nodeSeen{old, old, old}, "cp-1", "cp-2 cp-3 cp-1"},
		{"nobody leads", [3]nodeSeen{old, old, old}, "", "cp-1 cp-2 cp-3"},
		{"one has arrived", [3]nodeSeen{done, old, old}, "cp-2", "cp-1 cp-3 cp-2"},
		{"only its manifests", [3]nodeSeen{old, seen(to, "3.6.8-0", from, ""), old}, "cp-3", "cp-2 cp-1 cp-3"},
		{"only its etcd's manifest: it goes in its turn", [3]nodeSeen{old, old, seen(from, "3.6.8-0", from, "")}, "cp-1", "cp-2 cp-3 cp-1"},
		{"only its kubelet, and it leads", [3]nodeSeen{old, old, seen(from, "3.6.6-0", to, "")}, "cp-3", "cp-3 cp-1 cp-2"},
		{"only drained", [3]nodeSeen{old, seen(from, "3.6.6-0", from, cordoner), old}, "cp-2", "cp-2 cp-1 cp-3"},
		{"arrived, and not uncordoned", [3]nodeSeen{old, seen(to, "3.6.8-0", to, cordoner), old}, "cp-1", "cp-2 cp-3 cp-1"},
		{"a manifest is missing", [3]nodeSeen{old, old, noScheduler}, "cp-1", "cp-3 cp-2 cp-1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			nodes := map[string]nodeSeen{}
			for i, ih := range c.ControlPlanes() {
				nodes[ih.Name] = tt.nodes[i]
			}
			if got := strings.Join(namesOf(upgradeOrder(c, nodes, tt.leader)), " "); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestUpgradeRefuses(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	older := ofOlder(c)
	start := finished(t, older, c, dirs[0])
	edit := func(from, to string) func(*sim.World) {
		return func(w *sim.World) {
			cm := w.API.Get("configmaps", "kube-system", configMap)
			data := cm["data"].(map[string]any)
			text := data[configMapKey].(string)
			if !strings.Contains(text, from) {
				t.Fatalf("kubeadm-config has no %q:\n%s", from, text)
			}
			data[configMapKey] = strings.Replace(text, from, to, 1)
			w.API.Set("configmaps", "kube-system", configMap, cm)
		}
	}
	kubelet := func(node, version string) func(*sim.World) {
		return func(w *sim.World) {
			n := w.API.Get("nodes", "", node)
			n["status"].(map[string]any)["nodeInfo"] = map[string]any{"kubeletVersion": version}
			w.API.Set("nodes", "", node, n)
		}
	}
	trial := *older
	trial.Spec.Hosts = older.Spec.Hosts[:3]
	tests := []struct {
		name    string
		c       *inventory.Cluster
		prepare func(*sim.World)
		want    []string
	}{
		{"an argument that an operator added", c, edit("- name: profiling\n", "- name: event-ttl\n    value: 2h\n  - name: profiling\n"), []string{"kubeadm-config in the cluster", "event-ttl", "--accept-config"}},
		{"a setting of kube-proxy and one of kubelets", c, func(w *sim.World) {
			w.API.Set("configmaps", "kube-system", "kube-proxy", corev1.ConfigMap{Data: map[string]string{"config.conf": "mode: ipvs\nbindAddress: 0.0.0.0\n"}})
			w.API.Set("configmaps", "kube-system", "kubelet-config", corev1.ConfigMap{Data: map[string]string{"kubelet": "maxPods: 250\n"}})
		}, []string{"kube-proxy: mode: ipvs, will be unset", "kubelet-config: maxPods: 250", "--accept-config"}},
		{"another network", c, edit("podSubnet: 10.244.0.0/16", "podSubnet: 10.9.0.0/16"), []string{"podCIDR", "10.9.0.0/16"}},
		{"a kubelet that is too old", c, kubelet("w-1", "v1.32.1"), []string{"w-1", "v1.32.1"}},
		{"a kubelet that would go back", c, kubelet("w-1", "v1.37.0"), []string{"w-1", "v1.37.0"}},
		{"one master", &trial, nil, []string{"three masters", "has 1"}},
		{"a pod that nobody would bring back", c, func(w *sim.World) {
			w.API.Set("pods", "shop", "alone", corev1.Pod{Spec: corev1.PodSpec{NodeName: "w-1"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}})
		}, []string{"w-1", "shop/alone", "no controller"}},
		{"a broken member", c, func(w *sim.World) { w.Host("cp-2").Down = true }, []string{"cp-2"}},
		{"fault 12: an etcd of before a restore came back on a master", c, func(w *sim.World) { w.Host("cp-2").Haunt() }, []string{"cp-2", "healthy 2"}},
		{"the same master, cordoned by an upgrade that stopped before it changed it", c, func(w *sim.World) {
			w.Host("cp-2").Haunt()
			node := w.API.Get("nodes", "", "cp-2")
			node["spec"] = kubeapi.Object{"unschedulable": true}
			node["metadata"].(kubeapi.Object)["annotations"] = kubeapi.Object{kube.CordonedBy: "upgrade"}
			w.API.Set("nodes", "", "cp-2", node)
		}, []string{"cp-2", "healthy 2"}},
		{"fault 25: a member's data are not those of the others", c, func(w *sim.World) { w.Corrupt("cp-3") }, []string{"cp-3", "CORRUPT"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				w.Slow = true
				if tt.prepare != nil {
					tt.prepare(w)
				}
				before := w.Snapshot(nil)
				tally, err := upgradeAll(t.Context(), w, withoutCA(tt.c), dirs[0], nil)
				if err == nil {
					t.Fatalf("not refused; %d changes", tally.Changed)
				}
				for _, text := range tt.want {
					if !strings.Contains(err.Error(), text) {
						t.Errorf("%q does not say %q", err, text)
					}
				}
				if after := w.Snapshot(nil); after != before {
					t.Errorf("something was changed before it was refused:\n%s", cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")))
				}
			})
		})
	}
}

// TestPlanOfAnUpgradeIsWhatItDoes plans and upgrades from the beginning and
// from states that a killed upgrade leaves.
func TestPlanOfAnUpgradeIsWhatItDoes(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	f := upgrading("upgrade", c, finished(t, ofOlder(c), c, dirs[0]), dirs)
	f.about = notTheLock
	_, _, points := f.undisturbed(t)
	n := min(len(points), fewPoints*tries())
	for i := range n {
		p := points[i*len(points)/n]
		if p.state.Steps() > 0 {
			continue // an upgrade waits for these, and finds another state than a plan that does not
		}
		bubble(t, func(t *testing.T) {
			w := f.world(t, p.state)
			plan, err := planBy(t.Context(), t, w, withoutCA(c), dirs[0], func(ctx context.Context, site *Site) (Plan, error) {
				return PlanUpgrade(ctx, site, UpgradeOptions{Backup: backupsIn(w)}, nil)
			})
			if err != nil {
				t.Fatalf("%s: %v", p.story, err)
			}
			if n := plan.Count(phase.NotKnown); n > 0 {
				t.Errorf("%s: all is known before an upgrade; not so: %q", p.story, inState(plan, phase.NotKnown))
			}
			ctx := w.Begin(t.Context(), nil)
			site := Connect(ctx, withoutCA(c), dirs[0], w.Dial)
			defer site.Close()
			var changed []string
			run := &phase.Runner{Events: func(e phase.Event) {
				if e.Kind == phase.Finished {
					changed = append(changed, phase.Phase{Name: e.Phase, Host: e.Host}.ID())
				}
			}}
			if err := Upgrade(ctx, site, UpgradeOptions{Backup: backupsIn(w)}, &plan, run); err != nil {
				t.Fatalf("%s: %v", p.story, err)
			}
			compareWith(t, p.story, plan, changed)
		})
	}
}
