package sim

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"
)

// HoldsVIP says whether the host has the virtual address: whoever runs
// keepalived with a configuration of ours and hears of nobody before him in the
// alphabet. Hosts that are not each other's peers all have it.
func (h *Host) HoldsVIP() bool {
	if !h.keepalived() {
		return false
	}
	for name, other := range h.w.hosts {
		if name < h.name && other.keepalived() && other.Units["keepalived.service"].announcesTo(h) {
			return false
		}
	}
	return true
}

// hear answers the preflight's script that listens on the link: the adverts that
// a test has let be there, unless keepalived has the router ID asked for. What
// the balancers send each other is not simulated, nor that listening takes time.
func (h *Host) hear(argv []string) ([]byte, error) {
	config, own := string(h.Files["/etc/keepalived/keepalived.conf"].Content), "    virtual_router_id "+argv[6]+"\n"
	if strings.HasPrefix(config, "# Written by ha-install ") && strings.Contains(config, own) {
		return []byte("known\nend\n"), nil
	}
	if argv[4] != h.address && argv[5] == "" {
		return nil, h.failure(argv, 2, "no interface has "+argv[4])
	}
	var b strings.Builder
	for _, packet := range h.Carries {
		fmt.Fprintf(&b, "%x\n", packet)
	}
	return []byte(b.String() + "end\n"), nil
}

// announcesTo says that keepalived on the other host listens to this one's.
func (u *Unit) announcesTo(h *Host) bool {
	return slices.Contains(u.peers, h.address) && u.router == h.Units["keepalived.service"].router
}

// peersIn are the addresses that keepalived announces the VIP to, and the
// router ID by which it does.
func peersIn(config string) (peers []string, router string) {
	_, id, _ := strings.Cut(config, "virtual_router_id ")
	router, _, _ = strings.Cut(id, "\n")
	_, after, _ := strings.Cut(config, "unicast_peer {")
	list, _, _ := strings.Cut(after, "}")
	for line := range strings.Lines(list) {
		if fields := strings.Fields(line); len(fields) > 0 { // what follows is what is wanted of its adverts
			peers = append(peers, fields[0])
		}
	}
	return peers, router
}

func (h *Host) keepalived() bool {
	u := h.Units["keepalived.service"]
	return u != nil && u.Active && strings.Contains(u.Runs, "keepalived.conf")
}

// facts answers the preflight's script as a healthy Debian host does, with the
// traces of a cluster that are on it.
func (h *Host) facts(args []string) []byte {
	var b strings.Builder
	say := func(format string, v ...any) { fmt.Fprintf(&b, format+"\n", v...) }
	stamp := func() string { return fmt.Sprintf("%.9f", float64(time.Now().UnixNano())/1e9) }
	etcd := args[0]
	say("clock_begin=%s", stamp())
	say("kernel=Linux\nmachine=x86_64\nhostname=%s\ncores=4\nmemory_kb=8000000\nsystemd=1", h.calls())
	say("os=ID=debian\nos=PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"")
	say("boot_id=%s\nmachine_id=machine-%s\nproduct_uuid=uuid-%s", h.bootID(), h.name, h.name)
	say("cgroup_fs=cgroup2fs\ncgroup_controllers=cpu cpuset memory pids")
	for _, tool := range []string{"sh", "tar", "sha256sum", "stat", "env", "systemd-run", "systemctl", "dpkg", "mount", "losetup", "cp", "ip", "perl"} {
		say("tool=%s", tool)
	}
	for _, key := range []string{"net/ipv4/ip_forward", "net/netfilter/nf_conntrack_max"} {
		say("sysctl_%s=262144\nsysctl_writable=%s", key, key)
	}
	say("modules_known=1\nmodule=overlay\nmodule=br_netfilter\nmodule=vxlan")
	for _, p := range []string{"/", etcd, "/var/lib/containerd", "/var/lib/kubelet", "/etc/kubernetes"} {
		say("disk=%s 40000000 30000000 1000000 900000 /", p)
	}
	say("addr=1: lo    inet 127.0.0.1/8 scope host lo\naddr=2: eth0    inet %s/24 scope global eth0", h.address)
	if h.HoldsVIP() {
		say("addr=2: eth0    inet %s/24 scope global secondary eth0", h.w.vip)
	}
	say("mac=eth0 02:00:00:00:00:%s", h.name)
	h.traces(say, etcd)
	say("clock_end=%s", stamp())
	return []byte(b.String())
}

// Glance answers the status's script: "disk=DIRECTORY" and "cert=FILE".
func (h *Host) Glance(args []string) []byte {
	var b strings.Builder
	say := func(format string, v ...any) { fmt.Fprintf(&b, format+"\n", v...) }
	now := float64(time.Now().Add(h.Clock).UnixNano()) / 1e9
	say("clock_begin=%.9f\nboot=%s\ninit=1 (systemd) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 1000 9 9\nuptime=4252.17", now, h.bootID())
	for _, arg := range args {
		kind, path, _ := strings.Cut(arg, "=")
		f, there := h.Files[path]
		switch {
		case kind == "disk":
			say("disk=40000000 %d %s", 30000000-h.Filled, path)
		case kind == "cert" && there:
			say("cert=%s", path)
			b.WriteString(certificatesIn(string(f.Content)))
		}
	}
	say("clock_end=%.9f", now)
	return []byte(b.String())
}

// certificatesIn is what sed makes of PEM and of a kubeconfig.
func certificatesIn(content string) string {
	var b strings.Builder
	const begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----\n"
	for _, part := range strings.SplitAfter(content, end) {
		if i := strings.Index(part, begin); i >= 0 {
			b.WriteString(part[i:])
		}
	}
	for line := range strings.Lines(content) {
		if data, ok := strings.CutPrefix(strings.TrimSpace(line), "client-certificate-data: "); ok {
			text, err := base64.StdEncoding.DecodeString(data)
			if err != nil {
				panic(err)
			}
			b.Write(text)
		}
	}
	return b.String()
}

func (h *Host) traces(say func(string, ...any), etcd string) {
	for _, p := range []string{"/etc/kubernetes/admin.conf", "/etc/kubernetes/kubelet.conf", etcd + "/member", "/var/lib/kubelet/config.yaml"} {
		if len(h.under(p)) > 0 {
			say("file=%s", p)
		}
	}
	for _, dir := range []string{"/etc/kubernetes/manifests", pkiDir, "/var/lib/kubelet/pki"} {
		for _, p := range h.under(dir) {
			say("file=%s", p)
		}
	}
	for key, p := range map[string]string{"ca": pkiDir + "/ca.crt", "journal": "/var/lib/ha-install/cluster.json"} {
		if f, ok := h.Files[p]; ok {
			say("%s=%s", key, base64.StdEncoding.EncodeToString(f.Content))
		}
	}
}
