package fidelity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/haproxy"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/preflight"
	"github.com/ha-install/ha-install/templates"
)

// Master are claims about a master of a finished cluster of three. What they
// change in etcd and in the API, they take back.
func Master() []Claim {
	return slices.Concat(nodes(), members(), care(), objects(), moving(), fences())
}

func nodes() []Claim {
	return []Claim{
		{"what runs is active, and starts only once", []string{"systemctl show", "systemctl start"}, func(ctx context.Context, s *Scene) string {
			before := s.answers(ctx, activeState("containerd"), activeState("kubelet.service"), loadState("kubelet.service"), []string{"systemctl", "show", "--property", "NRestarts", "--value", "kubelet.service"})
			return before + "; " + s.ends(ctx, []string{"systemctl", "start", "kubelet.service"}, []string{"systemctl", "enable", "containerd.service", "kubelet.service"})
		}, "active, active, loaded, 0; done, done"},
		{"images are listed with their digests", []string{"ctr -n k8s.io images ls"}, func(ctx context.Context, s *Scene) string {
			out, end := s.query(ctx, "ctr", "-n", "k8s.io", "images", "ls")
			lines := strings.Split(out, "\n")
			fields := strings.Fields(lines[len(lines)-1])
			return fmt.Sprint(strings.HasPrefix(lines[0], "REF"), " ", len(lines) > 2, " ", len(fields) > 2 && strings.HasPrefix(fields[2], "sha256:"), " ", end)
		}, "true true true done"},
		{"an image that is none is not imported", []string{"ctr -n k8s.io images import"}, func(ctx context.Context, s *Scene) string {
			_, err := s.Host.Run(ctx, host.Command{Argv: []string{"ctr", "-n", "k8s.io", "images", "import", "-"}, Stdin: strings.NewReader("no image")})
			return seen(err)
		}, "exit 1"},
		{"containerd reads its configuration, or complains", []string{"containerd"}, func(ctx context.Context, s *Scene) string {
			s.put(ctx, scratch+"/bad.toml", 0o644, "nonsense\n")
			dump := func(file string) []string { return []string{"containerd", "--config", file, "config", "dump"} }
			return s.ends(ctx, dump("/etc/containerd/config.toml"), dump(scratch+"/bad.toml"), dump(scratch+"/none.toml"))
		}, "done, exit 1, done"},
		{"a kubelet, a controller-manager and a scheduler are healthy", nil, func(ctx context.Context, s *Scene) string {
			return seen(errors.Join(kube.KubeletHealthz(ctx, s.Host), kube.ControllerManagerHealthz(ctx, s.Host), kube.SchedulerHealthz(ctx, s.Host)))
		}, "done"},
		{"kubeadm init refuses what an earlier one has left", []string{"step kubeadm-init", "act 1 of kubeadm-init"}, func(ctx context.Context, s *Scene) string {
			const config = "/var/lib/ha-install/kubeadm/init.yaml" // of the first master
			r, err := s.Host.Step(ctx, host.Step{ID: "fidelity-init-1", Argv: []string{"kubeadm", "init", "--config", config}})
			out := string(r.Output)
			return fmt.Sprint(seen(err), " ", strings.Contains(out, "DirAvailable--var-lib-etcd"), " ", s.answers(ctx, activeState("kubelet.service")))
		}, "exit 1 true active"},
		{"the static pods of a master are what their manifests say", []string{"read /etc/kubernetes/manifests", "act 1 of manifest", "act 2 of manifest", "act 3 of manifest", "act 4 of manifest"}, func(ctx context.Context, s *Scene) string {
			manifest := s.read(ctx, "/etc/kubernetes/manifests/etcd.yaml")
			return fmt.Sprint(strings.Contains(manifest, "- --name="+s.Host.Name()+"\n"), " ", strings.Contains(manifest, "- --initial-cluster-state=existing\n"))
		}, "true true"},
	}
}

