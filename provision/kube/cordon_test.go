package kube

import (
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestCordonIsTakenBackByWhoMadeIt(t *testing.T) {
	for _, row := range []struct {
		name          string
		noted         string // by whom the Node is cordoned before
		unschedulable bool
		cordon        string // who cordons it: "" nobody
		by            string // Cordoned after that
		closed        bool
		changed       bool // by Uncordon of "upgrade"
		byAfter       string
		closedAfter   bool
	}{
		{"ours comes and goes", "", false, "upgrade", "upgrade", true, true, "", false},
		{"an operator's stays as it is", "", true, "upgrade", "", true, false, "", true},
		{"of an earlier run of ours", "upgrade", true, "upgrade", "upgrade", true, true, "", false},
		{"another operation's stays its own", "replace", true, "upgrade", "replace", true, false, "replace", true},
		{"another operation's that somebody took back", "replace", false, "upgrade", "upgrade", true, true, "", false},
		{"ours that somebody took back", "upgrade", false, "", "upgrade", false, true, "", false},
		{"nothing there", "", false, "", "", false, false, "", false},
		{"an operator's, and we never cordoned", "", true, "", "", true, false, "", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			api, client := newAPI(t)
			n := corev1.Node{Spec: corev1.NodeSpec{Unschedulable: row.unschedulable, ProviderID: "kept"}}
			n.Annotations = map[string]string{"mine": "kept"}
			if row.noted != "" {
				n.Annotations[CordonedBy] = row.noted
			}
			api.Set("nodes", "", "w-1", n)
			if row.cordon != "" {
				api.Fail("PUT nodes", http.StatusConflict) // the kubelet was faster
				if err := client.Cordon(t.Context(), "w-1", row.cordon); err != nil {
					t.Fatal(err)
				}
			}
			want := func(by string, closed bool) {
				t.Helper()
				gotBy, got, err := client.Cordoned(t.Context(), "w-1")
				if err != nil || gotBy != by || got != closed {
					t.Errorf("cordoned by %q, unschedulable %t, %v; want %q, %t", gotBy, got, err, by, closed)
				}
			}
			want(row.by, row.closed)
			changed, err := client.Uncordon(t.Context(), "w-1", "upgrade")
			if err != nil || changed != row.changed {
				t.Errorf("uncordon: %t, %v", changed, err)
			}
			want(row.byAfter, row.closedAfter)
			after, err := client.CoreV1().Nodes().Get(t.Context(), "w-1", metav1.GetOptions{})
			if err != nil || after.Annotations["mine"] != "kept" || after.Spec.ProviderID != "kept" {
				t.Errorf("the Node lost something: %v, %v", after, err)
			}
		})
	}
}

func TestCordonOfAFreshNode(t *testing.T) {
	api, client := newAPI(t)
	setNode(api, "w-1", "", nil) // no annotations
	if err := client.Cordon(t.Context(), "w-1", "upgrade"); err != nil {
		t.Fatal(err)
	}
	if by, closed, err := client.Cordoned(t.Context(), "w-1"); by != "upgrade" || !closed || err != nil {
		t.Errorf("%q, %t, %v", by, closed, err)
	}
}

func TestCordonOfNoNode(t *testing.T) {
	_, client := newAPI(t)
	wantError(t, client.Cordon(t.Context(), "none", "upgrade"), `"none" not found`)
	_, err := client.Uncordon(t.Context(), "none", "upgrade")
	wantError(t, err, `"none" not found`)
	_, _, err = client.Cordoned(t.Context(), "none")
	wantError(t, err, `"none" not found`)
}
