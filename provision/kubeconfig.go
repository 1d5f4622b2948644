package provision

import (
	"context"
	"fmt"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
)

// Kubeconfig fetches the administrator's kubeconfig from the first master that
// has one and names its cluster, user and context after the cluster, so that
// it can be merged with others.
func Kubeconfig(ctx context.Context, s *Site) (*clientcmdapi.Config, error) {
	var seen []error
	for _, ih := range s.Cluster.ControlPlanes() {
		h, err := s.host(ih.Name)
		if err == nil {
			var data []byte
			if data, err = h.ReadFile(ctx, kube.AdminConf); err == nil {
				return rename(data, s.Cluster.Metadata.Name, "https://"+s.endpoint())
			}
		}
		seen = append(seen, onHost(ih.Name, err))
	}
	return nil, fmt.Errorf("no master has given a kubeconfig; `ha-install status` shows where the cluster stands, apply makes one:\n%w", phase.Join(seen...))
}

func rename(data []byte, name, server string) (*clientcmdapi.Config, error) {
	config, err := clientcmd.Load(data)
	if err != nil {
		return nil, err
	}
	current := config.Contexts[config.CurrentContext]
	if current == nil || config.Clusters[current.Cluster] == nil || config.AuthInfos[current.AuthInfo] == nil {
		return nil, fmt.Errorf("the kubeconfig has no current context")
	}
	cluster, user := config.Clusters[current.Cluster], config.AuthInfos[current.AuthInfo]
	cluster.Server = server
	out := clientcmdapi.NewConfig()
	admin := name + "-admin"
	out.Clusters[name], out.AuthInfos[admin] = cluster, user
	out.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: admin}
	out.CurrentContext = name
	return out, nil
}
