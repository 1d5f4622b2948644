package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/ha-install/ha-install/templates"
)

var today = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// sets are two sets for all tests; making keys takes long.
var sets = func() (made [2]*CASet) {
	for i := range made {
		var err error
		if made[i], err = New(today); err != nil {
			panic(err)
		}
	}
	return made
}()

func from(files map[string][]byte) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		content, ok := files[name]
		if !ok {
			return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
		}
		return content, nil
	}
}

func TestNewHasKubeadmsShape(t *testing.T) {
	s := sets[0]
	for cn, c := range map[string]*x509.Certificate{"kubernetes": s.ca.cert, "etcd-ca": s.etcd.cert, "front-proxy-ca": s.frontProxy.cert} {
		if c.Subject.CommonName != cn || !c.IsCA || c.DNSNames[0] != cn || c.SerialNumber.Sign() <= 0 {
			t.Errorf("%s: got subject %s, CA %t, names %v, serial %s", cn, c.Subject, c.IsCA, c.DNSNames, c.SerialNumber)
		}
		if got := c.NotAfter.Sub(c.NotBefore); got != caLifetime {
			t.Errorf("%s: valid for %s, want %s", cn, got, caLifetime)
		}
		if err := c.CheckSignatureFrom(c); err != nil {
			t.Errorf("%s: %v", cn, err)
		}
	}
	loaded, err := Load(from(s.files), today)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Fingerprint() != s.Fingerprint() || s.Fingerprint() == sets[1].Fingerprint() {
		t.Error("a fingerprint must follow its set and nothing else")
	}
}

func TestFilesAreWhereKubeadmLooks(t *testing.T) {
	files := sets[0].Files()
	if len(files) != 8 {
		t.Fatalf("%d files, want 8", len(files))
	}
	for _, f := range files {
		name, ok := strings.CutPrefix(f.Path, templates.PKIDir+"/")
		key := strings.HasSuffix(name, ".key")
		if !ok || f.Secret != key || (f.Mode == 0o600) != key || len(f.Content) == 0 {
			t.Errorf("%v: secret %t", f, f.Secret)
		}
	}
}

func TestLoadRefusesBrokenSets(t *testing.T) {
	good, other := sets[0].files, sets[1].files
	leaf, leafKey, err := sets[0].ClientCertificate(today, "somebody", nil, 365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change map[string][]byte // nil removes
		now    time.Time
		want   []string // parts of the error
	}{
		{name: "the CA's key is another set's", change: map[string][]byte{CAKey: other[CAKey]}, want: []string{"ca.crt: ca.key is not its key"}},
		{name: "etcd's key is the cluster's", change: map[string][]byte{EtcdCAKey: good[CAKey]}, want: []string{"etcd/ca.crt: etcd/ca.key is not its key"}},
		{name: "a leaf in the CA's place", change: map[string][]byte{CACert: leaf, CAKey: leafKey}, want: []string{"ca.crt: it is not a CA"}},
		{name: "a certificate cut in half", change: map[string][]byte{CACert: good[CACert][:300]}, want: []string{"ca.crt: no certificate in PEM"}},
		{name: "a key cut in half", change: map[string][]byte{CAKey: good[CAKey][:300]}, want: []string{"ca.key: no unencrypted private key"}},
		{name: "an empty key", change: map[string][]byte{SAKey: {}}, want: []string{"sa.key: no unencrypted private key"}},
		{name: "a service account pair of two halves", change: map[string][]byte{SAPub: other[SAPub]}, want: []string{"sa.pub is not the public half of sa.key"}},
		{name: "a certificate as public key", change: map[string][]byte{SAPub: good[CACert]}, want: []string{"sa.pub: no public key"}},
		{name: "one file is missing", change: map[string][]byte{FrontProxyCAKey: nil}, want: []string{"incomplete", "missing front-proxy-ca.key"}},
		{name: "two are missing", change: map[string][]byte{CAKey: nil, SAPub: nil}, want: []string{"missing ca.key, sa.pub"}},
		{name: "one is missing and others are wrong", change: map[string][]byte{SAKey: nil, CAKey: other[CAKey], EtcdCACert: leaf, EtcdCAKey: leafKey},
			want: []string{"missing sa.key", "ca.crt: ca.key is not its key", "etcd/ca.crt: it is not a CA"}},
		{name: "etcd shares the cluster's CA", change: map[string][]byte{EtcdCACert: good[CACert], EtcdCAKey: good[CAKey]}, want: []string{"could read etcd"}},
		{name: "the front proxy shares it", change: map[string][]byte{FrontProxyCACert: good[CACert], FrontProxyCAKey: good[CAKey]}, want: []string{"impersonate"}},
		{name: "all of it has expired", now: today.Add(caLifetime), want: []string{"ca.crt: it expired at 2036", "etcd/ca.crt: it expired", "front-proxy-ca.crt: it expired"}},
		{name: "it ends in 29 days", now: today.Add(caLifetime - 29*24*time.Hour), want: []string{"it expires at 2036", "want at least 30 days"}},
		{name: "it begins tomorrow", now: today.Add(-24 * time.Hour), want: []string{"valid only from 2026-11-22"}},
		{name: "two things are wrong", change: map[string][]byte{CAKey: other[CAKey], SAPub: other[SAPub]}, want: []string{"ca.key is not its key", "not the public half"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := maps.Clone(good)
			for name, content := range tt.change {
				files[name] = content
				if content == nil {
					delete(files, name)
				}
			}
			now := tt.now
			if now.IsZero() {
				now = today
			}
			_, err := Load(from(files), now)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "BEGIN") {
				t.Errorf("the error quotes a file: %q", err)
			}
		})
	}
}

