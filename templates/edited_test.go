package templates

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	kubeadmconfig "k8s.io/kubernetes/cmd/kubeadm/app/util/config"
)

func TestEdits(t *testing.T) {
	c := testCluster()
	c.Spec.Kubeadm.KubeProxyConfiguration = map[string]any{"conntrack": map[string]any{"tcpCloseWaitTimeout": "60s"}}
	documents, err := InitDocuments(c, c.ControlPlanes()[0], Init{EtcdExisting: true})
	if err != nil {
		t.Fatal(err)
	}
	config, err := kubeadmconfig.BytesToInitConfiguration(documents, true)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, group string
		edit        []string // from, to
		want        []string
	}{
		{"as kubeadm wrote it", KubeProxyGroup, nil, nil},
		{"as kubeadm wrote it", KubeletGroup, nil, nil},
		{"another mode", KubeProxyGroup, []string{`mode: ""`, "mode: ipvs"}, []string{"mode: ipvs, will be unset"}},
		{"another value than the inventory's", KubeProxyGroup, []string{"tcpCloseWaitTimeout: 1m0s", "tcpCloseWaitTimeout: 90s"},
			[]string{"conntrack.tcpCloseWaitTimeout: 90s, will be 1m0s"}},
		{"the same value in other words", KubeProxyGroup, []string{"tcpCloseWaitTimeout: 1m0s", "tcpCloseWaitTimeout: 60s"}, nil},
		{"the inventory has more", KubeProxyGroup, []string{"tcpCloseWaitTimeout: 1m0s", "tcpCloseWaitTimeout: null"}, nil},
		{"fields that kubeadm does not know", KubeProxyGroup, []string{"kind: KubeProxy", "newer:\n  field: [a, b]\nolder: 0\nkind: KubeProxy"}, []string{"newer.field: [a b], will be unset"}},
		{"two edits", KubeletGroup, []string{"staticPodPath: /etc/kubernetes/manifests", "staticPodPath: /elsewhere\nmaxPods: 250"},
			[]string{"maxPods: 250, will be unset", "staticPodPath: /elsewhere, will be /etc/kubernetes/manifests"}},
		{"of a host with systemd-resolved", KubeletGroup, []string{"staticPodPath:", "resolvConf: /run/systemd/resolve/resolv.conf\nstaticPodPath:"}, nil},
		{"a list", KubeletGroup, []string{"clusterDNS:\n- 10.96.0.10\n", "clusterDNS:\n- 169.254.20.10\n"}, []string{"clusterDNS: [169.254.20.10], will be [10.96.0.10]"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			running, err := config.ComponentConfigs[tt.group].Marshal()
			if err != nil {
				t.Fatal(err)
			}
			text := string(running)
			if tt.edit != nil {
				if !strings.Contains(text, tt.edit[0]) {
					t.Fatalf("no %q in\n%s", tt.edit[0], text)
				}
				text = strings.Replace(text, tt.edit[0], tt.edit[1], 1)
			}
			got, err := Edits(c, tt.group, []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	if _, err := Edits(c, KubeletGroup, []byte("- no\n  document")); err == nil {
		t.Error("what is no document is not refused")
	}
}
