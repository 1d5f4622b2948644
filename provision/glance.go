package provision

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/provision/units"
)

// glanceScript tells in one round trip what a status wants to know of a host.
// Its arguments are "disk=DIRECTORY" and "cert=FILE". Of the files, PEM or
// kubeconfig, only the certificates leave the host, never a key. The two
// stamps bracket what the host took itself.
const glanceScript = `LC_ALL=C
export LC_ALL
echo "clock_begin=$(date +%s.%N)"
echo "boot=$(cat /proc/sys/kernel/random/boot_id)"
echo "init=$(cat /proc/1/stat)"
read -r up rest </proc/uptime && echo "uptime=$up"
for arg; do
	path=${arg#*=}
	[ -e "$path" ] || continue
	case $arg in
	disk=*)
		df -P -k "$path" | { read -r head && read -r fs total used free rest && echo "disk=$total $free $path"; }
		;;
	cert=*)
		echo "cert=$path"
		sed -n -e '/^-----BEGIN CERTIFICATE-----/,/^-----END CERTIFICATE-----/p' "$path"
		sed -n -e 's/^ *client-certificate-data: *//p' "$path" | base64 -d
		;;
	esac
done
echo "clock_end=$(date +%s.%N)"
`

// glance is what a host itself says of its machine and its certificates.
type glance struct {
	bootID       string
	uptime       time.Duration
	offset       time.Duration // of its clock from ours; positive is ahead
	offsetWithin time.Duration // what the round trip leaves open
	disks        []Disk
	certificates []Expiry          // soonest first
	pem          map[string][]byte // by file
}

// Disk is a file system of a host, by a directory on it.
type Disk struct {
	Path       string  `json:"path"`
	TotalBytes int64   `json:"totalBytes"`
	FreeBytes  int64   `json:"freeBytes"` // for those who are not root
	Used       float64 `json:"usedRatio"`
}

// Expiry is when a certificate of a host runs out.
type Expiry struct {
	File     string    `json:"file"`
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"notAfter"`
}

// expiryFiles are the certificates that a cluster dies of when they run out.
var expiryFiles = []string{
	"/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/apiserver.crt", "/etc/kubernetes/pki/apiserver-kubelet-client.crt",
	"/etc/kubernetes/pki/apiserver-etcd-client.crt", "/etc/kubernetes/pki/front-proxy-ca.crt", "/etc/kubernetes/pki/front-proxy-client.crt",
	"/etc/kubernetes/pki/etcd/ca.crt", "/etc/kubernetes/pki/etcd/server.crt", "/etc/kubernetes/pki/etcd/peer.crt",
	"/etc/kubernetes/pki/etcd/healthcheck-client.crt",
	"/etc/kubernetes/admin.conf", "/etc/kubernetes/super-admin.conf", "/etc/kubernetes/controller-manager.conf", "/etc/kubernetes/scheduler.conf",
	"/var/lib/kubelet/pki/kubelet-client-current.pem",
}

// look asks a host for its glance.
func look(ctx context.Context, h host.Reader, role inventory.Role) (glance, error) {
	argv := []string{"sh", "-c", glanceScript, "ha-install-glance", "disk=/"}
	switch role {
	case inventory.RoleControlPlane:
		argv = append(argv, "disk="+kube.EtcdDir)
		for _, file := range expiryFiles {
			argv = append(argv, "cert="+file)
		}
	case inventory.RoleWorker:
		argv = append(argv, "cert="+expiryFiles[len(expiryFiles)-1])
	}
	sent := time.Now()
	out, err := h.Query(ctx, argv...)
	if err != nil {
		return glance{}, err
	}
	return parseGlance(out, sent, time.Now())
}

// parseGlance reads what the script printed between sent and received, by our
// clock.
func parseGlance(out []byte, sent, received time.Time) (glance, error) {
	g := glance{pem: map[string][]byte{}}
	var begin, end time.Time
	var began time.Duration
	var file string
	for line := range bytes.Lines(out) {
		text := strings.TrimSpace(string(line))
		key, value, found := strings.Cut(text, "=")
		var err error
		switch {
		case !found || !glanceKeys[key]: // of a certificate, whose lines end in "=" now and then
			g.pem[file] = append(g.pem[file], line...)
		case key == "clock_begin":
			begin, err = parseStamp(value)
		case key == "clock_end":
			end, err = parseStamp(value)
		case key == "boot":
			g.bootID = value
		case key == "init":
			began, err = initBegan(value)
		case key == "uptime":
			g.uptime, err = time.ParseDuration(value + "s")
		case key == "cert":
			file = value
		case key == "disk":
			err = g.disk(value)
		}
		if err != nil {
			return g, fmt.Errorf("the host's answer %.80q: %w", text, err)
		}
	}
	if begin.IsZero() || end.IsZero() {
		return g, fmt.Errorf("the host's answer has no time")
	}
	// NTP's arithmetic: four stamps, the host's two in the middle.
	g.offset = (begin.Sub(sent) + end.Sub(received)) / 2
	g.offsetWithin = max((received.Sub(sent)-end.Sub(begin))/2, 0)
	// Container hosts share the kernel's boot ID and uptime; when their init
	// began tells their boots apart.
	g.bootID += "." + strconv.FormatInt(int64(began/tick), 10)
	g.uptime -= began
	delete(g.pem, "")
	rows, _ := pki.Expiry(g.pem) // a file without any shows in the checks that use it
	for _, c := range rows {
		g.certificates = append(g.certificates, Expiry{c.File, c.Subject, c.NotAfter})
	}
	return g, nil
}

var glanceKeys = map[string]bool{"init": true, "clock_begin": true, "clock_end": true, "boot": true, "uptime": true, "cert": true, "disk": true}

// tick is the unit of times in /proc, the same on all that Linux runs on.
const tick = 10 * time.Millisecond

// initBegan reads when process 1 began, after the kernel, from its stat file.
func initBegan(stat string) (time.Duration, error) {
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:]) // from the state, the third field, on
	if len(fields) < 20 {
		return 0, fmt.Errorf("%d fields", len(fields))
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	return time.Duration(ticks) * tick, err
}

func parseStamp(s string) (time.Time, error) {
	f, err := strconv.ParseFloat(strings.TrimSuffix(s, ".%N"), 64) // a date without %N prints it as it is
	if err != nil {
		return time.Time{}, err
	}
	return time.UnixMicro(int64(f * 1e6)), nil
}

// disk reads "TOTAL FREE PATH", in KiB.
func (g *glance) disk(s string) error {
	f := strings.SplitN(s, " ", 3)
	if len(f) != 3 {
		return fmt.Errorf("want three fields")
	}
	total, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return err
	}
	free, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return err
	}
	d := Disk{Path: f[2], TotalBytes: total << 10, FreeBytes: free << 10}
	if total > 0 {
		d.Used = units.Ratio(float64(total-free) / float64(total))
	}
	g.disks = append(g.disks, d)
	return nil
}

// certificate is the first one that the host has in a file.
func (g glance) certificate(file string) (*x509.Certificate, error) {
	block, _ := pem.Decode(g.pem[file])
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return x509.ParseCertificate(block.Bytes)
}

// servedBy is the fingerprint of the certificate that the master's API server
// serves.
func (g glance) servedBy() (string, error) {
	c, err := g.certificate(path.Join(kube.PKIDir, "apiserver.crt"))
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:]), nil
}
