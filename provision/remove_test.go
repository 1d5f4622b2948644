package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/sim"
)

// removeHost is `ha-install remove --force`; cut may be nil.
func removeHost(ctx context.Context, w *sim.World, c *inventory.Cluster, o RemoveOptions, cut *sim.Cut) (phase.Tally, error) {
	w.MayLeave = o.Host
	ctx = w.Begin(ctx, cut)
	site := Connect(ctx, c, "", w.Dial)
	defer site.Close()
	var run phase.Runner
	o.Backup = backupsIn(w)
	err := Remove(ctx, site, o, nil, &run)
	return run.Tally(), err
}

// removing is `ha-install remove` as a workflow; an apply with the host still in
// the inventory has to join it again.
func removing(name, host string, c *inventory.Cluster, start *sim.State, dirs [2]string) workflow {
	return workflow{
		name: name, c: c, start: start,
		run: func(ctx context.Context, w *sim.World, _ bool, cut *sim.Cut) error {
			_, err := removeHost(ctx, w, withoutCA(c), RemoveOptions{Host: host, Force: true}, cut)
			return err
		},
		wrong: func(w *sim.World) string { return strings.Join(notRemoved(w, c, host), "; ") },
		then: func(ctx context.Context, w *sim.World) error {
			if _, err := applyAll(ctx, w, withoutCA(c), dirs[0], nil, nil); err != nil {
				return fmt.Errorf("apply with %s still in the inventory: %w", host, err)
			}
			if bad := append(w.Broken(), joined(w, c)); strings.Join(bad, "") != "" {
				return fmt.Errorf("apply with %s still in the inventory: %q", host, bad)
			}
			return nil
		},
	}
}

// lessHost is the inventory without one of its hosts.
func lessHost(c *inventory.Cluster, name string) *inventory.Cluster {
	less := *c
	less.Spec.Hosts = slices.DeleteFunc(slices.Clone(c.Spec.Hosts), func(h inventory.Host) bool { return h.Name == name })
	return &less
}

// notRemoved says what is left of a host in the cluster, and of the cluster on
// the host, and what was not kept of it.
func notRemoved(w *sim.World, c *inventory.Cluster, name string) []string {
	var wrong []string
	ih, _ := c.HostByName(name)
	h := w.Host(name)
	if text := unfinished(w, lessHost(c, name)); text != "" {
		wrong = append(wrong, text)
	}
	if slices.Contains(w.API.Names("nodes"), "/"+name) {
		wrong = append(wrong, "its Node is there")
	}
	for _, pod := range w.API.Names("pods") {
		if strings.HasSuffix(pod, "-"+name) && strings.HasPrefix(pod, "kube-system/") {
			wrong = append(wrong, pod+" is there")
		}
	}
	for _, unit := range []string{"kubelet.service", "keepalived.service"} {
		if u := h.Units[unit]; u != nil && (u.Active || u.Enabled) {
			wrong = append(wrong, "it still has "+unit)
		}
	}
	for _, p := range []string{kube.KubeletConf, kube.AdminConf, etcdManifest, etcdMember + "/id"} {
		if _, there := h.Files[p]; there {
			wrong = append(wrong, "it still has "+p)
		}
	}
	if text := string(h.Files[markerFile].Content); !strings.Contains(text, `"removed":"from cluster prod, `) {
		wrong = append(wrong, "its marker says "+text)
	}
	if ih.Role != inventory.RoleControlPlane {
		return wrong
	}
	if !slices.Contains(h.Aside, kube.EtcdDir) || !slices.Contains(h.Aside, "/etc/kubernetes") {
		wrong = append(wrong, fmt.Sprintf("moved aside: %q", h.Aside))
	}
	for _, lb := range lessHost(c, name).Balancers() {
		for _, p := range []string{templates.HAProxyConfigPath, templates.KeepalivedPath} {
			if strings.Contains(string(w.Host(lb.Name).Files[p].Content), ih.InternalAddress) {
				wrong = append(wrong, lb.Name+" still has its address in "+p)
			}
		}
	}
	cm := w.API.Get("configmaps", "kube-system", configMap)
	if text, _ := cm["data"].(map[string]any)[configMapKey].(string); strings.Contains(text, ih.InternalAddress) || !strings.Contains(text, "certSANs") {
		wrong = append(wrong, "kubeadm-config has its address:\n"+text)
	}
	return wrong
}

