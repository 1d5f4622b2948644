//go:build e2e

package e2e

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/templates"
	"github.com/ha-install/ha-install/test/fault"
)

// bastionHost is the only host that the operator reaches in some parts.
const bastionHost = "lb-1"

// throughBastion has all hosts reached through one, which is reached directly.
func throughBastion(t *testing.T, key ssh.PublicKey) func(document) {
	t.Helper()
	h, err := theLab.Host(bastionHost)
	if err != nil {
		t.Fatal(err)
	}
	return func(d document) {
		d.ssh()["bastion"] = map[string]any{"address": h.Address, "user": "vagrant", "hostKeys": []any{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))}}
		for _, host := range d.spec()["hosts"].([]any) {
			if host := host.(map[string]any); host["name"] == bastionHost {
				host["ssh"] = map[string]any{"bastion": map[string]any{"address": "none"}}
			}
		}
	}
}

// refuseBastionKey pins another key for the bastion than it has.
func refuseBastionKey(t *testing.T) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	const said = "bastion 198.51.100.11: host key of 198.51.100.11:22 has changed"
	r := refused(t, writeInventory(t, nil, throughBastion(t, other)), 5, said,
		ssh.FingerprintSHA256(other), ssh.FingerprintSHA256(hostKey(t, bastionHost)))
	if n := strings.Count(r.stderr, said); n != 1 {
		t.Errorf("it is said %d times, want once for the bastion:\n%s", n, r.stderr)
	}
}

// cutAllButBastion takes the operator's direct way to every host but one.
func cutAllButBastion(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, name := range baseHosts {
		if name == bastionHost {
			continue
		}
		undo, err := inject.Cut(ctx, fault.Operator, name, 22)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := undo(context.Background()); err != nil {
				t.Error(err)
			}
		})
		h, err := theLab.Host(name)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(h.Address, "22"), 200*time.Millisecond)
		if err == nil {
			conn.Close()
			t.Fatalf("%s is reached directly: the cut does not hold", name)
		}
		if late := net.Error(nil); !errors.As(err, &late) || !late.Timeout() {
			t.Fatalf("%s: %v, want silence", name, err)
		}
	}
}

// conflist holds what the runtime reads to join pods to flannel's network.
const conflist = `---
apiVersion: v1
kind: ConfigMap
metadata: {name: conflist, namespace: kube-flannel}
data:
  conflist: |
    {"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
      {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
      {"type": "portmap", "capabilities": {"portMappings": true}}]}
`

// usersNetwork is a pod network as a user keeps it in files, of an inventory's
// networks: flannel, which here puts the runtime's file on the hosts itself.
// The DaemonSet is the last of its documents, and apart.
func usersNetwork(t *testing.T, path string) (common, daemonSet string) {
	t.Helper()
	c, _, err := inventory.Parse(path, []byte(readFile(t, path)))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := templates.Flannel(c)
	if err != nil {
		t.Fatal(err)
	}
	cut := strings.LastIndex(string(stream), "\n---\n") + 1
	var set appsv1.DaemonSet
	if err := yaml.UnmarshalStrict(stream[cut+len("---\n"):], &set); err != nil || set.Kind != "DaemonSet" {
		t.Fatalf("flannel's last document: %v\n%s", err, stream[cut:])
	}
	pod := &set.Spec.Template.Spec
	directory := corev1.HostPathVolumeSource{Path: templates.CNIConfigDir, Type: new(corev1.HostPathDirectoryOrCreate)}
	given := corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "conflist"}}
	pod.Volumes = append(pod.Volumes, corev1.Volume{Name: "cni", VolumeSource: corev1.VolumeSource{HostPath: &directory}},
		corev1.Volume{Name: "given", VolumeSource: corev1.VolumeSource{ConfigMap: &given}})
	pod.InitContainers = []corev1.Container{{
		Name: "install-cni", Image: templates.FlannelImage,
		Command:      []string{"/opt/bin/install-conf", "/given/conflist", "/net.d/10-flannel.conflist"},
		VolumeMounts: []corev1.VolumeMount{{Name: "cni", MountPath: "/net.d"}, {Name: "given", MountPath: "/given"}},
	}}
	last, err := yaml.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return string(stream[:cut]) + conflist, string(last)
}