// refused is etcd's reason, by the name of its error.
func refused(err error) string {
	for name, known := range map[string]error{
		"peer URL exists": rpctypes.ErrPeerURLExist, "too many learners": rpctypes.ErrTooManyLearners, "not ready": rpctypes.ErrMemberLearnerNotReady,
		"no learner": rpctypes.ErrMemberNotLearner, "not found": rpctypes.ErrMemberNotFound, "unhealthy": rpctypes.ErrUnhealthy, "not leader": rpctypes.ErrNotLeader,
		"compacted": rpctypes.ErrCompacted, "future revision": rpctypes.ErrFutureRev,
	} {
		if err != nil && rpctypes.Error(err).Error() == known.Error() {
			return name
		}
	}
	return seen(err)
}

// nobody is where no etcd is.
const nobody = "https://198.51.100.250:2380"

func members() []Claim {
	return []Claim{
		{"a member lists three started voters, by itself and by the majority", []string{"etcd list"}, func(ctx context.Context, s *Scene) string {
			c := s.etcd(ctx)
			var all []string
			for _, opts := range [][]clientv3.OpOption{nil, {clientv3.WithSerializable()}} {
				r, err := c.MemberList(ctx, opts...)
				if err != nil {
					return seen(err)
				}
				for _, m := range r.Members {
					if m.IsLearner || len(m.ClientURLs) != 1 || len(m.PeerURLs) != 1 || r.Header.MemberId == 0 {
						return m.String()
					}
					all = append(all, m.Name)
				}
			}
			slices.Sort(all)
			return strings.Join(all, " ")
		}, "cp-1 cp-1 cp-2 cp-2 cp-3 cp-3"},
		{"a member tells its leader, its term and its indexes", []string{"etcd status"}, func(ctx context.Context, s *Scene) string {
			r, err := s.etcd(ctx).Status(ctx, "127.0.0.1:2379")
			if err != nil {
				return seen(err)
			}
			return fmt.Sprint(r.Leader != 0, r.RaftTerm > 0, r.RaftIndex >= r.RaftAppliedIndex, r.IsLearner, len(r.Errors), " ", strings.HasPrefix(r.Version, "3.6."), r.DbSizeQuota > 0)
		}, "true true true false 0 true true"},
		{"no alarm is raised", []string{"etcd alarms"}, func(ctx context.Context, s *Scene) string {
			r, err := s.etcd(ctx).AlarmList(ctx)
			if err != nil {
				return seen(err)
			}
			return fmt.Sprint(len(r.Alarms))
		}, "0"},
		{"a member hashes what it has at a revision", []string{"etcd hash"}, func(ctx context.Context, s *Scene) string {
			r, err := s.etcd(ctx).HashKV(ctx, "127.0.0.1:2379", 0)
			if err != nil {
				return seen(err)
			}
			return fmt.Sprint(r.Hash != 0, " ", r.Header.RaftTerm > 0)
		}, "true true"},
		{"a member streams a snapshot: whole pages and their SHA-256", []string{"etcd snapshot"}, func(ctx context.Context, s *Scene) string {
			r, err := s.etcd(ctx).SnapshotWithVersion(ctx)
			if err != nil {
				return seen(err)
			}
			defer r.Snapshot.Close()
			info, err := etcd.VerifySnapshot(r.Snapshot)
			return fmt.Sprint(seen(err), " ", info.Size > 4096, " ", strings.HasPrefix(r.Version, "3.6."))
		}, "done true true"},
		{"a lease is granted, bears a key and takes it along", []string{"etcd lease", "etcd lease end", "etcd probe", "etcd read"}, func(ctx context.Context, s *Scene) string {
			c := s.etcd(ctx)
			l, err := c.Grant(ctx, 60)
			if err != nil {
				return seen(err)
			}
			_, put := c.Put(ctx, "ha-install-fidelity", "x", clientv3.WithLease(l.ID))
			_, revoke := c.Revoke(ctx, l.ID)
			r, get := c.Get(ctx, "ha-install-fidelity")
			if get != nil {
				return seen(get)
			}
			return seen(put) + " " + seen(revoke) + fmt.Sprintf(" %d", r.Count)
		}, "done done 0"},
		{"members cannot be added twice, nor promoted or removed when they are not there", []string{"etcd add", "etcd promote", "etcd remove"}, func(ctx context.Context, s *Scene) string {
			c := s.etcd(ctx)
			list, err := c.MemberList(ctx)
			if err != nil {
				return seen(err)
			}
			_, twice := c.MemberAddAsLearner(ctx, list.Members[0].PeerURLs)
			_, unknown := c.MemberPromote(ctx, 42)
			_, voter := c.MemberPromote(ctx, list.Members[0].ID)
			_, none := c.MemberRemove(ctx, 42)
			return strings.Join([]string{refused(twice), refused(unknown), refused(voter), refused(none)}, ", ")
		}, "peer URL exists, not found, no learner, not found"},
		{"the leader hands its leadership to another voter, and nobody else can", []string{"etcd move leader"}, func(ctx context.Context, s *Scene) string {
			c := s.etcd(ctx)
			list, err := c.MemberList(ctx)
			if err != nil {
				return seen(err)
			}
			now, err := c.Status(ctx, c.Endpoints()[0])
			if err != nil {
				return seen(err)
			}
			leads := now.Leader == now.Header.MemberId
			other := list.Members[slices.IndexFunc(list.Members, func(m *pb.Member) bool { return m.ID != now.Leader })]
			_, first := c.MoveLeader(ctx, other.ID)
			_, second := c.MoveLeader(ctx, now.Header.MemberId)
			return fmt.Sprint((first == nil) == leads, ", ", refused(second))
		}, "true, not leader"},
		{"one learner is taken at a time, without a name, and promoted only when it has caught up", []string{"etcd add", "etcd promote", "etcd remove"}, func(ctx context.Context, s *Scene) string {
			c := s.etcd(ctx)
			r, err := c.MemberAddAsLearner(ctx, []string{nobody})
			for refused(err) == "unhealthy" && ctx.Err() == nil { // of a voter that was connected a moment ago
				s.Pause(time.Second)
				r, err = c.MemberAddAsLearner(ctx, []string{nobody})
			}
			if err != nil {
				return refused(err)
			}
			list, listed := c.MemberList(ctx)
			_, second := c.MemberAddAsLearner(ctx, []string{strings.Replace(nobody, "250", "251", 1)})
			_, early := c.MemberPromote(ctx, r.Member.ID)
			_, taken := c.MemberRemove(ctx, r.Member.ID)
			after, again := c.MemberList(ctx)
			if listed != nil || again != nil {
				return seen(errors.Join(listed, again))
			}
			new := list.Members[slices.IndexFunc(list.Members, func(m *pb.Member) bool { return m.ID == r.Member.ID })]
			return strings.Join([]string{fmt.Sprintf("%d %q %t %d", len(list.Members), new.Name, new.IsLearner, len(new.ClientURLs)), refused(second), refused(early), refused(taken), fmt.Sprint(len(after.Members))}, ", ")
		}, `4 "" true 0, too many learners, not ready, done, 3`},
	}
}

