package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/haproxy"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/kubeapi"
	"github.com/ha-install/ha-install/test/sim"
)

// running is a world in which apply has come to its end.
func running(t *testing.T, w *sim.World, c *inventory.Cluster, dir string) {
	t.Helper()
	if _, err := applyAll(context.Background(), w, c, dir, nil, nil); err != nil {
		t.Fatal(err)
	}
}

func TestApplyJoinsWhatIsAddedToTheInventory(t *testing.T) {
	t.Parallel()
	three, dirs := testCluster(t), baseDirs(t)
	five := testCluster(t)
	for i, role := range []inventory.Role{inventory.RoleControlPlane, inventory.RoleControlPlane, inventory.RoleWorker} {
		name := []string{"cp-4", "cp-5", "w-2"}[i]
		address := fmt.Sprintf("198.51.100.%d", 40+i)
		five.Spec.Hosts = append(five.Spec.Hosts, inventory.Host{Name: name, Address: address, InternalAddress: address, Role: role})
	}
	w := newWorld(t, five)
	running(t, w, three, dirs[0])
	ca := fingerprintOn(w.Host("cp-1"))
	running(t, w, withoutCA(five), dirs[1])
	want := []string{"cp-1 voter", "cp-2 voter", "cp-3 voter", "cp-4 voter", "cp-5 voter"}
	if diff := cmp.Diff(want, w.Votes()); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	for _, name := range []string{"cp-4", "cp-5"} {
		if fingerprintOn(w.Host(name)) != ca {
			t.Errorf("%s does not have the cluster's CA set", name)
		}
	}
	if nodes := w.API.Names("nodes"); !slices.Contains(nodes, "/w-2") {
		t.Errorf("nodes: %q", nodes)
	}
	if bad := append(w.Broken(), w.Lost()...); len(bad) > 0 {
		t.Errorf("%q", bad)
	}
}

// TestApplyRefuses has a cluster in trouble: apply must say so, and must not
// touch the members or anybody's data.
func TestApplyRefuses(t *testing.T) {
	rows := []struct {
		name   string
		change func(*sim.World, *inventory.Cluster)
		wait   time.Duration // how long apply may wait for better times
		want   string
	}{
		{"a ghost voter", func(w *sim.World, _ *inventory.Cluster) { w.AddGhost("198.51.100.99") }, 20 * time.Second, "ghost voter"},
		{"a voter that lost its data", func(w *sim.World, _ *inventory.Cluster) {
			delete(w.Host("cp-3").Files, etcdMember+"/id")
			w.Host("cp-3").Units["kubelet.service"].Active = false
		}, 3 * time.Second, ""},
		{"a master that was set up anew", func(w *sim.World, c *inventory.Cluster) { w.Wipe(c, "cp-2") }, 3 * time.Second, ""},
		{"the first master was set up anew", func(w *sim.World, c *inventory.Cluster) { w.Wipe(c, "cp-1") }, 3 * time.Second, ""},
		{"all kubelets are stopped", func(w *sim.World, c *inventory.Cluster) {
			for _, ih := range c.ControlPlanes() {
				w.Host(ih.Name).Units["kubelet.service"].Active = false
			}
		}, 3 * time.Second, "there is no quorum"},
		{"two of three kubelets are stopped", func(w *sim.World, _ *inventory.Cluster) {
			w.Host("cp-1").Units["kubelet.service"].Active = false
			w.Host("cp-2").Units["kubelet.service"].Active = false
		}, 3 * time.Second, "there is no quorum"},
		{"one kubelet is stopped", func(w *sim.World, _ *inventory.Cluster) { w.Host("cp-3").Units["kubelet.service"].Active = false }, 3 * time.Second, ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c, dirs := testCluster(t), baseDirs(t)
			w := newWorld(t, c)
			running(t, w, c, dirs[0])
			row.change(w, c)
			before, data := w.Votes(), dataOf(w, c)
			ctx, cancel := context.WithTimeout(context.Background(), row.wait)
			defer cancel()
			_, err := applyAll(ctx, w, withoutCA(c), dirs[1], nil, nil)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, wanted %q", err, row.want)
			}
			if diff := cmp.Diff(before, w.Votes()); diff != "" {
				t.Errorf("the members changed (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff(data, dataOf(w, c)); diff != "" {
				t.Errorf("somebody's data changed (-before +after):\n%s", diff)
			}
			if bad := append(w.Broken(), w.Lost()...); len(bad) > 0 {
				t.Errorf("%q", bad)
			}
		})
	}
}

