package cmd

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/provision/versions"
	"github.com/ha-install/ha-install/test/golden"
)

// versionsOfThree is a cluster of three in one version and a bundle of the next.
func versionsOfThree() provision.Versions {
	node := func(v string) map[string]string {
		return map[string]string{"kubelet": v, "kubeadm": v, "containerd": "v2.4.2", "runc": "1.1.5+ds1"}
	}
	v := provision.Versions{
		Schema: provision.VersionsSchema, Cluster: "prod", Took: units.Seconds(900 * time.Millisecond),
		Offer: provision.VersionOffer{Kubernetes: "v1.36.3", Bundle: true, Set: versions.Set{
			Pods:     map[string]string{"kube-apiserver": "v1.36.3", "kube-controller-manager": "v1.36.3", "kube-scheduler": "v1.36.3", "etcd": "3.6.8-0"},
			Programs: map[string]string{"kubelet": "v1.36.3", "kubeadm": "v1.36.3", "kubectl": "v1.36.3", "containerd": "v2.4.2", "runc": "1.1.5+ds1-1+deb12u1", "haproxy": "2.6.12-1+deb12u4", "keepalived": "1:2.2.7-1+b2"},
		}},
	}
	for _, name := range []string{"lb-1", "lb-2"} {
		v.Hosts = append(v.Hosts, provision.HostVersions{Name: name, Role: inventory.RoleLoadBalancer, Balances: true, SSH: "ok", Set: versions.Set{Programs: map[string]string{"haproxy": "2.6.12-1+deb12u4", "keepalived": "v2.2.7"}}})
	}
	for _, name := range []string{"cp-1", "cp-2", "cp-3"} {
		h := provision.HostVersions{Name: name, Role: inventory.RoleControlPlane, SSH: "ok", Node: "v1.35.4", Set: versions.Set{
			Pods:     map[string]string{"kube-apiserver": "v1.35.4", "kube-controller-manager": "v1.35.4", "kube-scheduler": "v1.35.4", "etcd": "3.6.6-0"},
			Programs: node("v1.35.4"),
		}}
		h.Programs["kubectl"] = "v1.35.4"
		v.Hosts = append(v.Hosts, h)
	}
	v.Hosts = append(v.Hosts, provision.HostVersions{Name: "w-1", Role: inventory.RoleWorker, SSH: "ok", Node: "v1.35.4", Set: versions.Set{Programs: node("v1.35.4")}})
	v.Conclude()
	return v
}

func TestRenderVersions(t *testing.T) {
	sick := versionsOfThree()
	sick.Offer = provision.VersionOffer{Kubernetes: "v1.36.3", Err: "open bundle: open bundle.tar: no such file or directory"}
	sick.Hosts[1] = provision.HostVersions{Name: "lb-2", Role: inventory.RoleLoadBalancer, Balances: true, SSH: "lb-2: dial 198.51.100.12:22: no SSH connection within 1.3s"}
	for _, pod := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		sick.Hosts[2].Pods[pod] = "v1.36.3"
	}
	sick.Hosts[2].Programs["kubelet"], sick.Hosts[2].Node, sick.Hosts[2].Programs["runc"] = "v1.36.3", "v1.36.3", versions.Unreadable
	sick.Conclude()
	for file, v := range map[string]provision.Versions{"versions.txt": versionsOfThree(), "versions-sick.txt": sick} {
		var out bytes.Buffer
		if err := renderVersions(&out, v, "my inventory.yaml"); err != nil {
			t.Fatal(err)
		}
		golden.Check(t, file, out.Bytes())
	}
}

func TestVersionsOfHostsOutOfReach(t *testing.T) {
	file := writeInventory(t, nil)
	code, out, errOut := run(t, "", "versions", file)
	if code != exitUnreachable || errOut != "" || !strings.Contains(out, "no control plane was seen; the bundle brings v1.36.3; not seen: cp-1, cp-2, cp-3\n") {
		t.Errorf("exit code %d, %s\n%s", code, errOut, out)
	}
	for _, name := range []string{"lb-1", "cp-3"} {
		if !strings.Contains(out, "\n  "+name+": ") {
			t.Errorf("%s: not said why it was not reached:\n%s", name, out)
		}
	}
	code, out, _ = run(t, "", "versions", "-o", "json", file)
	var v map[string]any
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != exitUnreachable || v["schema"] != 1.0 || v["state"] != "unknown" {
		t.Errorf("exit code %d, %v\n%s", code, err, out)
	}
	for _, field := range []string{"cluster", "tookSeconds", "summary", "offer", "hosts"} {
		if v[field] == nil {
			t.Errorf("no field %s:\n%s", field, out)
		}
	}
}
