package inventory

import (
	"fmt"
	"regexp"
	"strings"
)

func (v *validator) software() {
	if v.given("spec.pki.directory") && v.c.Spec.PKI.Directory == "" {
		v.err("spec.pki.directory", "an empty path", "want the directory of the CA files, or remove it to have them made")
	}
	const path = "spec.software"
	s := v.c.Spec.Software
	oneOf(v, path+".source", s.Source, SourceBundle, SourceInstalled)
	switch {
	case v.spoilt(path + ".source"):
	case s.Source == SourceBundle:
		v.required(path+".bundle", s.Bundle, "want the path of the bundle, or source: installed when the hosts have the software")
	case v.given(path + ".bundle"):
		v.err(path+".bundle", "no bundle is used with source "+string(s.Source), "remove it, or set source: bundle")
	}
}

var checkName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*$`)

func (v *validator) preflight() {
	first := map[string]string{}
	for i, name := range v.c.Spec.Preflight.IgnoreErrors {
		path := fmt.Sprintf("spec.preflight.ignoreErrors[%d]", i)
		earlier, twice := first[strings.ToLower(name)]
		switch {
		case v.spoilt(path):
		case strings.EqualFold(name, "all"):
			v.err(path, "\"all\" would also hide what destroys clusters: files of another cluster, full disks, wrong clocks",
				"name the checks, as preflight prints them")
		case !checkName.MatchString(name):
			v.err(path, quote(name)+" is not the name of a check", "want a name as preflight prints it, such as SystemVerification")
		case twice:
			v.warn(path, "the same as "+v.line(earlier), "remove one")
		default:
			first[strings.ToLower(name)] = path
		}
	}
}

// owned maps raw fields that are generated to where they are set instead.
type owned []struct{ path, instead string }

const (
	notYours = "remove it: it is always set to the one version that is written"
	byPath   = "remove it: the installer works with kubeadm's own directories"
)

var (
	ownedCluster = owned{
		{"apiVersion", notYours},
		{"kind", notYours},
		{"kubernetesVersion", "set spec.kubernetes.version"},
		{"clusterName", "set metadata.name"},
		{"controlPlaneEndpoint", "set spec.endpoint.host and spec.endpoint.port"},
		{"certificatesDir", byPath},
		{"caCertificateValidityPeriod", "bring your own CA with spec.pki.directory"},
		{"networking.podSubnet", "set spec.network.podCIDR"},
		{"networking.serviceSubnet", "set spec.network.serviceCIDR"},
		{"networking.dnsDomain", "set spec.network.dnsDomain"},
		{"etcd.external", "remove it: etcd runs on the control plane hosts"},
		{"etcd.local.dataDir", byPath},
	}
	ownedKubelet = owned{
		{"apiVersion", notYours},
		{"kind", notYours},
		{"clusterDomain", "set spec.network.dnsDomain"},
		{"staticPodPath", byPath},
	}
	ownedProxy = owned{
		{"apiVersion", notYours},
		{"kind", notYours},
		{"clusterCIDR", "set spec.network.podCIDR"},
	}
	ownedContainerd = owned{
		{"version", "remove it: the generated configuration is always version 3"},
	}
	// ownedEtcdArgs keep a member that lost its data from serving an empty
	// cluster of its own; the installer sets them after the last join.
	ownedEtcdArgs = map[string]bool{
		"initial-cluster": true, "initial-cluster-state": true, "initial-cluster-token": true, "force-new-cluster": true,
	}
)

// raw reports fields that the installer owns. All else is for kubeadm's own
// validation of the merged documents.
func (v *validator) raw() {
	k := v.c.Spec.Kubeadm
	v.owns("spec.kubeadm.clusterConfiguration", k.ClusterConfiguration, ownedCluster)
	v.owns("spec.kubeadm.kubeletConfiguration", k.KubeletConfiguration, ownedKubelet)
	v.owns("spec.kubeadm.kubeProxyConfiguration", k.KubeProxyConfiguration, ownedProxy)
	v.owns("spec.containerd", v.c.Spec.Containerd, ownedContainerd)

	etcd, _ := k.ClusterConfiguration["etcd"].(map[string]any)
	local, _ := etcd["local"].(map[string]any)
	args, _ := local["extraArgs"].([]any)
	for i, item := range args {
		arg, _ := item.(map[string]any)
		if name, _ := arg["name"].(string); ownedEtcdArgs[name] {
			path := fmt.Sprintf("spec.kubeadm.clusterConfiguration.etcd.local.extraArgs[%d].name", i)
			v.err(path, name+" is set by the installer", "remove it: it decides whether a member may start a cluster of its own")
		}
	}
}

func (v *validator) owns(path string, raw map[string]any, fields owned) {
	for _, field := range fields {
		if here, name := lookup(raw, path, field.path); here != "" {
			v.err(here, name+" is set by the installer", field.instead)
		}
	}
}

// lookup finds a dotted path in raw fields; "" when it is not there.
func lookup(raw map[string]any, path, dotted string) (at, name string) {
	first, rest, more := strings.Cut(dotted, ".")
	value, there := raw[first]
	if !there {
		return "", ""
	}
	at = child(path, first)
	if !more {
		return at, first
	}
	inner, _ := value.(map[string]any)
	return lookup(inner, at, rest)
}
