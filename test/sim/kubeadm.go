package sim

import (
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/ha-install/ha-install/test/kubeapi"
)

// Certs is `kubeadm init phase certs all`: what is there stays.
func (h *Host) Certs() error {
	for _, ca := range []string{"/ca", "/etcd/ca", "/front-proxy-ca", "/sa"} {
		if _, ok := h.Files[pkiDir+ca+".key"]; !ok {
			h.w.t.Errorf("sim: %s: kubeadm would make %s%s.key by itself", h.name, pkiDir, ca)
		}
	}
	return h.make(func(l leaf) bool { return l.path != "" })
}

// Kubeconfigs is `kubeadm init phase kubeconfig` for all that a master has.
func (h *Host) Kubeconfigs() error {
	if _, ok := h.Files["/etc/kubernetes/kubelet.conf"]; !ok {
		h.Put("/etc/kubernetes/kubelet.conf", 0o600, "a kubeconfig")
	}
	return h.make(func(l leaf) bool { return l.path == "" })
}

// make writes the leaves that are wanted and not there.
func (h *Host) make(wanted func(leaf) bool) error {
	for _, l := range leaves {
		if _, ok := h.Files[l.file()]; !ok && wanted(l) {
			h.write(l, time.Now().Add(lifetime))
		}
	}
	return nil
}

// Manifests writes the static pods; kubeadm's own init gives etcd no state.
func (h *Host) Manifests(config string) error {
	if err := h.EtcdManifest(config); err != nil {
		return err
	}
	return h.ControlPlane(config)
}

// EtcdManifest is `kubeadm init phase etcd local`.
func (h *Host) EtcdManifest(config string) error {
	command := []string{"etcd", "--name=" + h.name}
	document := string(h.Files[config].Content)
	if _, state, ok := strings.Cut(document, "name: initial-cluster-state\n"); ok && strings.HasPrefix(strings.TrimSpace(state), "value: existing") {
		command = append(command, "--initial-cluster-state=existing")
	}
	return h.manifest("etcd", command, h.versionIn(config))
}

// ControlPlane is `kubeadm init phase control-plane all`.
func (h *Host) ControlPlane(config string) error {
	for _, component := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		if err := h.manifest(component, []string{component}, h.versionIn(config)); err != nil {
			return err
		}
	}
	return nil
}

// versionIn is the version of Kubernetes in one of kubeadm's configurations. A
// kubeadm of another version refuses it.
func (h *Host) versionIn(config string) string {
	_, version, _ := strings.Cut(string(h.Files[config].Content), "kubernetesVersion: ")
	version, _, _ = strings.Cut(version, "\n")
	if is := h.programVersion("kubeadm"); is != version {
		h.w.t.Errorf("sim: %s: kubeadm %s writes manifests of %q", h.name, is, version)
	}
	return version
}

// programVersion is the version of a program of the bundle: "the program NAME VERSION".
func (h *Host) programVersion(name string) string {
	return strings.TrimPrefix(string(h.Files["/usr/local/bin/"+name].Content), "the program "+name+" ")
}

func (h *Host) manifest(component string, command []string, version string) error {
	pod := corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: component}}
	pod.Spec.Containers = []corev1.Container{{Name: component, Image: "registry.k8s.io/" + component + ":" + version, Command: command}}
	data, err := yaml.Marshal(pod)
	if err != nil {
		return err
	}
	h.Put("/etc/kubernetes/manifests/"+component+".yaml", 0o600, string(data))
	return nil
}

// StartKubelet is kubelet-start: the kubelet runs what the manifests say and
// registers its Node, as soon as there is an API server.
func (h *Host) StartKubelet() error {
	h.Put("/var/lib/kubelet/config.yaml", 0o644, "config")
	if _, ok := h.Files[kubeletClient]; !ok {
		h.enrolKubelet(time.Now().Add(lifetime))
	}
	return h.start([]string{"systemctl", "start", "kubelet"}, "kubelet.service")
}

// startPods is what a kubelet that starts does with the static pods.
func (h *Host) startPods() {
	h.kubeletRuns = h.programVersion("kubelet")
	h.apiRuns = imageTag(h.Files["/etc/kubernetes/manifests/kube-apiserver.yaml"].Content)
	if h.apiEnded || h.podsRead == "" { // pods that were left alone go on with what they have
		h.podsRead = h.sums("/etc/kubernetes")
	}
	h.orphans, h.apiEnded = false, false
	h.startEtcd()
	h.register()
}

// register puts the Node and its static pods into the API.
func (h *Host) register() {
	if h.w.leader() == nil || !h.active("kubelet.service") {
		return
	}
	labels := map[string]string{}
	if old := h.w.API.Get("nodes", "", h.name); old == nil {
		node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: labels}}
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: h.address}, {Type: corev1.NodeHostName, Address: h.name}}
		h.w.API.Set("nodes", "", h.name, node)
	}
	h.reportKubelet()
	if h.Bridge == "" { // else flannel goes on with what is there
		h.Bridge = h.w.nodeUID(h.name)
	}
	for _, path := range h.under("/etc/kubernetes/manifests") {
		component := strings.TrimSuffix(path[strings.LastIndex(path, "/")+1:], ".yaml")
		h.w.API.Set("pods", "kube-system", component+"-"+h.name, corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"tier": "control-plane", "component": component}, Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "of " + h.name}},
			Spec:       corev1.PodSpec{NodeName: h.name, Containers: []corev1.Container{{Name: component, Image: "registry.k8s.io/" + component + ":" + imageTag(h.Files[path].Content)}}},
			Status: corev1.PodStatus{
				Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
				ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
			},
		})
	}
}

// nodeUID tells a Node from one that bears its name later; "" for none.
func (w *World) nodeUID(name string) string {
	meta, _ := w.API.Get("nodes", "", name)["metadata"].(kubeapi.Object)
	uid, _ := meta["uid"].(string)
	return uid
}

// reportKubelet has the Node say which kubelet runs.
func (h *Host) reportKubelet() {
	node := h.w.API.Get("nodes", "", h.name)
	status, _ := node["status"].(kubeapi.Object)
	info, _ := status["nodeInfo"].(kubeapi.Object)
	info["kubeletVersion"] = h.kubeletRuns
	h.w.API.Set("nodes", "", h.name, node)
}

// imageTag is the tag of a static pod's image.
func imageTag(manifest []byte) string {
	var pod corev1.Pod
	if yaml.Unmarshal(manifest, &pod) != nil || len(pod.Spec.Containers) != 1 {
		return ""
	}
	image := pod.Spec.Containers[0].Image
	return image[strings.LastIndex(image, ":")+1:]
}

// Mark is mark-control-plane, the last act of a master's making.
func (h *Host) Mark() error {
	if !h.apiUp() {
		return h.failure([]string{"kubeadm"}, 1, "the API server does not answer")
	}
	h.register()
	node := h.w.API.Get("nodes", "", h.name)
	meta := node["metadata"].(kubeapi.Object)
	labels, _ := meta["labels"].(kubeapi.Object)
	if labels == nil {
		labels = kubeapi.Object{}
	}
	labels["node-role.kubernetes.io/control-plane"] = ""
	meta["labels"] = labels
	h.w.API.Set("nodes", "", h.name, node)
	return nil
}

// kubeadmInit is the whole of kubeadm init.
func (h *Host) kubeadmInit(argv []string) []func() error {
	config := argv[slices.Index(argv, "--config")+1]
	return []func() error{
		func() error { return h.initPreflight(argv) },
		h.Certs,
		h.Kubeconfigs,
		func() error { return h.Manifests(config) },
		h.StartKubelet,
		func() error { return h.UploadConfig(config) },
		h.Mark,
		func() error { return h.InitToken(config) },
		func() error { return h.Addons(config) },
	}
}

// initPreflight is kubeadm's complaint about what an earlier init left.
func (h *Host) initPreflight(argv []string) error {
	ignored := ""
	if i := slices.Index(argv, "--ignore-preflight-errors"); i > 0 {
		ignored = argv[i+1]
	}
	if len(h.under(etcdDir)) > 0 && !strings.Contains(ignored, "DirAvailable--var-lib-etcd") {
		return h.failure(argv, 1, "[ERROR DirAvailable--var-lib-etcd]")
	}
	if _, ok := h.Files[etcdManifest]; ok && !strings.Contains(ignored, "FileAvailable--etc-kubernetes-manifests-etcd.yaml") {
		return h.failure(argv, 1, "[ERROR FileAvailable--etc-kubernetes-manifests-etcd.yaml]")
	}
	return nil
}

// UploadConfig waits for the API server and stores the configuration in it.
func (h *Host) UploadConfig(config string) error {
	if !h.apiUp() {
		return h.failure([]string{"kubeadm"}, 1, "the API server does not answer")
	}
	api := h.w.API
	for document := range strings.SplitSeq(string(h.Files[config].Content), "---\n") {
		if strings.Contains(document, "kind: ClusterConfiguration\n") {
			api.Set("configmaps", "kube-system", "kubeadm-config", corev1.ConfigMap{Data: map[string]string{"ClusterConfiguration": document}})
		}
	}
	return h.UploadKubelet()
}

// UploadKubelet is `kubeadm init phase upload-config kubelet`.
func (h *Host) UploadKubelet() error {
	h.w.API.Set("configmaps", "kube-system", "kubelet-config", corev1.ConfigMap{})
	return nil
}

// InitToken makes the bootstrap token that init always makes.
func (h *Host) InitToken(config string) error {
	_, description, _ := strings.Cut(string(h.Files[config].Content), "description: ")
	description, _, _ = strings.Cut(description, "\n")
	h.w.API.Set("secrets", "kube-system", "bootstrap-token-abcdef", corev1.Secret{
		Type: "bootstrap.kubernetes.io/token", StringData: map[string]string{"description": description},
	})
	return nil
}

