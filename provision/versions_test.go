package provision

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/versions"
	"github.com/ha-install/ha-install/test/sim"
)

// versionsOf is three masters and a worker, each "API server / kubelet program /
// kubelet of its Node": "v1.35.4/v1.35.4/v1.35.4"; one version stands for all
// three, "" was not reached. The bundle brings v1.36.3.
func versionsOf(of ...string) Versions {
	v := Versions{Offer: VersionOffer{Kubernetes: "v1.36.3", Bundle: true}, Hosts: []HostVersions{{Name: "lb-1", Role: inventory.RoleLoadBalancer, SSH: "down"}}}
	for i, name := range []string{"cp-1", "cp-2", "cp-3", "w-1"} {
		h := HostVersions{Name: name, Role: inventory.RoleControlPlane, SSH: ok}
		if i == 3 {
			h.Role = inventory.RoleWorker
		}
		texts := strings.Split(of[i], "/")
		if of[i] == "" {
			h.SSH = name + ": no SSH connection"
			texts = []string{"", "", ""}
		}
		if len(texts) == 1 {
			texts = []string{texts[0], texts[0], texts[0]}
		}
		h.Pods, h.Programs, h.Node = map[string]string{}, map[string]string{}, texts[2]
		if texts[1] != "" {
			h.Programs["kubelet"] = texts[1]
		}
		if i < 3 && texts[0] != "" {
			for _, c := range versions.Components {
				h.Pods[c] = texts[0]
			}
			h.Pods["etcd"] = "3.6.8-0"
		}
		v.Hosts = append(v.Hosts, h)
	}
	return v
}

