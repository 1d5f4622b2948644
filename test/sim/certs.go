package sim

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// leaf is a certificate that kubeadm makes.
type leaf struct {
	name string // for `kubeadm certs renew`
	path string // without its ending, below the pki directory; empty for a kubeconfig
	ca   string
	cn   string // of a kubeconfig's client
	orgs []string
}

// leaves are real certificates: the installer, or the simulation itself, uses them.
var leaves = []leaf{
	{name: "apiserver", path: "/apiserver", ca: "/ca"}, {name: "apiserver-kubelet-client", path: "/apiserver-kubelet-client", ca: "/ca"},
	{name: "apiserver-etcd-client", path: "/apiserver-etcd-client", ca: "/etcd/ca"}, {name: "front-proxy-client", path: "/front-proxy-client", ca: "/front-proxy-ca"},
	{name: "etcd-server", path: "/etcd/server", ca: "/etcd/ca"}, {name: "etcd-peer", path: "/etcd/peer", ca: "/etcd/ca"},
	{name: "etcd-healthcheck-client", path: "/etcd/healthcheck-client", ca: "/etcd/ca"},
	{name: "admin.conf", ca: "/ca", cn: "kubernetes-admin", orgs: []string{"kubeadm:cluster-admins"}},
	{name: "controller-manager.conf", ca: "/ca", cn: "system:kube-controller-manager"}, {name: "scheduler.conf", ca: "/ca", cn: "system:kube-scheduler"},
}

func (l leaf) file() string {
	if l.path == "" {
		return "/etc/kubernetes/" + l.name
	}
	return pkiDir + l.path + ".crt"
}

// kubeletClient is the certificate that a kubelet was given; on a real host a link
// to the newest.
const kubeletClient = "/var/lib/kubelet/pki/kubelet-client-current.pem"

// lifetime is how long a certificate is valid that is made now.
const lifetime = 365 * 24 * time.Hour

// write makes a leaf anew.
func (h *Host) write(l leaf, end time.Time) {
	cn := l.cn
	if cn == "" {
		cn = h.name
	}
	cert, key := h.issueUntil(end, pkiDir+l.ca, cn, l.orgs...)
	if l.path == "" {
		h.Put(l.file(), 0o600, h.kubeconfig(cert, key))
		return
	}
	h.Put(l.file(), 0o644, cert)
	h.Put(pkiDir+l.path+".key", 0o600, key)
}

// Renew is `kubeadm certs renew` of one certificate, which must be there.
func (h *Host) Renew(name string) error {
	i := slices.IndexFunc(leaves, func(l leaf) bool { return l.name == name })
	if i < 0 {
		h.w.t.Errorf("sim: %s: kubeadm knows no certificate %s", h.name, name)
		return nil
	}
	if _, ok := h.Files[leaves[i].file()]; !ok {
		return h.failure([]string{"kubeadm", "certs", "renew", name}, 1, "failed to load existing certificate")
	}
	h.write(leaves[i], time.Now().Add(lifetime))
	return nil
}

// Expire replaces certificates of a master, by their names for kubeadm, by ones
// that end then; without names all of them and its kubelet's.
func (h *Host) Expire(end time.Time, names ...string) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	for _, l := range leaves {
		if len(names) == 0 || slices.Contains(names, l.name) {
			h.write(l, end)
		}
	}
	if len(names) == 0 || slices.Contains(names, "kubelet") {
		h.enrolKubelet(end)
	}
	h.podsRead = h.sums("/etc/kubernetes") // as if it had been so for a year
}

// enrolKubelet gives a kubelet its client certificate, with the CA of any master.
func (h *Host) enrolKubelet(end time.Time) {
	for _, m := range h.w.sorted() {
		if _, ok := m.Files[pkiDir+"/ca.key"]; ok {
			cert, key := m.issueUntil(end, pkiDir+"/ca", "system:node:"+h.name, "system:nodes")
			h.Put(kubeletClient, 0o600, cert+key)
			return
		}
	}
}

// AdoptKubelet puts a staged certificate into the kubelet's place and restarts it.
func (h *Host) AdoptKubelet(staged string) []func() error {
	return []func() error{
		func() error {
			f, ok := h.Files[staged]
			if !ok {
				return h.failure([]string{"mv", staged}, 1, "no such file")
			}
			h.Put(kubeletClient, 0o600, string(f.Content))
			delete(h.Files, staged)
			return nil
		},
		func() error { return h.start([]string{"systemctl", "restart", "kubelet"}, "kubelet.service") },
	}
}

// RestartColumn ends the four static pods with the kubelet stopped, and starts it.
func (h *Host) RestartColumn() []func() error {
	return []func() error{
		func() error { h.halt("kubelet.service"); return nil },
		func() error { h.apiEnded = true; return nil },
		func() error { h.EndEtcd(); return nil },
		func() error { return h.start([]string{"systemctl", "start", "kubelet"}, "kubelet.service") },
	}
}

// valid says whether the first certificate in a file is valid now; what is none is
// not judged.
func (h *Host) valid(path string) bool {
	content := h.Files[path].Content
	end, known := h.w.ends[string(content)]
	if !known {
		if config, err := clientcmd.Load(content); err == nil {
			for _, user := range config.AuthInfos {
				content = user.ClientCertificateData
			}
		}
		end = time.Now().Add(100 * lifetime)
		if block, _ := pem.Decode(content); block != nil {
			if c, err := x509.ParseCertificate(block.Bytes); err == nil {
				end = c.NotAfter
			}
		}
		h.w.ends[string(h.Files[path].Content)] = end
	}
	return time.Now().Before(end)
}

// Certificates answers the script that asks for certificates: "file=PATH" and
// "process=LABEL NAME ARGUMENT". What pods have not read is newer than they are.
func (h *Host) Certificates(args []string) []byte {
	const began = 1_700_000_000
	var b strings.Builder
	for _, arg := range args {
		kind, value, _ := strings.Cut(arg, "=")
		f, there := h.Files[value]
		switch {
		case kind == "file" && there:
			written := began - 100
			if !strings.Contains(h.podsRead, value+" "+f.sum()+"\n") {
				written = began + 100
			}
			fmt.Fprintf(&b, "file=%d %s\n%s", written, value, certificatesIn(string(f.Content)))
		case kind == "process":
			label, _, _ := strings.Cut(value, " ")
			if _, manifest := h.Files["/etc/kubernetes/manifests/"+label+".yaml"]; manifest && h.active("kubelet.service") {
				fmt.Fprintf(&b, "process=%d %s\n", began, label)
			}
		}
	}
	return []byte(b.String())
}

// kubeconfig is one with a client's certificate in it.
func (h *Host) kubeconfig(cert, key string) string {
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: c
clusters:
- name: c
  cluster:
    server: https://%s:6443
    certificate-authority-data: %s
users:
- name: u
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: c
  context: {cluster: c, user: u}
`, h.w.vip, encode(string(h.Files[pkiDir+"/ca.crt"].Content)), encode(cert), encode(key))
}
