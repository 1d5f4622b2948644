package sim

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
)

// What a restore's scripts work with; the product has the same names in them.
const (
	restoreMark   = "/ha-install-restore"
	memberDir     = etcdDir + "/member"
	emptyDB       = memberDir + "/snap/db"
	manifestsDir  = "/etc/kubernetes/manifests/"
	initialInMark = "/initial-cluster" // a fake's: real etcd keeps it in its database
)

// columns are the components of a control plane.
var columns = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}

// idOf is the ID that etcd makes of a new member's token and name.
func idOf(token, name string) uint64 {
	sum := fnv.New64a()
	fmt.Fprint(sum, token, name)
	return sum.Sum64()
}

// RestoreFacts is what a master says before and during a restore.
func (h *Host) RestoreFacts() []byte {
	var b strings.Builder
	version := "3.6.8"
	if h.NoEtcdutl {
		version = ""
	}
	free := 30<<20 - h.Filled
	fmt.Fprintf(&b, "etcdutl %s\netcd-free %d\nstate-free %[2]d\n", version, free)
	state := "inactive"
	if h.active("kubelet.service") {
		state = "active"
	}
	fmt.Fprintln(&b, "kubelet", state)
	for _, c := range columns {
		if _, ok := h.Files[manifestsDir+c+".yaml"]; ok {
			fmt.Fprintln(&b, "manifest", c)
		}
	}
	runs := map[string]bool{"etcd": h.etcdProcess(), "kube-apiserver": h.apiUp()}
	for _, c := range slices.Sorted(maps.Keys(runs)) {
		if runs[c] {
			fmt.Fprintln(&b, "runs", c)
		}
	}
	if h.EtcdStand() == "runs with other data" {
		fmt.Fprintln(&b, "stranger")
	}
	if slices.ContainsFunc(h.under(memberDir), func(p string) bool { return p != emptyDB }) {
		fmt.Fprintln(&b, "data yes")
	}
	fmt.Fprintln(&b, "token", string(h.Files[memberDir+restoreMark].Content))
	for _, p := range slices.Sorted(maps.Keys(h.Files)) {
		if strings.HasPrefix(p, etcdDir+"/restore-") && strings.HasSuffix(p, restoreMark) {
			fmt.Fprintln(&b, "unpacked", string(h.Files[p].Content))
		}
	}
	return []byte(b.String())
}

// etcdProcess says that some etcd runs on the host, of whichever cluster.
func (h *Host) etcdProcess() bool {
	_, manifest := h.Files[etcdManifest]
	return h.etcdHas != "" && !h.off && !h.Mute && (h.orphans || manifest && h.active("kubelet.service"))
}

// Unpack makes a new member's data of a snapshot, beside those of now.
func (h *Host) Unpack(snapshot, token, name, cluster, bump string) []func() error {
	dir := etcdDir + "/restore-" + token
	return []func() error{
		func() error {
			for p := range h.Files {
				if strings.HasPrefix(p, etcdDir+"/restore-") {
					delete(h.Files, p)
				}
			}
			return nil
		},
		func() error {
			if _, ok := h.Files[snapshot]; !ok {
				return h.failure([]string{"etcdutl", "snapshot", "restore", snapshot}, 1, "no such file")
			}
			h.Put(dir+".part/member/id", 0o600, fmt.Sprint(idOf(token, name)))
			h.Put(dir+".part/member"+initialInMark, 0o600, cluster+" "+bump)
			return nil
		},
		func() error {
			h.Rename(dir+".part", dir)
			h.Put(dir+"/member"+restoreMark, 0o600, token)
			return nil
		},
	}
}

// Rename is mv.
func (h *Host) Rename(from, to string) {
	for _, p := range h.under(from) {
		h.Files[to+strings.TrimPrefix(p, from)] = h.Files[p]
		delete(h.Files, p)
	}
}

// StopColumn ends a control plane and keeps it from coming back.
func (h *Host) StopColumn(kept string) []func() error {
	acts := []func() error{func() error { h.halt("kubelet.service"); return nil }}
	for _, c := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"} {
		acts = append(acts, func() error { h.Rename(manifestsDir+c+".yaml", kept+"/"+c+".yaml"); return nil })
	}
	return append(acts,
		func() error { h.apiEnded = true; return nil },
		func() error { h.etcdHas, h.orphans = "", false; return nil },
	)
}