func TestVersionsConclude(t *testing.T) {
	const old, now = "v1.35.4", "v1.36.3"
	for _, row := range []struct {
		name    string
		of      []string
		change  func(*Versions)
		state   VersionState
		next    string
		summary string
	}{
		{"all is as it is offered", []string{now, now, now, now}, nil, VersionsCurrent, "",
			"v1.36.3 on cp-1, cp-2, cp-3, w-1, and the bundle brings v1.36.3: nothing to upgrade"},
		{"an upgrade is due", []string{old, old, old, old}, nil, VersionsDue, "upgrade",
			"v1.35.4 on cp-1, cp-2, cp-3, w-1; the bundle brings v1.36.3"},
		{"software is found installed", []string{old, old, old, old}, func(v *Versions) { v.Offer.Bundle = false }, VersionsDue, "upgrade",
			"v1.35.4 on cp-1, cp-2, cp-3, w-1; the inventory wants v1.36.3"},
		{"an upgrade broke off after the first master", []string{now, old, old, old}, nil, VersionsMixed, "upgrade",
			"v1.35.4 on cp-2, cp-3, w-1; v1.36.3 on cp-1: an upgrade to v1.36.3 broke off"},
		{"an upgrade broke off before the workers", []string{now, now, now, old}, nil, VersionsMixed, "upgrade",
			"v1.35.4 on w-1; v1.36.3 on cp-1, cp-2, cp-3: an upgrade to v1.36.3 broke off"},
		{"an upgrade broke off within a master", []string{now + "/" + now + "/" + old, old, old, old}, nil, VersionsMixed, "upgrade",
			"v1.35.4 on cp-1, cp-2, cp-3, w-1; v1.36.3 on cp-1: an upgrade to v1.36.3 broke off"},
		{"a worker stayed behind an earlier upgrade", []string{old, old, old, "v1.34.1"}, nil, VersionsDue, "upgrade",
			"v1.34.1 on w-1; v1.35.4 on cp-1, cp-2, cp-3; the bundle brings v1.36.3"},
		{"a scheduler of another version", []string{now, now, now, now}, func(v *Versions) { v.Hosts[2].Pods["kube-scheduler"] = old }, VersionsMixed, "upgrade",
			"v1.35.4 on cp-2; v1.36.3 on cp-1, cp-2, cp-3, w-1: an upgrade to v1.36.3 broke off"},
		{"another upgrade broke off", []string{"v1.35.6", old, old, old}, nil, VersionsRefused, "",
			"v1.35.4 on cp-2, cp-3, w-1; v1.35.6 on cp-1; the bundle brings v1.36.3, which is refused: the API servers run v1.35.4 and v1.35.6: an upgrade to v1.36.3 begins with one version on all masters, or goes on where an upgrade to v1.36.3 broke off"},
		{"what is offered is older", []string{"v1.37.0", "v1.37.0", "v1.37.0", "v1.37.0"}, nil, VersionsRefused, "",
			"v1.37.0 on cp-1, cp-2, cp-3, w-1; the bundle brings v1.36.3, which is refused: v1.36.3 cannot follow v1.37.0: Kubernetes and etcd cannot go back: what the newer one has stored the older one may not read"},
		{"a master was not reached", []string{now, now, "", now}, nil, VersionsUnknown, "",
			"v1.36.3 on cp-1, cp-2, w-1; the bundle brings v1.36.3; not seen: cp-3"},
		{"a master was not reached, and an upgrade is due", []string{old, old, "", old}, nil, VersionsDue, "upgrade",
			"v1.35.4 on cp-1, cp-2, w-1; the bundle brings v1.36.3; not seen: cp-3"},
		{"nobody was reached", []string{"", "", "", ""}, nil, VersionsUnknown, "",
			"no control plane was seen; the bundle brings v1.36.3; not seen: cp-1, cp-2, cp-3, w-1"},
		{"bare hosts", []string{"//", "//", "//", "//"}, nil, VersionsNone, "apply",
			"there is no control plane on the hosts; the bundle brings v1.36.3"},
		{"software, and nothing made of it", []string{"/" + now + "/", "/" + now + "/", "/" + now + "/", "/" + now + "/"}, nil, VersionsNone, "apply",
			"there is no control plane on the hosts; the bundle brings v1.36.3"},
		{"a manifest without a version", []string{now, now, "?/" + now + "/" + now, now}, nil, VersionsUnknown, "",
			`cp-3: kube-apiserver: "?" is not the version of a release, like v1.36.3; cp-3: kube-controller-manager: "?" is not the version of a release, like v1.36.3; cp-3: kube-scheduler: "?" is not the version of a release, like v1.36.3`},
		{"no API server says which kubelets run", []string{now + "/" + now + "/", now + "/" + now + "/", now + "/" + now + "/", now + "/" + now + "/"}, nil, VersionsCurrent, "",
			"v1.36.3 on cp-1, cp-2, cp-3, w-1, and the bundle brings v1.36.3: nothing to upgrade"},
	} {
		t.Run(row.name, func(t *testing.T) {
			v := versionsOf(row.of...)
			if row.change != nil {
				row.change(&v)
			}
			v.Conclude()
			if v.State != row.state || v.Next != row.next || v.Summary != row.summary || (len(v.Problems) > 0) != (row.state == VersionsRefused) {
				t.Errorf("%s, next %q: %s\n want %s, next %q: %s\nproblems %v", v.State, v.Next, v.Summary, row.state, row.next, row.summary, v.Problems)
			}
		})
	}
}

// versionsIn is `ha-install versions` in a world; it fails the test when
// anything is changed.
func versionsIn(ctx context.Context, t *testing.T, w *sim.World, c *inventory.Cluster, dir string, dial Dial) Versions {
	t.Helper()
	before := w.Snapshot(nil)
	site := ConnectSoon(ctx, c, dir, dial)
	defer site.Close()
	v := TakeVersions(ctx, site)
	if diff := cmp.Diff(before, w.Snapshot(nil)); diff != "" {
		t.Errorf("asking for versions changed (-before +after):\n%s", diff)
	}
	return v
}

