package templates

import (
	_ "embed"
	"encoding/base64"
	"fmt"

	"github.com/ha-install/ha-install/inventory"
)

var (
	//go:embed files/audit-policy.yaml
	auditPolicy []byte
	//go:embed files/admission.yaml
	admissionConfig []byte
)

// EncryptionKeySize is the length of secretbox's key.
const EncryptionKeySize = 32

// EncryptionConfig returns the configuration that encrypts Secrets at rest with
// secretbox (XSalsa20-Poly1305). The key is made once for a cluster and must be
// equal on every master; what was written without it stays readable (identity).
func EncryptionConfig(key [EncryptionKeySize]byte) []byte {
	return fmt.Appendf(nil, `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox:
      keys:
      - name: key1
        secret: %s
  - identity: {}
`, base64.StdEncoding.EncodeToString(key[:]))
}

// EncryptionFile is the configuration as a file, whether just made by
// EncryptionConfig or read from another master.
func EncryptionFile(content []byte) File {
	return File{Path: EncryptionConfigPath, Mode: 0o600, Content: content, Secret: true}
}

// authenticationConfig lets nobody in unnamed but those who ask for health:
// the kubelet's probes and the balancer. Joins use file discovery, which needs
// no anonymous look at the cluster-info ConfigMap.
func authenticationConfig(c *inventory.Cluster) ([]byte, error) {
	v, err := release(c)
	if err != nil {
		return nil, err
	}
	api := "v1"
	if v.Minor() < 34 {
		api = "v1beta1"
	}
	return fmt.Appendf(nil, `apiVersion: apiserver.config.k8s.io/%s
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
  - path: /livez
  - path: /readyz
  - path: /healthz
`, api), nil
}

// apiServerFiles are what every API server of the cluster reads, but for the
// encryption key, which is made once: see EncryptionFile.
func apiServerFiles(c *inventory.Cluster) ([]File, error) {
	authentication, err := authenticationConfig(c)
	if err != nil {
		return nil, err
	}
	return []File{
		{Path: AuditPolicyPath, Mode: 0o600, Content: auditPolicy},
		{Path: AdmissionConfigPath, Mode: 0o600, Content: admissionConfig},
		{Path: AuthenticationPath, Mode: 0o600, Content: authentication},
	}, nil
}
