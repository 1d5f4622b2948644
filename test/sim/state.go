package sim

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/test/kubeapi"
)

// State is a world at rest: all that its hosts keep, and the steps that are
// under way on them. It does not change, and any number of worlds can go on
// from it.
type State struct {
	mayEnd bool
	hosts  map[string]*Host
	etcd   etcdState
	api    *kubeapi.Server
	audits audit
	script map[string]Script
	talks  map[string]Talk
	steps  map[string]StepScript
}

// Keep is the world as it is now.
func (w *World) Keep() *State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.freeze()
}

func (w *World) freeze() *State {
	s := &State{hosts: map[string]*Host{}, etcd: w.etcd.clone(), api: w.API.Clone(), audits: w.audits, script: w.script, talks: w.talks, steps: w.steps, mayEnd: w.MayEnd}
	s.audits.broken = slices.Clone(w.audits.broken)
	for name, h := range w.hosts {
		s.hosts[name] = &Host{name: name}
		s.hosts[name].take(h)
	}
	return s
}

// Steps is how many steps are under way.
func (s *State) Steps() int {
	n := 0
	for _, h := range s.hosts {
		n += len(h.steps)
	}
	return n
}

// World goes on from the state: steps that were under way go on, hosts that
// were away are back. Hosts of the inventory that the state does not have are bare.
func (s *State) World(t testing.TB, c *inventory.Cluster) *World {
	w := New(t, c)
	w.etcd, w.API, w.audits, w.script, w.talks, w.steps = s.etcd.clone(), s.api.Clone(), s.audits, s.script, s.talks, s.steps
	w.audits.broken = slices.Clone(s.audits.broken)
	control(w.API)
	for name, h := range s.hosts {
		if o := w.hosts[name]; o != nil {
			o.take(h)
		}
	}
	w.MayEnd = s.mayEnd && s.Steps() > 0 // they go on before any run says so
	w.etcd.electAt = time.Time{}
	for _, h := range w.sorted() {
		h.etcdUp = time.Time{}
		if h.off && !h.gone {
			h.boot()
		}
		if f := h.failing; f != nil { // whoever held the host is gone
			f.by = nil
			w.going.Go(func() { h.hold(f) })
		}
		for _, s := range h.steps {
			w.going.Go(func() { h.proceed(s) })
		}
	}
	return w
}

// take copies what a host keeps.
func (h *Host) take(from *Host) {
	h.Files, h.Packages, h.Images = maps.Clone(from.Files), maps.Clone(from.Packages), maps.Clone(from.Images)
	h.PackageVersions = maps.Clone(from.PackageVersions)
	h.Sysctls, h.Reloaded, h.Rules, h.Bridge, h.Down = from.Sysctls, from.Reloaded, from.Rules, from.Bridge, from.Down
	h.Aside, h.Lost = slices.Clone(from.Aside), slices.Clone(from.Lost)
	h.Clock, h.Filled, h.Epoch, h.by = from.Clock, from.Filled, from.Epoch, from.by
	h.Journals = map[string][]string{}
	for id, lines := range from.Journals {
		h.Journals[id] = slices.Clone(lines)
	}
	h.DpkgLocked, h.NoEtcdutl, h.Unreadable, h.Lags, h.waits = from.DpkgLocked, from.NoEtcdutl, from.Unreadable, from.Lags, from.waits
	h.StepFails, h.KubeletDies, h.ReadOnly, h.Mute, h.Behind = from.StepFails, from.KubeletDies, from.ReadOnly, from.Mute, from.Behind
	h.gone, h.lostData = from.gone, from.lostData
	h.off, h.boots, h.orphans, h.etcdRuns, h.unheard = from.off, from.boots, from.orphans, from.etcdRuns, from.unheard
	h.apiRuns, h.kubeletRuns, h.podsRead, h.DoesNotStart = from.apiRuns, from.kubeletRuns, from.podsRead, from.DoesNotStart
	h.apiEnded, h.etcdHas, h.drained, h.enables = from.apiEnded, from.etcdHas, maps.Clone(from.drained), maps.Clone(from.enables)
	h.isolated, h.isolatedUntil = from.isolated, from.isolatedUntil
	if from.failing != nil {
		now := *from.failing
		h.failing = &now
	}
	h.Units = map[string]*Unit{}
	for name, u := range from.Units {
		now := *u
		h.Units[name] = &now
	}
	h.steps = map[string]*step{}
	for id, s := range from.steps {
		now := *s
		h.steps[id] = &now
	}
}
