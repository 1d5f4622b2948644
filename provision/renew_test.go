package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/certs"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/sim"
)

// teachRenewals teaches hosts what a renewal sends.
func teachRenewals(w *sim.World) {
	w.StepScript(renewScript, func(h *sim.Host, args []string) []func() error {
		var acts []func() error
		for _, name := range args[5:] {
			acts = append(acts, func() error { return h.Renew(name) })
		}
		if args[4] == renewFiles {
			return acts
		}
		return append(acts, h.RestartColumn()...)
	})
	w.StepScript(kubeletScript, func(h *sim.Host, args []string) []func() error { return h.AdoptKubelet(args[0]) })
}

func renewAll(ctx context.Context, w *sim.World, c *inventory.Cluster, o RenewOptions, cut *sim.Cut) (phase.Tally, error) {
	ctx = w.Begin(ctx, cut)
	site := Connect(ctx, c, "", w.Dial)
	defer site.Close()
	var run phase.Runner
	err := Renew(ctx, site, o, nil, &run)
	return run.Tally(), err
}

// notRenewed says what is due, or not in use, on any host.
func notRenewed(w *sim.World, c *inventory.Cluster) string {
	var wrong []string
	if text := unfinished(w, c); text != "" {
		wrong = append(wrong, text)
	}
	w.Back()
	all := certificatesOf(context.Background(), w, c)
	if err := all.Err(); err != nil {
		return err.Error()
	}
	for _, h := range all.Hosts {
		for _, c := range h.Certificates {
			if c.State != certs.Good || c.Restart != "" || c.Served != nil && !c.Served.Same {
				wrong = append(wrong, fmt.Sprintf("%s: %s is %s, restart %q, served %+v", h.Name, c.File, c.State, c.Restart, c.Served))
			}
		}
	}
	for _, ih := range c.Nodes() {
		if _, left := w.Host(ih.Name).Files[stagedKubelet]; left {
			wrong = append(wrong, ih.Name+" still has a kubelet's key where it was staged")
		}
	}
	return strings.Join(wrong, "; ")
}

// aged is a finished cluster after f has made certificates older.
func aged(t *testing.T, c *inventory.Cluster, dir string, f func(w *sim.World)) *sim.State {
	t.Helper()
	start := finished(t, c, c, dir)
	var state *sim.State
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		f(w)
		w.Begin(t.Context(), nil)
		state = w.Keep()
	})
	return state
}

// renewing is `ha-install certs renew` as a workflow.
func renewing(name string, c *inventory.Cluster, start *sim.State) workflow {
	return workflow{
		name: name, c: c, start: start,
		run: func(ctx context.Context, w *sim.World, _ bool, cut *sim.Cut) error {
			_, err := renewAll(ctx, w, c, RenewOptions{Within: month}, cut)
			return err
		},
		wrong: func(w *sim.World) string { return notRenewed(w, c) },
		about: notTheLock,
	}
}

// soon are certificates of two masters, and a worker's kubelet's, that are due.
func soon(w *sim.World) {
	w.Host("cp-2").Expire(time.Now().Add(24*time.Hour), "etcd-peer", "scheduler.conf")
	w.Host("cp-3").Expire(time.Now().Add(24*time.Hour), "admin.conf")
	w.Host("w-1").Expire(time.Now().Add(24*time.Hour), "kubelet")
}

// late are certificates of all masters that have all expired.
func late(w *sim.World) {
	for _, name := range []string{"cp-1", "cp-2", "cp-3"} {
		w.Host(name).Expire(time.Now().Add(-time.Minute))
	}
}

func TestRenewingStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	renewing("certs renew where some are due", c, aged(t, testCluster(t), dirs[0], soon)).everywhere(t)
}

func TestRenewingWhatHasExpiredStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	renewing("certs renew where all have expired", c, aged(t, testCluster(t), dirs[0], late)).everywhere(t)
}

