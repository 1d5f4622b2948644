package templates

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	bootstraptokenv1 "k8s.io/kubernetes/cmd/kubeadm/app/apis/bootstraptoken/v1"
	"k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm/v1beta4"
	"k8s.io/utils/ptr"

	"github.com/ha-install/ha-install/inventory"
)

// bootstrapTokenTTL is the life of the token that `kubeadm init` insists on
// making and that nothing uses: joins get their own, just in time.
const bootstrapTokenTTL = time.Minute

// InitTokenDescription marks that token.
const InitTokenDescription = "made by kubeadm init and not used"

// Init says what differs between one `kubeadm init` (or one of its phases) and another.
type Init struct {
	// EtcdExisting makes etcd refuse to start on an empty data directory. Set
	// it once three voters exist, never at bootstrap.
	EtcdExisting bool
	// InitialCluster is etcd's --initial-cluster for a member that joins:
	// "cp-1=https://198.51.100.21:2380,...", itself included. Empty: kubeadm's
	// own, which names only the host itself.
	InitialCluster string
	// SkipPhases are names of init's phases, beside those that are always skipped.
	SkipPhases []string
}

func (o Init) etcdArgs() []v1beta4.Arg {
	args := etcdState(o.EtcdExisting)
	if o.InitialCluster != "" {
		args = append(args, v1beta4.Arg{Name: "initial-cluster", Value: o.InitialCluster})
	}
	return args
}

// Join says how a host joins.
type Join struct {
	// DiscoveryFile is the path, on the host, of what DiscoveryKubeconfig returned.
	DiscoveryFile string
	// SkipPhases are names of join's phases.
	SkipPhases []string
}

// InitDocuments returns what the master h gives to `kubeadm init --config`:
// InitConfiguration, ClusterConfiguration, KubeletConfiguration and
// KubeProxyConfiguration, accepted by kubeadm's own validation. Run it with
// --skip-token-print, the one setting that has no field.
func InitDocuments(c *inventory.Cluster, h inventory.Host, o Init) ([]byte, error) {
	if h.Role != inventory.RoleControlPlane {
		return nil, fmt.Errorf("%s: init: role is %s, want %s", h.Name, h.Role, inventory.RoleControlPlane)
	}
	init, err := initConfiguration(c, h, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.Name, err)
	}
	shared, err := sharedDocuments(c, o.etcdArgs()...)
	if err != nil {
		return nil, err
	}
	docs, err := yamlDocuments(append([]map[string]any{init}, shared...)...)
	if err != nil {
		return nil, err
	}
	if err := kubeadmValidate(docs); err != nil {
		return nil, fmt.Errorf("%s: kubeadm refuses what would be generated for init: %w", h.Name, err)
	}
	return docs, nil
}

// JoinDocuments returns what h gives to `kubeadm join --config`; for a master
// it has the controlPlane section.
func JoinDocuments(c *inventory.Cluster, h inventory.Host, j Join) ([]byte, error) {
	if h.Role != inventory.RoleControlPlane && h.Role != inventory.RoleWorker {
		return nil, fmt.Errorf("%s: join: role is %s, want %s or %s", h.Name, h.Role, inventory.RoleControlPlane, inventory.RoleWorker)
	}
	if err := validateJoin(c, h, j); err != nil {
		return nil, fmt.Errorf("%s: kubeadm refuses what would be generated for join: %w", h.Name, err)
	}
	doc, err := joinConfiguration(c, h, j)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.Name, err)
	}
	return yamlDocuments(doc)
}

// ClusterConfiguration returns the document that kubeadm keeps in the
// kubeadm-config ConfigMap, alone and not yet defaulted.
func ClusterConfiguration(c *inventory.Cluster, etcdExisting bool) ([]byte, error) {
	doc, err := clusterConfiguration(c, etcdState(etcdExisting)...)
	if err != nil {
		return nil, err
	}
	return yamlDocuments(doc)
}