// joined is unfinished for a cluster whose members joined in another order than
// the inventory has them, with the Node of every host.
func joined(w *sim.World, c *inventory.Cluster) string {
	text := unfinished(w, c)
	for _, ih := range c.Nodes() {
		if !slices.Contains(w.API.Names("nodes"), "/"+ih.Name) {
			text += "; no Node " + ih.Name
		}
	}
	return text
}

func TestRemoveStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	for _, host := range []string{"cp-1", "w-1"} {
		t.Run(host, func(t *testing.T) {
			f := removing("remove "+host, host, c, start, dirs)
			f.about = notTheLock
			f.everywhere(t)
		})
	}
}

func TestRemoveOfAMasterThatBalancesStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := onMasters(testCluster(t)), baseDirs(t)
	f := removing("remove of a master that balances", "cp-1", c, finished(t, c, c, dirs[0]), dirs)
	f.about = ofTheBalancer
	f.everywhere(t)
}

func TestRemoveChangesNothingASecondTime(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		if _, err := removeHost(t.Context(), w, withoutCA(c), RemoveOptions{Host: "cp-2", Force: true}, nil); err != nil {
			t.Fatal(err)
		}
		before := w.Snapshot(nil)
		tally, err := removeHost(t.Context(), w, withoutCA(c), RemoveOptions{Host: "cp-2"}, nil)
		if err != nil || tally.Changed > 0 {
			t.Errorf("a second remove changed %d, error %v", tally.Changed, err)
		}
		if diff := cmp.Diff(before, w.Snapshot(nil)); diff != "" {
			t.Errorf("a second remove (-before +after):\n%s", diff)
		}
		var told []string
		say := func(e phase.Event) {
			if e.Kind == phase.Notice && strings.Contains(e.Message, "taken out") {
				told = append(told, e.Message)
			}
		}
		if _, err := applyAll(t.Context(), w, withoutCA(lessHost(c, "cp-2")), dirs[0], nil, say); err != nil || len(told) > 0 {
			t.Errorf("apply without its lines: error %v, told %q", err, told)
		}
		if _, err := applyAll(t.Context(), w, withoutCA(c), dirs[0], nil, say); err != nil || len(told) != 1 || !strings.HasPrefix(told[0], "cp-2 was taken out") {
			t.Errorf("apply with its lines: error %v, told %q", err, told)
		}
		if text := joined(w, c); text != "" || len(w.Broken()) > 0 {
			t.Error(text, w.Broken())
		}
	})
}

func TestRemoveRefuses(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	rows := []struct {
		name    string
		host    string
		force   bool
		prepare func(*sim.World)
		want    []string
	}{
		{"a cluster that could lose none after", "cp-3", false, nil, []string{"can lose 1 now, and none afterwards", "after it: voters 2, quorum 2, healthy 2, can lose 0", "--force"}},
		{"a live one while another is dead", "cp-3", true, func(w *sim.World) { w.Host("cp-1").Mute = true }, []string{"1 of 2 voters would be healthy, 2 are needed"}},
		{"a balancer", "lb-1", true, nil, []string{"lb-1 is a balancer"}},
		{"nobody", "cp-9", true, nil, []string{"no host cp-9"}},
		{"no quorum", "cp-3", true, func(w *sim.World) { w.Host("cp-1").Mute, w.Host("cp-2").Mute = true, true }, []string{"no quorum"}},
		{"an unknown host on the network", "w-1", true, func(w *sim.World) { w.AddGhost("198.51.100.99") }, []string{"ghost voter"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				w.Slow = true
				if row.prepare != nil {
					w.MayEnd = true // it is the test's doing
					row.prepare(w)
				}
				before := w.Snapshot(nil)
				_, err := removeHost(t.Context(), w, withoutCA(c), RemoveOptions{Host: row.host, Force: row.force}, nil)
				if err == nil {
					t.Fatal("not refused")
				}
				for _, text := range row.want {
					if !strings.Contains(err.Error(), text) {
						t.Errorf("%q does not say %q", err, text)
					}
				}
				if diff := cmp.Diff(before, w.Snapshot(nil)); diff != "" {
					t.Errorf("something was changed before it was refused:\n%s", diff)
				}
			})
		})
	}
}

