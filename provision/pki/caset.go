// Package pki makes, checks and uses the CA set of a cluster: the eight files
// under /etc/kubernetes/pki that every master shares and from which kubeadm
// makes each host's own certificates.
package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math"
	"math/big"
	"time"

	"k8s.io/client-go/util/keyutil"

	"github.com/ha-install/ha-install/templates"
)

// The files of a set, relative to /etc/kubernetes/pki.
const (
	CACert           = "ca.crt"
	CAKey            = "ca.key"
	EtcdCACert       = "etcd/ca.crt"
	EtcdCAKey        = "etcd/ca.key"
	FrontProxyCACert = "front-proxy-ca.crt"
	FrontProxyCAKey  = "front-proxy-ca.key"
	SAKey            = "sa.key"
	SAPub            = "sa.pub"
)

// Names are the eight files, certificates before keys.
var Names = []string{CACert, CAKey, EtcdCACert, EtcdCAKey, FrontProxyCACert, FrontProxyCAKey, SAKey, SAPub}

const (
	caLifetime = 10 * 365 * 24 * time.Hour // kubeadm's CACertificateValidityPeriod
	// backdate forgives a host whose clock is behind the one that signed.
	backdate = 5 * time.Minute
	keyBits  = 2048 // kubeadm's default, RSA-2048
)

// CASet is a complete and checked set. Its keys never show in what it prints.
type CASet struct {
	files      map[string][]byte
	ca         authority
	etcd       authority
	frontProxy authority
}

// authority is one CA; cert is the one that signs, first in its file.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// New makes a set as kubeadm would: self-signed, ten years, RSA-2048.
func New(now time.Time) (*CASet, error) {
	files := map[string][]byte{}
	for _, ca := range []struct{ cn, cert, key string }{
		{"kubernetes", CACert, CAKey},
		{"etcd-ca", EtcdCACert, EtcdCAKey},
		{"front-proxy-ca", FrontProxyCACert, FrontProxyCAKey},
	} {
		if err := newAuthority(files, ca.cn, ca.cert, ca.key, now); err != nil {
			return nil, fmt.Errorf("make CA %s: %w", ca.cn, err)
		}
	}
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("make service account key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("make service account key: %w", err)
	}
	files[SAKey] = rsaKeyPEM(key)
	files[SAPub] = pem.EncodeToMemory(&pem.Block{Type: keyutil.PublicKeyBlockType, Bytes: public})
	return check(files, now)
}

func newAuthority(files map[string][]byte, cn, certName, keyName string, now time.Time) error {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return err
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	start := now.UTC().Add(-backdate)
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: cn},
		DNSNames:              []string{cn},
		NotBefore:             start,
		NotAfter:              start.Add(caLifetime),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	files[certName] = certPEM(der)
	files[keyName] = rsaKeyPEM(key)
	return nil
}

// newSerial is a positive random number of 63 bits, as kubeadm's are.
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, big.NewInt(math.MaxInt64-1))
	if err != nil {
		return nil, err
	}
	return n.Add(n, big.NewInt(1)), nil
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func rsaKeyPEM(key *rsa.PrivateKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: keyutil.RSAPrivateKeyBlockType, Bytes: x509.MarshalPKCS1PrivateKey(key)})
}

// Files are the eight files as a master holds them, keys readable by root alone.
func (s *CASet) Files() []templates.File {
	list := make([]templates.File, 0, len(Names))
	for _, name := range Names {
		f := templates.File{Path: templates.PKIDir + "/" + name, Mode: 0o600, Content: bytes.Clone(s.files[name]), Secret: true}
		if !private(name) {
			f.Mode, f.Secret = 0o644, false
		}
		list = append(list, f)
	}
	return list
}

func private(name string) bool { return name != SAPub && name[len(name)-len(".key"):] == ".key" }

// CAPEM is the cluster CA's certificate file.
func (s *CASet) CAPEM() []byte { return bytes.Clone(s.files[CACert]) }

// EtcdCAPEM is the certificate file of etcd's CA.
func (s *CASet) EtcdCAPEM() []byte { return bytes.Clone(s.files[EtcdCACert]) }

// Fingerprint tells one set from another: SHA-256, lower-case hex, over the
// public keys of the three CAs and of the service accounts. It gives nothing away.
func (s CASet) Fingerprint() string {
	sum := sha256.New()
	for _, a := range []authority{s.ca, s.etcd, s.frontProxy} {
		sum.Write(a.cert.RawSubjectPublicKeyInfo)
	}
	// The PEM may be written in more than one way; the key is what counts.
	block, _ := pem.Decode(s.files[SAPub])
	sum.Write(block.Bytes)
	return hex.EncodeToString(sum.Sum(nil))
}

// String names the set without its keys.
func (s CASet) String() string { return "CA set " + s.Fingerprint()[:16] }

// Format keeps every verb, %#v too, from walking into the keys.
func (s CASet) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }
