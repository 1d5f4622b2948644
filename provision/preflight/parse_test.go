package preflight

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/test/golden"
)

func TestParseFacts(t *testing.T) {
	journal := base64.StdEncoding.EncodeToString([]byte(`{"cluster":"prod","operations":[]}`))
	out := strings.Join([]string{
		"clock_begin=1795356117.500000000", "kernel=Linux", "memory_kb=2048000", "cores=4", "product_uuid=4C4C4544-00",
		`os=ID=ubuntu`, `os=PRETTY_NAME="Ubuntu 24.04 LTS"`, "swap=Filename Type Size Used Priority", "swap=/swap.img file 1 0 -2",
		"disk=/var/lib/etcd 1048576 524288 65536 65000 /mnt/with space", "disk=/ 1048576 524288 0 - /",
		`addr=2: eth0    inet 10.0.0.21/24 brd 10.0.0.255 scope global eth0\       valid_lft forever`,
		`addr=3: eth1@if9    inet6 fd00::2/64 scope global`, "mac=eth0 02:00:00:00:00:01",
		"listen=6443 00000000000000000000000000000000 77", "listen=2379 0100007F 78", "socket=77 4711 kube-apiserver",
		"sysctl_net/ipv4/ip_forward=1", "sysctl_writable=net/ipv4/ip_forward",
		"firewall=ufw", "ufw=# comment", "ufw=ENABLED=no", "firewall=firewalld", "journal=" + journal,
		"resolved=10.0.0.10  STREAM api", "resolved=10.0.0.10  DGRAM", "clock_end=1795356117.700000000", ""}, "\n")
	sent := time.Unix(1795356107, 400000000) // the host is 10 s ahead; 100 ms each way
	f, err := parseFacts([]byte(out), sent, sent.Add(400*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(f.Kernel, f.MemoryMB, f.Cores, f.ProductUUID, f.OS["ID"], f.OS["PRETTY_NAME"], f.Swaps, f.Disks, f.Addresses,
		f.MACs, f.Listeners, f.Sysctls, f.SysctlWritable, f.Firewalls, f.Journal, f.Resolved, f.ClockOffset, f.ClockError)
	want := "Linux2000 4 4c4c4544-00 ubuntu Ubuntu 24.04 LTS [/swap.img] [{/var/lib/etcd /mnt/with space 1024 512 65536 65000} {/ / 1024 512 0 0}] " +
		"[{eth0 10.0.0.21/24} {eth1 fd00::2/64}] map[eth0:02:00:00:00:00:01] [{6443 :: kube-apiserver (pid 4711)} {2379 127.0.0.1 }] " +
		"map[net/ipv4/ip_forward:1] map[net/ipv4/ip_forward:true] [firewalld] prod [10.0.0.10] 10s 100ms"
	if strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, err := parseFacts([]byte(out[:len(out)-40]), sent, sent); !errors.Is(err, errTruncated) {
		t.Errorf("a truncated answer: %v", err)
	}
	if _, err := parseFacts([]byte("clock_begin=\nclock_end=\n"), sent, sent); err == nil {
		t.Error("a host without a clock was believed")
	}
}

func TestAddressesWithoutIP(t *testing.T) {
	fib := strings.Split("Main:\n  |-- 10.0.0.0\n     /24 link UNICAST\n  |-- 10.0.0.21\n     /32 host LOCAL\n  |-- 10.0.0.255\n     /32 link BROADCAST\n"+
		"Local:\n  |-- 127.0.0.1\n     /32 host LOCAL\n  |-- 10.0.0.21\n     /32 host LOCAL", "\n")
	route := []string{"Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT",
		"eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0", "eth0 0000000A 00000000 0001 0 0 0 00FFFFFF 0 0 0"}
	got := fmt.Sprint(addressesOf(fib, route))
	if got != "[{eth0 10.0.0.21/24} {lo 127.0.0.1/32}]" {
		t.Error(got)
	}
	if got := fmt.Sprint(appendInet6(nil, "fd000000000000000000000000000002 02 40 00 80 eth0")); got != "[{eth0 fd00::2/64}]" {
		t.Error(got)
	}
}

func TestFingerprintIsOfTheCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	plain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	sum := sha256.Sum256(der)
	want := hex.EncodeToString(sum[:])
	commented := append([]byte("# the company's CA\n"), append(plain, plain...)...)
	if Fingerprint(plain) != want || Fingerprint(commented) != want {
		t.Error("the same certificate in another file has another fingerprint")
	}
	if Fingerprint([]byte("a")) == Fingerprint([]byte("b")) || len(Fingerprint(nil)) != 64 {
		t.Error("bytes without a certificate do not stand for themselves")
	}
}

// Whatever a host says, it is judged without a panic.
func FuzzParseFacts(f *testing.F) {
	const clocks = "clock_begin=1795356117.5\nclock_end=1795356117.7\n"
	f.Add(clocks + "disk=/ 1 2 3 4 /\naddr=2: eth0 inet 10.0.0.21/24\nlisten=6443 0100007F 1\n")
	f.Add(clocks + "inet6=fd00 02 ff 00 80 eth0\nfib=|-- 10.0.0.1\nfib=/32 host LOCAL\nroute=eth0 0 0 0 0 0 0 FF\nca=YQ==\njournal=e30=\n")
	c := testCluster()
	f.Fuzz(func(t *testing.T, out string) {
		facts, err := parseFacts([]byte(out), time.Unix(1795356117, 0), time.Unix(1795356118, 0))
		if err != nil {
			return
		}
		var all []subject
		for _, h := range c.Spec.Hosts {
			s := subject{cluster: c, opt: &Options{CAFingerprint: "x"}, host: h, facts: facts}
			all = append(all, s)
			decideHost(s)
		}
		decideBetween(all)
	})
}

func TestFsyncThresholds(t *testing.T) {
	rows := []struct {
		name   string
		slow   int    // of 100 writes
		each   string // how long these take, in s
		want   Severity
		within time.Duration
	}{
		{"all quick", 0, "", OK, time.Millisecond},
		{"one outlier of 100 is allowed", 1, "0.9", OK, time.Millisecond},
		{"two slow ones are the p99", 2, "0.02", Warning, 20 * time.Millisecond},
		{"two very slow ones are a burst", 2, "0.9", Warning, 900 * time.Millisecond},
		{"a disk that cannot carry etcd", 50, "0.2", Error, 200 * time.Millisecond},
		{"dd writes small times with an exponent", 100, "9.1e-05", OK, 91 * time.Microsecond},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var b strings.Builder
			for i := range 100 {
				s := "0.001"
				if i < row.slow {
					s = row.each
				}
				fmt.Fprintf(&b, "1+0 records in\n2300 bytes (2.3 kB, 2.2 KiB) copied, %s s, 1 MB/s\n", s)
			}
			f, err := parseFsync([]byte(b.String()))
			if err != nil || f.Samples != 100 || f.P99 != row.within {
				t.Fatalf("%+v, %v", f, err)
			}
			if v := decideFsync(f); v[0].Severity != row.want {
				t.Errorf("%+v", v)
			}
		})
	}
	if _, err := parseFsync([]byte("dd: failed to open: Read-only file system")); err == nil {
		t.Error("no times were taken for a measurement")
	}
}

