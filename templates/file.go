// Package templates turns a Cluster and a Host into the files that the host
// must hold. It is pure: no network, no file system, no clock, and nothing of
// the machine that it runs on ends up in its output.
package templates

import (
	"fmt"
	"io/fs"
)

// File is what a path on a host should hold.
type File struct {
	Path    string
	Mode    fs.FileMode
	Content []byte
	// Secret keeps the content out of diffs, logs and errors.
	Secret bool
}

// String names the file and never shows what is in it.
func (f File) String() string {
	return fmt.Sprintf("%s (%04o, %d bytes)", f.Path, f.Mode.Perm(), len(f.Content))
}

// Format keeps every verb, %#v too, from walking into a secret.
func (f File) Format(s fmt.State, _ rune) { fmt.Fprint(s, f.String()) }

// Where things lie on a host.
const (
	KubernetesDir = "/etc/kubernetes"
	PKIDir        = KubernetesDir + "/pki"
	// APIServerDir holds what the API server reads beside kubeadm's own files.
	// `kubeadm reset` leaves it alone; whoever resets a host removes it.
	APIServerDir         = KubernetesDir + "/apiserver"
	EncryptionConfigPath = APIServerDir + "/encryption.yaml"
	AuditPolicyPath      = APIServerDir + "/audit-policy.yaml"
	AdmissionConfigPath  = APIServerDir + "/admission.yaml"
	AuthenticationPath   = APIServerDir + "/authentication.yaml"
	AuditLogDir          = "/var/log/kubernetes/audit"
	AuditLogPath         = AuditLogDir + "/audit.log"
	EtcdDataDir          = "/var/lib/etcd"

	ContainerdSocket     = "unix:///run/containerd/containerd.sock"
	ContainerdConfigPath = "/etc/containerd/config.toml"
	RegistryConfigDir    = "/etc/containerd/certs.d"
	CNIConfigDir         = "/etc/cni/net.d"
	FlannelConflistPath  = CNIConfigDir + "/10-flannel.conflist"

	HAProxyConfigPath   = "/etc/haproxy/haproxy.cfg"
	HAProxyCAPath       = "/etc/haproxy/kubernetes-ca.crt"
	HAProxySocket       = "/run/haproxy/admin.sock"
	HAProxyBackend      = "kube-apiserver"
	KeepalivedPath      = "/etc/keepalived/keepalived.conf"
	KeepalivedCheckPath = "/etc/keepalived/check-haproxy"

	// BalancerHealthPort answers on the balancer's loopback: "/ready" is 200
	// while at least one API server is up, 503 otherwise.
	BalancerHealthPort = 9443
)
