package relay

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/test/snapdb"
)

var aday = time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)

// made makes a whole backup of a cluster.
func made(t *testing.T, cluster, ca string, at time.Time) backup.Entry {
	t.Helper()
	d, err := backup.In(t.TempDir(), cluster).Begin(at)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s, err := d.WriteSnapshot(t.Context(), bytes.NewReader(snapdb.Sent(snapdb.Database(t, 5000, 1))), nil)
	if err != nil {
		t.Fatal(err)
	}
	path, err := d.Commit(backup.Manifest{Cluster: cluster, CASHA256: ca, Quorum: true, Verdict: etcd.Pass, Snapshot: s, Scheduled: true})
	if err != nil {
		t.Fatal(err)
	}
	return backup.Read(path)
}

// authority is a CA that signs for loopback.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	der, key := a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, a.key = cert, key
	return a
}

func (a *authority) sign(c *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: "etcd"}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

// config has a certificate for one use, and trusts the authority for the other.
func (a *authority) config(use x509.ExtKeyUsage) *tls.Config {
	der, key := a.sign(&x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: pool, ClientCAs: pool}
}

// master is a receiver that listens, one connection after the other.
type master struct {
	Receiver
	address string
	dir     string
	ended   chan error // how each connection ended
}

func listen(t *testing.T, a *authority, change func(*Receiver)) *master {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	dir := filepath.Join(t.TempDir(), "copies")
	m := &master{Receiver{Cluster: "prod", CASHA256: "ours", Directories: []string{dir}}, l.Addr().String(), dir, make(chan error, 10)}
	if change != nil {
		change(&m.Receiver)
	}
	cfg := a.config(x509.ExtKeyUsageServerAuth)
	ctx := t.Context()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.ended <- m.Serve(ctx, c, cfg)
		}
	}()
	return m
}