// objects are claims about an API server. They are played in a namespace of
// their own, which they take away.
func objects() []Claim {
	const ns = "ha-install-fidelity"
	in := func(f func(context.Context, *Scene, *kube.Client) string) func(context.Context, *Scene) string {
		return func(ctx context.Context, s *Scene) string { return f(ctx, s, s.api(ctx)) }
	}
	return []Claim{
		{"an API server is ready", []string{"GET /readyz"}, in(func(ctx context.Context, _ *Scene, c *kube.Client) string {
			return seen(c.Readyz(ctx))
		}), "done"},
		{"what is not there is not found", []string{"GET"}, in(func(ctx context.Context, _ *Scene, c *kube.Client) string {
			_, node := c.CoreV1().Nodes().Get(ctx, "none", metav1.GetOptions{})
			_, lease := c.CoordinationV1().Leases("kube-system").Get(ctx, "none", metav1.GetOptions{})
			return reason(node) + ", " + reason(lease) + ", " + reason(c.CoreV1().Secrets("kube-system").Delete(ctx, "bootstrap-token-none", metav1.DeleteOptions{}))
		}), "NotFound, NotFound, NotFound"},
		{"a namespace is made once, and nothing in one that is not there", []string{"POST", "DELETE"}, in(func(ctx context.Context, _ *Scene, c *kube.Client) string {
			object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}
			_, first := c.CoreV1().Namespaces().Create(ctx, object, metav1.CreateOptions{})
			_, second := c.CoreV1().Namespaces().Create(ctx, object, metav1.CreateOptions{})
			_, nowhere := c.CoreV1().ConfigMaps(ns+"-none").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{})
			return reason(first) + ", " + reason(second) + ", " + reason(nowhere)
		}), "done, AlreadyExists, NotFound"},
		{"an update of what has changed meanwhile is a conflict", []string{"PUT"}, in(func(ctx context.Context, _ *Scene, c *kube.Client) string {
			maps := c.CoreV1().ConfigMaps(ns)
			old, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"of": "a"}}, Data: map[string]string{"k": "1"}}, metav1.CreateOptions{})
			if err != nil {
				return seen(err)
			}
			now := old.DeepCopy()
			now.Data["k"] = "2"
			_, first := maps.Update(ctx, now, metav1.UpdateOptions{})
			_, second := maps.Update(ctx, now, metav1.UpdateOptions{})
			got, err := maps.Get(ctx, "a", metav1.GetOptions{})
			if err != nil {
				return seen(err)
			}
			return reason(first) + ", " + reason(second) + ", " + got.Data["k"]
		}), "done, Conflict, 2"},
		{"objects are listed by their labels", []string{"GET"}, in(func(ctx context.Context, _ *Scene, c *kube.Client) string {
			var found []string
			for _, selector := range []string{"of=a", "of=b"} {
				list, err := c.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{LabelSelector: selector})
				if err != nil {
					return seen(err)
				}
				found = append(found, fmt.Sprint(len(list.Items)))
			}
			return strings.Join(found, " ")
		}), "1 0"},
		{"objects are deleted by their labels, together", []string{"DELETE"}, in(func(ctx context.Context, _ *Scene, c *kube.Client) string {
			maps := c.CoreV1().ConfigMaps(ns)
			for _, name := range []string{"c1", "c2"} {
				if _, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"of": name}}}, metav1.CreateOptions{}); err != nil {
					return seen(err)
				}
			}
			end := reason(maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "of=c1"}))
			_, first := maps.Get(ctx, "c1", metav1.GetOptions{})
			_, second := maps.Get(ctx, "c2", metav1.GetOptions{})
			return end + ", " + reason(first) + ", " + reason(second)
		}), "done, NotFound, done"},
		{"a secret's texts are kept as data", []string{"POST"}, in(func(ctx context.Context, _ *Scene, c *kube.Client) string {
			_, err := c.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"k": "text"}}, metav1.CreateOptions{})
			if err != nil {
				return seen(err)
			}
			got, err := c.CoreV1().Secrets(ns).Get(ctx, "s", metav1.GetOptions{})
			if err != nil {
				return seen(err)
			}
			return string(got.Data["k"]) + fmt.Sprint(len(got.StringData))
		}), "text0"},
		{"what is applied differs until it is there, and a dry run changes nothing", []string{"PATCH"}, in(func(ctx context.Context, _ *Scene, c *kube.Client) string {
			objects, err := kube.Decode([]byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied, namespace: " + ns + "}\ndata: {k: text}\n"))
			if err != nil {
				return seen(err)
			}
			var all []string
			for range 2 {
				differs, dry := c.Differ(ctx, objects)
				_, get := c.CoreV1().ConfigMaps(ns).Get(ctx, "applied", metav1.GetOptions{})
				changed, apply := c.Apply(ctx, objects)
				all = append(all, fmt.Sprint(differs, " ", seen(dry), " ", reason(get), " ", changed, " ", seen(apply)))
			}
			return strings.Join(all, ", ")
		}), "true done NotFound 1 done, false done done 0 done"},
		{"a client is who its certificate says", []string{"POST"}, in(func(ctx context.Context, _ *Scene, c *kube.Client) string {
			user, groups, err := c.WhoAmI(ctx)
			slices.Sort(groups)
			return strings.Join(append([]string{user}, groups...), " ") + " " + seen(err)
		}), "kubernetes-admin kubeadm:cluster-admins system:authenticated done"},
		{"a namespace that goes takes along what is in it", []string{"DELETE"}, in(func(ctx context.Context, s *Scene, c *kube.Client) string {
			gone := c.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{})
			for ctx.Err() == nil {
				if _, err := c.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{}); apierrors.IsNotFound(err) {
					break
				}
				s.Pause(200 * time.Millisecond)
			}
			_, err := c.CoreV1().ConfigMaps(ns).Get(ctx, "a", metav1.GetOptions{})
			return reason(gone) + ", " + reason(err)
		}), "done, NotFound"},
		{"every node and each of its static pods is in the API, labelled and ready", []string{"GET", "PUT /api/v1/nodes"}, in(func(ctx context.Context, s *Scene, c *kube.Client) string {
			list, err := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
			if err != nil {
				return seen(err)
			}
			var all []string
			for _, n := range list.Items {
				all = append(all, fmt.Sprint(n.Name, kube.IsControlPlane(&n), kube.NodeState(&n)))
			}
			return strings.Join(all, " ") + " " + seen(c.Column(ctx, s.Host.Name()))
		}), "cp-1trueReady cp-2trueReady cp-3trueReady w-1falseReady done"},
		{"one scheduler and one controller-manager lead", []string{"GET"}, in(func(ctx context.Context, _ *Scene, c *kube.Client) string {
			leaders, err := c.Leaders(ctx)
			return fmt.Sprint(len(leaders), " ", seen(err))
		}), "2 done"},
	}
}

