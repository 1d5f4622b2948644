package provision

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path"
	"slices"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/ha-install/ha-install/inventory"
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

// Issued is a user's kubeconfig. It is a secret.
type Issued struct {
	Config   *clientcmdapi.Config
	NotAfter time.Time // of its certificate
}

// UserKubeconfig has the cluster sign a certificate for a user, by way of the first
// master whose API server is ready, and proves that the endpoint, asked from that
// master, knows the user by it. It changes no host and needs no lock: the request
// is an object of its own, and gone when this ends.
func UserKubeconfig(ctx context.Context, s *Site, user string, groups []string, ttl time.Duration) (Issued, error) {
	var seen []error
	for _, ih := range s.Cluster.ControlPlanes() {
		client, err := s.api(ctx, ih)
		if err == nil {
			err = client.Readyz(ctx)
		}
		if err != nil {
			seen = append(seen, onHost(ih.Name, err))
			continue
		}
		issued, err := s.issueBy(ctx, ih, client, user, groups, ttl)
		return issued, onHost(ih.Name, err)
	}
	return Issued{}, fmt.Errorf("no API server is ready, and none can sign; `ha-install status` shows where the cluster stands:\n%w", phase.Join(seen...))
}

func (s *Site) issueBy(ctx context.Context, ih inventory.Host, client *kube.Client, user string, groups []string, ttl time.Duration) (Issued, error) {
	h, err := s.host(ih.Name)
	if err != nil {
		return Issued{}, err
	}
	ca, err := h.ReadFile(ctx, path.Join(kube.PKIDir, "ca.crt"))
	if err != nil {
		return Issued{}, err
	}
	cert, key, err := client.IssueUser(ctx, user, groups, ttl)
	if err != nil {
		return Issued{}, err
	}
	issued, err := issuedTo(s.Cluster.Metadata.Name, "https://"+s.endpoint(), user, ca, cert, key)
	if err != nil {
		return Issued{}, err
	}
	if err := s.knows(ctx, h, issued.Config, user, groups); err != nil {
		return Issued{}, fmt.Errorf("the certificate of %s was signed and is thrown away: %w; `ha-install status` shows the endpoint", user, err)
	}
	return issued, nil
}

// knows asks the endpoint, as a host reaches it, who the bearer of a kubeconfig is.
func (s *Site) knows(ctx context.Context, from kube.Dialer, config *clientcmdapi.Config, user string, groups []string) error {
	data, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	client, err := kube.NewClient(from, s.endpoint(), data, nil)
	if err != nil {
		return err
	}
	name, in, err := client.WhoAmI(ctx)
	if err != nil {
		return fmt.Errorf("the endpoint %s: %w", s.endpoint(), err)
	}
	missing := slices.DeleteFunc(slices.Clone(groups), func(g string) bool { return slices.Contains(in, g) })
	if name != user || len(missing) > 0 {
		return fmt.Errorf("the endpoint %s takes its bearer for %q in %q", s.endpoint(), name, in)
	}
	return nil
}

func issuedTo(cluster, server, user string, ca, cert, key []byte) (Issued, error) {
	block, _ := pem.Decode(cert)
	if block == nil {
		return Issued{}, fmt.Errorf("the cluster signed what is no certificate")
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return Issued{}, err
	}
	name := user + "@" + cluster // never that of the administrator
	config := clientcmdapi.NewConfig()
	config.Clusters[cluster] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: cluster, AuthInfo: name}
	config.CurrentContext = name
	return Issued{config, parsed.NotAfter}, nil
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
