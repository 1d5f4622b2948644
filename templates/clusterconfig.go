package templates

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm/scheme"
	"k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm/v1beta4"
	"sigs.k8s.io/yaml"

	"github.com/ha-install/ha-install/inventory"
)

const (
	// shutdownDelay is how long an API server that was told to stop goes on
	// serving while its /readyz says no, before it sends its clients a GOAWAY:
	// long enough for the balancer, whose check runs every second, to send new
	// connections elsewhere. An external one has time for two checks, two
	// seconds apart.
	shutdownDelay = 5 * time.Second
	// watchDrain is over how long it then ends its watches, a few at a time, so
	// that their clients do not all come to the others at once. Without it the
	// server waits for its watches to end by themselves, more than 60 s.
	watchDrain = 4 * time.Second
	// goawayChance has one request in a thousand close its HTTP/2 connection,
	// so that long-lived clients spread again after a master was away.
	goawayChance = "0.001"
	// etcdQuota is etcd's own recommended upper bound; its default of 2 GiB
	// ends in a NOSPACE alarm.
	etcdQuota = "8589934592"
)

func clusterConfiguration(c *inventory.Cluster, etcdArgs ...v1beta4.Arg) (map[string]any, error) {
	if _, err := release(c); err != nil {
		return nil, err
	}
	doc := &v1beta4.ClusterConfiguration{
		TypeMeta:             typeMeta("ClusterConfiguration"),
		ClusterName:          c.Metadata.Name,
		KubernetesVersion:    c.Spec.Kubernetes.Version,
		ControlPlaneEndpoint: endpoint(c),
		CertificatesDir:      PKIDir,
		Networking: v1beta4.Networking{
			PodSubnet:     c.Spec.Network.PodCIDR,
			ServiceSubnet: c.Spec.Network.ServiceCIDR,
			DNSDomain:     c.Spec.Network.DNSDomain,
		},
		Etcd:      v1beta4.Etcd{Local: localEtcd(etcdArgs...)},
		APIServer: apiServer(c),
		ControllerManager: v1beta4.ControlPlaneComponent{
			ExtraArgs: []v1beta4.Arg{{Name: "profiling", Value: "false"}},
		},
		Scheduler: v1beta4.ControlPlaneComponent{
			ExtraArgs: []v1beta4.Arg{{Name: "profiling", Value: "false"}},
		},
	}
	return mergeRaw("spec.kubeadm.clusterConfiguration", doc, c.Spec.Kubeadm.ClusterConfiguration)
}

// localEtcd has no initial-cluster-state at bootstrap: the first member makes
// the cluster. See Init.
func localEtcd(more ...v1beta4.Arg) *v1beta4.LocalEtcd {
	args := []v1beta4.Arg{{Name: "quota-backend-bytes", Value: etcdQuota}}
	return &v1beta4.LocalEtcd{DataDir: EtcdDataDir, ExtraArgs: append(args, more...)}
}

// etcdState makes etcd refuse to start on an empty data directory.
func etcdState(existing bool) []v1beta4.Arg {
	if !existing {
		return nil
	}
	return []v1beta4.Arg{{Name: "initial-cluster-state", Value: "existing"}}
}

