// Package certs knows the certificates of a cluster's hosts: where they lie, what
// reads them, what renews them, and how long they are good for. It does no I/O.
package certs

import (
	"path"

	"github.com/ha-install/ha-install/templates"
)

// The processes that read certificates.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Kubelet           = "kubelet"
)

// File is where a certificate lies: PEM, or a kubeconfig with a client's.
type File struct {
	Path string
	// Renewal is what `kubeadm certs renew` calls it; empty where it is not for
	// kubeadm to renew.
	Renewal string
	// Process reads the file when it starts, or later too; empty for what is
	// there for people, or for who reads it each time.
	Process string
	// Port is where the process serves it.
	Port string
}

const confDir = "/etc/kubernetes"

// The files of a kubelet. The client's certificate is a link to the newest of those
// that the kubelet was given.
const (
	KubeletDir    = "/var/lib/kubelet/pki"
	KubeletClient = KubeletDir + "/kubelet-client-current.pem"
	KubeletServer = KubeletDir + "/kubelet.crt"
)

// CAs are the certificates of the CA set.
var CAs = []File{pki("ca", "", "", ""), pki("etcd/ca", "", "", ""), pki("front-proxy-ca", "", "", "")}

// leaves are what kubeadm makes on a master.
var leaves = []File{
	pki("etcd/server", "etcd-server", Etcd, "2379"),
	pki("etcd/peer", "etcd-peer", Etcd, "2380"),
	pki("etcd/healthcheck-client", "etcd-healthcheck-client", "", ""),
	pki("apiserver", "apiserver", APIServer, "6443"),
	pki("apiserver-etcd-client", "apiserver-etcd-client", APIServer, ""),
	pki("apiserver-kubelet-client", "apiserver-kubelet-client", APIServer, ""),
	pki("front-proxy-client", "front-proxy-client", APIServer, ""),
	conf("admin", ""), conf("super-admin", ""), conf("controller-manager", ControllerManager), conf("scheduler", Scheduler),
}

// kubelets are a kubelet's own. kubelet.conf holds a certificate only until the
// kubelet has its first one that it renews itself.
var kubelets = []File{
	{Path: KubeletClient}, {Path: KubeletServer, Port: "10250"},
	{Path: KubeletDir + "/kubelet-server-current.pem", Port: "10250"},
	{Path: confDir + "/kubelet.conf"},
}

func pki(name, renewal, process, port string) File {
	return File{path.Join(templates.PKIDir, name+".crt"), renewal, process, port}
}

func conf(name, process string) File {
	return File{Path: path.Join(confDir, name+".conf"), Renewal: name + ".conf", Process: process}
}

// On are the files that a host may have, as a master, as a worker, and as one that
// balances.
func On(master, worker, balances bool) []File {
	var files []File
	switch {
	case master:
		files = append(append(append(files, CAs...), leaves...), kubelets...)
	case worker:
		files = append(append(files, CAs[0]), kubelets...)
	}
	if balances {
		files = append(files, File{Path: templates.HAProxyCAPath})
	}
	return files
}
