package preflight

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// errTruncated is an answer without its last line.
var errTruncated = errors.New("the answer ends early")

// parser fills Facts line by line; what needs two lines to make sense is kept
// until finish.
type parser struct {
	f          Facts
	begin, end time.Time
	listeners  []rawListener
	sockets    map[string]string // inode -> process
	fib        []string
	route      []string
	firewalls  map[string]bool
	ufwEnabled bool
}

type rawListener struct {
	Listener
	inode string
}

// parseFacts reads the output of facts.sh. Sent and received are the
// operator's clock around the query.
func parseFacts(out []byte, sent, received time.Time) (Facts, error) {
	p := parser{sockets: map[string]string{}, firewalls: map[string]bool{}}
	p.f = Facts{OS: map[string]string{}, Tools: map[string]bool{}, Sysctls: map[string]string{},
		SysctlWritable: map[string]bool{}, Modules: map[string]bool{}, MACs: map[string]string{}}
	for line := range bytes.Lines(out) {
		key, value, ok := strings.Cut(strings.TrimRight(string(line), "\r\n"), "=")
		if !ok {
			continue
		}
		if err := p.line(key, value); err != nil {
			return Facts{}, fmt.Errorf("read the host's facts: %s=%q: %w", key, value, err)
		}
	}
	if p.begin.IsZero() || p.end.IsZero() {
		return Facts{}, fmt.Errorf("read the host's facts: %w", errTruncated)
	}
	p.finish(sent, received)
	return p.f, nil
}

// line takes one line. A value that only some systems lack or write otherwise
// is left out rather than refused; the check that needs it says so.
func (p *parser) line(key, value string) (err error) {
	f := &p.f
	if name, ok := strings.CutPrefix(key, "sysctl_"); ok && key != "sysctl_writable" {
		f.Sysctls[name] = value
		return nil
	}
	switch key {
	case "clock_begin":
		p.begin, err = parseClock(value)
	case "clock_end":
		p.end, err = parseClock(value)
	case "kernel":
		f.Kernel = value
	case "machine":
		f.Machine = value
	case "hostname":
		f.Hostname = value
	case "cores":
		f.Cores, _ = strconv.Atoi(value)
	case "memory_kb":
		kb, _ := strconv.ParseInt(value, 10, 64)
		f.MemoryMB = kb / 1024
	case "systemd":
		f.Systemd = true
	case "nameless":
		f.Nameless = true
	case "container":
		f.Container = value
	case "boot_id":
		f.BootID = value
	case "machine_id":
		f.MachineID = value
	case "product_uuid":
		f.ProductUUID = strings.ToLower(value)
	case "selinux":
		f.SELinuxEnforcing = value == "1"
	case "cgroup_fs":
		f.CgroupFS = value
	case "cgroup_controllers":
		f.CgroupControllers = strings.Fields(value)
	case "sysctl_writable":
		f.SysctlWritable[value] = true
	case "module":
		f.Modules[value] = true
	case "modules_known":
		f.ModulesKnown = true
	case "tool":
		f.Tools[value] = true
	default:
		p.listLine(key, value)
	}
	return err
}

