package templates

import (
	"fmt"
	"net"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/ha-install/ha-install/inventory"
)

// DiscoveryKubeconfig returns the kubeconfig for a join by file discovery: the
// server (host:port; "" is the cluster's endpoint), the CA that pins it and the
// bootstrap token. It is a secret. kubeadm writes its server into the kubelet's
// own kubeconfig, so anything but the endpoint ties a kubelet to one master.
func DiscoveryKubeconfig(c *inventory.Cluster, server string, caPEM []byte, token string) ([]byte, error) {
	if server == "" {
		server = endpoint(c)
	}
	if _, _, err := net.SplitHostPort(server); err != nil {
		return nil, fmt.Errorf("discovery kubeconfig: server: %w", err)
	}
	if len(caPEM) == 0 || token == "" {
		return nil, fmt.Errorf("discovery kubeconfig: the CA and the token are both needed: without the CA the server is not proven")
	}
	const user = "bootstrap" // kubeadm refuses a context without a user
	name := c.Metadata.Name
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: "https://" + server, CertificateAuthorityData: caPEM}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: user}
	config.CurrentContext = name
	data, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("discovery kubeconfig: %w", err)
	}
	return data, nil
}
