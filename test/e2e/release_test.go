//go:build e2e

package e2e

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/bundle"
)

// wantRelease wants the whole cluster to run a release: kubelets, static pods as
// they are written and as they run, kube-proxy, CoreDNS, and what kubeadm
// remembers.
func wantRelease(t *testing.T, version string, masters []string, workers ...string) {
	t.Helper()
	wantKubelets(t, version, append(slices.Clone(masters), workers...)...)
	images := imagesOf(t, version)
	for _, host := range masters {
		wantColumn(t, host, images)
	}
	for what, argv := range map[string][]string{
		"kube-proxy": {"daemonset/kube-proxy"}, "coredns": {"deployment/coredns"},
	} {
		if image := kubectl(t, "-n", "kube-system", "get", argv[0], "-o", "jsonpath={.spec.template.spec.containers[0].image}"); image != images[what] {
			t.Errorf("%s is of the image %s, want %s", what, image, images[what])
		}
		kubectl(t, "-n", "kube-system", "rollout", "status", argv[0], "--timeout=50s")
	}
	config := kubectl(t, "-n", "kube-system", "get", "configmap", "kubeadm-config", "-o", "jsonpath={.data.ClusterConfiguration}")
	if !strings.Contains(config, "kubernetesVersion: "+version+"\n") {
		t.Errorf("kubeadm-config does not say kubernetesVersion: %s:\n%s", version, config)
	}
}

// wantKubelets wants these nodes, and no others, to be of the version, ready and
// not cordoned.
func wantKubelets(t *testing.T, version string, nodes ...string) {
	t.Helper()
	var want []string
	for _, name := range nodes {
		want = append(want, name+" "+version+" True ")
	}
	if got := nodesNow(t); !slices.Equal(slices.Sorted(slices.Values(want)), got) {
		t.Errorf("nodes, versions, ready, cordoned:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// nodesNow are lines "NAME VERSION READY CORDONED", sorted.
func nodesNow(t *testing.T) []string {
	t.Helper()
	text := kubectl(t, "get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.nodeInfo.kubeletVersion} `+
		`{.status.conditions[?(@.type=="Ready")].status} {.spec.unschedulable}|{end}`)
	return slices.Sorted(slices.Values(strings.Split(strings.TrimSuffix(text, "|"), "|")))
}

// versionOf is a node's kubelet's.
func versionOf(t *testing.T, node string) string {
	t.Helper()
	return kubectl(t, "get", "node", node, "-o", "jsonpath={.status.nodeInfo.kubeletVersion}")
}

// imagesOf are the references of a release's images by their last name.
func imagesOf(t *testing.T, version string) map[string]string {
	t.Helper()
	b, err := bundle.Open(theLab.Bundle(version))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	images := map[string]string{}
	for _, ref := range b.Images(inventory.RoleControlPlane) {
		name, _, _ := strings.Cut(ref[strings.LastIndex(ref, "/")+1:], ":")
		images[name] = ref
	}
	return images
}

var column = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}

// wantColumn wants a master's four static pods to be of the images, in their
// manifests and as the kubelet says that they run.
func wantColumn(t *testing.T, host string, images map[string]string) {
	t.Helper()
	for _, component := range column {
		want := images[component]
		if got := shell(t, host, "sed -n 's/^ *image: //p' /etc/kubernetes/manifests/"+component+".yaml"); got != want {
			t.Errorf("%s: the manifest of %s has the image %s, want %s", host, component, got, want)
		}
		const state = `jsonpath={.status.containerStatuses[0].image} {.status.containerStatuses[0].ready}`
		if got := kubectl(t, "-n", "kube-system", "get", "pod", component+"-"+host, "-o", state); got != want+" true" {
			t.Errorf("%s: %s runs as %q, want %s, ready", host, component, got, want)
		}
	}
}

// leafScript prints each certificate that is a master's own, after its file's name.
const leafScript = `cd /etc/kubernetes
for f in pki/*.crt pki/etcd/*.crt; do echo "== $f"; cat "$f"; done
for f in *.conf; do echo "== $f"; sed -n 's/^ *client-certificate-data: //p' "$f" | base64 -d; done`

// leaves are a master's own certificates by file; the CAs are left out.
func leaves(t *testing.T, host string) map[string]*x509.Certificate {
	t.Helper()
	all := map[string]*x509.Certificate{}
	for _, part := range strings.Split(shell(t, host, leafScript), "== ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			continue // kubelet.conf names a file instead
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatalf("%s: %s: %v", host, name, err)
		}
		if !certificate.IsCA {
			all[name] = certificate
		}
	}
	const least = 7 + 3 // files and kubeconfigs
	if len(all) < least {
		t.Fatalf("%s: only %d certificates were found, want %d or more", host, len(all), least)
	}
	return all
}

func leavesOf(t *testing.T, hosts []string) map[string]map[string]*x509.Certificate {
	t.Helper()
	all := map[string]map[string]*x509.Certificate{}
	for _, host := range hosts {
		all[host] = leaves(t, host)
	}
	return all
}

// wantRenewed wants every certificate to be a new one, of the same names as
// before, for a year.
func wantRenewed(t *testing.T, before map[string]map[string]*x509.Certificate) {
	t.Helper()
	for host, old := range before {
		now := leaves(t, host)
		for name, was := range old {
			is := now[name]
			switch {
			case is == nil:
				t.Errorf("%s: %s is gone", host, name)
			case is.SerialNumber.Cmp(was.SerialNumber) == 0:
				t.Errorf("%s: %s was not renewed", host, name)
			case certified(is) != certified(was):
				t.Errorf("%s: %s was for %s, and is now for %s", host, name, certified(was), certified(is))
			case time.Until(is.NotAfter) < 360*24*time.Hour || time.Now().Before(is.NotBefore):
				t.Errorf("%s: %s holds from %s to %s", host, name, is.NotBefore, is.NotAfter)
			}
		}
	}
}

// certified is what a certificate is for.
func certified(c *x509.Certificate) string {
	return fmt.Sprint(c.Subject, c.DNSNames, c.IPAddresses, c.ExtKeyUsage, " by ", c.Issuer)
}
