package provision

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/phase"
)

// only is the cluster with the named hosts alone.
func only(c *inventory.Cluster, names ...string) *inventory.Cluster {
	small := *c
	small.Spec.Hosts = slices.DeleteFunc(slices.Clone(c.Spec.Hosts), func(h inventory.Host) bool { return !slices.Contains(names, h.Name) })
	return &small
}

func TestPlanOfAChangeIsWhatApplyDoes(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	small := only(c, "lb-1", "lb-2", "cp-1", "cp-2")
	if _, err := changing(t.Context(), w, small, dirs[0]); err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name   string
		change func() *inventory.Cluster
		want   []string // among what would change
		not    []string // no step of these hosts would
	}{
		{"a master and a worker more", func() *inventory.Cluster { return c }, []string{"cp-3: join", "w-1: join", "lb-1: balancer", "lb-2: balancer", "data-path"}, nil},
		{"another label", func() *inventory.Cluster {
			c.Spec.Hosts[5].Labels = map[string]string{"disk": "fast"}
			return c
		}, []string{"w-1: labels"}, []string{"lb-1", "lb-2", "cp-1", "cp-2", "cp-3"}},
		{"another virtual router", func() *inventory.Cluster { c.Spec.LoadBalancer.VirtualRouterID = 77; return c },
			[]string{"lb-1: balancer", "lb-2: balancer"}, []string{"cp-1", "cp-2", "cp-3", "w-1"}},
		{"another setting of containerd", func() *inventory.Cluster {
			c.Spec.Containerd = map[string]any{"debug": map[string]any{"level": "info"}}
			return c
		}, []string{"cp-1: configure", "cp-2: configure", "cp-3: configure", "w-1: configure"}, []string{"lb-1", "lb-2"}},
	}
	for _, row := range rows {
		plan := comparePlan(t.Context(), t, row.name, w, row.change(), dirs[0])
		would := inState(plan, phase.ToChange)
		for _, id := range row.want {
			if !slices.Contains(would, id) {
				t.Errorf("%s: %s is not among what would change: %q", row.name, id, would)
			}
		}
		for _, id := range would {
			if host, _, ok := strings.Cut(id, ": "); ok && slices.Contains(row.not, host) {
				t.Errorf("%s: %s would change", row.name, id)
			}
		}
	}
}

// TestPlanThatDoesNotHoldIsNotApplied: state and inventory move on between a
// plan and its apply.
func TestPlanThatDoesNotHoldIsNotApplied(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	plan, err := planOf(t.Context(), t, w, c, dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	tryPlan := func(c *inventory.Cluster) error {
		ctx := w.Begin(t.Context(), nil)
		site := Connect(ctx, c, dirs[0], w.Dial)
		defer site.Close()
		return ApplyPlan(ctx, site, &plan, &phase.Runner{})
	}
	refused := func(what string, c *inventory.Cluster, texts ...string) {
		t.Helper()
		before := withoutLock(w.Snapshot(nil))
		err := tryPlan(c)
		var moved *MovedError
		if !errors.As(err, &moved) {
			t.Fatalf("%s: error %v", what, err)
		}
		for _, text := range texts {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %q is not in:\n%v", what, text, err)
			}
		}
		if diff := cmp.Diff(before, withoutLock(w.Snapshot(nil))); diff != "" {
			t.Errorf("%s: hosts were changed (-before +after):\n%s", what, diff)
		}
	}
	other := *c
	other.Spec.LoadBalancer.VirtualRouterID = 77
	refused("another inventory", &other, "spec.loadBalancer.virtualRouterID has changed", "lb-1: balancer: another change of /etc/keepalived/keepalived.conf")
	refused("a host less", only(c, "lb-1", "lb-2", "cp-1", "cp-2", "cp-3"), "spec.hosts[w-1] was taken away")
	w.Host("cp-2").Packages["runc"] = "installed"
	refused("another state", c, "cp-2: software: another change of iptables")
	delete(w.Host("cp-2").Packages, "runc")
	if err := tryPlan(c); err != nil {
		t.Fatal(err)
	}
	refused("it was applied already", c, "cp-1: claim: to change then, done now", " more")
}

