package sim

import "fmt"

const survivorDir = etcdDir + "/survivor"

// Reboot takes a host's power and gives it back at once: what only ran is gone, and
// its etcd answers nobody before it has seen a quorum.
func (w *World) Reboot(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.hosts[name]
	h.endPower()
	h.boot()
}

// ReadData takes a snapshot of a copy of the host's data, with etcd and its kubelet
// ended.
func (h *Host) ReadData() []func() error {
	fail := func(why string) error { return h.failure([]string{"sh"}, 1, why) }
	return []func() error{
		func() error {
			for _, p := range h.under(survivorDir) {
				if p != survivorDir+"/program" {
					delete(h.Files, p)
				}
			}
			if h.etcdProcess() {
				h.Put(survivorDir+"/program", 0o700, "etcd")
			}
			if h.Files[survivorDir+"/program"].Content == nil {
				return fail("no etcd runs here whose program could read the data")
			}
			return nil
		},
		func() error { h.halt("kubelet.service"); return nil },
		func() error { h.apiEnded = true; return nil },
		func() error { h.etcdHas, h.orphans = "", false; return nil },
		func() error {
			for _, p := range h.under(memberDir) {
				h.Files[survivorDir+"/data"+p[len(etcdDir):]] = h.Files[p]
			}
			if h.Unreadable {
				return fail("etcd does not open a copy of the data")
			}
			return nil
		},
		func() error {
			h.Put(survivorDir+"/snapshot.db", 0o600, string(h.database()))
			h.Put(survivorDir+"/status.json", 0o600, fmt.Sprintf(`[{"Endpoint":"unix://client.sock:0","Status":{"header":{"cluster_id":%d,"member_id":%s,"revision":%d,"raft_term":3},"version":"3.6.8"}}]`,
				h.w.etcd.cluster(), h.data(), max(h.w.etcd.revision-h.Lags, 1)))
			return nil
		},
		func() error {
			for _, p := range h.under(survivorDir + "/data") {
				delete(h.Files, p)
			}
			return nil
		},
	}
}
