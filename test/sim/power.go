package sim

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"time"
)

// powerOff takes the host's power away; it starts again by itself. What only
// ran is gone, what was written is not.
func (h *Host) powerOff() {
	h.endPower()
	h.w.going.Go(func() {
		<-time.After(bootTime)
		h.w.mu.Lock()
		defer h.w.mu.Unlock()
		if h.off && !h.gone {
			h.boot()
		}
	})
}

// Destroy takes a host's power away for good. What its components led is led by
// others when it returns.
func (w *World) Destroy(name string) {
	w.mu.Lock()
	h := w.hosts[name]
	h.gone = true
	h.endPower()
	w.mu.Unlock()
	w.Succeed(name)
}

// Succeed waits until others lead what the components of a host have led that
// do not run any more.
func (w *World) Succeed(name string) {
	<-time.After(w.after(leaseTime))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.succeed(w.hosts[name])
	w.expected()
}

// WipeData takes etcd's data away under a master whose kubelet goes on trying to
// start it.
func (w *World) WipeData(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.hosts[name]
	h.lostData, h.etcdHas = string(h.Files[etcdDir+"/member/id"].Content), ""
	for _, p := range h.under(etcdDir) {
		delete(h.Files, p)
	}
	h.closeTunnels()
}

// Restore puts a file of a host in place while a run is under way. A kubelet that
// goes on trying to start etcd finds it.
func (w *World) Restore(name, path, content string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.hosts[name]
	h.Put(path, 0o600, content)
	if h.active("kubelet.service") {
		h.startEtcd()
	}
}

func (h *Host) endPower() {
	h.off = true
	h.steps = map[string]*step{}
	h.orphans, h.apiEnded, h.etcdHas = false, false, ""
	h.drained, h.enables = map[string]bool{}, map[string]time.Time{}
	h.failing, h.podsRead, h.Bridge = nil, "", ""
	h.unheard = true
	for _, u := range h.Units {
		u.Active, u.Runs = false, ""
	}
	for _, p := range h.under("/run") {
		delete(h.Files, p)
	}
	h.closeTunnels()
}

// boot starts what is enabled.
func (h *Host) boot() {
	h.off = false
	h.boots++
	h.Sysctls, h.Reloaded = h.sums("/etc/sysctl.d"), h.sums("/etc/systemd/system")
	for _, unit := range slices.Sorted(maps.Keys(h.Units)) {
		if h.Units[unit].Enabled || unit == "systemd-modules-load.service" {
			_ = h.start(nil, unit) // systemd goes on without it
		}
	}
	h.w.expected()
}

func (h *Host) bootID() string {
	if h.boots == 0 {
		return "boot-" + h.name
	}
	return fmt.Sprintf("boot-%s-%d", h.name, h.boots)
}

// Back waits until every host is up, connected and whole again; a broken disk
// is replaced by one that holds the same.
func (w *World) Back() {
	w.mu.Lock()
	for _, h := range w.hosts {
		h.ReadOnly = false
	}
	w.mu.Unlock()
	for {
		w.mu.Lock()
		away := false
		for _, h := range w.hosts {
			now := time.Now()
			away = away || h.off && !h.gone || h.lost() || now.Before(h.etcdBack) || now.Before(h.isolatedUntil)
		}
		w.mu.Unlock()
		if !away {
			return
		}
		<-time.After(time.Second)
	}
}

// tunnel is a connection through one host to another.
type tunnel struct {
	net.Conn
	via, to *Host
}

func (t *tunnel) Close() error {
	t.via.w.mu.Lock()
	delete(t.via.tunnels, t)
	delete(t.to.tunnels, t)
	t.via.w.mu.Unlock()
	return t.Conn.Close()
}

// closeTunnels ends every connection through the host and to it.
func (h *Host) closeTunnels() {
	for t := range h.tunnels {
		delete(t.via.tunnels, t)
		delete(t.to.tunnels, t)
		t.Conn.Close()
	}
}