// withoutLock leaves out what the lock and the journal write on hosts.
func withoutLock(snapshot string) string {
	var kept []string
	for line := range strings.Lines(snapshot) {
		if !strings.Contains(line, " file /var/lib/ha-install/") || strings.Contains(line, markerFile) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func TestMoved(t *testing.T) {
	step := func(name, host string, s phase.State, changes ...phase.Change) phase.PlannedStep {
		return phase.PlannedStep{Phase: name, Host: host, State: s, Changes: changes}
	}
	file := func(name, diff string) phase.Change { return phase.Change{Kind: changeFile, Name: name, Diff: diff} }
	base := func() Plan {
		return Plan{Cluster: "prod", Inputs: map[string]string{"spec.endpoint.port": "1", "spec.hosts[cp-1].name": "2", "spec.hosts[cp-1].address": "3"},
			Plan: phase.Plan{Steps: []phase.PlannedStep{step("claim", "cp-1", phase.ToChange, file("/a", "+1"), file("/b", "+1")), step("verify", "", phase.Proof)}}}
	}
	rows := []struct {
		name string
		now  func(p *Plan)
		want []string
	}{
		{"nothing has moved", func(*Plan) {}, nil},
		{"another cluster", func(p *Plan) { p.Cluster = "test" }, []string{"the plan is of cluster prod, the inventory is of test"}},
		{"a field has changed", func(p *Plan) { p.Inputs["spec.endpoint.port"] = "9" }, []string{"spec.endpoint.port has changed"}},
		{"a field was added", func(p *Plan) { p.Inputs["spec.pki.directory"] = "9" }, []string{"spec.pki.directory was added"}},
		{"a host was added: one line", func(p *Plan) { p.Inputs["spec.hosts[w-1].name"], p.Inputs["spec.hosts[w-1].role"] = "4", "5" }, []string{"spec.hosts[w-1] was added"}},
		{"a host was taken away: one line", func(p *Plan) {
			maps.DeleteFunc(p.Inputs, func(k, _ string) bool { return strings.HasPrefix(k, "spec.hosts") })
		}, []string{"spec.hosts[cp-1] was taken away"}},
		{"a field of a host was added", func(p *Plan) { p.Inputs["spec.hosts[cp-1].labels.x"] = "1" }, []string{"spec.hosts[cp-1].labels.x was added"}},
		{"a step is done now", func(p *Plan) { p.Steps[0].State = phase.AlreadyDone }, []string{"cp-1: claim: to change then, done now"}},
		{"a step has come", func(p *Plan) { p.Steps = append(p.Steps, step("claim", "w-1", phase.ToChange)) }, []string{"w-1: claim: no step then, to change now"}},
		{"a step has gone", func(p *Plan) { p.Steps = p.Steps[:1] }, []string{"verify: a gate then, no step now"}},
		{"a change is another one", func(p *Plan) { p.Steps[0].Changes[1].Diff = "+2" }, []string{"cp-1: claim: another change of /b"}},
		{"a change less", func(p *Plan) { p.Steps[0].Changes = p.Steps[0].Changes[:1] }, []string{"cp-1: claim: another change of /b"}},
		{"the second of two steps of one name", func(p *Plan) { p.Steps = append(p.Steps, p.Steps[0]) }, []string{"cp-1: claim (2): no step then, to change now"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			then, now := base(), base()
			row.now(&now)
			for _, p := range []*Plan{&then, &now} {
				var err error
				if p.Digest, err = p.digest(); err != nil {
					t.Fatal(err)
				}
			}
			err := then.Moved(now)
			var moved *MovedError
			if len(row.want) == 0 {
				if err != nil {
					t.Errorf("error %v", err)
				}
				return
			}
			if !errors.As(err, &moved) {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(row.want, moved.Differ); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
