package kube

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// to dials one address, whatever is asked for.
type to string

func (a to) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, string(a))
}

func TestComponentsSayHowTheyAre(t *testing.T) {
	for _, row := range []struct {
		name, body, want string
		code             int
	}{
		{"well", "ok", "", http.StatusOK},
		{"a part is not", "[+]ping ok\n[-]leaderElection failed: reason withheld\nhealthz check failed\n", "500 Internal Server Error: leaderElection", http.StatusInternalServerError},
		{"it says nothing that we know", "go away", "403 Forbidden: go away", http.StatusForbidden},
	} {
		s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/healthz" || r.Header.Get("Authorization") != "" {
				t.Errorf("%s asked with %v", r.URL, r.Header)
			}
			w.WriteHeader(row.code)
			_, _ = w.Write([]byte(row.body))
		}))
		defer s.Close()
		for name, ask := range map[string]func(context.Context, Dialer) error{"controller-manager": ControllerManagerHealthz, "scheduler": SchedulerHealthz} {
			err := ask(t.Context(), to(s.Listener.Addr().String()))
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: %s: %v, want %q", row.name, name, err, row.want)
			}
		}
	}
}

func TestOwnMadeCertificateHasToHoldTogether(t *testing.T) {
	own, stranger := selfMade(t), selfMade(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost@1"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().AddDate(-2, 0, 0), NotAfter: time.Now().AddDate(-1, 0, 0), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, own.Leaf, key.Public(), own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		chain [][]byte
		want  string
	}{
		"its own root, and older than a year": {[][]byte{der, own.Leaf.Raw}, ""},
		"another root":                        {[][]byte{der, stranger.Leaf.Raw}, "its own certificate: "},
	} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: row.chain, PrivateKey: key}}}
		s.StartTLS()
		defer s.Close()
		err := SchedulerHealthz(t.Context(), to(s.Listener.Addr().String()))
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
}

// selfMade is a root that was made two years ago.
func selfMade(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost-ca@1"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().AddDate(-2, 0, 0), NotAfter: time.Now().AddDate(-1, 0, 0), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: c}
}
