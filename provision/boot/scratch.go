package boot

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// scratch is a directory for the while of a boot, held by a lock that ends with
// the process. Keys may lie in it.
type scratch struct {
	path string
	lock *os.File
}

const (
	scratchPrefix = "ha-install-boot-"
	lockName      = "boot.lock"
)

// newScratch makes one in a directory, and removes those that killed runs left.
func newScratch(in string) (*scratch, error) {
	if in == "" {
		in = os.TempDir()
	}
	left, err := filepath.Glob(filepath.Join(in, scratchPrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range left {
		removeLeft(dir)
	}
	path, err := os.MkdirTemp(in, scratchPrefix) // 0700
	if err != nil {
		return nil, err
	}
	s := &scratch{path: path}
	if s.lock, err = os.OpenFile(s.at(lockName), os.O_CREATE|os.O_RDWR, 0o600); err == nil {
		err = syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		os.RemoveAll(path)
		return nil, err
	}
	return s, nil
}

// removeLeft removes a directory of a boot, of this user, that nobody holds.
func removeLeft(dir string) {
	var st syscall.Stat_t
	if syscall.Lstat(dir, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFDIR || int(st.Uid) != os.Getuid() {
		return
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	if err != nil {
		return // no lock: not ours, or one that begins just now
	}
	defer lock.Close()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		_ = os.RemoveAll(dir)
	}
}

func (s *scratch) at(name string) string { return filepath.Join(s.path, name) }

func (s *scratch) remove() error {
	defer s.lock.Close()
	return os.RemoveAll(s.path)
}

// keys are one CA and one certificate under it, for all who take part: etcd, the
// API server, and the administrator who counts.
type keys struct {
	ca, cert, key          string // files
	caPEM, certPEM, keyPEM []byte
	pair                   tls.Certificate
	etcd, api              string // addresses
}

const keysLive = 24 * time.Hour

func newKeys(dir string, now time.Time) (*keys, error) {
	k := &keys{ca: filepath.Join(dir, "ca.crt"), cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key")}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "boot-ca"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(keysLive),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IsCA: true, BasicConstraintsValid: true,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "boot", Organization: []string{"system:masters"}},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	caDER, err := x509.CreateCertificate(rand.Reader, authority, authority, caKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority, own.Public(), caKey)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalECPrivateKey(own)
	if err != nil {
		return nil, err
	}
	k.caPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	k.certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	k.keyPEM = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})
	for name, data := range map[string][]byte{k.ca: k.caPEM, k.cert: k.certPEM, k.key: k.keyPEM} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return nil, fmt.Errorf("write scratch keys: %w", err)
		}
	}
	k.pair, err = tls.X509KeyPair(k.certPEM, k.keyPEM)
	return k, err
}