// dataOf is etcd's data and the CA sets, by host.
func dataOf(w *sim.World, c *inventory.Cluster) map[string]string {
	all := map[string]string{}
	for _, ih := range c.ControlPlanes() {
		h := w.Host(ih.Name)
		if set := fingerprintOn(h); set != "" {
			all[ih.Name+" CA"] = set
		}
		for p, f := range h.Files {
			if strings.HasPrefix(p, etcdMember) {
				all[ih.Name+" "+p] = string(f.Content)
			}
		}
	}
	if len(all) == 0 {
		return all
	}
	for name := range all { // a bare master gets the cluster's CA set: that is no loss
		if strings.HasSuffix(name, " CA") {
			all["CA"] = all[name]
			delete(all, name)
		}
	}
	return all
}

func TestJoinThatFailsTakesItsLearnerBack(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	w.Host("cp-2").StepFails = stepStart + "-1"
	_, err := applyAll(context.Background(), w, c, dirs[0], nil, nil)
	var step *kube.StepError
	if !errors.As(err, &step) || step.Host != "cp-2" || !slices.Equal(step.Tail, []string{"it broke"}) {
		t.Errorf("error %v", err)
	}
	if votes := w.Votes(); !slices.Equal(votes, []string{"cp-1 voter"}) {
		t.Errorf("members %q: a learner is left", votes)
	}
	if !slices.Contains(w.Host("cp-2").Aside, kube.EtcdDir) {
		t.Errorf("moved aside on cp-2: %q", w.Host("cp-2").Aside)
	}
	running(t, w, withoutCA(c), dirs[1])
	if votes := w.Votes(); len(votes) != 3 || votes[1] != "cp-2 voter" {
		t.Errorf("members %q", votes)
	}
	if bad := append(w.Broken(), w.Lost()...); len(bad) > 0 {
		t.Errorf("%q", bad)
	}
}

// Fault 22: the kubelet of a joiner never starts.
func TestKubeletThatNeverStartsCostsOnlyItsOwnJoin(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	w.Host("cp-3").KubeletDies = 7
	_, err := applyAll(context.Background(), w, c, dirs[0], nil, nil)
	var dead *kube.KubeletError
	if !errors.As(err, &dead) || dead.Host != "cp-3" || dead.Deaths != 7 {
		t.Errorf("error %v", err)
	}
	if votes := w.Votes(); !slices.Equal(votes, []string{"cp-1 voter", "cp-2 voter"}) {
		t.Errorf("members %q: want the voters of before and no learner", votes)
	}
	w.Host("cp-3").KubeletDies = 0
	running(t, w, withoutCA(c), dirs[1])
	if votes := w.Votes(); len(votes) != 3 || votes[2] != "cp-3 voter" {
		t.Errorf("members %q", votes)
	}
	if bad := append(w.Broken(), w.Lost()...); len(bad) > 0 {
		t.Errorf("%q", bad)
	}
}

// Fault 20: nobody is left to approve a newcomer.
func TestNobodyJoinsWhileAComponentIsDeadEverywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	more := testCluster(t)
	more.Spec.Hosts = append(more.Spec.Hosts, inventory.Host{Name: "w-2", Address: "198.51.100.42", InternalAddress: "198.51.100.42", Role: inventory.RoleWorker})
	w := newWorld(t, more)
	running(t, w, c, dirs[0])
	lease := func(renewed string) {
		w.API.Set("leases", "kube-system", "kube-scheduler", kubeapi.Object{"spec": kubeapi.Object{"holderIdentity": "cp-1_x", "renewTime": renewed}})
	}
	lease("2020-01-01T00:00:00.000000Z")
	before := len(w.Host("w-2").Files)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := applyAll(ctx, w, withoutCA(more), dirs[1], nil, func(e phase.Event) {
		if e.Kind == phase.Waiting && strings.Contains(e.Message, "kube-scheduler: last leader cp-1") {
			cancel() // no need to sit out the whole takeover
		}
	})
	var unled *UnledError
	if !errors.As(err, &unled) || !strings.Contains(err.Error(), "kube-scheduler: last leader cp-1") {
		t.Errorf("error %v", err)
	}
	if now := len(w.Host("w-2").Files); now != before {
		t.Errorf("w-2 had %d files, now %d: want it untouched", before, now)
	}
	lease("2999-01-01T00:00:00.000000Z")
	running(t, w, withoutCA(more), dirs[1])
}

