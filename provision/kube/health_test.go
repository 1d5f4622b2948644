package kube

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/test/kubeapi"
)

func TestReadyzNamesWhatIsNotReady(t *testing.T) {
	api, client := newAPI(t)
	wantError(t, client.Readyz(t.Context()), "")
	api.NotReady("etcd", "poststarthook/rbac/bootstrap-roles")
	err := client.Readyz(t.Context())
	wantError(t, err, client.Server+": not ready: etcd, poststarthook/rbac/bootstrap-roles")
}

func TestReadyzOfAServerThatIsGone(t *testing.T) {
	_, client := newAPI(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantError(t, client.Readyz(ctx), "apiserver "+client.Server)
}

var master = map[string]string{controlPlaneLabel: ""}

func TestColumn(t *testing.T) {
	rows := []struct {
		name  string
		given func(*kubeapi.Server)
		ready string // error of Column
		runs  string // error of ColumnRuns
	}{
		{"no Node yet", func(*kubeapi.Server) {}, `node cp-1: nodes "cp-1" not found`, "node cp-1"},
		{"a Node that is not marked", func(api *kubeapi.Server) { setNode(api, "cp-1", "", nil) }, "not marked as control plane", "not marked as control plane"},
		{"all four ready", func(api *kubeapi.Server) {
			setNode(api, "cp-1", "", master)
			setColumn(api, "cp-1", "ready", "ready", "ready", "ready")
		}, "", ""},
		{"a NotReady Node does not matter to its column", func(api *kubeapi.Server) {
			setNode(api, "cp-1", "no network", master)
			setColumn(api, "cp-1", "ready", "ready", "ready", "ready")
		}, "", ""},
		{"containers that run before their first probe", func(api *kubeapi.Server) {
			setNode(api, "cp-1", "", master)
			setColumn(api, "cp-1", "running", "running", "ready", "ready")
		}, "control plane of cp-1: etcd (not ready), kube-apiserver (not ready)", ""},
		{"a pod that has no container yet does not run", func(api *kubeapi.Server) {
			setNode(api, "cp-1", "", master)
			setColumn(api, "cp-1", "pending", "ready", "ready", "ready")
		}, "etcd (pending)", "etcd (pending)"},
		{"a missing and a crashing pod", func(api *kubeapi.Server) {
			setNode(api, "cp-1", "", master)
			setColumn(api, "cp-1", "", "CrashLoopBackOff", "ready", "terminated")
		}, "etcd (no pod), kube-apiserver (CrashLoopBackOff), kube-scheduler (terminated: OOMKilled)", "etcd (no pod), kube-apiserver (CrashLoopBackOff)"},
		{"another node's pods do not count", func(api *kubeapi.Server) {
			setNode(api, "cp-1", "", master)
			setColumn(api, "cp-2", "ready", "ready", "ready", "ready")
		}, "etcd (no pod)", "etcd (no pod)"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			api, client := newAPI(t)
			row.given(api)
			wantError(t, client.Column(t.Context(), "cp-1"), row.ready)
			wantError(t, client.ColumnRuns(t.Context(), "cp-1"), row.runs)
		})
	}
}

func TestNodeStates(t *testing.T) {
	api, client := newAPI(t)
	setNode(api, "fine", "", nil)
	setNode(api, "sick", "cni plugin not initialized", nil)
	api.Set("nodes", "", "new", corev1.Node{})
	for _, row := range []struct{ node, err, state string }{
		{"fine", "", "Ready"},
		{"sick", "node sick: not ready: cni plugin not initialized", "not ready: cni plugin not initialized"},
		{"new", "node new: has not reported yet", "has not reported yet"},
		{"gone", `node gone: nodes "gone" not found`, ""},
	} {
		wantError(t, client.NodeReady(t.Context(), row.node), row.err)
		if row.state == "" {
			continue
		}
		n, err := client.CoreV1().Nodes().Get(t.Context(), row.node, metav1.GetOptions{})
		if err != nil || NodeState(n) != row.state {
			t.Errorf("%s: state %q (%v), wanted %q", row.node, NodeState(n), err, row.state)
		}
	}
}

func TestNodesThatLackANetwork(t *testing.T) {
	const lacks = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"
	api, client := newAPI(t)
	setNode(api, "fine", "", nil)
	setNode(api, "bare", lacks, nil)
	setNode(api, "sick", "["+lacks+", PLEG is not healthy]", nil)
	setNode(api, "down", "Kubelet stopped posting node status.", nil)
	for node, err := range map[string]string{"fine": "", "bare": "", "sick": "PLEG is not healthy", "down": "Kubelet stopped", "gone": "not found"} {
		wantError(t, client.NodeReadyForNetwork(t.Context(), node), err)
	}
	if names, err := client.NodesWithoutNetwork(t.Context()); err != nil || len(names) != 1 || names[0] != "bare" {
		t.Errorf("%v lack a network, %v", names, err)
	}
}

func setLease(api *kubeapi.Server, component, holder string, age time.Duration) {
	at := metav1.NewMicroTime(time.Now().Add(-age))
	l := coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &at}}
	api.Set("leases", "kube-system", component, l)
}

