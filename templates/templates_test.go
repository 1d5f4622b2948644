package templates

import (
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/test/golden"
)

func TestGoldens(t *testing.T) {
	c := testCluster()
	lab := labCluster()
	documents := []struct {
		name string
		make func() ([]byte, error)
	}{
		{"init-cp-1.yaml", func() ([]byte, error) { return InitDocuments(c, hostNamed(t, c, "cp-1"), Init{}) }},
		{"init-cp-1-existing.yaml", func() ([]byte, error) {
			return InitDocuments(c, hostNamed(t, c, "cp-1"), Init{EtcdExisting: true, SkipPhases: []string{"addon/kube-proxy"}})
		}},
		{"init-lab.yaml", func() ([]byte, error) { return InitDocuments(lab, hostNamed(t, lab, "cp-1"), Init{}) }},
		{"join-cp-2.yaml", func() ([]byte, error) {
			return JoinDocuments(c, hostNamed(t, c, "cp-2"), Join{DiscoveryFile: "/run/ha-install/discovery.conf"})
		}},
		{"join-w-1.yaml", func() ([]byte, error) {
			return JoinDocuments(c, hostNamed(t, c, "w-1"), Join{DiscoveryFile: "/run/ha-install/discovery.conf"})
		}},
		{"join-lab-w-1.yaml", func() ([]byte, error) {
			return JoinDocuments(lab, hostNamed(t, lab, "w-1"), Join{DiscoveryFile: "/discovery", SkipPhases: []string{"preflight"}})
		}},
		{"cluster.yaml", func() ([]byte, error) { return ClusterConfiguration(c, true) }},
		{"flannel-lab.yaml", func() ([]byte, error) { return Flannel(lab) }},
		{"discovery.yaml", func() ([]byte, error) {
			return DiscoveryKubeconfig(c, "", []byte("CA"), "abcdef.0123456789abcdef")
		}},
		{"flannel.yaml", func() ([]byte, error) { return Flannel(c) }},
		{"encryption.yaml", func() ([]byte, error) { return EncryptionConfig([EncryptionKeySize]byte{1, 2, 3}), nil }},
	}
	for _, d := range documents {
		t.Run(d.name, func(t *testing.T) {
			got, err := d.make()
			if err != nil {
				t.Fatal(err)
			}
			golden.Check(t, d.name, got)
		})
	}
}

func TestGoldenFiles(t *testing.T) {
	c := testCluster()
	lab := labCluster()
	installed := testCluster()
	installed.Spec.Software.Source = inventory.SourceInstalled
	installed.Spec.Network.CNI = inventory.CNI{Plugin: inventory.CNINone}
	installed.Spec.Kubernetes.Version = "v1.33.4"
	masters := testCluster()
	onMasters(masters)
	lists := []struct {
		name string
		make func() ([]File, error)
	}{
		{"files-cp-1.txt", func() ([]File, error) { return HostFiles(c, hostNamed(t, c, "cp-1")) }},
		{"files-w-1.txt", func() ([]File, error) { return HostFiles(c, hostNamed(t, c, "w-1")) }},
		{"files-lab-w-1.txt", func() ([]File, error) { return HostFiles(lab, hostNamed(t, lab, "w-1")) }},
		{"files-installed-1.33-cp-1.txt", func() ([]File, error) { return HostFiles(installed, hostNamed(t, installed, "cp-1")) }},
		{"files-lb-1.txt", func() ([]File, error) {
			return BalancerFiles(c, hostNamed(t, c, "lb-1"), Balancer{Interface: "eth0", CAPEM: []byte("CA\n")})
		}},
		{"files-masters-cp-1.txt", func() ([]File, error) {
			return BalancerFiles(masters, hostNamed(t, masters, "cp-1"), Balancer{Interface: "eth0", CAPEM: []byte("CA\n")})
		}},
	}
	for _, l := range lists {
		t.Run(l.name, func(t *testing.T) {
			got, err := l.make()
			if err != nil {
				t.Fatal(err)
			}
			goldenFiles(t, l.name, got)
		})
	}
}
