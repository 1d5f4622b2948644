// Package inventory turns inventory.yaml into a validated Cluster. It does no
// I/O beyond the bytes it is given and never talks to a host.
package inventory

import "time"

// The identity of the document that this package reads.
const (
	APIVersion = "ha-install.io/v1alpha1"
	Kind       = "Cluster"
)

// Cluster is one inventory document.
type Cluster struct {
	APIVersion string   `json:"apiVersion"` // the version of this format
	Kind       string   `json:"kind"`       // the kind of this document
	Metadata   Metadata `json:"metadata"`
	Spec       Spec     `json:"spec"`

	source *source // where each value was written; nil when not made by Parse
	sum    string
}

// SHA256 is the sum of the file that the inventory was parsed from, as
// sha256sum prints it; "" when it was not made by Parse.
func (c *Cluster) SHA256() string { return c.sum }

// Metadata names the cluster; the name is what destructive commands ask for.
type Metadata struct {
	Name string `json:"name"` // a DNS label; destructive commands ask for it
}

// Spec is the wanted state of the cluster.
type Spec struct {
	Kubernetes   Kubernetes   `json:"kubernetes"`
	Endpoint     Endpoint     `json:"endpoint"`
	LoadBalancer LoadBalancer `json:"loadBalancer,omitempty"`
	SSH          SSH          `json:"ssh,omitempty"` // defaults for every host
	Hosts        []Host       `json:"hosts"`         // every machine of the cluster
	Network      Network      `json:"network,omitempty"`
	Software     Software     `json:"software"`
	PKI          PKI          `json:"pki,omitempty"`
	Preflight    Preflight    `json:"preflight,omitempty"`
	Kubeadm      Kubeadm      `json:"kubeadm,omitempty"`
	Backup       Backup       `json:"backup,omitempty"`
	// Containerd is merged into the generated containerd configuration
	// (version 3 layout), key by key.
	Containerd map[string]any `json:"containerd,omitempty"`
}

// Kubernetes says which release the cluster runs.
type Kubernetes struct {
	Version string `json:"version"` // a release such as v1.36.3; 1.33 and later
}

// Endpoint is the address that clients and kubelets use for the API.
type Endpoint struct {
	Host string `json:"host"`           // the virtual IP address, or a DNS name
	Port int    `json:"port,omitempty"` // of the API; default 6443, and 8443 where loadBalancer.mode is masters
}

// BalancerMode says who runs the balancer in front of the API servers.
type BalancerMode string

const (
	BalancerDedicated BalancerMode = "dedicated" // HAProxy and keepalived on hosts with role load-balancer
	BalancerMasters   BalancerMode = "masters"   // HAProxy and keepalived on every control plane host
	BalancerExternal  BalancerMode = "external"  // the user's own; only checked
)

// LoadBalancer configures what stands behind the endpoint.
type LoadBalancer struct {
	Mode BalancerMode `json:"mode,omitempty"` // who runs it; default dedicated
	// VIP is the address that keepalived moves; default: endpoint.host when
	// that is an IP address. Needed when endpoint.host is a DNS name.
	VIP string `json:"vip,omitempty"`
	// Interface carries the VIP on the balancer hosts; default: the one that
	// holds the host's internal address, found on the host.
	Interface       string `json:"interface,omitempty"`
	VirtualRouterID int    `json:"virtualRouterID,omitempty"` // VRRP's, 1-255, one that no other VRRP on the network uses; default 51
}

// SSH says how hosts are reached. Host.SSH overrides it field by field.
type SSH struct {
	User          string   `json:"user,omitempty"`          // default: what ~/.ssh/config says, else root
	Port          int      `json:"port,omitempty"`          // default: what ~/.ssh/config says, else 22
	IdentityFiles []string `json:"identityFiles,omitempty"` // private keys: paths relative to the inventory, or with ~/
	Agent         *bool    `json:"agent,omitempty"`         // use $SSH_AUTH_SOCK; default true
	// Bastion is a jump host on the way; on a host, address: none means that
	// this one is reached directly although the others are not.
	Bastion *Bastion `json:"bastion,omitempty"`
	// KnownHosts are files in ssh's known_hosts format, relative to the inventory,
	// or with ~/; default ~/.ssh/known_hosts.
	KnownHosts []string `json:"knownHosts,omitempty"`
	// HostKeys pins keys ("ssh-ed25519 AAAA..."); when set, known_hosts is not asked. Per host only.
	HostKeys []string `json:"hostKeys,omitempty"`
	Sudo     *bool    `json:"sudo,omitempty"` // become root through sudo; default: true unless the user is root
}

// Bastion is a jump host; it is verified like any other host.
type Bastion struct {
	Address       string   `json:"address"`                 // IP or DNS name
	Port          int      `json:"port,omitempty"`          // default: what ~/.ssh/config says, else 22
	User          string   `json:"user,omitempty"`          // default: what ~/.ssh/config says, else root
	IdentityFiles []string `json:"identityFiles,omitempty"` // private keys; default: what ~/.ssh/config says
	HostKeys      []string `json:"hostKeys,omitempty"`      // pins keys ("ssh-ed25519 AAAA..."); when set, known_hosts is not asked
}