func apiServer(c *inventory.Cluster) v1beta4.APIServer {
	return v1beta4.APIServer{
		ControlPlaneComponent: v1beta4.ControlPlaneComponent{
			ExtraArgs: []v1beta4.Arg{
				{Name: "admission-control-config-file", Value: AdmissionConfigPath},
				{Name: "audit-log-maxage", Value: "30"},
				{Name: "audit-log-maxbackup", Value: "10"},
				{Name: "audit-log-maxsize", Value: "100"},
				{Name: "audit-log-path", Value: AuditLogPath},
				{Name: "audit-policy-file", Value: AuditPolicyPath},
				{Name: "authentication-config", Value: AuthenticationPath},
				{Name: "encryption-provider-config", Value: EncryptionConfigPath},
				{Name: "goaway-chance", Value: goawayChance},
				{Name: "profiling", Value: "false"},
				{Name: "shutdown-delay-duration", Value: shutdownDelay.String()},
				{Name: "shutdown-watch-termination-grace-period", Value: watchDrain.String()},
			},
			ExtraVolumes: []v1beta4.HostPathMount{
				{Name: "ha-install-apiserver", HostPath: APIServerDir, MountPath: APIServerDir, ReadOnly: true, PathType: corev1.HostPathDirectory},
				{Name: "ha-install-audit", HostPath: AuditLogDir, MountPath: AuditLogDir, PathType: corev1.HostPathDirectoryOrCreate},
			},
		},
		CertSANs: certSANs(c),
	}
}

// certSANs are all the names under which a client may ask for any API server:
// every master carries every master's names, so that a certificate stays right
// when masters are replaced or reached through a tunnel.
func certSANs(c *inventory.Cluster) []string {
	sans := []string{c.Spec.Endpoint.Host}
	if vip := virtualIP(c); vip != "" {
		sans = append(sans, vip)
	}
	for _, h := range hostsWith(c, inventory.RoleControlPlane) {
		sans = append(sans, h.Name, internalAddress(h), h.Address)
	}
	sans = append(sans, "localhost", "127.0.0.1")
	var unique []string
	for _, san := range sans {
		if !slices.Contains(unique, san) {
			unique = append(unique, san)
		}
	}
	return unique
}

func kubeletConfiguration(c *inventory.Cluster) (map[string]any, error) {
	doc := &kubeletv1beta1.KubeletConfiguration{
		TypeMeta:           metav1.TypeMeta{APIVersion: kubeletv1beta1.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"},
		RotateCertificates: true,
		// Pods get half of it, static pods the rest: etcd hands its leadership
		// over and the API server announces that it leaves.
		ShutdownGracePeriod:             metav1.Duration{Duration: 30 * time.Second},
		ShutdownGracePeriodCriticalPods: metav1.Duration{Duration: 15 * time.Second},
		ContainerLogMaxSize:             "50Mi",
	}
	return mergeRaw("spec.kubeadm.kubeletConfiguration", doc, c.Spec.Kubeadm.KubeletConfiguration)
}

func kubeProxyConfiguration(c *inventory.Cluster) (map[string]any, error) {
	doc := &kubeproxyv1alpha1.KubeProxyConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: kubeproxyv1alpha1.SchemeGroupVersion.String(), Kind: "KubeProxyConfiguration"},
	}
	return mergeRaw("spec.kubeadm.kubeProxyConfiguration", doc, c.Spec.Kubeadm.KubeProxyConfiguration)
}

// ComparableConfiguration returns a ClusterConfiguration document, of the
// cluster's ConfigMap or of ClusterConfiguration, in the one form in which two
// that mean the same are equal: with kubeadm's defaults, arguments and names
// sorted, and without the version, which is what an upgrade changes.
func ComparableConfiguration(document []byte) ([]byte, error) {
	doc := &v1beta4.ClusterConfiguration{}
	if err := yaml.UnmarshalStrict(document, doc); err != nil {
		return nil, err
	}
	scheme.Scheme.Default(doc)
	doc.KubernetesVersion = ""
	slices.Sort(doc.APIServer.CertSANs)
	lists := [][]v1beta4.Arg{doc.APIServer.ExtraArgs, doc.ControllerManager.ExtraArgs, doc.Scheduler.ExtraArgs}
	if doc.Etcd.Local != nil {
		lists = append(lists, doc.Etcd.Local.ExtraArgs)
	}
	for _, args := range lists {
		slices.SortStableFunc(args, func(a, b v1beta4.Arg) int { return strings.Compare(a.Name, b.Name) })
	}
	return yaml.Marshal(doc)
}
