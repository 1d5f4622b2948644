package provision

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/certs"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
)

// certsBudget is for hosts that are connected.
const certsBudget = 10 * time.Second

// CertificatesSchema is the version of the JSON form of Certificates. It is raised
// when a field changes its meaning or goes; new fields do not raise it.
const CertificatesSchema = 1

// Certificates are those of all hosts.
type Certificates struct {
	Schema  int           `json:"schema"`
	Cluster string        `json:"cluster"`
	At      time.Time     `json:"at"` // what is judged by it is by this machine's clock
	Took    units.Seconds `json:"tookSeconds"`
	Within  units.Seconds `json:"withinSeconds"`
	// State is that of the worst certificate that was seen, in a file or in use.
	State certs.State        `json:"state"`
	Hosts []HostCertificates `json:"hosts"`

	down []error
}

// HostCertificates are those of one host.
type HostCertificates struct {
	Name         string              `json:"name"`
	Role         inventory.Role      `json:"role"`
	SSH          string              `json:"ssh"` // "ok", or why nothing is known
	Certificates []certs.Certificate `json:"certificates"`
	Problems     []string            `json:"problems,omitempty"` // files that cannot be read
}

// Err is an *UnreachableError unless every host was asked.
func (c Certificates) Err() error {
	if err := phase.Join(c.down...); err != nil {
		return &UnreachableError{err}
	}
	return nil
}

// TakeCertificates asks all hosts at once, each with one command and a handshake
// for each port, and changes nothing; neither the API nor etcd has to work. within
// is how soon a certificate may expire to be called due. What does not answer is
// part of the answer: it never fails.
func TakeCertificates(ctx context.Context, s *Site, within time.Duration) Certificates {
	began := s.round()
	c := Certificates{Schema: CertificatesSchema, Cluster: s.Cluster.Metadata.Name, At: time.Now().UTC(), Within: units.Seconds(within),
		State: certs.Good, Hosts: make([]HostCertificates, len(s.Cluster.Spec.Hosts))}
	ctx, cancel := context.WithDeadline(ctx, began.Add(certsBudget))
	defer cancel()
	down := make([]error, len(c.Hosts))
	var wg sync.WaitGroup
	for i, ih := range s.Cluster.Spec.Hosts {
		wg.Go(func() {
			c.Hosts[i] = HostCertificates{Name: ih.Name, Role: ih.Role, SSH: ok, Certificates: []certs.Certificate{}}
			all, bad, err := s.hostCertificates(ctx, ih, within)
			if down[i] = onHost(ih.Name, err); err != nil {
				c.Hosts[i].SSH = verdictOf(down[i])
				return
			}
			c.Hosts[i].Certificates = append(c.Hosts[i].Certificates, all...)
			for _, err := range bad {
				c.Hosts[i].Problems = append(c.Hosts[i].Problems, err.Error())
			}
		})
	}
	wg.Wait()
	c.down = onceForEachBastion(down)
	c.conclude()
	c.Took = units.Seconds(time.Since(began).Round(time.Millisecond))
	return c
}

func (c *Certificates) conclude() {
	var all []certs.Certificate
	for _, h := range c.Hosts {
		all = append(all, h.Certificates...)
	}
	c.State = certs.Worst(all, c.At)
}

// hostCertificates are the certificates on one host, and what its processes show;
// bad are files that hold none.
func (s *Site) hostCertificates(ctx context.Context, ih inventory.Host, within time.Duration) (all []certs.Certificate, bad []error, err error) {
	h, err := s.host(ih.Name)
	if err != nil {
		return nil, nil, err
	}
	files := certs.On(ih.Role == inventory.RoleControlPlane, ih.Role == inventory.RoleWorker, s.Cluster.Balances(ih))
	seen, err := askCertificates(ctx, h, ih, files)
	if err != nil {
		return nil, nil, err
	}
	all, bad = certs.List(files, seen, time.Now(), within)
	roots := x509.NewCertPool()
	for _, found := range seen.Files {
		roots.AppendCertsFromPEM(found.PEM) // who made a certificate here is trusted with it: only its own host is asked
	}
	var wg sync.WaitGroup
	for _, f := range files {
		i := slices.IndexFunc(all, func(c certs.Certificate) bool { return c.File == f.Path })
		if f.Port == "" || i < 0 {
			continue
		}
		wg.Go(func() {
			address := net.JoinHostPort(ih.IP().String(), f.Port)
			shown, err := shownAt(ctx, h, address, all[i], roots)
			all[i].Serves(address, shown, err)
		})
	}
	wg.Wait()
	return all, bad, nil
}

// shownTimeout bounds the handshake with one process.
const shownTimeout = 3 * time.Second