func TestSlowDiskIsMeasuredAgain(t *testing.T) {
	calls := 0
	probe := func(_ context.Context, name string, _ host.Command) ([]byte, error) {
		calls++
		return fmt.Appendf(nil, "copied, %v s,", []float64{0.5, 0.4, 0.002}[calls-1]), nil
	}
	if v := measureFsync(t.Context(), probe, testCluster(), "cp-1"); v[0].Severity != OK || calls != 3 {
		t.Errorf("%+v after %d runs", v, calls)
	}
}

func TestClassify(t *testing.T) {
	rows := []struct {
		name string
		err  error
		want answer
	}{
		{"a refusal from the system", fmt.Errorf("cp-1: dial: %w", syscall.ECONNREFUSED), refused},
		{"a refusal from OpenSSH", &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "Connection refused"}, refused},
		{"no route", &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "No route to host"}, silent},
		{"forwarding forbidden", fmt.Errorf("cp-1: %w", &ssh.OpenChannelError{Reason: ssh.Prohibited, Message: "open failed"}), prohibited},
		{"time is up", context.DeadlineExceeded, silent},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if got := classify(row.err); got != row.want {
				t.Errorf("got %d, wanted %d", got, row.want)
			}
		})
	}
}

func TestPairsAreTheClustersConnections(t *testing.T) {
	c := testCluster()
	count := map[string]int{}
	for _, d := range pairs(c, func(name string) bool { return name != "cp-3" }) {
		count[d.from+">"+d.to]++
		if d.from == "cp-3" || d.to == "cp-3" || d.to == "lb-1" {
			t.Errorf("dials %s > %s", d.from, d.to)
		}
	}
	if count["cp-1>cp-2"] != 4 || count["cp-2>w-1"] != 1 || count["lb-1>cp-1"] != 1 || count["w-1>cp-2"] != 1 {
		t.Errorf("%v", count)
	}
}