// sharedDocuments are those that are equal on every master.
func sharedDocuments(c *inventory.Cluster, etcdArgs ...v1beta4.Arg) ([]map[string]any, error) {
	cluster, err := clusterConfiguration(c, etcdArgs...)
	if err != nil {
		return nil, err
	}
	kubelet, err := kubeletConfiguration(c)
	if err != nil {
		return nil, err
	}
	proxy, err := kubeProxyConfiguration(c)
	if err != nil {
		return nil, err
	}
	return []map[string]any{cluster, kubelet, proxy}, nil
}

func typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: v1beta4.SchemeGroupVersion.String(), Kind: kind}
}

func initConfiguration(c *inventory.Cluster, h inventory.Host, o Init) (map[string]any, error) {
	m, err := toMap(&v1beta4.InitConfiguration{
		TypeMeta: typeMeta("InitConfiguration"),
		BootstrapTokens: []bootstraptokenv1.BootstrapToken{{
			Description: InitTokenDescription,
			TTL:         &metav1.Duration{Duration: bootstrapTokenTTL},
		}},
		NodeRegistration: nodeRegistration(c, h),
		LocalAPIEndpoint: localAPIEndpoint(h),
		// It would print a token and commands that nobody should run.
		SkipPhases: append([]string{"show-join-command"}, o.SkipPhases...),
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

func joinConfiguration(c *inventory.Cluster, h inventory.Host, j Join) (map[string]any, error) {
	doc := &v1beta4.JoinConfiguration{
		TypeMeta:         typeMeta("JoinConfiguration"),
		NodeRegistration: nodeRegistration(c, h),
		Discovery:        v1beta4.Discovery{File: &v1beta4.FileDiscovery{KubeConfigPath: j.DiscoveryFile}},
		SkipPhases:       j.SkipPhases,
	}
	if h.Role == inventory.RoleControlPlane {
		doc.ControlPlane = &v1beta4.JoinControlPlane{LocalAPIEndpoint: localAPIEndpoint(h)}
	}
	m, err := toMap(doc)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func localAPIEndpoint(h inventory.Host) v1beta4.APIEndpoint {
	return v1beta4.APIEndpoint{AdvertiseAddress: internalAddress(h), BindPort: apiServerPort}
}

// apiServerPort is where every API server listens; the endpoint's port is the balancer's.
const apiServerPort = 6443

func nodeRegistration(c *inventory.Cluster, h inventory.Host) v1beta4.NodeRegistrationOptions {
	policy := corev1.PullIfNotPresent
	if c.Spec.Software.Source == inventory.SourceBundle || c.Spec.Software.Source == "" {
		// The bundle has brought every image: a pull would mean that one is
		// missing, and that has to be said, not waited for.
		policy = corev1.PullNever
	}
	return v1beta4.NodeRegistrationOptions{
		Name:                  h.Name,
		CRISocket:             ContainerdSocket,
		Taints:                taints(h),
		KubeletExtraArgs:      []v1beta4.Arg{{Name: "node-ip", Value: internalAddress(h)}},
		IgnorePreflightErrors: slices.Clone(c.Spec.Preflight.IgnoreErrors),
		ImagePullPolicy:       policy,
		ImagePullSerial:       ptr.To(false),
	}
}

// taints are kubeadm's to choose when the host has none (a master gets the
// control-plane taint); an empty list means none at all.
func taints(h inventory.Host) []corev1.Taint {
	if h.Taints == nil {
		return nil
	}
	list := make([]corev1.Taint, 0, len(h.Taints))
	for _, t := range h.Taints {
		list = append(list, corev1.Taint{Key: t.Key, Value: t.Value, Effect: corev1.TaintEffect(t.Effect)})
	}
	return list
}

// mergeRaw lays the user's fields over doc and decodes the result back into a
// new T, so that a field which kubeadm does not know is an error that names it.
func mergeRaw[T any](at string, doc *T, raw map[string]any) (map[string]any, error) {
	base, err := toMap(doc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	sparse(base)
	for _, key := range []string{"apiVersion", "kind"} {
		if v, ok := raw[key]; ok && v != base[key] {
			return nil, fmt.Errorf("%s: %s is %v, want %v", at, key, v, base[key])
		}
	}
	merged := merge(base, raw)
	return merged, strict(at, merged, new(T))
}
