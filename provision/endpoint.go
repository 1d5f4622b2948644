package provision

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"sort"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
)

// handshakeTimeout bounds one TLS handshake with the endpoint.
const handshakeTimeout = 5 * time.Second

// serving makes a TLS handshake with address, verified against the CA, and
// returns the SHA-256 of the certificate served: each API server has its own,
// so it tells which backend answered.
func serving(ctx context.Context, d kube.Dialer, address string, ca *x509.CertPool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	certificate, err := handshake(ctx, d, address, &tls.Config{RootCAs: ca, ServerName: name, MinVersion: tls.VersionTLS12})
	if err != nil {
		return "", err
	}
	return fingerprint(certificate.Raw), nil
}

// handshake makes one TLS handshake and returns the peer's certificate.
func handshake(ctx context.Context, d kube.Dialer, address string, config *tls.Config) (*x509.Certificate, error) {
	raw, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, config)
	defer conn.Close()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

func fingerprint(der []byte) string {
	digest := sha256.Sum256(der)
	return hex.EncodeToString(digest[:])
}

// clusterCA reads the cluster's CA certificate from the first master that has it.
func (s *Site) clusterCA(ctx context.Context) (*x509.CertPool, error) {
	var seen []error
	for _, ih := range s.connected(s.Cluster.ControlPlanes()) {
		h, err := s.host(ih.Name)
		if err != nil {
			return nil, err
		}
		data, err := h.ReadFile(ctx, path.Join(kube.PKIDir, "ca.crt"))
		if err != nil {
			seen = append(seen, err)
			continue
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s: %s/ca.crt holds no certificate", ih.Name, kube.PKIDir)
		}
		return pool, nil
	}
	return nil, fmt.Errorf("no master has the cluster's CA: %w", errors.Join(seen...))
}

// servingCertificates maps the fingerprint of each master's serving
// certificate to the master's name; a master that has none yet is left out.
func (s *Site) servingCertificates(ctx context.Context) (map[string]string, error) {
	names := map[string]string{}
	for _, ih := range s.connected(s.Cluster.ControlPlanes()) {
		h, err := s.host(ih.Name)
		if err != nil {
			return nil, err
		}
		data, err := h.ReadFile(ctx, path.Join(kube.PKIDir, "apiserver.crt"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ih.Name, err)
		}
		block, _ := pem.Decode(data)
		if block == nil {
			return nil, fmt.Errorf("%s: %s/apiserver.crt holds no certificate", ih.Name, kube.PKIDir)
		}
		names[fingerprint(block.Bytes)] = ih.Name
	}
	return names, nil
}

// backendsSeen asks the endpoint from a host, new connection by new
// connection, until every master has answered or the tries are used up.
func (s *Site) backendsSeen(ctx context.Context, h host.Reader, tries int) ([]string, error) {
	ca, err := s.clusterCA(ctx)
	if err != nil {
		return nil, err
	}
	byPrint, err := s.servingCertificates(ctx)
	if err != nil {
		return nil, err
	}
	answered := map[string]bool{}
	for range tries {
		print, err := serving(ctx, h, s.endpoint(), ca)
		if err != nil {
			return nil, err
		}
		name, known := byPrint[print]
		if !known {
			return nil, fmt.Errorf("a backend that is no master of the inventory answers at %s: certificate %s", s.endpoint(), print)
		}
		if answered[name] = true; len(answered) == len(byPrint) {
			break
		}
	}
	return sortedKeys(answered), nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// backends is the check that every master answers at the endpoint, as seen
// from the given master: a balancer that cannot send a backend its own
// connection (hairpin) is found here.
func (s *Site) backends(ctx context.Context, ih inventory.Host) error {
	h, err := s.host(ih.Name)
	if err != nil {
		return err
	}
	masters := s.Cluster.ControlPlanes()
	seen, err := s.backendsSeen(ctx, h, 8*len(masters))
	if err != nil {
		return fmt.Errorf("%s: endpoint %s: %w", ih.Name, s.endpoint(), err)
	}
	if len(seen) < len(masters) {
		return fmt.Errorf("%s: at the endpoint %s only %s answered, wanted all %d masters", ih.Name, s.endpoint(), strings.Join(seen, ", "), len(masters))
	}
	return nil
}