func TestLoadTellsAbsentFromBroken(t *testing.T) {
	_, err := Load(from(nil), today)
	var missing *MissingError
	if !errors.As(err, &missing) || !missing.None() || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file at all: got %v", err)
	}
	refused := errors.New("permission denied")
	_, err = Load(func(string) ([]byte, error) { return nil, refused }, today)
	if !errors.Is(err, refused) || errors.As(err, &missing) && errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unreadable files: got %v", err)
	}
}

func TestLoadTakesOtherKeys(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "corporate CA"},
		NotBefore: today, NotAfter: today.Add(caLifetime), BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := maps.Clone(sets[0].files)
	files[CACert] = certPEM(der)
	files[CAKey] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	s, err := Load(from(files), today)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.ClientCertificate(today, "admin", nil, time.Hour); err != nil {
		t.Errorf("an ECDSA CA must sign: %v", err)
	}
}

func TestLoadWantsARootAlone(t *testing.T) {
	root, between := sets[1].ca, sets[0]
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "department CA"},
		NotBefore: today, NotAfter: today.Add(365 * 24 * time.Hour), BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, root.cert, between.ca.key.Public(), root.key)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		file []byte
		want string
	}{
		"a CA between, alone":           {certPEM(der), `it was issued by "CN=kubernetes"`},
		"with its root behind it":       {append(certPEM(der), certPEM(root.cert.Raw)...), "it holds 2 certificates"},
		"a root with another behind it": {append(certPEM(between.ca.cert.Raw), certPEM(root.cert.Raw)...), "it holds 2 certificates"},
	} {
		files := maps.Clone(between.files)
		files[CACert] = row.file
		if _, err := Load(from(files), today); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", name, err, row.want)
		}
	}
}

func TestClientCertificate(t *testing.T) {
	s := sets[0]
	cert, key, err := s.ClientCertificate(today, "kubernetes-admin", []string{"kubeadm:cluster-admins"}, 100*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.ca.cert)
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: today, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		t.Error(err)
	}
	if pair.Leaf.Subject.CommonName != "kubernetes-admin" || pair.Leaf.Subject.Organization[0] != "kubeadm:cluster-admins" || pair.Leaf.IsCA {
		t.Errorf("got %s, CA %t", pair.Leaf.Subject, pair.Leaf.IsCA)
	}
	if pair.Leaf.NotAfter.After(s.ca.cert.NotAfter) {
		t.Errorf("it outlives its CA: %s", pair.Leaf.NotAfter)
	}

	data, err := Kubeconfig("198.51.100.100:6443", "prod", s.CAPEM(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != "https://198.51.100.100:6443" || string(config.CAData) != string(s.CAPEM()) || string(config.CertData) != string(cert) {
		t.Errorf("got %v", config)
	}
}

func TestExpiry(t *testing.T) {
	s := sets[0]
	cert, key, err := s.ClientCertificate(today, "admin", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := Kubeconfig("cp-1:6443", "prod", s.CAPEM(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := Expiry(map[string][]byte{
		"pki/ca.crt": s.CAPEM(), "pki/etcd/ca.crt": s.files[EtcdCACert], "admin.conf": admin,
		"kubelet-client-current.pem": append(cert, key...), "broken.crt": []byte("nothing"),
	})
	if err == nil || !strings.Contains(err.Error(), "broken.crt: no certificate") {
		t.Errorf("got %v, want broken.crt to be named", err)
	}
	var got []string
	for _, r := range rows {
		got = append(got, r.File+" "+r.Subject)
	}
	want := "admin.conf admin, kubelet-client-current.pem admin, pki/ca.crt kubernetes, pki/etcd/ca.crt etcd-ca"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}
	if !rows[0].NotAfter.Equal(today.Add(time.Hour)) {
		t.Errorf("got %s", rows[0].NotAfter)
	}
}

func TestNothingPrintsAKey(t *testing.T) {
	s := sets[0]
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{s, *s} {
			if got := fmt.Sprintf(verb, v); len(got) > 60 {
				t.Errorf("%s of %T prints %d characters", verb, v, len(got))
			}
		}
		for _, f := range s.Files() {
			if got := fmt.Sprintf(verb, f); len(got) > 300 {
				t.Errorf("%s of %s prints %d characters", verb, f.Path, len(got))
			}
		}
	}
}