func TestLeaders(t *testing.T) {
	rows := []struct {
		name  string
		given func(*kubeapi.Server)
		want  string // "component node" of each
		err   string
	}{
		{"both lead", func(api *kubeapi.Server) {
			setLease(api, "kube-controller-manager", "cp-2_0f1e", time.Second)
			setLease(api, "kube-scheduler", "cp-1_a2b3", time.Second)
		}, "kube-controller-manager cp-2, kube-scheduler cp-1", ""},
		{"no lease yet", func(api *kubeapi.Server) { setLease(api, "kube-controller-manager", "cp-2_0f1e", 0) },
			"kube-controller-manager cp-2", `kube-scheduler: leases.coordination.k8s.io "kube-scheduler" not found`},
		{"a lease that was given back", func(api *kubeapi.Server) { setLease(api, "kube-controller-manager", "", 0) }, "", "kube-controller-manager: nobody leads"},
		{"a lease that ran out", func(api *kubeapi.Server) {
			setLease(api, "kube-controller-manager", "cp-3_0f1e", time.Minute)
			setLease(api, "kube-scheduler", "cp-1_a2b3", time.Second)
		}, "kube-controller-manager cp-3, kube-scheduler cp-1", "kube-controller-manager: last leader cp-3 has not renewed for 1m0s"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			api, client := newAPI(t)
			row.given(api)
			leaders, err := client.Leaders(t.Context())
			if row.err == "" || !strings.Contains(row.err, "not found") {
				wantError(t, err, row.err)
			} else {
				wantError(t, err, "not found")
			}
			var got []string
			for _, l := range leaders {
				got = append(got, l.Component+" "+l.Node)
			}
			if diff := cmp.Diff(row.want, strings.Join(got, ", ")); diff != "" {
				t.Errorf("leaders (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStaticPodsByNode(t *testing.T) {
	api, client := newAPI(t)
	setColumn(api, "cp-1", "ready", "running", "", "")
	setColumn(api, "cp-2", "", "", "ImagePullBackOff", "")
	api.Set("pods", "kube-system", "coredns-1", corev1.Pod{Spec: corev1.PodSpec{NodeName: "cp-1"}})
	got, err := client.StaticPods(t.Context())
	want := map[string]map[string]string{
		"cp-1": {"etcd": "ready", "kube-apiserver": "not ready"},
		"cp-2": {"kube-controller-manager": "ImagePullBackOff"},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("error %v, pods (-want +got):\n%s", err, diff)
	}
}

// toServer dials a test server whatever address is asked for, and notes it.
type toServer struct {
	server *httptest.Server
	asked  string
}

func (d *toServer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d.asked = address
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, d.server.Listener.Addr().String())
}

func TestKubeletHealthz(t *testing.T) {
	code, text := http.StatusOK, "ok"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.WriteHeader(code)
		fmt.Fprint(w, text)
	}))
	d := &toServer{server: server}
	wantError(t, KubeletHealthz(t.Context(), d), "")
	if d.asked != "127.0.0.1:10248" {
		t.Errorf("dialled %s", d.asked)
	}
	code, text = http.StatusInternalServerError, "PLEG is not healthy"
	wantError(t, KubeletHealthz(t.Context(), d), "500 Internal Server Error: PLEG is not healthy")
	server.Close()
	wantError(t, KubeletHealthz(t.Context(), d), "refused")
}

func TestColumnIsOfTheWantedImages(t *testing.T) {
	wanted := map[string]string{"etcd": "3.6.8-0", "kube-apiserver": "v1.36.3", "kube-controller-manager": "v1.36.3", "kube-scheduler": "v1.36.3"}
	rows := []struct {
		name             string
		component, image string // of the one pod that is otherwise; "" removes its image
		waits            string // why its container does not run
		missing, want    string
	}{
		{"all four", "etcd", "registry.k8s.io/etcd:3.6.8-0", "", "", ""},
		{"from a registry with a port", "etcd", "mirror.example:5000/etcd:3.6.8-0", "", "", ""},
		{"an old API server still runs", "kube-apiserver", "registry.k8s.io/kube-apiserver:v1.35.4", "", "", `kube-apiserver (runs "v1.35.4", wanted "v1.36.3")`},
		{"the new one does not start", "kube-apiserver", "registry.k8s.io/kube-apiserver:v1.36.3", "CrashLoopBackOff", "", `kube-apiserver (runs "", wanted "v1.36.3")`},
		{"a manifest is missing", "etcd", "registry.k8s.io/etcd:3.6.8-0", "", "kube-scheduler", `kube-scheduler (runs "v1.36.3", wanted "")`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			api, client := newAPI(t)
			for component, tag := range wanted {
				image, state := "registry.k8s.io/"+component+":"+tag, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
				if component == row.component {
					image = row.image
					if row.waits != "" {
						state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: row.waits}}
					}
				}
				for _, node := range []string{"cp-1", "cp-2"} {
					if node == "cp-2" { // another master's are no concern
						image = "registry.k8s.io/" + component + ":older"
					}
					api.Set("pods", metav1.NamespaceSystem, component+"-"+node, corev1.Pod{
						ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"tier": "control-plane", "component": component}},
						Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: component, Image: image}}},
						Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: state}}},
					})
				}
			}
			tags := maps.Clone(wanted)
			delete(tags, row.missing)
			wantError(t, client.ColumnIs(t.Context(), "cp-1", tags), row.want)
		})
	}
}

func TestKubeletIs(t *testing.T) {
	api, client := newAPI(t)
	var n corev1.Node
	n.Status.NodeInfo.KubeletVersion = "v1.35.4"
	api.Set("nodes", "", "w-1", n)
	wantError(t, client.KubeletIs(t.Context(), "w-1", "v1.35.4"), "")
	wantError(t, client.KubeletIs(t.Context(), "w-1", "v1.36.3"), "node w-1: its kubelet is v1.35.4, wanted v1.36.3")
	wantError(t, client.KubeletIs(t.Context(), "w-2", "v1.36.3"), "node w-2: ")
}
