package sim

import (
	"strings"
	"time"

	"github.com/ha-install/ha-install/test/kubeapi"
)

// failure is an injection of a drill. It lasts as long as the process that holds
// the host for an operator, and no longer than its limit.
type failure struct {
	kind, process string
	units         []string // that it has ended
	until         time.Time
	by            *lock
	dropped       bool // balancers have ended the sessions with its API server
}

const (
	failurePoll = 200 * time.Millisecond // how often its unit looks after the holder
	leaseTime   = 15 * time.Second       // of the scheduler and the controller-manager
)

// Struck says whether a drill's injection is on the host.
func (h *Host) Struck() bool {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return h.failing != nil
}

// Strike begins an injection; see the product's script for its arguments.
func (h *Host) Strike(args []string, limit time.Duration) error {
	if h.failing != nil {
		return h.failure(args, 1, "an earlier injection is not undone")
	}
	f := &failure{kind: args[0], until: time.Now().Add(limit), by: h.holder}
	if f.kind == "component" {
		f.process = args[1]
	}
	h.failing = f
	if f.kind == "master" || f.process == "etcd" {
		h.unheard = true
	}
	if f.kind == "partition" {
		h.isolated, h.isolatedUntil = time.Now(), f.until
	}
	if f.kind == "master" || f.kind == "balancer" {
		for _, unit := range []string{"keepalived.service", "haproxy.service"} {
			if h.active(unit) {
				f.units = append(f.units, unit)
				h.halt(unit)
			}
		}
	}
	h.closeTunnels()
	h.w.going.Go(func() { h.hold(f) })
	return nil
}

// hold is the injection's unit.
func (h *Host) hold(f *failure) {
	for began := time.Now(); ; {
		<-time.After(failurePoll)
		h.w.mu.Lock()
		over := h.failing != f || h.w.ended
		if !over && time.Since(began) > leaseTime {
			h.loseLeases(f)
		}
		if !over && !f.dropped && !h.apiUp() {
			f.dropped = true
			h.closeTunnels()
		}
		if !over && (h.holder != f.by || f.by == nil || time.Now().After(f.until)) {
			h.mend()
			over = true
		}
		h.w.mu.Unlock()
		if over {
			return
		}
	}
}

// Mend ends the injection and says whether there was one.
func (h *Host) Mend() bool {
	was := h.failing != nil
	h.mend()
	return was
}

func (h *Host) mend() {
	f := h.failing
	if f == nil {
		return
	}
	h.failing = nil
	if f.kind == "partition" {
		h.isolatedUntil = time.Now()
	}
	for _, unit := range f.units {
		_ = h.start(nil, unit) // it ran before
	}
}

// hit says whether a component of the host is away.
func (h *Host) hit(component string) bool {
	f := h.failing
	return f != nil && (f.kind == "master" || f.process != "" && strings.HasPrefix(component, f.process) || component == "kubelet" && f.kind == "component")
}

// loseLeases gives the leases of what is away to somebody else.
func (h *Host) loseLeases(f *failure) {
	for _, component := range []string{"kube-scheduler", "kube-controller-manager"} {
		lease := h.w.API.Get("leases", "kube-system", component)
		if !h.hit(component) && f.kind != "partition" || lease == nil {
			continue
		}
		spec := lease["spec"].(kubeapi.Object)
		if holder, _ := spec["holderIdentity"].(string); !strings.HasPrefix(holder, h.calls()+"_") {
			continue
		}
		for _, other := range h.w.sorted() {
			if other != h && other.apiUp() {
				spec["holderIdentity"] = other.calls() + "_y"
				h.w.API.Set("leases", "kube-system", component, lease)
				break
			}
		}
	}
}