// A link that loses a packet is not a firewall.
func TestSilenceIsAskedTwice(t *testing.T) {
	c, calls := testCluster(), 0
	hosts := map[string]host.Reader{"cp-1": local{t: t, name: "cp-1", dial: func(string) error {
		if calls++; calls == 1 {
			return context.DeadlineExceeded
		}
		return syscall.ECONNREFUSED
	}}}
	got := dialAll(t.Context(), hosts, []dial{{from: "cp-1", to: "cp-2"}}, time.Second)
	if got[0].answer != refused || calls != 2 {
		t.Errorf("%+v after %d dials", got, calls)
	}
	if p := problems(decideReach(c, got)); p != "" {
		t.Error(p)
	}
}

func TestDecideReach(t *testing.T) {
	c := testCluster()
	d := func(from, to string, port uint16, a answer) dial {
		return dial{from: from, to: to, address: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.22"), port), answer: a}
	}
	got := decideReach(c, []dial{
		d("cp-1", "cp-2", 2379, silent), d("cp-1", "cp-2", 2380, silent), d("cp-1", "cp-3", 2379, refused),
		d("cp-2", "cp-1", 2379, prohibited), d("lb-1", "cp-1", 6443, connected),
	})
	if p := problems(got); p != "Reachability error, Tunnels error" {
		t.Errorf("%s\n%+v", p, got)
	}
	if want := "no answer from cp-2 (10.0.0.22) on TCP 2379, 2380"; got[1].Host != "cp-1" || got[1].Seen != want {
		t.Errorf("%+v", got[1])
	}
}

func TestRender(t *testing.T) {
	r := Report{Hosts: 6, Took: units.Seconds(1234 * time.Millisecond), Findings: []Finding{
		{Host: "", Check: CheckEndpoint, Severity: Error, Seen: "something already answers at 10.0.0.10:6443", Wanted: "an address that is free", Fix: "choose another VIP, or stop what answers"},
		{Host: "lb-1", Check: CheckFirewall, Severity: Warning, Seen: "ufw is active", Wanted: "open: TCP 6443", Fix: "allow them"},
		{Host: "lb-2", Check: CheckFirewall, Severity: Warning, Seen: "ufw is active", Wanted: "open: TCP 6443", Fix: "allow them"},
		{Host: "cp-1", Check: CheckMemory, Severity: Error, Seen: "1024 MB", Wanted: "1700 MB or more on a master", Fix: "add memory"},
		{Host: "cp-2", Check: CheckMemory, Severity: OK, Seen: "4000 MB"},
		{Host: "cp-3", Check: CheckSwap, Severity: Warning, Ignored: true, Seen: "on: /dev/sda2", Wanted: "no swap", Fix: "swapoff -a"},
		{Host: "w-1", Check: CheckConnection, Severity: Error, Seen: "dial tcp 10.0.0.31:22: i/o timeout", Wanted: "a root shell over SSH"},
	}}
	var b strings.Builder
	if err := r.Render(&b); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "report.txt", []byte(b.String()))
	golden.Check(t, "report-error.txt", []byte(r.Err().Error()+"\n"))
}

func TestEtcdDirFollowsRawFields(t *testing.T) {
	c := testCluster()
	if got := etcdDir(c); got != defaultEtcdDir {
		t.Error(got)
	}
	c.Spec.Kubeadm.ClusterConfiguration = map[string]any{"etcd": map[string]any{"local": map[string]any{"dataDir": "/srv/etcd"}}}
	if got := etcdDir(c); got != "/srv/etcd" {
		t.Error(got)
	}
}