// TestLedByTheClockOfAnother: a lease that is renewed while we look is held,
// however late this machine's clock makes it look.
func TestLedByTheClockOfAnother(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		a := &apply{Site: Connect(w.Begin(t.Context(), nil), withoutCA(c), dirs[0], w.Dial)}
		defer a.Close()
		renew := func(components ...string) {
			for _, component := range components {
				w.API.Set("leases", "kube-system", component, map[string]any{"spec": map[string]any{
					"holderIdentity": "cp-2_x", "renewTime": time.Now().Add(-time.Hour).UTC().Format("2006-01-02T15:04:05.000000Z07:00")}})
			}
		}
		const manager, scheduler = "kube-controller-manager", "kube-scheduler"
		led := a.leaders()
		for _, row := range []struct {
			renewed []string
			want    string
		}{
			{[]string{manager, scheduler}, manager}, // a first look
			{nil, manager},
			{[]string{manager}, scheduler},
			{[]string{manager, scheduler}, ""},
			{nil, manager},
		} {
			time.Sleep(time.Second)
			renew(row.renewed...)
			switch err := led.Run(t.Context()); {
			case err == nil && row.want != "", err != nil && (row.want == "" || !strings.Contains(err.Error(), row.want+": last leader cp-2")):
				t.Errorf("renewed %q: error %v, want one of %q", row.renewed, err, row.want)
			}
		}
	})
}

func TestInitThatFailsIsRunAgain(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	w.Host("cp-1").StepFails = "kubeadm-init-1"
	if _, err := applyAll(context.Background(), w, c, dirs[0], nil, nil); err == nil {
		t.Error("kubeadm init failed, apply did not")
	}
	ca := fingerprintOn(w.Host("cp-1"))
	running(t, w, withoutCA(c), dirs[1])
	if fingerprintOn(w.Host("cp-3")) != ca || len(w.Votes()) != 3 {
		t.Errorf("members %q, the CA kept: %t", w.Votes(), fingerprintOn(w.Host("cp-3")) == ca)
	}
}

func TestInstalledSoftwareIsAskedFor(t *testing.T) {
	c := testCluster(t)
	c.Spec.Software = inventory.Software{Source: inventory.SourceInstalled}
	w := newWorld(t, c)
	has := []string{"kubeadm", "kubelet", "containerd", "ctr", "runc", "haproxy"}
	w.Script(toolsScript, func(_ *sim.Host, args []string) ([]byte, error) {
		missing := slices.DeleteFunc(slices.Clone(args), func(tool string) bool { return slices.Contains(has, tool) })
		return []byte(strings.Join(missing, "\n")), nil
	})
	w.Script(versionsScript, func(*sim.Host, []string) ([]byte, error) {
		return []byte(c.Spec.Kubernetes.Version + "\ncontainerd github.com/containerd/containerd/v2 v2.4.2 abc\n"), nil
	})
	a := &apply{Site: Connect(w.Begin(context.Background(), nil), c, "", w.Dial)}
	defer a.Close()
	for _, row := range []struct{ host, want string }{{"cp-1", ""}, {"w-1", ""}, {"lb-1", "the host does not have keepalived"}, {"cp-1 that balances", "the host does not have keepalived"}} {
		name, balances, _ := strings.Cut(row.host, " ")
		ih, _ := c.HostByName(name)
		if a.Cluster = c; balances != "" {
			a.Cluster = onMasters(c)
		}
		p := a.software(ih)
		done, err := p.Done(t.Context())
		if err != nil || done != (row.want == "") {
			t.Errorf("%s: done %t, %v", row.host, done, err)
		}
		if row.want == "" {
			continue
		}
		if err := p.Do(t.Context()); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: error %v, wanted %q", row.host, err, row.want)
		}
	}
}