// serials are the serial numbers of all certificates, by host and file.
func serials(w *sim.World, c *inventory.Cluster) map[string]string {
	all := map[string]string{}
	for _, h := range certificatesOf(context.Background(), w, c).Hosts {
		for _, c := range h.Certificates {
			all[h.Name+" "+c.File] = c.Serial
		}
	}
	return all
}

func TestRenewRenewsWhatIsDueAndNothingElse(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := aged(t, testCluster(t), dirs[0], soon)
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		before := serials(w, c)
		if _, err := renewAll(t.Context(), w, c, RenewOptions{Within: month}, nil); err != nil {
			t.Fatal(err)
		}
		var changed []string
		after := serials(w, c)
		for _, name := range sortedKeys(before) {
			if before[name] != after[name] {
				changed = append(changed, name)
			}
		}
		want := []string{"cp-2 /etc/kubernetes/pki/etcd/peer.crt", "cp-2 /etc/kubernetes/scheduler.conf", "cp-3 /etc/kubernetes/admin.conf", "w-1 " + certs.KubeletClient}
		if !slices.Equal(changed, want) {
			t.Errorf("renewed %q, want %q", changed, want)
		}
		if bad := append(w.Broken(), w.Lost()...); len(bad) > 0 || notRenewed(w, c) != "" {
			t.Errorf("%q; %s", bad, notRenewed(w, c))
		}
		kept := false
		for p := range w.Host("cp-2").Files {
			kept = kept || strings.HasPrefix(p, beforeUpgrade+"/certs-") && strings.HasSuffix(p, "/scheduler.conf")
		}
		if !kept {
			t.Error("cp-2 has not kept its old files")
		}
		if tally, err := renewAll(t.Context(), w, c, RenewOptions{Within: month}, nil); err != nil || tally.Changed > 0 {
			t.Errorf("the second run changed %d, error %v", tally.Changed, err)
		}
		if tally, err := applyAll(t.Context(), w, c, dirs[0], nil, nil); err != nil || tally.Changed > 0 {
			t.Errorf("apply after it changed %d, error %v", tally.Changed, err)
		}
	})
}

func TestRenewAllRenewsEachOnce(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := finished(t, testCluster(t), testCluster(t), dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		before := serials(w, c)
		if _, err := renewAll(t.Context(), w, c, RenewOptions{Within: month, All: true}, nil); err != nil {
			t.Fatal(err)
		}
		after := serials(w, c)
		for name, serial := range before {
			ca := strings.HasSuffix(name, "ca.crt")
			if same := after[name] == serial; same != ca {
				t.Errorf("%s: the same %t", name, same)
			}
		}
		if bad := append(w.Broken(), w.Lost()...); len(bad) > 0 || notRenewed(w, c) != "" {
			t.Errorf("%q; %s", bad, notRenewed(w, c))
		}
	})
}

// TestRenewRestartsWhatHasNotReadItsFiles: somebody ran kubeadm and restarted nothing.
func TestRenewRestartsWhatHasNotReadItsFiles(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := finished(t, testCluster(t), testCluster(t), dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		if err := w.Host("cp-1").Renew("scheduler.conf"); err != nil {
			t.Fatal(err)
		}
		before := serials(w, c)
		tally, err := renewAll(t.Context(), w, c, RenewOptions{Within: month}, nil)
		if err != nil || tally.Changed != 2 { // renew and readmit
			t.Errorf("changed %d, error %v", tally.Changed, err)
		}
		if bad := notRenewed(w, c); bad != "" {
			t.Error(bad)
		}
		for name, serial := range serials(w, c) {
			if before[name] != serial {
				t.Errorf("%s was renewed", name)
			}
		}
	})
}

