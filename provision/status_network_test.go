package provision

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/inventory"
)

func TestStatusSaysWhoseTheMissingNetworkIs(t *testing.T) {
	bare := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "cp-1"}}
	bare.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse,
		Message: "container runtime network not ready: NetworkReady=false"}}
	for plugin, want := range map[inventory.CNIPlugin]string{
		inventory.CNINone:    "not ready: it lacks a pod network, which is yours to install",
		inventory.CNIFlannel: "not ready: container runtime network not ready",
	} {
		st := Status{Hosts: []HostStatus{{Name: "cp-1"}}}
		apiAnswer{nodes: []corev1.Node{bare}}.fill(&st, plugin)
		if !strings.HasPrefix(st.Hosts[0].Node, want) {
			t.Errorf("%s: %q, want %q", plugin, st.Hosts[0].Node, want)
		}
	}
}
