package templates

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
)

func TestValidateAccepts(t *testing.T) {
	versions := testCluster()
	versions.Spec.Kubernetes.Version = "v1.33.0"
	installed := testCluster()
	installed.Spec.Software.Source = inventory.SourceInstalled
	dual := testCluster()
	dual.Spec.Network.PodCIDR, dual.Spec.Network.ServiceCIDR = "10.244.0.0/16,fd00:10::/56", "10.96.0.0/12,fd00:20::/112"
	external := testCluster()
	external.Spec.LoadBalancer = inventory.LoadBalancer{Mode: inventory.BalancerExternal}
	external.Spec.Endpoint.Host = "api.example.org"
	for name, c := range map[string]*inventory.Cluster{
		"the plain cluster": testCluster(), "the lab's": labCluster(), "the oldest release": versions,
		"installed software": installed, "dual stack": dual, "an external balancer": external,
	} {
		t.Run(name, func(t *testing.T) {
			if err := Validate(c); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestValidateRefuses(t *testing.T) {
	raw := func(field string, value any) func(*inventory.Cluster) {
		return func(c *inventory.Cluster) {
			c.Spec.Kubeadm.ClusterConfiguration = map[string]any{field: value}
		}
	}
	tests := []struct {
		name   string
		change func(*inventory.Cluster)
		want   []string
	}{
		{"a misspelt field", raw("apiServer", map[string]any{"certSAN": []any{"x"}}), []string{`spec.kubeadm.clusterConfiguration: unknown field "apiServer.certSAN"`}},
		{"two misspelt fields", func(c *inventory.Cluster) {
			c.Spec.Kubeadm.ClusterConfiguration = map[string]any{"dnz": map[string]any{}, "etcd": map[string]any{"locall": 1}}
		}, []string{`unknown field "dnz"`, `unknown field "etcd.locall"`}},
		{"a wrong type", raw("apiServer", map[string]any{"certSANs": "x"}), []string{"spec.kubeadm.clusterConfiguration: apiServer.certSANs is a string, want []string"}},
		{"a field of the kubelet that is none", func(c *inventory.Cluster) {
			c.Spec.Kubeadm.KubeletConfiguration = map[string]any{"maxPod": 5}
		}, []string{`spec.kubeadm.kubeletConfiguration: unknown field "maxPod"`}},
		{"a field of kube-proxy that is none", func(c *inventory.Cluster) {
			c.Spec.Kubeadm.KubeProxyConfiguration = map[string]any{"conntrack": map[string]any{"maxx": 5}}
		}, []string{`spec.kubeadm.kubeProxyConfiguration: unknown field "conntrack.maxx"`}},
		{"another kind", raw("kind", "InitConfiguration"), []string{"kind is InitConfiguration, want ClusterConfiguration"}},
		{"a bad SAN: kubeadm's own words, once", raw("apiServer", map[string]any{"certSANs": []any{"not a name"}}), []string{"kubeadm refuses", "apiServer.certSANs"}},
		{"a bad algorithm", raw("encryptionAlgorithm", "ROT13"), []string{"encryptionAlgorithm"}},
		{"the version, in the wrong place", raw("kubernetesVersion", "v1.36.1"), []string{"clusterConfiguration.kubernetesVersion: not to be set here: set spec.kubernetes.version"}},
		{"the endpoint, in the wrong place", raw("controlPlaneEndpoint", "a:1"), []string{"set spec.endpoint"}},
		{"an external etcd", raw("etcd", map[string]any{"external": map[string]any{}}), []string{"etcd.external: not to be set here"}},
		{"another etcd directory", raw("etcd", map[string]any{"local": map[string]any{"dataDir": "/data"}}), []string{"etcd.local.dataDir: not to be set here: it is always /var/lib/etcd"}},
		{"a version that only the internet can resolve", func(c *inventory.Cluster) { c.Spec.Kubernetes.Version = "stable-1" }, []string{`spec.kubernetes.version "stable-1": want a release`}},
		{"a bad network", func(c *inventory.Cluster) { c.Spec.Network.ServiceCIDR = "10.96.0.0" }, []string{"networking.serviceSubnet"}},
		{"containerd's old layout", func(c *inventory.Cluster) { c.Spec.Containerd = map[string]any{"version": 2} }, []string{"spec.containerd: version is 2, want 3"}},
		{"two hosts with bad names", func(c *inventory.Cluster) {
			c.Spec.Hosts[3].Name, c.Spec.Hosts[5].Name = "CP_2", "W_1"
		}, []string{"CP_2: kubeadm refuses", "W_1: kubeadm refuses", "nodeRegistration.name"}},
		{"a backend that flannel has but we do not offer", func(c *inventory.Cluster) { c.Spec.Network.CNI.Backend = "udp" }, []string{`spec.network.cni.backend "udp": want vxlan or host-gw`}},
		{"a VIP that is no address", func(c *inventory.Cluster) { c.Spec.LoadBalancer.VIP = "lb.example.org" }, []string{"spec.loadBalancer.vip"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := testCluster()
			tt.change(c)
			err := Validate(c)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("want %q in:\n%v", want, err)
				}
			}
		})
	}
}

func TestDocumentsRefuseTheWrongHost(t *testing.T) {
	c := testCluster()
	if _, err := InitDocuments(c, hostNamed(t, c, "w-1"), Init{}); err == nil {
		t.Error("init on a worker was accepted")
	}
	if _, err := JoinDocuments(c, hostNamed(t, c, "lb-1"), Join{DiscoveryFile: "/d"}); err == nil {
		t.Error("a join of a balancer was accepted")
	}
	if _, err := JoinDocuments(c, hostNamed(t, c, "cp-2"), Join{}); err == nil {
		t.Error("a join without discovery was accepted")
	}
	if _, err := HostFiles(c, hostNamed(t, c, "lb-1")); err == nil {
		t.Error("host files for a balancer were accepted")
	}
	if _, err := DiscoveryKubeconfig(c, "", nil, "abcdef.0123456789abcdef"); err == nil {
		t.Error("discovery without a CA was accepted")
	}
}

// kubeadm's code logs through klog; a library must not talk on its own.
func TestNothingIsLogged(t *testing.T) {
	stderr := os.Stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stderr = w
	defer func() { os.Stderr = stderr }()
	for _, c := range []*inventory.Cluster{testCluster(), labCluster()} {
		if err := Validate(c); err != nil {
			t.Error(err)
		}
	}
	w.Close()
	if said, _ := io.ReadAll(r); len(said) > 0 {
		t.Errorf("it said:\n%s", said)
	}
}

// The same inventory gives the same bytes: an upload is skipped by its sum.
func TestFilesAreDeterministic(t *testing.T) {
	c := labCluster()
	first, err := HostFiles(c, hostNamed(t, c, "cp-1"))
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		again, err := HostFiles(c, hostNamed(t, c, "cp-1"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range first {
			if !bytes.Equal(first[i].Content, again[i].Content) {
				t.Fatalf("%s differs from one call to the next", first[i].Path)
			}
		}
	}
}
