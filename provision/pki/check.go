package pki

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"

	"github.com/ha-install/ha-install/inventory"
)

// MissingError says that a set is not complete.
type MissingError struct {
	Missing []string // of Names, in that order
}

// None reports whether there was not a single file: a host without a set, as
// opposed to one with a broken one.
func (e *MissingError) None() bool { return len(e.Missing) == len(Names) }

func (e *MissingError) Error() string {
	if e.None() {
		return "no CA set: none of its eight files is there"
	}
	return fmt.Sprintf("incomplete CA set: missing %s (all eight files or none)", strings.Join(e.Missing, ", "))
}

// Is makes a missing set fs.ErrNotExist.
func (e *MissingError) Is(target error) bool { return target == fs.ErrNotExist }

// Load reads the eight files by their names relative to the pki directory and
// checks that they are one usable set. Missing files are a *MissingError;
// whatever else is wrong with those that are there is reported beside it.
func Load(read func(name string) ([]byte, error), now time.Time) (*CASet, error) {
	files := map[string][]byte{}
	missing := &MissingError{}
	var all *multierror.Error
	for _, name := range Names {
		content, err := read(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing.Missing = append(missing.Missing, name)
		case err != nil:
			all = multierror.Append(all, fmt.Errorf("read %s: %w", name, err))
		default:
			files[name] = content
		}
	}
	if err := all.ErrorOrNil(); err != nil {
		return nil, err
	}
	set, err := check(files, now)
	switch {
	case len(missing.Missing) == 0:
		return set, err
	case err == nil:
		return nil, missing
	default:
		return nil, multierror.Append(missing, err)
	}
}

// check checks the files that are there; that all are is for the caller to see.
func check(files map[string][]byte, now time.Time) (*CASet, error) {
	set := &CASet{files: files}
	var all *multierror.Error
	for _, a := range []struct {
		cert, key string
		into      *authority
	}{
		{CACert, CAKey, &set.ca},
		{EtcdCACert, EtcdCAKey, &set.etcd},
		{FrontProxyCACert, FrontProxyCAKey, &set.frontProxy},
	} {
		if !has(files, a.cert, a.key) {
			continue
		}
		var err error
		if *a.into, err = parseAuthority(files, a.cert, a.key); err == nil {
			err = checkAuthority(a.into.cert, now)
		}
		if err == nil && a.cert == CACert {
			err = checkAlone(files[CACert])
		}
		if err != nil {
			all = multierror.Append(all, fmt.Errorf("%s: %w", a.cert, err))
		}
	}
	if has(files, SAKey, SAPub) {
		if err := checkServiceAccount(files); err != nil {
			all = multierror.Append(all, err)
		}
	}
	if all.ErrorOrNil() == nil && has(files, Names...) {
		all = multierror.Append(all, checkDistinct(set)...)
	}
	if err := all.ErrorOrNil(); err != nil {
		return nil, err
	}
	return set, nil
}

func has(files map[string][]byte, names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { _, ok := files[name]; return !ok })
}

// parseAuthority reads a certificate (the first of its file signs) with its key.
func parseAuthority(files map[string][]byte, certName, keyName string) (authority, error) {
	certs, err := cert.ParseCertsPEM(files[certName])
	if err != nil {
		return authority{}, fmt.Errorf("no certificate in PEM: %w", err)
	}
	key, err := parseKey(files[keyName])
	if err != nil {
		return authority{}, fmt.Errorf("its key %s: %w", keyName, err)
	}
	if !samePublic(certs[0].PublicKey, key.Public()) {
		return authority{}, fmt.Errorf("%s is not its key", keyName)
	}
	return authority{cert: certs[0], key: key}, nil
}

// parseKey reads an unencrypted PKCS #1, PKCS #8 or EC key. Its errors never
// quote what they read.
func parseKey(data []byte) (crypto.Signer, error) {
	key, err := keyutil.ParsePrivateKeyPEM(data)
	if err != nil {
		return nil, errors.New("no unencrypted private key in PEM")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	return signer, nil
}

func samePublic(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

func checkAuthority(c *x509.Certificate, now time.Time) error {
	left := c.NotAfter.Sub(now)
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return errors.New("it is not a CA: the basic constraint CA is not set")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("it may not sign certificates: key usage lacks certSign")
	case now.Before(c.NotBefore):
		return fmt.Errorf("it is valid only from %s on", c.NotBefore.UTC().Format(time.RFC3339))
	case left <= 0:
		return fmt.Errorf("it expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	case left < inventory.CertificateLifetimeFloor:
		return fmt.Errorf("it expires at %s: want at least %d days from now", c.NotAfter.UTC().Format(time.RFC3339), int(inventory.CertificateLifetimeFloor.Hours()/24))
	}
	return nil
}

// checkAlone wants nothing but a root in the file of the cluster's CA: the
// controller-manager signs kubelets' certificates only with a file of one
// certificate (caProvider.setCA), and OpenSSL, with it HAProxy's check of the
// API servers, verifies only up to a root.
func checkAlone(file []byte) error {
	certs, err := cert.ParseCertsPEM(file)
	switch {
	case err != nil:
		return err
	case len(certs) > 1:
		return fmt.Errorf("it holds %d certificates: the controller-manager signs with a file of exactly one; give a self-signed CA", len(certs))
	case certs[0].CheckSignatureFrom(certs[0]) != nil:
		return fmt.Errorf("it was issued by %q: HAProxy verifies the API servers only up to a root; give a self-signed CA", certs[0].Issuer.String())
	}
	return nil
}

func checkServiceAccount(files map[string][]byte) error {
	key, err := parseKey(files[SAKey])
	if err != nil {
		return fmt.Errorf("%s: %w", SAKey, err)
	}
	// keyutil would also take a certificate here; kubeadm writes one public key.
	block, _ := pem.Decode(files[SAPub])
	if block == nil {
		return fmt.Errorf("%s: no public key in PEM", SAPub)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("%s: no public key in PEM", SAPub)
	}
	if !samePublic(public, key.Public()) {
		return fmt.Errorf("%s is not the public half of %s", SAPub, SAKey)
	}
	return nil
}

// checkDistinct refuses CAs that share a key: whoever has a certificate of the
// cluster could read etcd, or name himself anybody through the front proxy.
func checkDistinct(s *CASet) []error {
	var errs []error
	if samePublic(s.ca.cert.PublicKey, s.etcd.cert.PublicKey) {
		errs = append(errs, fmt.Errorf("%s and %s have the same key: every client of the cluster could read etcd", CACert, EtcdCACert))
	}
	if samePublic(s.ca.cert.PublicKey, s.frontProxy.cert.PublicKey) {
		errs = append(errs, fmt.Errorf("%s and %s have the same key: every client of the cluster could impersonate any other", CACert, FrontProxyCACert))
	}
	return errs
}