// Addons is `kubeadm init phase addon all`, the last thing that init makes.
func (h *Host) Addons(config string) error {
	for _, name := range []string{"coredns", "kube-proxy"} {
		if err := h.Addon(config, name); err != nil {
			return err
		}
	}
	for _, component := range []string{"kube-controller-manager", "kube-scheduler"} {
		h.lead(component)
	}
	return nil
}

// lead has the host's controller-manager or scheduler hold its lease.
func (h *Host) lead(component string) {
	h.w.API.Set("leases", "kube-system", component, kubeapi.Object{"spec": kubeapi.Object{"holderIdentity": h.calls() + "_x", "renewTime": "2999-01-01T00:00:00.000000Z"}})
}

// Addon is `kubeadm init phase addon` for one of them. Its pods run at once.
func (h *Host) Addon(config, name string) error {
	version := h.versionIn(config)
	pods := corev1.PodSpec{Containers: []corev1.Container{{Name: name, Image: "registry.k8s.io/" + name + ":" + version}}}
	if name == "kube-proxy" {
		var proxy appsv1.DaemonSet
		proxy.Spec.Template.Spec = pods
		h.w.API.Set("daemonsets", "kube-system", name, proxy)
	} else {
		dns := appsv1.Deployment{Status: appsv1.DeploymentStatus{UpdatedReplicas: 1, AvailableReplicas: 1}}
		dns.Spec.Template.Spec = pods
		h.w.API.Set("deployments", "kube-system", name, dns)
	}
	h.w.API.Set("configmaps", "kube-system", name, corev1.ConfigMap{})
	return nil
}

// kubeadmJoin is kubeadm join of a worker: with the file for discovery and a
// token that is in the API.
func (h *Host) kubeadmJoin(argv []string) []func() error {
	return []func() error{func() error { return h.discover(argv) }, h.StartKubelet}
}

func (h *Host) discover(argv []string) error {
	discovery := string(h.Files["/var/lib/ha-install/kubeadm/discovery.conf"].Content)
	config, err := clientcmd.Load([]byte(discovery))
	if err != nil || len(config.Clusters) != 1 {
		return h.failure(argv, 1, "no discovery file")
	}
	found := false
	for _, name := range h.w.API.Names("secrets") {
		if id, ok := strings.CutPrefix(name, "kube-system/bootstrap-token-"); ok && strings.Contains(discovery, id+".") {
			found = true
		}
	}
	if !found || h.w.leader() == nil {
		return h.failure(argv, 1, "the token is not valid")
	}
	h.Put("/etc/kubernetes/kubelet.conf", 0o600, "kubeconfig")
	for _, cluster := range config.Clusters {
		h.Put(pkiDir+"/ca.crt", 0o644, string(cluster.CertificateAuthorityData))
	}
	return nil
}

// kubeadmReset ends the containers, then takes the files off.
func (h *Host) kubeadmReset() []func() error {
	remove := func(paths ...string) func() error {
		return func() error {
			for _, p := range paths {
				h.remove(p)
			}
			return nil
		}
	}
	return []func() error{
		func() error {
			h.halt("kubelet.service")
			h.orphans, h.etcdHas, h.etcdRuns = false, "", ""
			h.w.succeed(h)
			return nil
		},
		remove("/etc/kubernetes/manifests", pkiDir),
		remove("/etc/kubernetes/admin.conf", "/etc/kubernetes/super-admin.conf", "/etc/kubernetes/kubelet.conf", "/etc/kubernetes/bootstrap-kubelet.conf",
			"/etc/kubernetes/controller-manager.conf", "/etc/kubernetes/scheduler.conf"),
		remove("/var/lib/kubelet"),
	}
}

// Swap puts a staged manifest of etcd in place of another one, with the kubelet
// stopped and the API server and etcd ended meanwhile.
func (h *Host) Swap(staged, at string) []func() error {
	return []func() error{
		func() error { h.halt("kubelet.service"); return nil },
		func() error { h.apiEnded = true; return nil },
		func() error { h.EndEtcd(); return nil },
		func() error {
			f, ok := h.Files[staged]
			if !ok {
				return h.failure([]string{"mv", staged, at}, 1, "no such file")
			}
			h.Files[at] = f
			delete(h.Files, staged)
			return nil
		},
		func() error { return h.start([]string{"systemctl", "start", "kubelet"}, "kubelet.service") },
	}
}

// EtcdCommand is the command line of the etcd that runs; empty when none does.
func (h *Host) EtcdCommand() []byte {
	var pod corev1.Pod
	if h.serving() == nil || yaml.Unmarshal(h.Files[etcdManifest].Content, &pod) != nil {
		return nil
	}
	return []byte(strings.Join(pod.Spec.Containers[0].Command, " ") + "\n")
}
