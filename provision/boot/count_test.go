package boot

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/test/golden"
)

func TestResultTables(t *testing.T) {
	r := Result{
		Backup: "backups/prod/2026-11-23T04-05-06Z", Kubernetes: "v1.36.3", Etcd: "3.6.8-0", Revision: 18234, Keys: 812, Objects: 13,
		Kinds: []Kind{
			{Resource: "configmaps", Kind: "ConfigMap", Objects: 9, Namespaces: map[string]int64{"kube-system": 6, "default": 3}},
			{Resource: "nodes", Kind: "Node", Objects: 4},
		},
		Unread:  []Unread{{"secrets", "encrypted at rest, and the key was not opened: no matching prefix found"}},
		Restore: units.Seconds(1234 * time.Millisecond), Ready: units.Seconds(5 * time.Second), Took: units.Seconds(9 * time.Second),
	}
	var kinds, spaces strings.Builder
	if err := r.Write(&kinds, false); err != nil {
		t.Fatal(err)
	}
	if err := r.Write(&spaces, true); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "kinds.txt", []byte(kinds.String()))
	golden.Check(t, "namespaces.txt", []byte(spaces.String()))
}

// TestCounting counts what an API server of paper serves: in pages, without what
// it has made itself, and with what it cannot give.
func TestCounting(t *testing.T) {
	began := time.Now()
	old, young := metav1.NewTime(began.Add(-time.Hour)), metav1.NewTime(began.Add(time.Minute))
	object := func(name, namespace string, at metav1.Time) map[string]any {
		return map[string]any{"metadata": map[string]any{"name": name, "namespace": namespace, "creationTimestamp": at}}
	}
	verbs := []string{"list", "get"}
	answers := map[string]any{
		"/api":  map[string]any{"kind": "APIVersions", "versions": []string{"v1"}},
		"/apis": map[string]any{"kind": "APIGroupList", "groups": []any{}},
		"/api/v1": map[string]any{"kind": "APIResourceList", "groupVersion": "v1", "resources": []any{
			map[string]any{"name": "configmaps", "kind": "ConfigMap", "namespaced": true, "verbs": verbs},
			map[string]any{"name": "nodes", "kind": "Node", "verbs": verbs},
			map[string]any{"name": "nodes/status", "kind": "Node", "verbs": verbs},
			map[string]any{"name": "bindings", "kind": "Binding", "namespaced": true, "verbs": []string{"create"}},
			map[string]any{"name": "componentstatuses", "kind": "ComponentStatus", "verbs": verbs},
			map[string]any{"name": "secrets", "kind": "Secret", "namespaced": true, "verbs": verbs},
		}},
		"/api/v1/configmaps":            map[string]any{"metadata": map[string]any{"continue": "2"}, "items": []any{object("a", "default", old), object("b", "x", old)}},
		"/api/v1/configmaps?continue=2": map[string]any{"items": []any{object("c", "x", old), object("made-now", "kube-system", young)}},
		"/api/v1/nodes":                 map[string]any{"items": []any{object("cp-1", "", old)}},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at := r.URL.Path
		if next := r.URL.Query().Get("continue"); next != "" {
			at += "?continue=" + next
		}
		w.Header().Set("Content-Type", "application/json")
		body, known := answers[at].(map[string]any)
		if !known {
			w.WriteHeader(http.StatusInternalServerError)
			body = map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500, "reason": "InternalError", "message": "no matching prefix found"}
		} else if _, list := body["items"]; list {
			body["kind"], body["apiVersion"] = "PartialObjectMetadataList", "meta.k8s.io/v1"
		}
		_ = json.NewEncoder(w).Encode(body)
	}))
	defer server.Close()
	c := &counting{since: began, sealed: true}
	if err := c.all(context.Background(), &rest.Config{Host: server.URL}); err != nil {
		t.Fatal(err)
	}
	if c.objects != 4 || len(c.kinds) != 2 || c.kinds[0].Resource != "configmaps" || c.kinds[0].Objects != 3 || c.kinds[0].Namespaces["x"] != 2 || c.kinds[1].Objects != 1 || c.kinds[1].Namespaces != nil {
		t.Errorf("%d: %+v", c.objects, c.kinds)
	}
	if len(c.unread) != 1 || c.unread[0].Resource != "secrets" || !strings.Contains(c.unread[0].Why, "the key was not opened") {
		t.Errorf("%+v", c.unread)
	}
	server.Close()
	if err := (&counting{since: began}).all(context.Background(), &rest.Config{Host: server.URL}); err == nil {
		t.Error("an API server that is gone was counted")
	}
}

func TestFits(t *testing.T) {
	for _, of := range []struct {
		name, data, program string
		ok                  bool
	}{
		{"the same", "v1.36.3", "v1.36.3", true},
		{"an older patch", "v1.36.3", "v1.36.1", true},
		{"newer", "v1.35.4", "v1.36.3", true},
		{"older", "v1.36.3", "v1.35.4", false},
		{"the backup does not say", "", "v1.35.4", true},
	} {
		if err := fits(of.data, of.program); (err == nil) != of.ok {
			t.Errorf("%s: %v", of.name, err)
		}
	}
}