// Role is what a host does in the cluster.
type Role string

const (
	RoleControlPlane Role = "control-plane" // "master" is accepted as a synonym and normalised
	RoleLoadBalancer Role = "load-balancer"
	RoleWorker       Role = "worker"
)

// Host is one machine.
type Host struct {
	Name            string            `json:"name"`                      // DNS label; the Node's name
	Address         string            `json:"address"`                   // where SSH reaches it: IP or DNS name
	InternalAddress string            `json:"internalAddress,omitempty"` // IP used inside the cluster; default: address when it is an IP
	Role            Role              `json:"role"`
	Labels          map[string]string `json:"labels,omitempty"` // labels of the Node
	// Taints of the Node. Left out, a control plane host has the usual
	// NoSchedule taint; an empty list leaves it free for all pods.
	Taints []Taint `json:"taints,omitempty"`
	// SSH overrides, field by field, how the hosts are reached.
	SSH SSH `json:"ssh,omitempty"`
}

// Taint has the fields of core/v1 Taint that a user sets.
type Taint struct {
	Key    string `json:"key"`             // [DNS name/]name, such as example.com/gpu
	Value  string `json:"value,omitempty"` // of the taint; may be empty
	Effect string `json:"effect"`          // what it does: NoSchedule, PreferNoSchedule, NoExecute
}

// Network holds the cluster's own networks.
type Network struct {
	PodCIDR     string `json:"podCIDR,omitempty"`     // addresses of pods; default 10.244.0.0/16
	ServiceCIDR string `json:"serviceCIDR,omitempty"` // addresses of Services; default 10.96.0.0/12
	DNSDomain   string `json:"dnsDomain,omitempty"`   // where Services have their names; default cluster.local
	CNI         CNI    `json:"cni,omitempty"`
}

// CNIPlugin names who provides the pod network.
type CNIPlugin string

const (
	CNIFlannel   CNIPlugin = "flannel"   // embedded, the default
	CNIManifests CNIPlugin = "manifests" // the user's manifests, applied in order
	CNINone      CNIPlugin = "none"      // nothing; nodes stay NotReady until the user adds one
)

// CNIBackend is how flannel carries packets from host to host.
type CNIBackend string

const (
	CNIBackendVXLAN  CNIBackend = "vxlan"   // a tunnel; works on any network, the default
	CNIBackendHostGW CNIBackend = "host-gw" // plain routes; all hosts on one layer 2 network
)

// CNI says which pod network is installed.
type CNI struct {
	Plugin    CNIPlugin  `json:"plugin,omitempty"`    // who provides it; default flannel
	Backend   CNIBackend `json:"backend,omitempty"`   // how the embedded flannel carries packets; default vxlan
	Manifests []string   `json:"manifests,omitempty"` // files to apply, in order; paths relative to the inventory
}

// SoftwareSource says where binaries and images come from.
type SoftwareSource string

const (
	SourceBundle    SoftwareSource = "bundle"    // one file, pushed over SSH
	SourceInstalled SoftwareSource = "installed" // found on the hosts
)

// Software says where binaries and images come from.
type Software struct {
	Source SoftwareSource `json:"source,omitempty"` // where it is; default bundle
	Bundle string         `json:"bundle,omitempty"` // the file; a path relative to the inventory
}

// PKI lets the user bring CA files: all eight or none (cluster, front-proxy and
// etcd CA, each certificate and key; the service-account pair).
type PKI struct {
	// Directory is a path relative to the inventory, laid out like
	// /etc/kubernetes/pki: ca.crt, ca.key, etcd/ca.crt, etcd/ca.key,
	// front-proxy-ca.crt, front-proxy-ca.key, sa.key, sa.pub.
	Directory string `json:"directory,omitempty"`
}

// Preflight tunes the checks before a host is touched.
type Preflight struct {
	// IgnoreErrors are names of checks, ours ("Memory") or kubeadm's
	// ("SystemVerification"), whose failure becomes a warning.
	IgnoreErrors []string `json:"ignoreErrors,omitempty"`
}

// Kubeadm holds raw fields, merged key by key over what is generated.
type Kubeadm struct {
	ClusterConfiguration   map[string]any `json:"clusterConfiguration,omitempty"`   // fields of kubeadm.k8s.io/v1beta4
	KubeletConfiguration   map[string]any `json:"kubeletConfiguration,omitempty"`   // fields of kubelet.config.k8s.io/v1beta1
	KubeProxyConfiguration map[string]any `json:"kubeProxyConfiguration,omitempty"` // fields of kubeproxy.config.k8s.io/v1alpha1
}

// CertificateLifetimeFloor is how long any given CA certificate must still be valid.
const CertificateLifetimeFloor = 30 * 24 * time.Hour
