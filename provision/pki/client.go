package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/keyutil"

	"github.com/ha-install/ha-install/templates"
)

// ClientCertificate signs a certificate for a client of the API server: the
// user cn in the groups orgs, valid for ttl but never longer than the CA. The
// key is new, in no file, and an elliptic one as kubelets make it for themselves:
// an RSA key takes a machine that waits for its certificate a thousand times longer.
func (s *CASet) ClientCertificate(now time.Time, cn string, orgs []string, ttl time.Duration) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("client certificate %s: %w", cn, err)
	}
	if key, err = keyutil.MarshalPrivateKeyToPEM(private); err != nil {
		return nil, nil, fmt.Errorf("client certificate %s: %w", cn, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, fmt.Errorf("client certificate %s: %w", cn, err)
	}
	end := now.UTC().Add(ttl)
	if end.After(s.ca.cert.NotAfter) {
		end = s.ca.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: cn, Organization: orgs},
		NotBefore:             now.UTC().Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.ca.cert, private.Public(), s.ca.key)
	if err != nil {
		return nil, nil, fmt.Errorf("client certificate %s: %w", cn, err)
	}
	return certPEM(der), key, nil
}

// Kubeconfig returns a kubeconfig with one cluster and one user, everything
// embedded: server is host:port, name the cluster's. It is a secret.
func Kubeconfig(server, name string, ca, cert, key []byte) ([]byte, error) {
	user := name + "-admin"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: "https://" + server, CertificateAuthorityData: ca}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: user}
	config.CurrentContext = name
	data, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", name, err)
	}
	return data, nil
}

// NewEncryptionKey makes the key for templates.EncryptionConfig.
func NewEncryptionKey() ([templates.EncryptionKeySize]byte, error) {
	var key [templates.EncryptionKeySize]byte
	if _, err := rand.Read(key[:]); err != nil {
		return key, fmt.Errorf("make encryption key: %w", err)
	}
	return key, nil
}
