// Package s3server runs a real S3-compatible server, Versity's gateway, for a
// test: over TLS, on loopback, with its objects in the test's directory. It is
// built from its own pinned module, which keeps what it needs out of ours, once
// for all tests of a machine.
package s3server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Server is a running server, with a line to it that can be cut.
type Server struct {
	Endpoint        string // https://address:port
	CAFile          string
	CredentialsFile string
	AccessKey       string
	SecretKey       string
	line            *line
}

const command = "github.com/versity/versitygw/cmd/versitygw"

// New starts a server with one bucket on loopback, which ends with the test.
func New(t testing.TB, bucket string) *Server {
	t.Helper()
	return NewAt(t, "127.0.0.1", bucket)
}

// NewAt starts one at another address of this machine.
func NewAt(t testing.TB, address, bucket string) *Server {
	t.Helper()
	binary := build(t)
	dir := t.TempDir()
	s := &Server{AccessKey: "tester", SecretKey: "not-a-secret-of-anybody", CAFile: filepath.Join(dir, "ca.crt"), CredentialsFile: filepath.Join(dir, "credentials")}
	write(t, s.CredentialsFile, fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", s.AccessKey, s.SecretKey))
	certificate(t, address, s.CAFile, filepath.Join(dir, "tls.key"))
	for _, d := range []string{"objects", "meta"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	behind := free(t)
	cmd := exec.Command(binary, "--port", behind, "--cert", s.CAFile, "--key", filepath.Join(dir, "tls.key"), "--quiet",
		"posix", "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "objects"))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+s.AccessKey, "ROOT_SECRET_ACCESS_KEY="+s.SecretKey)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("S3 server: %s", log.String())
		}
	})
	s.line = listen(t, address, behind)
	s.Endpoint = "https://" + s.line.l.Addr().String()
	s.makeBucket(t, bucket)
	return s
}

// DropAfter cuts the line once clients have sent n more bytes; it stays cut until
// DropAfter(0).
func (s *Server) DropAfter(n int64) { s.line.budget.Store(n) }

// makeBucket waits for the server on the way.
func (s *Server) makeBucket(t testing.TB, name string) {
	t.Helper()
	ca, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	c, err := minio.New(s.line.l.Addr().String(), &minio.Options{
		Creds: credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""), Secure: true, Region: "us-east-1",
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, MaxRetries: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		if err = c.MakeBucket(t.Context(), name, minio.MakeBucketOptions{}); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the S3 server does not answer: %v", err)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

// build compiles the server, or finds that it has been.
func build(t testing.TB) string {
	t.Helper()
	source := sourceDir(t)
	h := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			t.Fatal(err)
		}
		h.Write(data)
	}
	cache := os.Getenv("HA_INSTALL_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(base, "ha-install")
	}
	binary := filepath.Join(cache, "bin", "versitygw-"+hex.EncodeToString(h.Sum(nil))[:12])
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
		t.Fatal(err)
	}
	part := fmt.Sprintf("%s-%d.part", binary, os.Getpid())
	defer os.Remove(part)
	cmd := exec.Command("go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", part, command)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the S3 server: %v\n%s", err, out)
	}
	if err := os.Rename(part, binary); err != nil {
		t.Fatal(err)
	}
	return binary
}

// certificate makes a self-signed one for an address.
func certificate(t testing.TB, address, certFile, keyFile string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(address)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
}

// sourceDir is the pinned module, seen from the package that is tested.
func sourceDir(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		at := filepath.Join(dir, "test", "s3server", "versitygw")
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at
		}
	}
	t.Fatal("the repository is not around the test")
	return ""
}

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func free(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// line passes connections on to the server.
type line struct {
	l      net.Listener
	budget atomic.Int64 // bytes until all is cut; 0: never

}

func listen(t testing.TB, address, to string) *line {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &line{l: l}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go p.pass(in, to)
		}
	}()
	return p
}

func (p *line) pass(in net.Conn, to string) {
	defer in.Close()
	var d net.Dialer
	out, err := d.DialContext(context.Background(), "tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	go func() {
		_, _ = io.Copy(in, out)
		in.Close()
	}()
	buf := make([]byte, 16<<10)
	for {
		n, err := in.Read(buf)
		if err != nil || p.cut(int64(n)) {
			return
		}
		if _, err := out.Write(buf[:n]); err != nil {
			return
		}
	}
}

// cut spends from the budget; once it is used up nothing passes any more.
func (p *line) cut(n int64) bool {
	left := p.budget.Load()
	if left == 0 {
		return false
	}
	return left < 0 || p.budget.Add(-n) <= 0 && p.broken()
}

// broken keeps the line cut until DropAfter(0).
func (p *line) broken() bool {
	p.budget.Store(-1)
	return true
}
