package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/templates"
)

// masterSeen is what a restore has to know of a master.
type masterSeen struct {
	marker marker
	note   *restoreNote // nil: there is none
	pushed bool         // the snapshot that the note is about is there
	lacks  string       // a file that a master must have; "" for none
	tags   map[string]string
	restoreFacts
}

// restoreFacts are the answers of restoreLookScript.
type restoreFacts struct {
	etcdutl   string // its version, "3.6.8"; "" for none
	etcdFree  int64  // in bytes, where etcd's data lie
	stateFree int64  // in bytes, where ours do
	kubelet   bool   // it runs
	data      bool   // there are a member's data; an etcd that finds none leaves an empty database, and no log
	// token is that of the restore which made the data; "" for data of etcd's own.
	token    string
	unpacked string          // that of data which wait beside
	manifest map[string]bool // by component
	runs     map[string]bool // by component: its process
	// stranger says that an etcd runs which has other data open than those in
	// their place: of a cluster before, if those are new.
	stranger bool
}

// restoreMark is the file within a restored member's directory that has its token.
const restoreMark = "ha-install-restore"

// restoreLookScript answers a line for each fact.
//
//	$1 $2 arguments that tell this host's etcd and API server from others
const restoreLookScript = `set -u
` + kube.ProcessFunction + kube.HoldsFunction + `free() {
	d=$1
	until [ -d "$d" ]; do d=$(dirname "$d"); done
	df -k --output=avail "$d" | tail -n 1
}
echo etcdutl $(etcdutl version 2>/dev/null | sed -n 's/^etcdutl version: //p')
echo etcd-free $(free /var/lib/etcd)
echo state-free $(free /var/lib/ha-install)
echo kubelet $(systemctl show --property ActiveState --value kubelet.service)
for c in etcd kube-apiserver kube-controller-manager kube-scheduler; do
	if [ -e /etc/kubernetes/manifests/$c.yaml ]; then echo manifest $c; fi
done
runs() { if [ -n "$(processes "$2" "$3")" ]; then echo runs "$1"; fi; }
runs etcd etcd "$1"
for p in $(processes etcd "$1"); do
	if ! holds "$p"; then echo stranger; fi
done
runs kube-apiserver kube-apiserver "$2"
runs kube-controller-manager kube-controller --kubeconfig=/etc/kubernetes/controller-manager.conf
runs kube-scheduler kube-scheduler --kubeconfig=/etc/kubernetes/scheduler.conf
for f in /var/lib/etcd/member/wal/*.wal; do
	if [ -e "$f" ]; then echo data yes; break; fi
done
echo token $(cat /var/lib/etcd/member/` + restoreMark + ` 2>/dev/null)
echo unpacked $(for d in /var/lib/etcd/restore-*; do case $d in *.part) ;; *) cat "$d/member/` + restoreMark + `" 2>/dev/null ;; esac; done)
`

// parseRestoreFacts reads restoreLookScript's answer.
func parseRestoreFacts(text string) (restoreFacts, error) {
	f := restoreFacts{manifest: map[string]bool{}, runs: map[string]bool{}}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "etcdutl":
			f.etcdutl = value
		case "etcd-free", "state-free":
			kib, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return f, fmt.Errorf("free disk space: %q is no number of KiB", value)
			}
			if key == "etcd-free" {
				f.etcdFree = kib << 10
			} else {
				f.stateFree = kib << 10
			}
		case "kubelet":
			f.kubelet = value == "active" || value == "activating"
		case "manifest":
			f.manifest[value] = true
		case "runs":
			f.runs[value] = true
		case "stranger":
			f.stranger = true
		case "data":
			f.data = true
		case "token":
			f.token = value
		case "unpacked":
			f.unpacked = value
		}
	}
	return f, nil
}

// stopped says that nothing of a control plane runs, nor would after a reboot.
func (f restoreFacts) stopped() error {
	for _, c := range kube.Components {
		switch {
		case f.runs[c]:
			return fmt.Errorf("%s still runs", c)
		case f.manifest[c]:
			return fmt.Errorf("%s has its manifest, and would run again", c)
		}
	}
	return nil
}

// renewed says that the data of a restore are in their place, and that no etcd
// runs with others: one that was left over goes on with what was moved aside.
func (f restoreFacts) renewed(token string) error {
	switch {
	case f.token != token:
		return phase.Final(fmt.Errorf("%s is not of this restore", etcdMember))
	case f.stranger:
		return errors.New("an etcd runs that has other data open than those in their place")
	}
	return nil
}

// etcdArgument and apiArgument tell a master's own processes from others.
func etcdArgument(ih inventory.Host) string {
	return "--advertise-client-urls=https://" + net.JoinHostPort(ih.IP().String(), "2379")
}

func apiArgument(ih inventory.Host) string { return "--advertise-address=" + ih.IP().String() }

func lookAtRestore(ctx context.Context, ih inventory.Host, h host.Reader) (restoreFacts, error) {
	out, err := h.Query(ctx, "sh", "-c", restoreLookScript, "sh", etcdArgument(ih), apiArgument(ih))
	if err != nil {
		return restoreFacts{}, err
	}
	return parseRestoreFacts(string(out))
}

// seeMasters looks at all masters at once.
func (s *Site) seeMasters(ctx context.Context) (map[string]masterSeen, error) {
	var mu sync.Mutex
	seen := map[string]masterSeen{}
	err := s.onAll(ctx, s.Cluster.ControlPlanes(), func(ctx context.Context, ih inventory.Host, h host.Host) error {
		m, err := seeMaster(ctx, ih, h)
		mu.Lock()
		defer mu.Unlock()
		seen[ih.Name] = m
		return err
	})
	return seen, err
}

// masterFiles are those without which a master cannot start; kubeadm's join and
// the cluster's keys made them.
func masterFiles() []string {
	files := append([]string{kube.KubeletConfig}, prepared...)
	for _, name := range pki.Names {
		files = append(files, kube.PKIDir+"/"+name)
	}
	return append(files, templates.EncryptionConfigPath)
}

func seeMaster(ctx context.Context, ih inventory.Host, h host.Reader) (m masterSeen, err error) {
	if m.marker, err = readMarker(ctx, h); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	if m.note, err = readRestoreNote(ctx, h); err != nil {
		return m, err
	}
	files := masterFiles()
	there, err := h.Stat(ctx, files...)
	if err != nil {
		return m, err
	}
	for _, f := range files {
		if _, ok := there[f]; !ok {
			m.lacks = f
			break
		}
	}
	if m.note != nil {
		snapshot := restoreSource{sum: m.note.SHA256}.onHosts()
		if there, err = h.Stat(ctx, snapshot); err != nil {
			return m, err
		}
		m.pushed = there[snapshot].Sum == m.note.SHA256
	}
	if m.tags, err = manifestTags(ctx, h); err != nil {
		return m, err
	}
	m.restoreFacts, err = lookAtRestore(ctx, ih, h)
	return m, err
}