func TestStatusOfARunningCluster(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	running(t, w, c, dirs[0])
	take := func() Status {
		site := ConnectSoon(w.Begin(context.Background(), nil), c, "", w.Dial)
		defer site.Close()
		return TakeStatus(context.Background(), site)
	}
	st := take()
	if st.Quorum.State != etcd.Pass || st.State != etcd.Pass || len(st.Endpoint.Backends) != 3 || len(st.Problems) != 0 {
		t.Errorf("%s, backends %q, problems %q, warnings %q", st.Quorum.State, st.Endpoint.Backends, st.Problems, st.Warnings)
	}
	wantFacts(t, st)
	for _, call := range w.Trace() {
		if call.Writes {
			t.Errorf("status wrote: %+v", call)
		}
	}
	w.Host("cp-2").Units["kubelet.service"].Active = false
	w.Host("lb-1").Units["haproxy.service"].Active = false
	w.Host("cp-1").Clock, w.Host("cp-3").Clock = 3*time.Second, 2*time.Hour+500*time.Millisecond
	w.Host("cp-1").Filled = 29_000_000
	delete(w.Host("cp-3").Files, "/etc/kubernetes/manifests/kube-scheduler.yaml")
	before := st
	st = take()
	for _, want := range []string{"cp-2: kubelet: ", "lb-1: haproxy: not active", "cp-3: scheduler: ", "cp-3: its clock is +7200.", "cp-1: the file system of /var/lib/etcd is 98 % full", "lb-2: backend cp-2 is DOWN"} {
		if bad := strings.Join(st.Problems, "\n"); !strings.Contains(bad, want) {
			t.Errorf("no problem says %q:\n%s", want, bad)
		}
	}
	if warned := strings.Join(st.Warnings, "\n"); st.State != etcd.Degraded || !strings.Contains(warned, "cp-1: its clock is +3.0") {
		t.Errorf("%s, warnings:\n%s", st.State, warned)
	}
	changes := fmt.Sprint(st.Since(before))
	for _, want := range []string{"cp-2 etcd: healthy -> dead", "cp-3 scheduler: ok -> down", "lb-2 backend cp-2: UP -> DOWN", "lb-1 haproxy: ok -> down", "quorum: PASS -> DEGRADED"} {
		if !strings.Contains(changes, want) {
			t.Errorf("the changes lack %q: %s", want, changes)
		}
	}
}

// wantFacts wants everything that a status asks of hosts in a whole cluster's.
func wantFacts(t *testing.T, st Status) {
	t.Helper()
	for _, h := range st.Hosts {
		if h.BootID != "boot-"+h.Name+".1000" || h.Uptime.Duration() != 4242170*time.Millisecond || h.Clock == nil || len(h.Disks) == 0 || h.Disks[0].Used != 0.25 {
			t.Errorf("%s: boot %q, up %s, clock %v, disks %v", h.Name, h.BootID, h.Uptime, h.Clock, h.Disks)
		}
		if h.Role == inventory.RoleLoadBalancer {
			if h.Backend == nil || len(h.Backend.Servers) != 3 || h.Backend.Servers[2].State != haproxy.Up {
				t.Errorf("%s: backend %+v, %s", h.Name, h.Backend, h.BackendErr)
			}
		}
		if h.Role != inventory.RoleControlPlane {
			continue
		}
		if h.ControllerManager != ok || h.Scheduler != ok || h.Kubelet != ok || h.APIServer != ok || len(h.Certificates) < 6 || h.Expires == nil || len(h.Disks) != 2 {
			t.Errorf("%+v", h)
		}
	}
	for _, v := range st.Endpoint.From {
		if len(v.Backends) != 3 || v.Err != "" {
			t.Errorf("the endpoint from %s: %q %s", v.Host, v.Backends, v.Err)
		}
	}
	for _, m := range st.Quorum.Members {
		if m.Inputs == nil || m.Inputs.First == nil || !m.Inputs.Linearizable.OK() || len(m.Inputs.Local) != 3 {
			t.Errorf("%s: inputs %+v", m.Name, m.Inputs)
		}
	}
	if len(st.Endpoint.From) != 3 || len(st.Operations) != 8 || !st.Operations[0].Allowed {
		t.Errorf("vantages %v, operations %v", st.Endpoint.From, st.Operations)
	}
}

func TestInstalledVersionsHaveToFit(t *testing.T) {
	for _, row := range []struct{ name, said, want string }{
		{"both fit", "v1.36.3\ncontainerd github.com/containerd/containerd/v2 v2.4.2 abc\n", ""},
		{"Debian's way to say it fits", "v1.36.3\ncontainerd containerd.io 2.1.0 abc\n", ""},
		{"kubeadm of another release", "v1.35.4\ncontainerd github.com/containerd/containerd/v2 v2.4.2 abc\n", "kubeadm is v1.35.4, spec.kubernetes.version is v1.36.3"},
		{"containerd 1.6, as in Debian 12", "v1.36.3\ncontainerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1\n", "containerd is 1, 2 or later is needed"},
		{"no version at all", "v1.36.3\n", "does not say its version"},
	} {
		err := installedFits(row.said, "v1.36.3")
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: error %v, wanted %q", row.name, err, row.want)
		}
	}
}
