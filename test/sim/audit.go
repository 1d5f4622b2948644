package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
)

// audit is what may never happen, looked for after every change.
type audit struct {
	broken []string
	quorum bool   // there was one when it was last looked at
	held   bool   // so was the VIP
	ca     string // the set that a master held whole, with the encryption key
	at     string
}

// caFiles are what all masters have in common.
var caFiles = []string{
	pkiDir + "/ca.crt", pkiDir + "/ca.key", pkiDir + "/etcd/ca.crt", pkiDir + "/etcd/ca.key",
	pkiDir + "/front-proxy-ca.crt", pkiDir + "/front-proxy-ca.key", pkiDir + "/sa.pub", pkiDir + "/sa.key",
	"/etc/kubernetes/apiserver/encryption.yaml",
}

// Broken is what no run may ever do.
func (w *World) Broken() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.audits.broken)
}

func (w *World) accuse(format string, v ...any) {
	w.audits.broken = append(w.audits.broken, fmt.Sprintf(format, v...))
}

// inspect holds the world against the invariants of quorum.md.
func (w *World) inspect(act string) {
	learners := 0
	for _, m := range w.etcd.members {
		if m.learner {
			learners++
		}
	}
	if learners > 1 {
		w.accuse("%s: %d learners", act, learners)
	}
	had := w.audits.quorum
	w.audits.quorum = w.quorate()
	if had && !w.audits.quorum && !w.MayEnd {
		w.accuse("%s took the quorum away", act)
	}
	w.inspectCA(act)
	w.inspectVIP(act)
}

// inspectDeletion wants that no kubelet runs whose Node is deleted: it would make
// its pods' mirrors anew, and go on with the Node's network.
func (w *World) inspectDeletion(node string) {
	if h := w.hosts[node]; h != nil && !h.off && h.active("kubelet.service") && w.nodeUID(node) != "" {
		w.accuse("the Node of %s is deleted while its kubelet runs", node)
	}
}

// inspectVIP wants that all hosts that run keepalived know each other, for
// two that do not may both hold the virtual address, and that it is not given up.
func (w *World) inspectVIP(act string) {
	all := slices.DeleteFunc(w.sorted(), func(h *Host) bool { return !h.keepalived() })
	for _, h := range all {
		for _, other := range all {
			if h != other && !h.Units["keepalived.service"].announcesTo(other) {
				w.accuse("%s: %s and %s both run keepalived, and %s does not announce itself to %s", act, h.name, other.name, h.name, other.name)
			}
		}
	}
	had := w.audits.held
	if w.audits.held = len(all) > 0; had && len(all) == 0 && !w.MayEnd {
		w.accuse("%s: nobody holds the VIP any more", act)
	}
}

// expected forgets a quorum, and a VIP, that a fault has taken.
func (w *World) expected() {
	w.audits.quorum = w.quorate()
	w.audits.held = slices.ContainsFunc(w.sorted(), (*Host).keepalived)
}

// inspectCA wants that a set that a master once held whole is never replaced.
func (w *World) inspectCA(act string) {
	anywhere := false
	for _, h := range w.sorted() {
		set := h.caSet()
		if set == "" {
			continue
		}
		anywhere = true
		switch w.audits.ca {
		case set:
		case "":
			w.audits.ca, w.audits.at = set, h.name
		default:
			w.accuse("%s: %s has another CA set than %s had", act, h.name, w.audits.at)
		}
	}
	if !anywhere && !w.anyData() {
		w.audits.ca = "" // reset: the next cluster is another one
	}
}

// caSet tells the host's set from others; "" while it is not whole.
func (h *Host) caSet() string {
	digest := sha256.New()
	for _, p := range caFiles {
		f, ok := h.Files[p]
		if !ok {
			return ""
		}
		digest.Write(f.Content)
	}
	return hex.EncodeToString(digest.Sum(nil))
}

func (w *World) sorted() []*Host {
	all := make([]*Host, 0, len(w.hosts))
	for _, name := range slices.Sorted(maps.Keys(w.hosts)) {
		all = append(all, w.hosts[name])
	}
	return all
}