// TestRenewStartsEtcdWhereThereIsNoQuorum: expired certificates, and two members
// that do not even run.
func TestRenewStartsEtcdWhereThereIsNoQuorum(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := aged(t, testCluster(t), dirs[0], func(w *sim.World) {
		for _, name := range []string{"cp-1", "cp-2", "cp-3"} {
			w.Host(name).Expire(time.Now().Add(-time.Minute), "etcd-server", "etcd-peer", "etcd-healthcheck-client")
		}
		w.Host("cp-1").Units["kubelet.service"].Active, w.Host("cp-2").Units["kubelet.service"].Active = false, false
	})
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		if _, err := renewAll(t.Context(), w, c, RenewOptions{Within: month}, nil); err != nil {
			t.Fatal(err)
		}
		if bad := append(w.Broken(), w.Lost()...); len(bad) > 0 || notRenewed(w, c) != "" {
			t.Errorf("%q; %s", bad, notRenewed(w, c))
		}
	})
}

func TestRenewIsPlanned(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	for name, f := range map[string]struct {
		age  func(*sim.World)
		want []string
	}{
		"some are due": {soon, []string{"kubelet w-1", "renew cp-2", "readmit cp-2", "renew cp-3", "readmit cp-3"}},
		"all have expired": {late, []string{"certificates cp-1", "certificates cp-2", "certificates cp-3", "kubelet cp-1", "kubelet cp-2", "kubelet cp-3", "revive ",
			"renew cp-1", "renew cp-2", "renew cp-3"}},
		"nothing": {func(*sim.World) {}, nil},
	} {
		start := aged(t, testCluster(t), dirs[0], f.age)
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				before := w.Snapshot(nil)
				ctx := w.Begin(t.Context(), nil)
				site := Connect(ctx, c, "", w.Dial)
				defer site.Close()
				plan, err := PlanRenew(ctx, site, RenewOptions{Within: month}, nil)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, s := range plan.Steps {
					if s.State == phase.ToChange {
						got = append(got, s.Phase+" "+s.Host)
					}
				}
				for _, want := range f.want {
					if !slices.Contains(got, want) {
						t.Errorf("%q is not in %q", want, got)
					}
				}
				if f.want == nil && len(got) > 0 {
					t.Errorf("got %q", got)
				}
				if w.Snapshot(nil) != before {
					t.Error("a plan changed something")
				}
			})
		})
	}
}

func TestRenewRefuses(t *testing.T) {
	t.Parallel()
	c, dirs := withoutCA(testCluster(t)), baseDirs(t)
	start := aged(t, testCluster(t), dirs[0], soon)
	for name, row := range map[string]struct {
		change func(*sim.World)
		want   string
	}{
		"a member is down":   {func(w *sim.World) { w.Host("cp-1").Mute = true; w.Host("cp-1").Units["kubelet.service"].Active = false }, "cp-1"},
		"a host has no name": {func(w *sim.World) { delete(w.Host("cp-1").Files, markerFile) }, "cp-1 belongs to no running cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				w.Slow = true
				row.change(w)
				before := serials(w, c)["cp-2 /etc/kubernetes/pki/etcd/peer.crt"]
				_, err := renewAll(t.Context(), w, c, RenewOptions{Within: month}, nil)
				if err == nil || !strings.Contains(err.Error(), row.want) {
					t.Errorf("error %v, wanted %q", err, row.want)
				}
				if serials(w, c)["cp-2 /etc/kubernetes/pki/etcd/peer.crt"] != before {
					t.Error("cp-2 was renewed, although the others do not carry the cluster")
				}
				if out := w.Drained(); len(out) > 0 {
					t.Errorf("still drained: %q", out)
				}
			})
		})
	}
	var conflict *ConflictError
	few := *c
	few.Spec.Hosts = slices.DeleteFunc(slices.Clone(c.Spec.Hosts), func(h inventory.Host) bool { return h.Name == "cp-3" })
	if _, err := newRenewal(newSite(&few, ""), RenewOptions{}); !errors.As(err, &conflict) {
		t.Errorf("two masters: %v", err)
	}
}
