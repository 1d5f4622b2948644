package kube

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	bootstraputil "k8s.io/cluster-bootstrap/token/util"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/templates"
)

func TestTokenIsWhatKubeadmAccepts(t *testing.T) {
	api, client := newAPI(t)
	letters := map[rune]int{}
	for range 50 {
		token, err := client.CreateToken(t.Context(), 20*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if !bootstraputil.IsValidBootstrapToken(token) {
			t.Errorf("kubeadm does not take %q for a token", token)
		}
		for _, r := range token {
			letters[r]++
		}
	}
	if n := len(api.Names("secrets")); n != 50 {
		t.Errorf("%d different tokens of 50", n)
	}
	if len(letters) < 30 { // 36 and the dot; 1100 draws miss few
		t.Errorf("only %d letters are used: %v", len(letters), slices.Sorted(maps.Keys(letters)))
	}
}

func TestTokenLivesShortAndOnlyAuthenticates(t *testing.T) {
	api, client := newAPI(t)
	token, err := client.CreateToken(t.Context(), 20*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	id, secret, _ := strings.Cut(token, ".")
	var s corev1.Secret
	data, err := json.Marshal(api.Get("secrets", "kube-system", "bootstrap-token-"+id))
	if err != nil || json.Unmarshal(data, &s) != nil {
		t.Fatal(err)
	}
	expires, err := time.Parse(time.RFC3339, string(s.Data["expiration"]))
	if left := time.Until(expires); err != nil || left > 20*time.Minute || left < 19*time.Minute {
		t.Errorf("expires in %s, %v", left, err)
	}
	delete(s.Data, "expiration")
	got := map[string]string{"type": string(s.Type)}
	for k, v := range s.Data {
		got[k] = string(v)
	}
	want := map[string]string{
		"type": "bootstrap.kubernetes.io/token", "token-id": id, "token-secret": secret, "usage-bootstrap-authentication": "true",
		"auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token", "description": "made by ha-install for one join",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("secret (-want +got):\n%s", diff)
	}
	for range 2 { // the second time it is gone already
		if err := client.DeleteToken(t.Context(), token); err != nil {
			t.Error(err)
		}
	}
}

func TestDeleteTokensLeavesOtherSecrets(t *testing.T) {
	api, client := newAPI(t)
	for range 3 {
		if _, err := client.CreateToken(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	api.Set("secrets", "kube-system", "mine", corev1.Secret{Type: corev1.SecretTypeOpaque})
	if n, err := client.CountTokens(t.Context()); n != 3 || err != nil {
		t.Errorf("counted %d, %v", n, err)
	}
	if err := client.DeleteTokens(t.Context()); err != nil {
		t.Fatal(err)
	}
	if names := api.Names("secrets"); !slices.Equal(names, []string{"kube-system/mine"}) {
		t.Errorf("left: %q", names)
	}
}

func TestDecode(t *testing.T) {
	rows := []struct {
		name, stream string
		want         int
		err          string
	}{
		{"nothing", "", 0, ""},
		{"empty documents are dropped", "---\n---\n# only a comment\n---\n", 0, ""},
		{"two documents", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n", 2, ""},
		{"JSON", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}`, 1, ""},
		{"a document without a name is counted by its place", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Namespace\n", 0, "document 2: apiVersion, kind and metadata.name are needed"},
		{"no YAML", "apiVersion: v1\n\tkind: x\n", 0, "document 1: "},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			objects, err := Decode([]byte(row.stream))
			wantError(t, err, row.err)
			if len(objects) != row.want {
				t.Errorf("%d objects, wanted %d", len(objects), row.want)
			}
		})
	}
}

func TestApplyFlannelOnce(t *testing.T) {
	c := &inventory.Cluster{}
	c.Spec.Endpoint = inventory.Endpoint{Host: "198.51.100.100", Port: 6443}
	c.Spec.Network = inventory.Network{PodCIDR: "10.244.0.0/16", CNI: inventory.CNI{Plugin: inventory.CNIFlannel, Backend: inventory.CNIBackendVXLAN}}
	stream, err := templates.Flannel(c)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := Decode(stream)
	if err != nil {
		t.Fatal(err)
	}
	api, client := newAPI(t)
	if differ, err := client.Differ(t.Context(), objects); err != nil || !differ {
		t.Errorf("before: differ %t, %v", differ, err)
	}
	if names := api.Names("daemonsets"); len(names) > 0 {
		t.Errorf("a dry run made %q", names)
	}
	if n, err := client.Apply(t.Context(), objects); err != nil || n != len(objects) {
		t.Errorf("applied %d of %d, %v", n, len(objects), err)
	}
	if n, err := client.Apply(t.Context(), objects); err != nil || n != 0 {
		t.Errorf("a second time %d changed, %v", n, err)
	}
	if differ, err := client.Differ(t.Context(), objects); err != nil || differ {
		t.Errorf("after: differ %t, %v", differ, err)
	}
	_, name, _ := strings.Cut(api.Names("configmaps")[0], "/")
	o := api.Get("configmaps", "kube-flannel", name)
	o["data"] = map[string]any{"net-conf.json": "{}"}
	api.Set("configmaps", "kube-flannel", name, o)
	if differ, err := client.Differ(t.Context(), objects); err != nil || !differ {
		t.Errorf("after somebody's change: differ %t, %v", differ, err)
	}
}

func TestApplyOfAnUnknownKind(t *testing.T) {
	_, client := newAPI(t)
	objects, err := Decode([]byte("apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: a}\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Apply(t.Context(), objects)
	wantError(t, err, "Thing a: ")
}

func TestDress(t *testing.T) {
	noSchedule := corev1.Taint{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectNoSchedule}
	other := corev1.Taint{Key: "node.kubernetes.io/not-ready", Effect: corev1.TaintEffectNoExecute}
	rows := []struct {
		name    string
		node    corev1.Node
		labels  map[string]string
		taints  []corev1.Taint
		changed bool
		want    corev1.Node
	}{
		{"nothing is wanted", corev1.Node{}, nil, nil, false, corev1.Node{}},
		{"a first label", corev1.Node{}, map[string]string{"a": "1"}, nil, true, node(map[string]string{"a": "1"})},
		{"a label with an empty value", node(map[string]string{"b": "2"}), map[string]string{"a": ""}, nil, true, node(map[string]string{"a": "", "b": "2"})},
		{"another value", node(map[string]string{"a": "1"}), map[string]string{"a": "2"}, nil, true, node(map[string]string{"a": "2"})},
		{"all is there, and more", node(map[string]string{"a": "1", "b": "2"}, noSchedule, other), map[string]string{"a": "1"}, []corev1.Taint{noSchedule}, false,
			node(map[string]string{"a": "1", "b": "2"}, noSchedule, other)},
		{"a taint beside others'", node(nil, other), nil, []corev1.Taint{noSchedule}, true, node(nil, other, noSchedule)},
		{"a taint of the same key and effect takes the new value", node(nil, corev1.Taint{Key: "dedicated", Value: "web", Effect: corev1.TaintEffectNoSchedule}), nil,
			[]corev1.Taint{noSchedule}, true, node(nil, noSchedule)},
		{"the same key with another effect is another taint", node(nil, corev1.Taint{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectNoExecute}), nil,
			[]corev1.Taint{noSchedule}, true, node(nil, corev1.Taint{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectNoExecute}, noSchedule)},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			n := row.node.DeepCopy()
			if got := dress(n, row.labels, row.taints); got != row.changed {
				t.Errorf("changed %t, wanted %t", got, row.changed)
			}
			if len(n.Labels) == 0 {
				n.Labels = nil
			}
			if diff := cmp.Diff(&row.want, n); diff != "" {
				t.Errorf("node (-want +got):\n%s", diff)
			}
			if dress(n, row.labels, row.taints) {
				t.Error("a second time it changed something again")
			}
		})
	}
}

func node(labels map[string]string, taints ...corev1.Taint) corev1.Node {
	return corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.NodeSpec{Taints: taints}}
}

func TestDressNodeTriesAgainOnConflict(t *testing.T) {
	api, client := newAPI(t)
	setNode(api, "w-1", "", nil)
	api.Fail("PUT nodes", 409)
	labels := map[string]string{"rack": "3"}
	if has, err := client.NodeHas(t.Context(), "w-1", labels, nil); has || err != nil {
		t.Errorf("before: %t, %v", has, err)
	}
	if err := client.DressNode(t.Context(), "w-1", labels, nil); err != nil {
		t.Fatal(err)
	}
	if has, err := client.NodeHas(t.Context(), "w-1", labels, nil); !has || err != nil {
		t.Errorf("after: %t, %v", has, err)
	}
}

func TestNotes(t *testing.T) {
	_, client := newAPI(t)
	for _, step := range []struct{ key, value string }{{"a", "1"}, {"b", "2"}, {"a", "3"}} {
		if err := client.Note(t.Context(), step.key, step.value); err != nil {
			t.Fatal(err)
		}
	}
	for key, want := range map[string]string{"a": "3", "b": "2", "c": ""} {
		if got, err := client.Noted(t.Context(), key); got != want || err != nil {
			t.Errorf("%s: %q, %v; wanted %q", key, got, err, want)
		}
	}
}

func TestNodeUIDsAreSorted(t *testing.T) {
	api, client := newAPI(t)
	setNode(api, "b", "", nil)
	setNode(api, "a", "", nil)
	got, err := client.NodeUIDs(t.Context())
	if err != nil || len(got) != 2 || !slices.IsSorted(got) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestInterruptedWritesAreNoSuccess(t *testing.T) {
	api, client := newAPI(t)
	setNode(api, "w-1", "", nil)
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	if err := client.Note(ctx, "a", "1"); !errors.Is(err, context.Canceled) {
		t.Errorf("Note: error %v", err)
	}
	if err := client.DressNode(ctx, "w-1", map[string]string{"a": "1"}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("DressNode: error %v", err)
	}
}
