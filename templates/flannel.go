package templates

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ha-install/ha-install/inventory"
)

// FlannelImage is the pod network's image. The plugin binary, `flannel`, and
// the conflist lie on the hosts already.
const FlannelImage = "ghcr.io/flannel-io/flannel:v0.28.10"

const (
	flannelName      = "kube-flannel"
	flannelNamespace = "kube-flannel"
)

// Flannel returns the manifests of the embedded pod network as YAML documents,
// in the order in which they are applied.
func Flannel(c *inventory.Cluster) ([]byte, error) {
	network, err := flannelNetwork(c)
	if err != nil {
		return nil, err
	}
	meta := metav1.ObjectMeta{Name: flannelName, Namespace: flannelNamespace, Labels: flannelLabels()}
	unscoped := metav1.ObjectMeta{Name: flannelName, Labels: flannelLabels()}
	objects := []any{
		&corev1.Namespace{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
			// It configures the host's network; "baseline" would refuse that.
			ObjectMeta: metav1.ObjectMeta{Name: flannelNamespace, Labels: map[string]string{
				"pod-security.kubernetes.io/enforce": "privileged",
				"pod-security.kubernetes.io/audit":   "privileged",
				"pod-security.kubernetes.io/warn":    "privileged",
			}},
		},
		&corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: meta},
		flannelClusterRole(unscoped),
		&rbacv1.ClusterRoleBinding{
			TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRoleBinding"},
			ObjectMeta: unscoped,
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: flannelName},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: flannelName, Namespace: flannelNamespace}},
		},
		&corev1.ConfigMap{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			ObjectMeta: meta,
			Data:       map[string]string{"net-conf.json": network},
		},
		flannelDaemonSet(c, meta),
	}
	docs := make([]map[string]any, 0, len(objects))
	for _, o := range objects {
		m, err := toMap(o)
		if err != nil {
			return nil, fmt.Errorf("flannel: %w", err)
		}
		docs = append(docs, m)
	}
	return yamlDocuments(docs...)
}

func flannelLabels() map[string]string { return map[string]string{"app": "flannel"} }

// flannelNetwork is flannel's own configuration.
func flannelNetwork(c *inventory.Cluster) (string, error) {
	backend := flannelBackend(c)
	if backend != inventory.CNIBackendVXLAN && backend != inventory.CNIBackendHostGW {
		return "", fmt.Errorf("spec.network.cni.backend %q: want %s or %s", backend, inventory.CNIBackendVXLAN, inventory.CNIBackendHostGW)
	}
	config := map[string]any{"Backend": map[string]string{"Type": string(backend)}}
	for _, cidr := range strings.Split(c.Spec.Network.PodCIDR, ",") {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(cidr))
		switch {
		case err != nil:
			return "", fmt.Errorf("spec.network.podCIDR %q: want a network such as 10.244.0.0/16", cidr)
		case prefix.Addr().Is6():
			config["EnableIPv6"], config["IPv6Network"] = true, prefix.String()
		default:
			config["Network"] = prefix.String()
		}
	}
	if _, v4 := config["Network"]; !v4 {
		config["EnableIPv4"] = false
	}
	data, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return "", fmt.Errorf("flannel: %w", err)
	}
	return string(data) + "\n", nil
}

func flannelBackend(c *inventory.Cluster) inventory.CNIBackend {
	if c.Spec.Network.CNI.Backend == "" {
		return inventory.CNIBackendVXLAN
	}
	return c.Spec.Network.CNI.Backend
}

func flannelClusterRole(meta metav1.ObjectMeta) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRole"},
		ObjectMeta: meta,
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}},
			{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "list", "watch"}},
			{APIGroups: []string{""}, Resources: []string{"nodes/status"}, Verbs: []string{"patch"}},
		},
	}
}

func flannelDaemonSet(c *inventory.Cluster, meta metav1.ObjectMeta) *appsv1.DaemonSet {
	return &appsv1.DaemonSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: appsv1.SchemeGroupVersion.String(), Kind: "DaemonSet"},
		ObjectMeta: meta,
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: flannelLabels()},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: flannelLabels()},
				Spec:       flannelPod(c),
			},
		},
	}
}

func flannelPod(c *inventory.Cluster) corev1.PodSpec {
	hostPath := func(name, path string, kind corev1.HostPathType) corev1.Volume {
		source := &corev1.HostPathVolumeSource{Path: path, Type: ptr.To(kind)}
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: source}}
	}
	config := &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: flannelName}}
	return corev1.PodSpec{
		HostNetwork:        true,
		PriorityClassName:  "system-node-critical",
		ServiceAccountName: flannelName,
		// The network comes before the node is ready, on every node.
		Tolerations:  []corev1.Toleration{{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}, {Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}},
		NodeSelector: map[string]string{corev1.LabelOSStable: "linux"},
		Containers:   []corev1.Container{flannelContainer(c)},
		Volumes: []corev1.Volume{
			hostPath("run", "/run/flannel", corev1.HostPathDirectoryOrCreate),
			hostPath("xtables-lock", "/run/xtables.lock", corev1.HostPathFileOrCreate),
			{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: config}},
		},
	}
}

func flannelContainer(c *inventory.Cluster) corev1.Container {
	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
	}
	return corev1.Container{
		Name:    flannelName,
		Image:   FlannelImage,
		Command: []string{"/opt/bin/flanneld"},
		// The node's own address, not the one of the default route: a host
		// with two interfaces would tunnel through the wrong one.
		Args: []string{"--ip-masq", "--kube-subnet-mgr", "--iface=$(HOST_IP)"},
		Env: []corev1.EnvVar{
			field("POD_NAME", "metadata.name"),
			field("POD_NAMESPACE", "metadata.namespace"),
			field("HOST_IP", "status.hostIP"),
			{Name: "EVENT_QUEUE_DEPTH", Value: "5000"},
			// The endpoint itself: the Service of that name works only once
			// kube-proxy does, and on a new node flannel would first wait for
			// 30 seconds and then die.
			{Name: "KUBERNETES_SERVICE_HOST", Value: c.Spec.Endpoint.Host},
			{Name: "KUBERNETES_SERVICE_PORT", Value: strconv.Itoa(c.Spec.Endpoint.Port)},
		},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("50Mi"),
		}},
		SecurityContext: &corev1.SecurityContext{
			Privileged:   ptr.To(false),
			Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN", "NET_RAW"}},
		},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "run", MountPath: "/run/flannel"},
			{Name: "xtables-lock", MountPath: "/run/xtables.lock"},
			{Name: "config", MountPath: "/etc/kube-flannel", ReadOnly: true},
		},
	}
}