func TestRemoveOfTheLastMaster(t *testing.T) {
	t.Parallel()
	c := testCluster(t)
	one := lessHost(lessHost(c, "cp-2"), "cp-3")
	var conflict *ConflictError
	if _, err := removable(one, "cp-1"); !errors.As(err, &conflict) || !strings.Contains(err.Error(), "last master") {
		t.Errorf("error %v", err)
	}
}

// TestSpareAfter: a removal that leaves no spare vote is the operator's decision.
func TestSpareAfter(t *testing.T) {
	t.Parallel()
	rows := []struct {
		says                  string
		before, after         int
		force, wantsToBeAsked bool
	}{
		{"5 of 5 become 4: one can be lost still", 2, 1, false, false},
		{"4 become 3", 1, 1, false, false},
		{"3 become 2: none can be lost any more", 1, 0, false, true},
		{"3 become 2, and that is accepted", 1, 0, true, false},
		{"2 become 1: none could be lost before", 0, 0, false, false},
	}
	for _, row := range rows {
		d := etcd.Decision{Before: etcd.Numbers{CanLose: row.before}, After: etcd.Numbers{CanLose: row.after}}
		if err := spareAfter(etcd.Verdict{}, d, row.force); (err != nil) != row.wantsToBeAsked {
			t.Errorf("%s: %v", row.says, err)
		}
	}
}

// TestPlanOfARemovalIsWhatItDoes plans and removes from the beginning and from
// states that a killed removal leaves.
func TestPlanOfARemovalIsWhatItDoes(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	f := removing("remove", "cp-1", c, finished(t, c, c, dirs[0]), dirs)
	f.about = notTheLock
	_, _, points := f.undisturbed(t)
	n := min(len(points), fewPoints*tries())
	for i := range n {
		p := points[i*len(points)/n]
		if p.state.Steps() > 0 {
			continue
		}
		bubble(t, func(t *testing.T) {
			w := f.world(t, p.state)
			o := RemoveOptions{Host: "cp-1", Force: true, Backup: backupsIn(w)}
			plan, err := planBy(t.Context(), t, w, withoutCA(c), dirs[0], func(ctx context.Context, site *Site) (Plan, error) {
				return PlanRemove(ctx, site, o, nil)
			})
			if err != nil {
				t.Fatalf("%s: %v", p.story, err)
			}
			w.MayLeave = "cp-1"
			ctx := w.Begin(t.Context(), nil)
			site := Connect(ctx, withoutCA(c), dirs[0], w.Dial)
			defer site.Close()
			var changed []string
			run := &phase.Runner{Events: func(e phase.Event) {
				if e.Kind == phase.Finished {
					changed = append(changed, phase.Phase{Name: e.Phase, Host: e.Host}.ID())
				}
			}}
			if err := Remove(ctx, site, o, &plan, run); err != nil {
				t.Fatalf("%s: %v", p.story, err)
			}
			compareWith(t, p.story, plan, changed)
		})
	}
}

// TestRemoveLeavesTheVIPAHolder: keepalived is off on all masters that would stay.
func TestRemoveLeavesTheVIPAHolder(t *testing.T) {
	t.Parallel()
	c, dirs := onMasters(testCluster(t)), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		holds := func(ih inventory.Host) bool { return w.Host(ih.Name).HoldsVIP() }
		masters := c.ControlPlanes()
		holder := masters[slices.IndexFunc(masters, holds)]
		for _, ih := range masters {
			if ih.Name != holder.Name {
				w.Host(ih.Name).Units["keepalived.service"].Active = false
			}
		}
		_, err := removeHost(t.Context(), w, withoutCA(c), RemoveOptions{Host: holder.Name, Force: true}, nil)
		if bad := w.Broken(); err == nil || !strings.Contains(err.Error(), "keepalived") || len(bad) > 0 || !holds(holder) {
			t.Errorf("error %v; %s holds the VIP: %v; %q", err, holder.Name, holds(holder), bad)
		}
	})
}

func TestRemoveTakesTheNoteOfARestore(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, from := backedUpCluster(t, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		if _, err := restoreAll(t.Context(), w, c, dirs[0], RestoreOptions{From: from}, nil, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := removeHost(t.Context(), w, withoutCA(c), RemoveOptions{Host: "cp-3", Force: true}, nil); err != nil {
			t.Fatal(err)
		}
		if note, left := w.Host("cp-3").Files[restoreFile]; left {
			t.Errorf("cp-3 was taken out, and still has %s", note.Content)
		}
	})
}