// shownAt is the certificate that a process shows. Its dates are for the caller to
// judge; what else is wrong with it is an error beside it. nil: none was seen.
func shownAt(ctx context.Context, h host.Reader, address string, expected certs.Certificate, roots *x509.CertPool) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, shownTimeout)
	defer cancel()
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(expected.Names, name) && len(expected.Names) > 0 {
		name = expected.Names[0] // a kubelet's has the Node's name alone
	}
	shown, err := handshake(ctx, h, address, &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS12})
	var refused *tls.CertificateVerificationError
	if !errors.As(err, &refused) || len(refused.UnverifiedCertificates) == 0 {
		return shown, err
	}
	chain, between := refused.UnverifiedCertificates, x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	// It was valid once, or it is not what it should be.
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: name, CurrentTime: chain[0].NotAfter.Add(-time.Second)})
	return chain[0], err
}

// certificatesScript tells in one round trip which certificates are in files, when
// those were written, and since when the processes run that read them. Its
// arguments are "file=PATH" and "process=LABEL NAME ARGUMENT". Of a file, PEM or
// kubeconfig, only the certificates leave the host, never a key.
const certificatesScript = `LC_ALL=C
export LC_ALL
` + kube.ProcessFunction + `started() { shift 19; echo $((booted + $1 / ticks)); }
booted=$(sed -n -e 's/^btime //p' /proc/stat)
ticks=$(getconf CLK_TCK 2>/dev/null) || ticks=100
for arg; do
	value=${arg#*=}
	case $arg in
	file=*)
		[ -e "$value" ] || continue
		echo "file=$(stat -L -c %Y -- "$value") $value"
		sed -n -e '/^-----BEGIN CERTIFICATE-----/,/^-----END CERTIFICATE-----/p' -- "$value"
		sed -n -e 's/^ *client-certificate-data: *//p' -- "$value" | base64 -d
		;;
	process=*)
		label=${value%% *} rest=${value#* }
		for pid in $(processes "${rest%% *}" "${rest#* }"); do
			stat=$(cat "/proc/$pid/stat" 2>/dev/null) || continue
			echo "process=$(started ${stat##*) }) $label"
		done
		;;
	esac
done
`

// processArguments are how the processes that read certificates at their start are
// found: by name and by an argument.
func processArguments(ih inventory.Host) []string {
	address := ih.IP().String()
	return []string{
		"process=" + certs.Etcd + " etcd --advertise-client-urls=https://" + net.JoinHostPort(address, "2379"),
		"process=" + certs.APIServer + " kube-apiserver --advertise-address=" + address,
		"process=" + certs.ControllerManager + " kube-controller --kubeconfig=/etc/kubernetes/controller-manager.conf",
		"process=" + certs.Scheduler + " kube-scheduler --kubeconfig=/etc/kubernetes/scheduler.conf",
	}
}

func askCertificates(ctx context.Context, h host.Reader, ih inventory.Host, files []certs.File) (certs.Seen, error) {
	if len(files) == 0 {
		return certs.Seen{}, nil
	}
	argv := []string{"sh", "-c", certificatesScript, "ha-install-certificates"}
	for _, f := range files {
		argv = append(argv, "file="+f.Path)
	}
	if ih.Role == inventory.RoleControlPlane {
		argv = append(argv, processArguments(ih)...)
	}
	out, err := h.Query(ctx, argv...)
	if err != nil {
		return certs.Seen{}, err
	}
	return parseCertificates(out)
}

// parseCertificates reads what the script printed.
func parseCertificates(out []byte) (certs.Seen, error) {
	seen := certs.Seen{Files: map[string]certs.Found{}, Began: map[string]time.Time{}}
	at := ""
	for line := range bytes.Lines(out) {
		text := strings.TrimSpace(string(line))
		file, isFile := strings.CutPrefix(text, "file=")
		process, isProcess := strings.CutPrefix(text, "process=")
		if !isFile && !isProcess {
			if at != "" {
				found := seen.Files[at]
				found.PEM = append(found.PEM, line...)
				seen.Files[at] = found
			}
			continue
		}
		value := file
		if isProcess {
			value = process
		}
		stamp, name, _ := strings.Cut(value, " ")
		seconds, err := strconv.ParseInt(stamp, 10, 64)
		if err != nil || name == "" {
			return seen, fmt.Errorf("the host's answer %.80q: no time and name", text)
		}
		when := time.Unix(seconds, 0)
		if isFile {
			at = name
			seen.Files[at] = certs.Found{Changed: when}
			continue
		}
		if before, known := seen.Began[name]; !known || when.Before(before) {
			seen.Began[name] = when
		}
	}
	return seen, nil
}