// ExchangeData gives unpacked data their place.
func (h *Host) ExchangeData(token string) error {
	if len(h.under(memberDir)) > 0 {
		return h.failure([]string{"sh"}, 1, memberDir+" is still there")
	}
	dir := etcdDir + "/restore-" + token
	if len(h.under(dir)) == 0 {
		return h.failure([]string{"mv", dir}, 1, "no such file")
	}
	h.Rename(dir+"/member", memberDir)
	return nil
}

// StartEtcdAlone writes etcd's static pod and starts the kubelet with it. An etcd that
// runs is ended before.
func (h *Host) StartEtcdAlone(config string) []func() error {
	return []func() error{
		func() error { h.halt("kubelet.service"); return nil },
		func() error { return h.EtcdManifest(config) },
		func() error { h.etcdHas, h.orphans = "", false; return nil },
		func() error {
			h.w.etcd.space.quota = h.quotaIn(config)
			return h.start([]string{"systemctl", "start", "kubelet"}, "kubelet.service")
		},
	}
}

// Place brings static pods back under a kubelet that runs.
func (h *Host) Place(config, kept string, names []string) []func() error {
	var acts []func() error
	for _, name := range names {
		acts = append(acts, func() error {
			at := manifestsDir + "kube-" + name + ".yaml"
			if _, ok := h.Files[at]; ok {
				return nil
			}
			h.Rename(kept+"/kube-"+name+".yaml", at)
			if _, ok := h.Files[at]; !ok {
				if err := h.manifest("kube-"+name, []string{"kube-" + name}, h.versionIn(config)); err != nil {
					return err
				}
			}
			if name == "apiserver" {
				h.apiEnded, h.apiRuns = false, imageTag(h.Files[at].Content)
			} else if h.w.API.Get("leases", "kube-system", "kube-"+name) == nil { // nobody led at last
				h.lead("kube-" + name)
			}
			h.register()
			return nil
		})
	}
	return acts
}

// adopt makes the data that a restore has made those of the cluster, when the
// first of its members starts with them: it is another cluster than that before.
func (h *Host) adopt() {
	mark, ok := h.Files[memberDir+restoreMark]
	token := string(mark.Content)
	if !ok || token == h.w.etcd.token || h.etcdHas != h.data() {
		return
	}
	for _, other := range h.w.sorted() {
		if other != h && other.etcdProcess() {
			h.w.accuse("%s starts a new cluster while the etcd of %s runs with data of the old one", h.name, other.name)
		}
	}
	cluster, bump, _ := strings.Cut(string(h.Files[memberDir+initialInMark].Content), " ")
	e := etcdState{next: h.w.etcd.next, term: h.w.etcd.term, revision: h.w.etcd.revision, leases: h.w.etcd.leases, token: token, bump: bump}
	for part := range strings.SplitSeq(cluster, ",") {
		name, url, _ := strings.Cut(part, "=")
		e.members = append(e.members, &member{id: idOf(token, name), name: name, peerURL: url})
	}
	e.space = h.w.etcd.space.restored(e.members)
	h.w.etcd = e
	if h.w.Stored != nil {
		h.w.API = h.w.Stored.Clone()
		control(h.w.API)
	}
}

// Foreign are the hosts on which an etcd runs that is of no cluster of now.
func (w *World) Foreign() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, h := range w.sorted() {
		m := h.listed()
		if h.etcdProcess() && (h.etcdHas != h.data() || m == nil || h.data() != fmt.Sprint(m.id)) {
			all = append(all, h.name)
		}
	}
	return all
}

// LoseData takes a host's etcd data, as a broken disk does; its etcd ends, and what
// the kubelet starts of it does so as well: it finds no data, and makes an empty
// database before it says so.
func (w *World) LoseData(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.hosts[name]
	for _, p := range h.under(memberDir) {
		delete(h.Files, p)
	}
	h.etcdHas = ""
	if h.active("kubelet.service") {
		h.Put(emptyDB, 0o600, "")
	}
	w.expected()
}

// EndEtcd kills the host's etcd.
func (h *Host) EndEtcd() { h.etcdHas = "" }

// EndAPI kills the host's API server.
func (h *Host) EndAPI() { h.apiEnded = true }

// EtcdStand says whether an etcd runs on the host, and with which data.
func (h *Host) EtcdStand() string {
	switch {
	case !h.etcdProcess():
		return "none runs"
	case h.etcdHas != h.data():
		return "runs with other data"
	}
	return "runs with what is there"
}

// Haunt has a stray etcd of a cluster before run on the host, without a kubelet.
func (h *Host) Haunt() { h.etcdHas, h.orphans = "stray", true }

// Restored is the token of the restore that made the cluster, and by how much it
// was to raise revisions.
func (w *World) Restored() (token, bump string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.etcd.token, w.etcd.bump
}
