//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/keyutil"
)

// certificate is a row of `certs check -o json`.
type certificate struct {
	host    string
	File    string
	Subject string
	Serial  string
	State   string
	Restart string
	Renewal string
	Served  *struct {
		Serial string
		Same   bool
	}
}

// certificatesOf are all rows of `certs check`, which ends with that code.
func certificatesOf(t *testing.T, path string, code int) []certificate {
	t.Helper()
	r := ha(t, "certs", "check", "-o", "json", path)
	r.want(t, code)
	var all struct {
		Hosts []struct {
			Name         string
			Certificates []certificate
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil {
		t.Fatalf("%v\n%s", err, r.tail())
	}
	var rows []certificate
	for _, h := range all.Hosts {
		for _, c := range h.Certificates {
			c.host = h.Name
			rows = append(rows, c)
		}
	}
	return rows
}

// wantInUse wants every process to use what lies in its files, and nothing to be due.
func wantInUse(t *testing.T, path string) {
	t.Helper()
	rows := certificatesOf(t, path, 0)
	if len(rows) < 50 {
		t.Errorf("%d certificates", len(rows))
	}
	served := 0
	for _, c := range rows {
		if c.Restart != "" || c.Served != nil && !c.Served.Same {
			t.Errorf("%s: %s: restart %q, served %+v", c.host, c.File, c.Restart, c.Served)
		}
		if c.Served != nil {
			served++
		}
	}
	if served != 3*4+1 { // etcd twice, the API server and the kubelet of each master, and a worker's
		t.Errorf("%d certificates are served", served)
	}
}

// put writes a file of a host.
func put(t *testing.T, host, file string, content []byte) {
	t.Helper()
	shell(t, host, fmt.Sprintf("umask 077; echo %s | base64 -d >%s", base64.StdEncoding.EncodeToString(content), file))
}

// resigned is a certificate like the one in text, which ends then, with a new key.
func resigned(t *testing.T, host, ca string, text []byte, end time.Time) (cert, key []byte) {
	t.Helper()
	parse := func(text []byte) *x509.Certificate {
		block, _ := pem.Decode(text)
		if block == nil {
			t.Fatalf("%s: no certificate", host)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	authority := parse([]byte(shell(t, host, "cat /etc/kubernetes/pki/"+ca+".crt")))
	signer, err := keyutil.ParsePrivateKeyPEM([]byte(shell(t, host, "cat /etc/kubernetes/pki/"+ca+".key")))
	if err != nil {
		t.Fatal(err)
	}
	c := parse(text)
	if c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	c.NotAfter = end
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, authority, own.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(own)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

// expire gives a certificate of a master an end: one of kubeadm's by its name for
// `kubeadm certs renew`, or "kubelet".
func expire(t *testing.T, host, name string, end time.Time) {
	t.Helper()
	const kubelet = "/var/lib/kubelet/pki/kubelet-client-current.pem"
	switch {
	case name == "kubelet":
		cert, key := resigned(t, host, "ca", []byte(shell(t, host, "cat "+kubelet)), end)
		put(t, host, kubelet, append(cert, key...)) // through the link
	case strings.HasSuffix(name, ".conf"):
		file := "/etc/kubernetes/" + name
		config, err := clientcmd.Load([]byte(shell(t, host, "cat "+file)))
		if err != nil {
			t.Fatal(err)
		}
		for _, user := range config.AuthInfos {
			user.ClientCertificateData, user.ClientKeyData = resigned(t, host, "ca", user.ClientCertificateData, end)
		}
		text, err := clientcmd.Write(*config)
		if err != nil {
			t.Fatal(err)
		}
		put(t, host, file, text)
	default:
		file, ca := strings.Replace(name, "etcd-", "etcd/", 1), "ca"
		switch {
		case strings.HasPrefix(name, "etcd-"):
			ca = "etcd/ca"
		case name == "apiserver-etcd-client":
			file, ca = name, "etcd/ca"
		case name == "front-proxy-client":
			ca = "front-proxy-ca"
		}
		cert, key := resigned(t, host, ca, []byte(shell(t, host, "cat /etc/kubernetes/pki/"+file+".crt")), end)
		put(t, host, "/etc/kubernetes/pki/"+file+".crt", cert)
		put(t, host, "/etc/kubernetes/pki/"+file+".key", key)
	}
}

// startAnew ends all that a master runs; its kubelet starts it with the files as
// they are.
const startAnew = `systemctl stop kubelet
for p in /proc/[0-9]*; do
	case "$(cat $p/comm 2>/dev/null)" in kube-apiserver|kube-controller|kube-scheduler|etcd) kill -KILL "${p#/proc/}" ;; esac
done
systemctl start kubelet --no-block`

// expiring looks at all certificates, renews one under clients that must not
// notice, and then those of all masters, which have expired with the API and
// quorum gone.
func expiring(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	t.Run("check", func(t *testing.T) { wantInUse(t, path) })
	t.Run("one is due", func(t *testing.T) { renewOne(t, path) })
	t.Run("all have expired", func(t *testing.T) { renewExpired(t, path) })
}

func renewOne(t *testing.T, path string) {
	ids, kubeconfig := memberIDs(t, masters), kubeconfigOf(t, path)
	expire(t, "cp-2", "etcd-peer", time.Now().Add(24*time.Hour))
	before := certificatesOf(t, path, 17)
	ps := startProbes(t, kubeconfig, asTheyAre)
	r := ha(t, "certs", "renew", "--yes", "-o", "json", path)
	r.want(t, 0)
	ps.unnoticed(t, "certs renew of one master")
	t.Logf("one certificate renewed, and its master restarted: %s", r.took.Round(100*time.Millisecond))
	after := certificatesOf(t, path, 0)
	for i, was := range before {
		if changed, due := after[i].Serial != was.Serial, was.State != "ok"; changed != due {
			t.Errorf("%s: %s: renewed %t, it was %s", was.host, was.File, changed, was.State)
		}
	}
	wantInUse(t, path)
	if n := ha(t, "certs", "renew", "--yes", "-o", "json", path).changed(t); n != 0 {
		t.Errorf("the second run changed %d steps", n)
	}
	if now := memberIDs(t, masters); now != ids {
		t.Errorf("members before:\n%s\nafter:\n%s", ids, now)
	}
}

func renewExpired(t *testing.T, path string) {
	kubectl(t, "create", "configmap", "kept-over-expiry", "-n", "default", "--from-literal", "a=b")
	ids, rows := memberIDs(t, masters), certificatesOf(t, path, 0)
	before := leavesOf(t, masters)
	end := time.Now().Add(-time.Minute)
	for _, c := range rows {
		switch {
		case c.Renewal != "":
			expire(t, c.host, c.Renewal, end)
		case strings.HasSuffix(c.File, "/kubelet-client-current.pem") && c.host != "w-1":
			expire(t, c.host, "kubelet", end)
		}
	}
	for _, host := range masters {
		shell(t, host, startAnew)
	}
	s, _ := statusOf(t, path)
	if s.State == "PASS" || s.State == "DEGRADED" {
		t.Fatalf("with all certificates expired the cluster is %s", s.State)
	}
	expired := 0
	for _, c := range certificatesOf(t, path, 17) {
		if c.State == "expired" {
			expired++
		}
	}
	if want := 3*(10+1) + 1; expired != want { // super-admin.conf is on the first master alone
		t.Errorf("%d certificates have expired, want %d", expired, want)
	}
	r := ha(t, "certs", "renew", "--yes", "-o", "json", path)
	r.want(t, 0)
	t.Logf("all certificates of three masters renewed, with the API down: %s", r.took.Round(100*time.Millisecond))
	for _, span := range spansOf(t, r) {
		if span.took() > time.Second {
			t.Logf("%-24s %-6s %s", span.phase, span.host, span.took().Round(100*time.Millisecond))
		}
	}
	awaitFaultless(t, path, 2*time.Minute)
	wantInUse(t, path)
	wantRenewed(t, before)
	if got := kubectl(t, "get", "configmap", "kept-over-expiry", "-n", "default", "-o", "jsonpath={.data.a}"); got != "b" {
		t.Errorf("what was written before is %q", got)
	}
	kubectl(t, "delete", "configmap", "kept-over-expiry", "-n", "default")
	if now := memberIDs(t, masters); now != ids {
		t.Errorf("members before:\n%s\nafter:\n%s", ids, now)
	}
	if n := ha(t, "certs", "renew", "--yes", "-o", "json", path).changed(t); n != 0 {
		t.Errorf("the second run changed %d steps", n)
	}
	if n := ha(t, "apply", "-o", "json", path).changed(t); n != 0 {
		t.Errorf("apply after it changed %d steps", n)
	}
}