// variants installs once more, this time with what is the user's own: the CA
// set, the manifests of the pod network, and a bastion as the only way in.
func variants(t *testing.T) {
	ha(t, "reset", "--confirm", clusterName, writeInventory(t, nil, nil)).want(t, 0)
	dir := usersCA(t)
	common, daemonSet := usersNetwork(t, writeInventory(t, nil, nil))
	manifests := []any{filepath.Join(dir, "common.yaml"), filepath.Join(dir, "daemonset.yaml")}
	writeFile(t, manifests[0].(string), common)
	writeFile(t, manifests[1].(string), daemonSet)
	path := writeInventory(t, nil, func(d document) {
		throughBastion(t, hostKey(t, bastionHost))(d)
		d.spec()["pki"] = map[string]any{"directory": dir}
		d.network()["cni"] = map[string]any{"plugin": "manifests", "manifests": manifests}
	})
	cutAllButBastion(t)
	r := ha(t, "apply", "-o", "json", path)
	r.want(t, 0)
	t.Logf("reset hosts to a verified cluster, through a bastion, with the user's CA and manifests: %s", r.took.Round(100*time.Millisecond))
	wantGivenCA(t, dir, masters)
	wantMembers(t, masters)
	wantNodes(t, path, append(slices.Clone(masters), "w-1"))
	wantBackends(t, masters)
	wantDataPathProven(t, r)
	wantExisting(t, masters)
	awaitFaultless(t, path, time.Minute)
	wantSigned(t, dir)

	awaitProbePodsGone(t)
	before := onEach(t, baseHosts, clusterFootprint)
	if n := ha(t, "apply", "-o", "json", path).changed(t); n != 0 {
		t.Errorf("a second apply changed %d steps", n)
	}
	wantSame(t, "a second apply", before, onEach(t, baseHosts, clusterFootprint))
	other := writeInventory(t, nil, func(d document) {
		throughBastion(t, hostKey(t, bastionHost))(d)
		d.spec()["pki"] = map[string]any{"directory": usersCA(t)}
	})
	ha(t, "apply", other).want(t, 3, "is not the one of the cluster")
	wantSame(t, "an apply with another CA set", before, onEach(t, baseHosts, clusterFootprint))
}

// signedBy are certificates that kubeadm makes, by the CA that signs them.
var signedBy = map[string][]string{
	"ca.crt":             {"apiserver.crt", "apiserver-kubelet-client.crt"},
	"etcd/ca.crt":        {"etcd/server.crt", "etcd/peer.crt", "apiserver-etcd-client.crt"},
	"front-proxy-ca.crt": {"front-proxy-client.crt"},
}

// wantSigned has openssl verify the masters' own certificates with the user's CAs.
func wantSigned(t *testing.T, dir string) {
	t.Helper()
	for _, host := range masters {
		for ca, names := range signedBy {
			for _, name := range names {
				file := filepath.Join(dir, "of-"+host)
				writeFile(t, file, onHost(t, host, "cat", "/etc/kubernetes/pki/"+name))
				openssl(t, dir, "verify -CAfile "+ca+" "+file)
			}
		}
	}
}

// trial makes the smallest cluster, one master behind one balancer, and leaves
// its pod network to the user.
func trial(t *testing.T) {
	path := writeInventory(t, []string{"cp-4", "w-2"}, func(d document) {
		d["metadata"] = map[string]any{"name": "trial"}
		d.spec()["endpoint"] = map[string]any{"host": "198.51.100.9"}
		d.spec()["loadBalancer"] = map[string]any{"virtualRouterID": 9}
		d.spec()["hosts"].([]any)[1].(map[string]any)["role"] = "load-balancer"
		d.network()["cni"] = map[string]any{"plugin": "none"}
	})
	r := ha(t, "apply", path)
	r.want(t, 0, "ONE control plane host: for trying out only", "one load-balancer host: the balancer itself is then a single point of failure")
	for _, text := range []string{"not ready for want of a pod network: cp-4", "left to do", "run the same apply again", "voters 1  quorum 1  healthy 1  can lose 0"} {
		if !strings.Contains(r.stdout, text) {
			t.Errorf("apply without a pod network does not say %q\n%s", text, r.tail())
		}
	}
	t.Logf("one master behind one balancer, no pod network: %s", r.took.Round(100*time.Millisecond))
	if n := ha(t, "apply", "-o", "json", path).changed(t); n != 0 {
		t.Errorf("a second apply changed %d steps", n)
	}
	s := ha(t, "status", path)
	s.want(t, 10)
	if !strings.Contains(s.stdout, "cp-4: node: not ready: it lacks a pod network, which is yours to install") {
		t.Errorf("status does not say what the node lacks:\n%s", s.stdout)
	}

	// the user installs his own
	const onMaster, admin = "/root/network.yaml", "/etc/kubernetes/admin.conf"
	common, daemonSet := usersNetwork(t, path)
	onHost(t, "cp-4", "sh", "-c", `printf '%s' "$1" >"$2"`, "sh", common+"---\n"+daemonSet, onMaster)
	onHost(t, "cp-4", "kubectl", "--kubeconfig", admin, "apply", "-f", onMaster)
	onHost(t, "cp-4", "kubectl", "--kubeconfig", admin, "wait", "--for=condition=Ready", "node/cp-4", "--timeout=50s")
	r = ha(t, "apply", "-o", "json", path)
	r.want(t, 0)
	wantDataPathProven(t, r)
	if n := r.changed(t); n != 1 {
		t.Errorf("with the network there, apply changed %d steps, want one, the proof of the data path", n)
	}
	onHost(t, "cp-4", "kubectl", "--kubeconfig", admin, "-n", "kube-system", "wait", "--for=condition=Available", "deployment/coredns", "--timeout=50s")
	recreate(t, "cp-4", "w-2") // what follows needs the machine
}
