package sim

import (
	"strings"
	"time"
)

// Exchange is what a master's upgrade does: certificates, then with the kubelet
// stopped binaries and manifests, and the kubelet again.
func (h *Host) Exchange(config, staged string, restart bool) []func() error {
	acts := []func() error{
		func() error { return h.beside(staged) },
		h.renew,
		h.note,
		func() error { h.halt("kubelet.service"); return nil },
		func() error { h.apiEnded = true; return nil },
		func() error { h.EndEtcd(); return nil },
		func() error { return h.settle(staged) },
		func() error { h.Reloaded = h.sums("/etc/systemd/system"); return nil },
	}
	if restart {
		acts = append(acts, func() error { return h.start(nil, "containerd.service") })
	}
	return append(acts,
		func() error { return h.EtcdManifest(config) },
		func() error { return h.ControlPlane(config) },
		h.StartKubelet,
		h.unnote,
	)
}

// exchanging is the note of an exchange that is under way.
const exchanging = "/var/lib/ha-install/owed/upgrade"

func (h *Host) note() error {
	h.Put(exchanging, 0o644, "")
	return nil
}

func (h *Host) unnote() error {
	delete(h.Files, exchanging)
	return nil
}

// ExchangeWorker is what a worker's upgrade does.
func (h *Host) ExchangeWorker(staged string, restart bool) []func() error {
	acts := []func() error{
		func() error { return h.beside(staged) },
		func() error {
			if h.w.leader() == nil {
				return h.failure([]string{"kubeadm", "upgrade", "node"}, 1, "no API server answers")
			}
			h.Put("/var/lib/kubelet/config.yaml", 0o644, "config")
			return nil
		},
		h.note,
		func() error { h.halt("kubelet.service"); return nil },
		func() error { return h.settle(staged) },
		func() error { h.Reloaded = h.sums("/etc/systemd/system"); return nil },
	}
	if restart {
		acts = append(acts, func() error { return h.start(nil, "containerd.service") })
	}
	return append(acts, func() error { return h.start(nil, "kubelet.service") }, h.unnote)
}

// renew is `kubeadm certs renew all`.
func (h *Host) renew() error {
	for _, l := range leaves {
		h.write(l, time.Now().Add(lifetime))
	}
	return nil
}

// besideSuffix is what new binaries are called beside the old ones.
const besideSuffix = ".ha-install"

// beside copies what is staged to where it will be needed.
func (h *Host) beside(staged string) error {
	for _, path := range h.under(staged) {
		f := h.Files[path]
		h.Put(strings.TrimPrefix(path, staged)+besideSuffix, f.Mode, string(f.Content))
	}
	return nil
}

// settle gives what is staged its own name.
func (h *Host) settle(staged string) error {
	for _, path := range h.under(staged) {
		at := strings.TrimPrefix(path, staged)
		f, ok := h.Files[at+besideSuffix]
		if !ok {
			return h.failure([]string{"mv", at + besideSuffix, at}, 1, "no such file")
		}
		h.Put(at, f.Mode, string(f.Content))
		delete(h.Files, at+besideSuffix)
	}
	return nil
}

// Copy copies a directory, unless there is a copy of it.
func (h *Host) Copy(from, to string) error {
	if len(h.under(to)) > 0 {
		return nil
	}
	for _, path := range h.under(from) {
		f := h.Files[path]
		h.Put(to+strings.TrimPrefix(path, from), f.Mode, string(f.Content))
	}
	return nil
}

// Runs are the versions of the API server and the kubelet that the host runs.
func (h *Host) Runs() (apiServer, kubelet string) { return h.apiRuns, h.kubeletRuns }

// Older are those of "name version ..." that the host has in an older version;
// the simulator's versions are single digits.
func (h *Host) Older(args []string) []byte {
	var out []byte
	for i := 0; i+1 < len(args); i += 2 {
		if is, ok := h.PackageVersions[args[i]]; ok && h.Packages[args[i]] == installed && is < args[i+1] {
			out = append(out, args[i]+"\n"...)
		}
	}
	return out
}