func TestVersionsOfACluster(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		v := versionsIn(w.Begin(t.Context(), nil), t, w, c, dirs[0], w.Dial)
		if v.State != VersionsNone || v.Err() != nil || len(v.Hosts[2].Pods)+len(v.Hosts[2].Programs) > 0 {
			t.Errorf("of bare hosts: %s, %v, %v", v.State, v.Err(), v.Hosts[2])
		}
		running(t, w, c, dirs[0])
		node := w.API.Get("nodes", "", "w-1")
		node["status"].(map[string]any)["nodeInfo"] = map[string]any{"kubeletVersion": "v1.36.3"}
		w.API.Set("nodes", "", "w-1", node)
		ctx := w.Begin(t.Context(), nil)
		v = versionsIn(ctx, t, w, c, dirs[0], w.Dial)
		if v.State != VersionsCurrent || v.Err() != nil || !v.Offer.Bundle || v.Offer.Programs["kubelet"] != "1" {
			t.Errorf("%s: %s, %v, offered %v", v.State, v.Summary, v.Err(), v.Offer)
		}
		if n := len(slices.DeleteFunc(w.Trace(), func(c sim.Call) bool { return !strings.HasPrefix(c.Name, "sh ...") })); n != len(v.Hosts) {
			t.Errorf("%d commands for %d hosts, want one each", n, len(v.Hosts))
		}
		cp1, w1, lb1 := v.Hosts[2], v.Hosts[5], v.Hosts[0]
		if cp1.Pods["kube-scheduler"] != "v1.36.3" || len(cp1.Pods) != 4 || cp1.Programs["kubeadm"] != "v1.36.3" || cp1.Programs["runc"] != "1.1.5+ds1" {
			t.Errorf("cp-1: %v", cp1)
		}
		if w1.Node != "v1.36.3" || len(w1.Pods) > 0 || w1.Programs["containerd"] != "v2.4.2" {
			t.Errorf("w-1: %v", w1)
		}
		if !lb1.Balances || lb1.Programs["haproxy"] != "2.6.12-1+deb12u4" || lb1.Programs["keepalived"] != "v2.2.7" || len(lb1.Programs) != 2 {
			t.Errorf("lb-1: %v", lb1)
		}

		cp2 := w.Host("cp-2")
		cp2.Put("/usr/local/bin/kubelet", 0o755, "the program kubelet v1.35.4")
		const manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml"
		cp2.Put(manifest, 0o600, strings.ReplaceAll(string(cp2.Files[manifest].Content), "v1.36.3", "v1.35.4"))
		began := time.Now()
		v = versionsIn(w.Begin(t.Context(), nil), t, w, c, dirs[0], func(ctx context.Context, c *inventory.Cluster, ih inventory.Host, dir string) (host.Host, error) {
			if ih.Name == "cp-3" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return w.Dial(ctx, c, ih, dir)
		})
		var unreachable *UnreachableError
		if v.State != VersionsMixed || !strings.HasSuffix(v.Summary, "not seen: cp-3") || !errors.As(v.Err(), &unreachable) {
			t.Errorf("%s: %s, %v", v.State, v.Summary, v.Err())
		}
		if took := time.Since(began); took > leastPatience+time.Second || v.Took.Duration() < leastPatience {
			t.Errorf("a host that does not answer cost %s (said: %s)", took, v.Took)
		}
	})
}

func TestVersionsWithoutABundle(t *testing.T) {
	t.Parallel()
	c := testCluster(t)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		v := versionsIn(w.Begin(t.Context(), nil), t, w, c, t.TempDir(), w.Dial)
		if v.Offer.Bundle || !strings.Contains(v.Offer.Err, "bundle.tar") || v.Offer.Kubernetes != "v1.36.3" || !strings.HasSuffix(v.Summary, "the inventory wants v1.36.3") {
			t.Errorf("%+v: %s", v.Offer, v.Summary)
		}
	})
}