// listLine takes the lines whose key repeats.
func (p *parser) listLine(key, value string) {
	f := &p.f
	switch key {
	case "os":
		if k, v, ok := strings.Cut(value, "="); ok {
			f.OS[k] = strings.Trim(v, `"'`)
		}
	case "swap":
		if fields := strings.Fields(value); len(fields) >= 5 && fields[0] != "Filename" {
			f.Swaps = append(f.Swaps, fields[0])
		}
	case "readonly":
		f.ReadOnly = append(f.ReadOnly, value)
	case "disk":
		f.Disks = appendDisk(f.Disks, value)
	case "addr":
		f.Addresses = appendAddress(f.Addresses, value)
	case "fib":
		p.fib = append(p.fib, value)
	case "route":
		p.route = append(p.route, value)
	case "inet6":
		f.Addresses = appendInet6(f.Addresses, value)
	case "mac":
		if name, mac, ok := strings.Cut(value, " "); ok {
			f.MACs[name] = mac
		}
	case "listen":
		p.listen(value)
	case "socket":
		if s := strings.SplitN(value, " ", 3); len(s) == 3 {
			p.sockets[s[0]] = fmt.Sprintf("%s (pid %s)", s[2], s[1])
		}
	case "file":
		f.Files = append(f.Files, value)
	case "ca":
		if data, err := base64.StdEncoding.DecodeString(value); err == nil && len(data) > 0 {
			f.CA = Fingerprint(data)
		}
	case "journal":
		f.Journal = journalCluster(value)
	case "runtime":
		f.Runtimes = append(f.Runtimes, value)
	case "firewall":
		p.firewalls[value] = true
	case "ufw":
		p.ufwEnabled = p.ufwEnabled || strings.EqualFold(strings.ReplaceAll(value, " ", ""), "ENABLED=yes")
	case "resolved":
		if fields := strings.Fields(value); len(fields) > 0 {
			if a, err := netip.ParseAddr(fields[0]); err == nil && !contains(f.Resolved, a) {
				f.Resolved = append(f.Resolved, a)
			}
		}
	case "resolved_asked":
		f.ResolvedAsked = true
	}
}

func (p *parser) finish(sent, received time.Time) {
	f := &p.f
	seen := map[Listener]bool{}
	for _, l := range p.listeners {
		l.Process = p.sockets[l.inode]
		if !seen[l.Listener] {
			seen[l.Listener] = true
			f.Listeners = append(f.Listeners, l.Listener)
		}
	}
	if len(p.fib) > 0 {
		f.Addresses = append(f.Addresses, addressesOf(p.fib, p.route)...)
	}
	if p.firewalls["firewalld"] {
		f.Firewalls = append(f.Firewalls, "firewalld")
	}
	// ufw's unit is active on every Ubuntu; its own switch decides.
	if p.firewalls["ufw"] && p.ufwEnabled {
		f.Firewalls = append(f.Firewalls, "ufw")
	}
	f.Now = p.end
	f.ClockOffset, f.ClockError = clockOffset(sent, p.begin, p.end, received)
}

// clockOffset is NTP's arithmetic: four stamps, the host's two in the middle.
func clockOffset(sent, begin, end, received time.Time) (offset, uncertainty time.Duration) {
	offset = (begin.Sub(sent) + end.Sub(received)) / 2
	return offset, max((received.Sub(sent)-end.Sub(begin))/2, 0)
}

func parseClock(s string) (time.Time, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("no time of the form seconds.nanoseconds: %w", err)
	}
	// A date without %N prints it as it is: whole seconds will have to do.
	nsec, _ := strconv.ParseInt(fraction, 10, 64)
	if sec <= 0 || sec > math.MaxInt32*int64(4) {
		return time.Time{}, fmt.Errorf("%d seconds is no date", sec)
	}
	return time.Unix(sec, nsec), nil
}

// journalCluster reads the cluster's name from the base64 of our journal's
// head; what cannot be read names no cluster.
func journalCluster(encoded string) string {
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return ""
	}
	var j struct {
		Cluster string `json:"cluster"`
		Name    string `json:"name"`
	}
	if json.Unmarshal(data, &j) != nil {
		return ""
	}
	if j.Cluster != "" {
		return j.Cluster
	}
	return j.Name
}

// Fingerprint identifies a CA: the SHA-256, in lower-case hex, of the first
// certificate in the PEM bytes, or of the bytes when they hold none.
func Fingerprint(ca []byte) string {
	for rest := ca; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if cert, err := x509.ParseCertificate(block.Bytes); block.Type == "CERTIFICATE" && err == nil {
			ca = cert.Raw
			break
		}
	}
	sum := sha256.Sum256(ca)
	return hex.EncodeToString(sum[:])
}

func contains(list []netip.Addr, a netip.Addr) bool {
	for _, have := range list {
		if have == a {
			return true
		}
	}
	return false
}
