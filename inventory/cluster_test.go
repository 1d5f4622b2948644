package inventory

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustParse(t *testing.T, file, text string) *Cluster {
	t.Helper()
	c, _, err := Parse(file, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func names(hosts []Host) []string {
	var out []string
	for _, h := range hosts {
		out = append(out, h.Name)
	}
	return out
}

func TestHostsByRole(t *testing.T) {
	c := mustParse(t, "f", string(Example()))
	for _, row := range []struct {
		name string
		got  []Host
		want []string
	}{
		{"control planes", c.ControlPlanes(), []string{"cp-1", "cp-2", "cp-3"}},
		{"balancers", c.Balancers(), []string{"lb-1", "lb-2"}},
		{"workers", c.Workers(), []string{"worker-1"}},
		{"nodes", c.Nodes(), []string{"cp-1", "cp-2", "cp-3", "worker-1"}},
	} {
		if diff := cmp.Diff(row.want, names(row.got)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", row.name, diff)
		}
	}
	if h, ok := c.HostByName("cp-2"); !ok || h.IP().String() != "192.0.2.12" {
		t.Errorf("cp-2: %v %v", h, ok)
	}
	if _, ok := c.HostByName("cp-9"); ok {
		t.Error("cp-9 was found")
	}
	if (Host{}).IP().IsValid() {
		t.Error("a host without an address has one")
	}
}

func TestDefaults(t *testing.T) {
	yes := true
	spec := mustParse(t, "f", base).Spec
	want := Spec{
		Kubernetes:   Kubernetes{Version: "v1.36.3"},
		Endpoint:     Endpoint{Host: "192.0.2.10", Port: 6443},
		LoadBalancer: LoadBalancer{Mode: BalancerDedicated, VIP: "192.0.2.10", VirtualRouterID: 51},
		SSH:          SSH{Agent: &yes},
		Hosts:        spec.Hosts,
		Network: Network{PodCIDR: "10.244.0.0/16", ServiceCIDR: "10.96.0.0/12", DNSDomain: "cluster.local",
			CNI: CNI{Plugin: CNIFlannel, Backend: CNIBackendVXLAN}},
		Software: Software{Source: SourceBundle, Bundle: "bundle.tar"},
	}
	if diff := cmp.Diff(want, spec); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := spec.Hosts[0]; got.InternalAddress != "192.0.2.11" {
		t.Errorf("internal address %q", got.InternalAddress)
	}
}

func TestExternalModeHasNoKeepalived(t *testing.T) {
	data := examples(t)["external-balancer.yaml"]
	if diff := cmp.Diff(LoadBalancer{Mode: BalancerExternal}, mustParse(t, "f", string(data)).Spec.LoadBalancer); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestWhoBalances(t *testing.T) {
	const mode = "  loadBalancer: {mode: masters}\n"
	masters := mustParse(t, "f", edit(t, base, hostsOfBase, mode+mastersOfBase))
	want := LoadBalancer{Mode: BalancerMasters, VIP: "192.0.2.10", VirtualRouterID: 51}
	if diff := cmp.Diff(want, masters.Spec.LoadBalancer); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := masters.Spec.Endpoint.Port; got != 8443 {
		t.Errorf("port %d, want one that the API servers do not have themselves", got)
	}
	dedicated := mustParse(t, "f", base)
	external := mustParse(t, "f", edit(t, base, hostsOfBase, "  loadBalancer: {mode: external}\n"+mastersOfBase))
	for _, row := range []struct {
		name      string
		c         *Cluster
		want      []string
		ofAMaster []Role
	}{
		{"the masters", masters, []string{"cp-1", "cp-2", "cp-3"}, []Role{RoleControlPlane, RoleLoadBalancer}},
		{"hosts of their own", dedicated, []string{"lb-1", "lb-2"}, []Role{RoleControlPlane}},
		{"somebody else", external, nil, []Role{RoleControlPlane}},
	} {
		if diff := cmp.Diff(row.want, names(row.c.Balancers())); diff != "" {
			t.Errorf("%s (-want +got)\n%s", row.name, diff)
		}
		if diff := cmp.Diff(row.ofAMaster, row.c.SoftwareRoles(row.c.ControlPlanes()[0])); diff != "" {
			t.Errorf("%s: software of a master (-want +got)\n%s", row.name, diff)
		}
	}
	if diff := cmp.Diff([]Role{RoleLoadBalancer}, dedicated.SoftwareRoles(dedicated.Balancers()[0])); diff != "" {
		t.Errorf("software of a balancer (-want +got)\n%s", diff)
	}
}

func TestMasterIsControlPlane(t *testing.T) {
	c := mustParse(t, "f", edit(t, base, "role: control-plane", "role: master"))
	if got := c.Spec.Hosts[0].Role; got != RoleControlPlane {
		t.Errorf("role %q", got)
	}
}

func TestNoTaintsIsNotTheDefaultTaints(t *testing.T) {
	c := mustParse(t, "f", edit(t, base, "role: control-plane\n", "role: control-plane\n      taints: []\n"))
	if got := c.Spec.Hosts[0].Taints; got == nil || len(got) != 0 {
		t.Errorf("taints: [] became %#v", got)
	}
	if got := c.Spec.Hosts[1].Taints; got != nil {
		t.Errorf("no taints became %#v", got)
	}
}

func TestEffectiveSSH(t *testing.T) {
	no := false
	c := mustParse(t, "/etc/lab/inventory.yaml", string(examples(t)["bastion.yaml"]))
	common := SSH{
		User: "admin", IdentityFiles: []string{"~/.ssh/cluster"}, Agent: &no, KnownHosts: []string{"known_hosts"},
		Bastion: &Bastion{
			Address: "jump.example.com", Port: 2222, User: "jump", IdentityFiles: []string{"~/.ssh/jump"},
			HostKeys: c.Spec.SSH.Bastion.HostKeys,
		},
	}
	direct := common
	direct.Port, direct.Bastion = 22022, nil
	own := SSH{
		User: "root", Port: 22, IdentityFiles: []string{"own"}, Agent: new(true), KnownHosts: []string{"/own"},
		HostKeys: []string{"key"}, Sudo: &no, Bastion: &Bastion{Address: "other"},
	}
	for _, row := range []struct {
		name string
		host Host
		want SSH
	}{
		{"a host with nothing of its own", find(t, c, "cp-1"), common},
		{"a host that is reached directly", find(t, c, "lb-1"), direct},
		{"a host with all of its own", Host{SSH: SSH{
			User: "root", Port: 22, IdentityFiles: []string{"own"}, Agent: new(true), KnownHosts: []string{"/own"},
			HostKeys: []string{"key"}, Sudo: &no, Bastion: &Bastion{Address: "other"},
		}}, own},
	} {
		t.Run(row.name, func(t *testing.T) {
			if diff := cmp.Diff(row.want, c.EffectiveSSH(row.host)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func find(t *testing.T, c *Cluster, name string) Host {
	t.Helper()
	h, ok := c.HostByName(name)
	if !ok {
		t.Fatalf("no host %s", name)
	}
	return h
}

func TestRawFieldsAreWhatJSONMakesOfThem(t *testing.T) {
	const raw = `  kubeadm:
    kubeletConfiguration: {a: 1, b: 1.5, c: true, d: ~, e: [x, {f: "1"}], g: 2026-01-02, h: 'no', <<: {a: 2, i: 3}}
  software:
`
	got := mustParse(t, "f", edit(t, base, "  software:\n", raw)).Spec.Kubeadm.KubeletConfiguration
	want := map[string]any{
		"a": int64(1), "b": 1.5, "c": true, "d": nil, "e": []any{"x", map[string]any{"f": "1"}},
		"g": "2026-01-02", "h": "no", "i": int64(3),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if _, err := json.Marshal(got); err != nil {
		t.Error(err)
	}
}

func TestLaterChecksReportPlacesToo(t *testing.T) {
	const raw = "  kubeadm:\n    clusterConfiguration:\n      apiServer:\n        certSANs: [a, b]\n  software:\n"
	c := mustParse(t, "f", edit(t, base, "  software:\n", raw))
	const path = "spec.kubeadm.clusterConfiguration"
	err := Join(
		c.Issue(path+".apiServer.certSANs[1]", "no", "yes"),
		c.Issue(path+".apiServer.gone.deep", "no", ""),
		c.Issue("spec.software.bundle", "no", ""),
		c.Issue("", "no", ""),
	)
	const want = `f:1:1: no
f:28:7: spec.kubeadm.clusterConfiguration.apiServer.gone.deep: no
f:29:23: spec.kubeadm.clusterConfiguration.apiServer.certSANs[1]: no; yes
f:31:13: spec.software.bundle: no`
	var all *Errors
	if !errors.As(err, &all) {
		t.Fatalf("%T", err)
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if Join() != nil {
		t.Error("no issues are an error")
	}
	if got := (&Cluster{}).Issue("a", "no", ""); got.Path != "a" {
		t.Errorf("%+v", got)
	}
}
