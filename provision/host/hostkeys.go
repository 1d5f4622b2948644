package host

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"

	"crypto/ed25519"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// verifier decides whether a host is who it says it is. There is no verifier
// that accepts anything.
type verifier struct {
	host     string // name in the inventory, for errors
	address  string // what known_hosts is asked for, "host:port"
	callback ssh.HostKeyCallback
	pinned   []ssh.PublicKey
	any      bool // offer all key types, to see what is there; check stays as strict
}

// newVerifier reads pinned keys or, without any, the known_hosts files; files
// that do not exist know nobody.
func newVerifier(cfg Config) (*verifier, error) {
	v := &verifier{host: cfg.Name, address: net.JoinHostPort(cfg.Address, fmt.Sprint(cfg.Port))}
	if cfg.HostKeyAlias != "" {
		v.address = net.JoinHostPort(cfg.HostKeyAlias, "22") // as ssh: an alias stands for the port, too
	}
	for i, line := range cfg.HostKeys {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, fmt.Errorf("%s: pinned host key %d of the inventory: %w", cfg.Name, i+1, err)
		}
		v.pinned = append(v.pinned, key)
	}
	if len(v.pinned) > 0 {
		return v, nil
	}
	var files []string
	for _, f := range cfg.KnownHosts {
		switch _, err := os.Stat(f); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("%s: known hosts: %w", cfg.Name, err)
		default:
			files = append(files, f)
		}
	}
	cb, err := knownhosts.New(files...)
	if err != nil {
		return nil, fmt.Errorf("%s: known hosts: %w", cfg.Name, err)
	}
	v.callback = cb
	return v, nil
}

// check is the ssh.HostKeyCallback; its error is a *HostKeyError.
func (v *verifier) check(_ string, remote net.Addr, key ssh.PublicKey) error {
	if len(v.pinned) > 0 {
		if slices.ContainsFunc(v.pinned, func(p ssh.PublicKey) bool { return bytes.Equal(p.Marshal(), key.Marshal()) }) {
			return nil
		}
		e := v.keyError(key)
		for _, p := range v.pinned {
			e.Known = append(e.Known, KnownKey{Type: p.Type(), Fingerprint: ssh.FingerprintSHA256(p), Where: "inventory"})
		}
		return e
	}
	err := v.callback(v.address, remote, key)
	if cert, ok := key.(*ssh.Certificate); ok && err != nil && cert.Key != nil {
		// of an authority that nobody here trusts: the key in it may be known by itself
		key = cert.Key
		err = v.callback(v.address, remote, key)
	}
	var unknown *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &revoked):
		e := v.keyError(key)
		e.Revoked, e.Known = true, knownKeys([]knownhosts.KnownKey{revoked.Revoked})
		return e
	case errors.As(err, &unknown):
		e := v.keyError(key)
		e.Known = knownKeys(unknown.Want)
		return e
	default:
		return fmt.Errorf("%s: host key of %s: %w", v.host, v.address, err)
	}
}

func (v *verifier) keyError(key ssh.PublicKey) *HostKeyError {
	return &HostKeyError{
		Host: v.host, Address: v.address, Type: key.Type(),
		Fingerprint: ssh.FingerprintSHA256(key),
		Line:        knownhosts.Line([]string{v.address}, key),
	}
}

func knownKeys(want []knownhosts.KnownKey) []KnownKey {
	var out []KnownKey
	for _, k := range want {
		out = append(out, KnownKey{
			Type: k.Key.Type(), Fingerprint: ssh.FingerprintSHA256(k.Key),
			Where: fmt.Sprintf("%s:%d", k.Filename, k.Line),
		})
	}
	return out
}

// algorithms are those whose key is known for the host, so that the host shows
// a key that can be compared; a host that nobody knows shows what it likes best.
func (v *verifier) algorithms() []string {
	if v.any {
		return defaultAlgorithms
	}
	keys := v.pinned
	if len(keys) == 0 {
		keys = v.recorded()
	}
	var algos []string
	for _, k := range keys {
		for _, a := range algorithmsOf(k.Type()) {
			if !slices.Contains(algos, a) {
				algos = append(algos, a)
			}
		}
	}
	if len(v.pinned) == 0 && len(keys) > 0 {
		// a line of known_hosts may be a certificate authority's: knownhosts
		// does not tell, so certificates stay on offer, first
		return append(slices.Clone(certAlgorithms), algos...)
	}
	if len(algos) == 0 {
		return defaultAlgorithms
	}
	return algos
}

// recorded are the keys on record for the host.
func (v *verifier) recorded() []ssh.PublicKey {
	var keys []ssh.PublicKey
	for _, k := range v.records() {
		keys = append(keys, k.Key)
	}
	return keys
}

// records asks known_hosts for a key that nobody has, whose refusal lists what is on
// record.
func (v *verifier) records() []knownhosts.KnownKey {
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil
	}
	probe, err := ssh.NewPublicKey(pub)
	if err != nil {
		return nil
	}
	var e *knownhosts.KeyError
	if !errors.As(v.callback(v.address, &net.TCPAddr{}, probe), &e) {
		return nil
	}
	return e.Want
}

func algorithmsOf(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}

var certAlgorithms = []string{
	ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
	ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01,
}

// defaultAlgorithms has what people compare first at the front.
var defaultAlgorithms = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
	ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
}
