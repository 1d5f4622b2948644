package templates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
)

// caPEM is a certificate that a program will load.
func caPEM(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, NotAfter: time.Now().Add(time.Hour), IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// program finds a program that the tests can do without, in sbin too.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	t.Logf("%s is not installed here: its own check of the configuration was not asked", name)
	return ""
}

// writeAll lays the files under dir and returns where each went; paths inside
// the configurations are turned to where their files lie.
func writeAll(t *testing.T, dir string, list []File) map[string]string {
	t.Helper()
	at := map[string]string{}
	var pairs []string
	for _, f := range list {
		at[f.Path] = filepath.Join(dir, filepath.FromSlash(f.Path))
		pairs = append(pairs, f.Path, at[f.Path])
	}
	turn := strings.NewReplacer(pairs...)
	for _, f := range list {
		if err := os.MkdirAll(filepath.Dir(at[f.Path]), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at[f.Path], []byte(turn.Replace(string(f.Content))), f.Mode); err != nil {
			t.Fatal(err)
		}
	}
	return at
}

// The programs themselves accept what is generated, for one balancer and two,
// with a VIP of either family.
func TestBalancerProgramsAcceptTheirFiles(t *testing.T) {
	haproxy, keepalived := program(t, "haproxy"), program(t, "keepalived")
	iface := multicastInterface(t)
	if iface == "" {
		iface, keepalived = "eth0", ""
	}
	alone := testCluster()
	alone.Spec.Hosts = append(alone.Spec.Hosts[:1:1], alone.Spec.Hosts[2:]...)
	six := testCluster()
	six.Spec.Endpoint.Host = "2001:db8::100"
	for i := range six.Spec.Hosts {
		six.Spec.Hosts[i].InternalAddress = "2001:db8::" + strconv.Itoa(i+1)
	}
	named := testCluster()
	named.Spec.Endpoint = inventory.Endpoint{Host: "api.example.org", Port: 443}
	named.Spec.LoadBalancer.VIP = "198.51.100.99"
	masters := testCluster()
	onMasters(masters)
	for name, c := range map[string]*inventory.Cluster{"two": testCluster(), "one": alone, "IPv6": six, "a DNS name": named, "on the masters": masters} {
		t.Run(name, func(t *testing.T) {
			list, err := BalancerFiles(c, c.Balancers()[0], Balancer{Interface: iface, CAPEM: caPEM(t)})
			if err != nil {
				t.Fatal(err)
			}
			at := writeAll(t, t.TempDir(), list)
			if haproxy != "" {
				if out, err := exec.Command(haproxy, "-c", "-f", at[HAProxyConfigPath]).CombinedOutput(); err != nil || strings.Contains(string(out), "WARNING") {
					t.Errorf("haproxy -c: %v\n%s", err, out)
				}
			}
			if keepalived != "" {
				if out, err := exec.Command(keepalived, "-t", "-f", at[KeepalivedPath]).CombinedOutput(); err != nil || len(out) > 0 {
					t.Errorf("keepalived -t: %v\n%s", err, out)
				}
			}
		})
	}
}

// What keepalived listens to: each peer by address, and only adverts that no
// router has passed on. A host alone listens to nobody, not to everybody.
func TestKeepalivedHearsItsPeersAlone(t *testing.T) {
	alone := testCluster()
	alone.Spec.Hosts = append(alone.Spec.Hosts[:1:1], alone.Spec.Hosts[2:]...)
	six := testCluster()
	six.Spec.Endpoint.Host = "2001:db8::100"
	six.Spec.Hosts = alone.Spec.Hosts
	masters := testCluster()
	onMasters(masters)
	const near = " min_ttl 255 max_ttl 255"
	for _, tt := range []struct {
		name string
		c    *inventory.Cluster
		want []string
	}{
		{"two balancers", testCluster(), []string{"198.51.100.12" + near}},
		{"one balancer", alone, []string{"127.0.0.1" + near}},
		{"one balancer, a VIP of IPv6", six, []string{"::1" + near}},
		{"three masters", masters, []string{"198.51.100.22" + near, "198.51.100.23" + near}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := KeepalivedFile(tt.c, tt.c.Balancers()[0], Balancer{Interface: "eth0"})
			if err != nil {
				t.Fatal(err)
			}
			_, after, _ := strings.Cut(string(f.Content), "unicast_peer {")
			list, _, _ := strings.Cut(after, "}")
			var got []string
			for line := range strings.Lines(strings.TrimSpace(list)) {
				got = append(got, strings.TrimSpace(line))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("peers %q, want %q", got, tt.want)
			}
		})
	}
}

// multicastInterface is one that keepalived will work on: it looks.
func multicastInterface(t *testing.T) string {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if want := net.FlagUp | net.FlagMulticast; i.Flags&want == want && i.Flags&net.FlagLoopback == 0 {
			return i.Name
		}
	}
	t.Log("no network here: keepalived's own check of the configuration was not asked")
	return ""
}

func TestBalancerCheckScript(t *testing.T) {
	status := http.StatusOK
	health := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) }))
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	closed := httptest.NewServer(nil)
	closed.Close()

	tests := []struct {
		name   string
		status int
		port   string
		ask    string
		want   bool
	}{
		{"an API server is up: it answers", 200, portOf(health.Listener.Addr().String()), "answers", true},
		{"an API server is up: it is ready", 200, portOf(health.Listener.Addr().String()), "ready", true},
		{"no API server is up: it answers", 503, portOf(health.Listener.Addr().String()), "answers", true},
		{"no API server is up: it is not ready", 503, portOf(health.Listener.Addr().String()), "ready", false},
		{"HAProxy is gone", 0, portOf(closed.Listener.Addr().String()), "answers", false},
		{"HAProxy hangs with its port open", 0, portOf(mute.Addr().String()), "answers", false},
		{"an unknown question", 200, portOf(health.Listener.Addr().String()), "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status = tt.status
			script := strings.ReplaceAll(string(embedded("check-haproxy", "").Content), "/"+strconv.Itoa(BalancerHealthPort), "/"+tt.port)
			out, err := exec.Command("bash", "-c", script, "check", tt.ask).CombinedOutput()
			if (err == nil) != tt.want {
				t.Errorf("got %v, want success %t\n%s", err, tt.want, out)
			}
		})
	}
	health.Close()
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

func TestBalancerFilesRefuses(t *testing.T) {
	good := Balancer{Interface: "eth0", CAPEM: []byte("CA")}
	tests := []struct {
		name   string
		host   string
		change func(*inventory.Cluster)
		b      Balancer
		want   string
	}{
		{"a master beside dedicated balancers", "cp-1", nil, good, "role is control-plane, and with spec.loadBalancer.mode dedicated"},
		{"a worker where the masters balance", "w-1", onMasters, good, "role is worker, and with spec.loadBalancer.mode masters"},
		{"an external balancer", "lb-1", func(c *inventory.Cluster) { c.Spec.LoadBalancer.Mode = inventory.BalancerExternal }, good, "the user's own"},
		{"a name with no VIP behind it", "lb-1", func(c *inventory.Cluster) { c.Spec.Endpoint.Host = "api.example.org" }, good, "no VIP"},
		{"no CA to verify against", "lb-1", nil, Balancer{Interface: "eth0"}, "would trust anybody"},
		{"no interface", "lb-1", nil, Balancer{CAPEM: []byte("CA")}, "no interface"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := testCluster()
			if tt.change != nil {
				tt.change(c)
			}
			_, err := BalancerFiles(c, hostNamed(t, c, tt.host), tt.b)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