// reason is why the API refused.
func reason(err error) string {
	if why := apierrors.ReasonForError(err); why != metav1.StatusReasonUnknown {
		return string(why)
	}
	return seen(err)
}

// Reset are claims about a host from which a cluster was taken.
func Reset() []Claim {
	return []Claim{
		podNetworkEnds(),
		{"a kubelet without configuration is started, but does not run", []string{"systemctl start", "systemctl stop", "systemctl show"}, func(ctx context.Context, s *Scene) string {
			const kubelet = "kubelet.service"
			ends := s.ends(ctx, []string{"systemctl", "start", kubelet})
			state := s.answers(ctx, activeState(kubelet))
			return fmt.Sprint(ends, " ", state != "active", " ", s.ends(ctx, []string{"systemctl", "stop", kubelet}, []string{"systemctl", "disable", kubelet}), " ", s.answers(ctx, loadState(kubelet)))
		}, "done true done, done loaded"},
		{"images stay where they are", []string{"ctr -n k8s.io images ls"}, func(ctx context.Context, s *Scene) string {
			out, end := s.query(ctx, "ctr", "-n", "k8s.io", "images", "ls")
			return fmt.Sprint(strings.Count(out, "\n") > 1, " ", end)
		}, "true done"},
		{"kubeadm has nothing left to take off, and is content", []string{"step"}, func(ctx context.Context, s *Scene) string {
			r, err := s.Host.Step(ctx, host.Step{ID: "fidelity-reset-1", Argv: []string{"kubeadm", "reset", "--force", "--skip-phases", "preflight,remove-etcd-member"}})
			return fmt.Sprint(seen(err), " ", r.Code, " ", s.read(ctx, "/etc/kubernetes/admin.conf"))
		}, "done 0 not there"},
	}
}

