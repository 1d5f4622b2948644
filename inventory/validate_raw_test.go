package inventory

import "testing"

// TestRaw: raw fields that the installer sets itself are refused, with the field to use.
func TestRaw(t *testing.T) {
	for _, r := range []row{
		{
			name: "the control plane endpoint",
			old:  "  software:\n", with: `  kubeadm:
    clusterConfiguration: {controlPlaneEndpoint: 192.0.2.10}
  software:
`,
			want: `f:27:50: spec.kubeadm.clusterConfiguration.controlPlaneEndpoint: controlPlaneEndpoint is set by the installer; set spec.endpoint.host and spec.endpoint.port`,
		},
		{
			name: "the version", old: "  software:\n", with: `  kubeadm:
    clusterConfiguration: {kubernetesVersion: v1.36.3}
  software:
`,
			want: `f:27:47: spec.kubeadm.clusterConfiguration.kubernetesVersion: kubernetesVersion is set by the installer; set spec.kubernetes.version`,
		},
		{
			name: "the cluster's name", old: "  software:\n", with: `  kubeadm:
    clusterConfiguration: {clusterName: lab}
  software:
`,
			want: `f:27:41: spec.kubeadm.clusterConfiguration.clusterName: clusterName is set by the installer; set metadata.name`,
		},
		{
			name: "the networks",
			old:  "  software:\n", with: `  kubeadm:
    clusterConfiguration: {networking: {podSubnet: a, serviceSubnet: b, dnsDomain: c}}
  software:
`,
			want: `f:27:52: spec.kubeadm.clusterConfiguration.networking.podSubnet: podSubnet is set by the installer; set spec.network.podCIDR
f:27:70: spec.kubeadm.clusterConfiguration.networking.serviceSubnet: serviceSubnet is set by the installer; set spec.network.serviceCIDR
f:27:84: spec.kubeadm.clusterConfiguration.networking.dnsDomain: dnsDomain is set by the installer; set spec.network.dnsDomain`,
		},
		{
			name: "directories",
			old:  "  software:\n", with: `  kubeadm:
    clusterConfiguration: {certificatesDir: /pki, etcd: {local: {dataDir: /etcd}}}
  software:
`,
			want: `f:27:45: spec.kubeadm.clusterConfiguration.certificatesDir: certificatesDir is set by the installer; remove it: the installer works with kubeadm's own directories
f:27:75: spec.kubeadm.clusterConfiguration.etcd.local.dataDir: dataDir is set by the installer; remove it: the installer works with kubeadm's own directories`,
		},
		{
			name: "an external etcd", old: "  software:\n", with: `  kubeadm:
    clusterConfiguration: {etcd: {external: {}}}
  software:
`,
			want: `f:27:35: spec.kubeadm.clusterConfiguration.etcd.external: external is set by the installer; remove it: etcd runs on the control plane hosts`,
		},
		{
			name: "the CA's lifetime",
			old:  "  software:\n", with: `  kubeadm:
    clusterConfiguration: {caCertificateValidityPeriod: 1h}
  software:
`,
			want: `f:27:57: spec.kubeadm.clusterConfiguration.caCertificateValidityPeriod: caCertificateValidityPeriod is set by the installer; bring your own CA with spec.pki.directory`,
		},
		{
			name: "apiVersion and kind",
			old:  "  software:\n", with: `  kubeadm:
    clusterConfiguration: {apiVersion: kubeadm.k8s.io/v1beta4, kind: ClusterConfiguration}
  software:
`,
			want: `f:27:40: spec.kubeadm.clusterConfiguration.apiVersion: apiVersion is set by the installer; remove it: it is always set to the one version that is written
f:27:70: spec.kubeadm.clusterConfiguration.kind: kind is set by the installer; remove it: it is always set to the one version that is written`,
		},
		{
			name: "etcd's initial cluster",
			old:  "  software:\n", with: `  kubeadm:
    clusterConfiguration: {etcd: {local: {extraArgs: [{name: quota-backend-bytes, value: "1"}, {name: initial-cluster-state, value: new}]}}}
  software:
`,
			want: `f:27:103: spec.kubeadm.clusterConfiguration.etcd.local.extraArgs[1].name: initial-cluster-state is set by the installer; remove it: it decides whether a member may start a cluster of its own`,
		},
		{
			name: "the kubelet's domain and static pods",
			old:  "  hosts:\n", with: `  kubeadm: {kubeletConfiguration: {clusterDomain: a, staticPodPath: /b}}
  hosts:
`,
			want: `f:10:51: spec.kubeadm.kubeletConfiguration.clusterDomain: clusterDomain is set by the installer; set spec.network.dnsDomain
f:10:69: spec.kubeadm.kubeletConfiguration.staticPodPath: staticPodPath is set by the installer; remove it: the installer works with kubeadm's own directories`,
		},
		{
			name: "kube-proxy's network", old: "  hosts:\n", with: `  kubeadm: {kubeProxyConfiguration: {clusterCIDR: a}}
  hosts:
`,
			want: `f:10:51: spec.kubeadm.kubeProxyConfiguration.clusterCIDR: clusterCIDR is set by the installer; set spec.network.podCIDR`,
		},
		{
			name: "containerd's version", old: "  hosts:\n", with: `  containerd: {version: 2}
  hosts:
`,
			want: `f:10:25: spec.containerd.version: version is set by the installer; remove it: the generated configuration is always version 3`,
		},
		{name: "all else is for kubeadm to judge",
			old: "  software:\n", with: `  kubeadm:
    clusterConfiguration: {apiServer: {extraArgs: [{name: a, value: "1"}], certSANs: [x]}, etcd: {local: {serverCertSANs: [y]}}}
  software:
`},
	} {
		r.run(t)
	}
}