// has are the names in the cluster's directory of copies.
func (m *master) has(t *testing.T) string {
	t.Helper()
	found, err := os.ReadDir(filepath.Join(m.dir, "prod"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, d := range found {
		names = append(names, d.Name())
	}
	return strings.Join(names, " ")
}

func TestACopyOnAnotherMaster(t *testing.T) {
	a := newAuthority(t)
	var kept []string
	m := listen(t, a, func(r *Receiver) {
		r.Took = func(_ context.Context, s backup.Store, e backup.Entry) error {
			if kept = append(kept, filepath.Base(e.Path)); len(kept) > 1 {
				return errors.New("no right to remove")
			}
			return nil
		}
	})
	e := made(t, "prod", "ours", aday)
	for _, again := range []bool{false, true} {
		if there, err := Send(t.Context(), m.address, a.config(x509.ExtKeyUsageClientAuth), m.dir, e); err != nil || there != again {
			t.Fatalf("there %v, want %v: %v", there, again, err)
		}
	}
	r, err := backup.Verify(t.Context(), filepath.Join(m.dir, "prod", backup.Name(aday)), backup.Expected{Cluster: "prod", CASHA256: "ours"})
	if err != nil || !r.Whole || m.has(t) != backup.Name(aday) || len(kept) != 1 {
		t.Errorf("%+v, %v; there %s, kept %q", r, err, m.has(t), kept)
	}
	var untidy *UntidyError
	if _, err := Send(t.Context(), m.address, a.config(x509.ExtKeyUsageClientAuth), m.dir, made(t, "prod", "ours", aday.Add(time.Hour))); !errors.As(err, &untidy) || !strings.Contains(err.Error(), "no right to remove") {
		t.Errorf("retention that failed: %v", err)
	}
	if info, err := os.Stat(filepath.Join(m.dir, "prod")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestAMasterRefuses what is not a whole backup of its own cluster, for one of its
// directories; nothing of it is left.
func TestAMasterRefuses(t *testing.T) {
	a := newAuthority(t)
	e := made(t, "prod", "ours", aday)
	damaged := made(t, "prod", "ours", aday)
	alter(t, filepath.Join(damaged.Path, backup.SnapshotFile))
	short := made(t, "prod", "ours", aday)
	if err := os.Truncate(filepath.Join(short.Path, backup.SnapshotFile), 4096); err != nil {
		t.Fatal(err)
	}
	edited := made(t, "prod", "ours", aday)
	alter(t, filepath.Join(edited.Path, backup.ManifestFile))
	for name, row := range map[string]struct {
		e    backup.Entry
		dir  string // "" for the right one
		room int64
		why  string
	}{
		"of another cluster":              {made(t, "test", "ours", aday), "", 0, `it is of cluster "test"`},
		"of a cluster with other keys":    {made(t, "prod", "theirs", aday), "", 0, "the CA is another"},
		"into a directory of its own":     {e, "/etc", 0, `"/etc" is no directory for copies here`},
		"into a directory beside":         {e, "+/../x", 0, "is no directory for copies here"},
		"damaged on the way":              {damaged, "", 0, "is not whole"},
		"shorter than it says":            {short, "", 0, "EOF"},
		"with a manifest that was edited": {edited, "", 0, "manifest"},
		"without room":                    {e, "", 1 << 60, "no room"},
	} {
		t.Run(name, func(t *testing.T) {
			m := listen(t, a, func(r *Receiver) { r.Spare = row.room })
			dir := row.dir
			if dir == "" || dir[0] == '+' {
				dir = m.dir + strings.TrimPrefix(dir, "+")
			}
			_, err := Send(t.Context(), m.address, a.config(x509.ExtKeyUsageClientAuth), dir, row.e)
			if err == nil || !strings.Contains(err.Error(), row.why) {
				t.Errorf("%v, want %q", err, row.why)
			}
			if ended := <-m.ended; ended == nil {
				t.Error("the master says that all is well")
			}
			if left := m.has(t); left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}

func alter(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestNothingThereIsWrittenOver(t *testing.T) {
	a := newAuthority(t)
	m := listen(t, a, nil)
	e := made(t, "prod", "ours", aday)
	send := func(e backup.Entry) error {
		_, err := Send(t.Context(), m.address, a.config(x509.ExtKeyUsageClientAuth), m.dir, e)
		return err
	}
	if err := send(e); err != nil {
		t.Fatal(err)
	}
	second := made(t, "prod", "ours", aday)
	d, err := backup.In(t.TempDir(), "prod").Begin(aday)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	m2 := second.Manifest
	m2.Program = "another"
	data, err := os.ReadFile(filepath.Join(second.Path, backup.SnapshotFile))
	if err == nil {
		_, err = d.WriteSnapshot(t.Context(), bytes.NewReader(data), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	other, err := d.Commit(m2)
	if err != nil {
		t.Fatal(err)
	}
	if err := send(backup.Read(other)); err == nil || !strings.Contains(err.Error(), "nothing was written over") {
		t.Errorf("another backup of the name: %v", err)
	}
	alter(t, filepath.Join(m.dir, "prod", backup.Name(aday), backup.SnapshotFile))
	if err := send(e); err == nil || !strings.Contains(err.Error(), "damaged, and was left") {
		t.Errorf("over a damaged one: %v", err)
	}
}

// TestOnlyTheCAsOwnMaySend: strangers get no further than the handshake, and what is
// not of etcd's CA is sent nothing.
func TestOnlyTheCAsOwnMaySend(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	e := made(t, "prod", "ours", aday)
	m := listen(t, ours, nil)
	stranger := theirs.config(x509.ExtKeyUsageClientAuth)
	stranger.RootCAs = ours.config(x509.ExtKeyUsageClientAuth).RootCAs
	server := ours.config(x509.ExtKeyUsageServerAuth)
	nobody := ours.config(x509.ExtKeyUsageClientAuth)
	nobody.Certificates = nil
	for name, cfg := range map[string]*tls.Config{"another CA's": stranger, "one for servers": server, "none": nobody} {
		if _, err := Send(t.Context(), m.address, cfg, m.dir, e); err == nil {
			t.Errorf("a certificate of %s: taken", name)
		}
		if <-m.ended == nil || m.has(t) != "" {
			t.Errorf("a certificate of %s: there is %q", name, m.has(t))
		}
	}
	impostor := listen(t, theirs, nil)
	if _, err := Send(t.Context(), impostor.address, ours.config(x509.ExtKeyUsageClientAuth), impostor.dir, e); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an impostor: %v", err)
	}
	// Another service of the same CA, such as etcd, speaks another protocol.
	cfg := ours.config(x509.ExtKeyUsageClientAuth)
	cfg.ServerName, cfg.NextProtos = "127.0.0.1", []string{"h2"}
	if c, err := tls.Dial("tcp", m.address, cfg); err == nil {
		_, err = io.ReadAll(c)
		if c.Close(); err == nil {
			t.Error("h2 was spoken")
		}
	}
}

// TestALineThatBreaks on the way leaves nothing under the backup's name, and no draft;
// the next one goes through.
func TestALineThatBreaks(t *testing.T) {
	a := newAuthority(t)
	m := listen(t, a, nil)
	e := made(t, "prod", "ours", aday)
	cfg := a.config(x509.ExtKeyUsageClientAuth)
	cfg.ServerName, cfg.NextProtos = "127.0.0.1", []string{protocol}
	raw, err := os.ReadFile(filepath.Join(e.Path, backup.ManifestFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, sent := range []int{0, 100_000} {
		c, err := tls.Dial("tcp", m.address, cfg)
		if err != nil {
			t.Fatal(err)
		}
		l := newLine(c)
		if err := l.say(hello{m.dir, raw}); err != nil {
			t.Fatal(err)
		}
		if k, err := l.answered(); err != nil || k != send {
			t.Fatalf("%s, %v", k, err)
		}
		if _, err := c.Write(make([]byte, sent)); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := <-m.ended; err == nil || m.has(t) != "" {
			t.Errorf("after %d bytes: %v, there is %q", sent, err, m.has(t))
		}
	}
	if _, err := Send(t.Context(), m.address, a.config(x509.ExtKeyUsageClientAuth), m.dir, e); err != nil {
		t.Error(err)
	}
}

// TestALongHello is not listened to.
func TestALongHello(t *testing.T) {
	a := newAuthority(t)
	m := listen(t, a, nil)
	cfg := a.config(x509.ExtKeyUsageClientAuth)
	cfg.ServerName, cfg.NextProtos = "127.0.0.1", []string{protocol}
	c, err := tls.Dial("tcp", m.address, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() { _, _ = c.Write(bytes.Repeat([]byte("a"), 2*mostHello)) }()
	var got answer
	if err := json.NewDecoder(c).Decode(&got); err != nil || got.Kind != refused || !strings.Contains(got.Err, "a line of more than") {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestSizesAreBounded also where a manifest was made by hand.
func TestSizesAreBounded(t *testing.T) {
	r := Receiver{Cluster: "prod", Directories: []string{"/b"}}
	for _, bytes := range []int64{-1, 0, most + 1} {
		d, err := backup.In(t.TempDir(), "prod").Begin(aday)
		if err != nil {
			t.Fatal(err)
		}
		path, err := d.Commit(backup.Manifest{Cluster: "prod", Snapshot: backup.Snapshot{Bytes: bytes}})
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(path, backup.ManifestFile))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.may(hello{"/b", data}); err == nil || !strings.Contains(err.Error(), "not possible") {
			t.Errorf("%d bytes: %v", bytes, err)
		}
	}
}