// Balancer are claims about a balancer of a finished cluster.
func Balancer() []Claim {
	return []Claim{
		{"HAProxy says whether it could work from a file", []string{"haproxy"}, func(ctx context.Context, s *Scene) string {
			s.put(ctx, scratch+"/bad.cfg", 0o644, "nonsense\n")
			check := func(file string) []string { return []string{"haproxy", "-c", "-f", file} }
			return s.ends(ctx, check("/etc/haproxy/haproxy.cfg"), check(scratch+"/bad.cfg"), check(scratch+"/none.cfg"))
		}, "done, exit 1, exit 1"},
		{"keepalived says whether it could work from a file", []string{"keepalived"}, func(ctx context.Context, s *Scene) string {
			s.put(ctx, scratch+"/bad.conf", 0o644, "nonsense\n")
			check := func(file string) []string { return []string{"keepalived", "--config-test", "--use-file", file} }
			return s.ends(ctx, check("/etc/keepalived/keepalived.conf"), check(scratch+"/bad.conf"), check(scratch+"/none.conf"))
		}, "done, exit 5, done"},
		{"HAProxy says of each API server how it is", []string{"perl"}, func(ctx context.Context, s *Scene) string {
			v, err := haproxy.Backend{Socket: templates.HAProxySocket, Name: templates.HAProxyBackend}.Look(ctx, s.Host)
			var all []string
			for _, server := range v.Servers {
				check := strings.Replace(server.Check, "L7OK 0", "L7OK 200", 1) // it has no code while a check is under way
				all = append(all, fmt.Sprint(server.Name, " ", server.State, " ", server.Well, " ", check))
			}
			return strings.Join(all, ", ") + ", " + seen(err)
		}, "cp-1 UP true L7OK 200, cp-2 UP true L7OK 200, cp-3 UP true L7OK 200, done"},
		{"a server that is drained gets nobody new until it is enabled, or by itself when it is forgotten", []string{"sh ... ha-install-haproxy"}, func(ctx context.Context, s *Scene) string {
			b := haproxy.Backend{Socket: templates.HAProxySocket, Name: templates.HAProxyBackend}
			states := func() (all string) {
				v, err := b.Look(ctx, s.Host)
				for _, server := range v.Servers {
					all += string(server.State) + " "
				}
				return all + seen(err)
			}
			var all []string
			note := func(err error) { all = append(all, seen(err), states()) }
			note(b.Drain(ctx, s.Host, "cp-3", time.Minute))
			note(b.Drain(ctx, s.Host, "cp-3", time.Minute)) // by a second run
			note(b.Enable(ctx, s.Host, "cp-3"))
			note(b.Enable(ctx, s.Host, "cp-3"))
			note(b.Drain(ctx, s.Host, "cp-3", time.Second))
			s.Pause(4 * time.Second)
			unknown := b.Drain(ctx, s.Host, "none", time.Second)
			return strings.Join(append(all, states(), seen(unknown), seen(b.Enable(ctx, s.Host, "none"))), ", ")
		}, "done, UP UP DRAINED done, done, UP UP DRAINED done, done, UP UP UP done, done, UP UP UP done, done, UP UP DRAINED done, UP UP UP done, lb-1: HAProxy: No such server., exit 1"},
		{"an admin socket that is not there", []string{"perl"}, func(ctx context.Context, s *Scene) string {
			_, err := haproxy.Backend{Socket: "/run/none.sock", Name: templates.HAProxyBackend}.Look(ctx, s.Host)
			return seen(err)
		}, "exit 1"},
		{"a balancer listens for a router ID that it does not have yet, and hears its own peers alone", []string{"perl ... 1.5"}, func(ctx context.Context, s *Scene) string {
			var said []string
			for _, id := range []int{51, 52} {
				c := *s.Cluster
				c.Spec.LoadBalancer.VirtualRouterID = id
				report := preflight.Run(ctx, &c, map[string]host.Reader{s.Host.Name(): s.Host}, preflight.Options{})
				for _, f := range report.Findings {
					if f.Check == preflight.CheckVirtualRouterID {
						said = append(said, fmt.Sprint(f.Severity, ": ", f.Seen))
					}
				}
			}
			return strings.Join(said, ", ")
		}, "ok: 51, in use by this cluster, ok: nobody else announced 52 within 1.5s"},
		{"HAProxy is reloaded in its place", []string{"systemctl reload-or-restart", "systemctl show --property ActiveState"}, func(ctx context.Context, s *Scene) string {
			ended := s.ends(ctx, []string{"systemctl", "reload-or-restart", "haproxy.service"})
			s.Pause(3 * time.Second) // it may say "reloading" for an instant, which counts as running
			return ended + ", " + s.answers(ctx, activeState("haproxy"), loadState("haproxy.service"))
		}, "done, active, loaded"},
		{"the endpoint is on one balancer, and leads to an API server", []string{"ip"}, func(ctx context.Context, s *Scene) string {
			holders := 0
			for _, ih := range s.Cluster.Balancers() {
				h := s.Dial(ih.Name)
				out, err := h.Query(ctx, "ip", "-oneline", "address", "show", "to", s.Cluster.Spec.Endpoint.Host)
				h.Close()
				if err != nil {
					return seen(err)
				}
				if strings.TrimSpace(string(out)) != "" {
					holders++
				}
			}
			conn, err := s.Host.DialContext(ctx, "tcp", s.Cluster.Spec.Endpoint.Host+":6443")
			if err == nil {
				conn.Close()
			}
			return fmt.Sprint(holders, " ", seen(err))
		}, "1 done"},
	}
}
