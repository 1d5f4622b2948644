package templates

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
	"k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm"
	"k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm/scheme"
	"k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm/v1beta4"
	"k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm/validation"
	kubeadmconfig "k8s.io/kubernetes/cmd/kubeadm/app/util/config"

	"github.com/ha-install/ha-install/inventory"
)

// reserved are raw fields that would contradict the rest of the inventory or
// what the other steps rely on; the value says where the setting belongs.
var reserved = []struct {
	path []string
	use  string
}{
	{[]string{"kubernetesVersion"}, "set spec.kubernetes.version"},
	{[]string{"clusterName"}, "set metadata.name"},
	{[]string{"controlPlaneEndpoint"}, "set spec.endpoint"},
	{[]string{"networking"}, "set spec.network"},
	{[]string{"certificatesDir"}, "it is always " + PKIDir},
	{[]string{"etcd", "external"}, "etcd runs on the masters; an external one is not supported"},
	{[]string{"etcd", "local", "dataDir"}, "it is always " + EtcdDataDir},
}

// Validate generates everything that the inventory leads to, for every host,
// and returns all that kubeadm would refuse, as a *multierror.Error.
func Validate(c *inventory.Cluster) error {
	if _, err := release(c); err != nil {
		// Nearly everything depends on it.
		return multierror.Append(nil, err)
	}
	_, cluster := clusterConfiguration(c)
	_, kubelet := kubeletConfiguration(c)
	_, proxy := kubeProxyConfiguration(c)
	_, containerd := containerdConfig(c)
	all := multierror.Append(nil, checkReserved(c.Spec.Kubeadm.ClusterConfiguration)...)
	all = multierror.Append(all, nonNil(cluster, kubelet, proxy, containerd)...)
	if c.Spec.Network.CNI.Plugin == inventory.CNIFlannel {
		_, err := Flannel(c)
		all = multierror.Append(all, nonNil(err)...)
	}
	if all.ErrorOrNil() != nil {
		// kubeadm would only say the same things again, once for each host.
		return all
	}
	if masters := hostsWith(c, inventory.RoleControlPlane); len(masters) > 0 {
		// What is shared would be refused in the same words for every master.
		_, err := InitDocuments(c, masters[0], Init{})
		all = multierror.Append(all, nonNil(err)...)
	}
	for _, h := range c.Spec.Hosts {
		all = multierror.Append(all, validateHost(c, h)...)
	}
	return all.ErrorOrNil()
}

func validateHost(c *inventory.Cluster, h inventory.Host) []error {
	var files, join, balancer error
	if h.Role != inventory.RoleLoadBalancer {
		_, files = HostFiles(c, h)
		_, join = JoinDocuments(c, h, Join{DiscoveryFile: "/discovery"})
	}
	if c.Balances(h) {
		_, balancer = BalancerFiles(c, h, Balancer{Interface: "found later", CAPEM: []byte("made later")})
	}
	return nonNil(files, join, balancer)
}

func nonNil(errs ...error) []error {
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

func checkReserved(raw map[string]any) []error {
	var errs []error
	for _, r := range reserved {
		if has(raw, r.path) {
			errs = append(errs, fmt.Errorf("spec.kubeadm.clusterConfiguration.%s: not to be set here: %s", strings.Join(r.path, "."), r.use))
		}
	}
	return errs
}

// kubeadmValidate decodes the documents as kubeadm on the host will, defaults
// and validates them. It asks nothing of this machine or of the network: the
// version is a plain release, the socket, the node's name and its address are given.
func kubeadmValidate(docs []byte) error {
	return kubeadmconfig.ValidateConfig(docs, false, false)
}

// validateJoin validates by way of the objects: kubeadm looks for the
// discovery file on the disk of the machine that validates
// (ValidateDiscoveryKubeConfigPath), so a URL stands in for it.
func validateJoin(c *inventory.Cluster, h inventory.Host, j Join) error {
	if j.DiscoveryFile == "" {
		return errors.New("no discovery file")
	}
	j.DiscoveryFile = "https://discovery.invalid"
	m, err := joinConfiguration(c, h, j)
	if err != nil {
		return err
	}
	external := &v1beta4.JoinConfiguration{}
	if err := strict("JoinConfiguration", m, external); err != nil {
		return err
	}
	scheme.Scheme.Default(external)
	internal := &kubeadm.JoinConfiguration{}
	if err := scheme.Scheme.Convert(external, internal, nil); err != nil {
		return fmt.Errorf("convert JoinConfiguration: %w", err)
	}
	if err := kubeadmconfig.SetJoinDynamicDefaults(internal, true); err != nil {
		return err
	}
	return validation.ValidateJoinConfiguration(internal).ToAggregate()
}
