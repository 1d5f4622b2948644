package provision

import (
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
)

// The thresholds of what is asked of hosts; etcd's own lie with etcd.
const (
	certificateWarn   = 30 * 24 * time.Hour
	certificateRefuse = 24 * time.Hour // renewal excepted
	clockWarn         = 500 * time.Millisecond
	clockRefuse       = 60 * time.Second // a join
	diskWarn          = 0.85
	diskRefuse        = 0.95
)

// Conclude judges what was seen: it fills in State, Operations, Problems,
// Warnings and Thresholds. The same facts always give the same conclusion.
func (st *Status) Conclude() {
	c := conclusion{st: st, problems: []string{}, warnings: append([]string{}, st.Quorum.Warnings...), crossed: append([]etcd.Crossing{}, st.Quorum.Crossed...)}
	masters := 0
	for _, h := range st.Hosts {
		c.host(h)
		if h.Role == inventory.RoleControlPlane {
			masters++
		}
	}
	for _, m := range st.Quorum.Members {
		if m.Ghost {
			c.problem("etcd member %s (%s) is on no host of the inventory", m.ID, m.Name)
		}
	}
	for _, a := range st.Quorum.Alarms {
		c.problem("etcd: %s alarm of member %s%s", a.Kind, a.Member, etcd.AlarmRemedy(a.Kind))
	}
	c.clocks()
	c.endpoint(masters)
	c.backups()
	if st.LeaderErr != "" {
		c.problem("leaders: %s", st.LeaderErr)
	}
	st.Problems, st.Warnings, st.Thresholds = c.problems, c.warnings, c.crossed
	st.Operations = c.operations()
	if st.State = st.Quorum.State; st.State == etcd.Pass && len(st.Problems) > 0 {
		st.State = etcd.Degraded
	}
}

// conclusion is the work space of Conclude.
type conclusion struct {
	st       *Status
	problems []string
	warnings []string
	crossed  []etcd.Crossing
}

func (c *conclusion) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// cross files a threshold that was crossed; the refusing ones are problems.
func (c *conclusion) cross(x etcd.Crossing) {
	c.crossed = append(c.crossed, x)
	if x.Refuses {
		c.problems = append(c.problems, x.Text)
	} else {
		c.warnings = append(c.warnings, x.Text)
	}
}

func (c *conclusion) host(h HostStatus) {
	if h.SSH != ok {
		if strings.HasPrefix(h.SSH, h.Name+": ") {
			c.problem("%s", h.SSH)
		} else {
			c.problem("%s: %s", h.Name, h.SSH)
		}
		return
	}
	for _, part := range []struct{ name, state, good string }{
		{"apiserver", h.APIServer, ok}, {"controller-manager", h.ControllerManager, ok}, {"scheduler", h.Scheduler, ok},
		{"kubelet", h.Kubelet, ok}, {"node", h.Node, "Ready"},
	} {
		if part.state != "" && part.state != part.good {
			c.problem("%s: %s: %s", h.Name, part.name, part.state)
		}
	}
	for _, component := range sortedKeys(h.Pods) {
		if state := h.Pods[component]; state != "ready" {
			c.problem("%s: %s: %s", h.Name, component, state)
		}
	}
	for _, unit := range sortedKeys(h.Units) {
		if h.Units[unit] != ok {
			c.problem("%s: %s: %s", h.Name, unit, h.Units[unit])
		}
	}
	c.backend(h)
	c.certificates(h)
	for _, d := range h.Disks {
		if d.Used >= diskWarn {
			c.cross(etcd.Crossing{
				Subject: h.Name, What: "disk " + d.Path, Value: d.Used, Unit: "ratio", Warn: diskWarn, Refuse: diskRefuse, Refuses: d.Used >= diskRefuse,
				Text: fmt.Sprintf("%s: the file system of %s is %.0f %% full", h.Name, d.Path, d.Used*100),
			})
		}
	}
}

// certificates warns of those that run out soon, once for each host.
func (c *conclusion) certificates(h HostStatus) {
	var soon []string
	for _, e := range h.Certificates {
		if e.NotAfter.Sub(c.st.At) < certificateWarn {
			soon = append(soon, path.Base(e.File))
		}
	}
	first := h.Expires
	if first == nil || first.NotAfter.Sub(c.st.At) >= certificateWarn {
		return
	}
	left := first.NotAfter.Sub(c.st.At)
	x := etcd.Crossing{
		Subject: h.Name, What: "certificate " + first.File, Value: left.Seconds(), Unit: "seconds",
		Warn: certificateWarn.Seconds(), Refuse: certificateRefuse.Seconds(), Refuses: left < certificateRefuse,
		Text: fmt.Sprintf("%s: certificate %s runs out at %s", h.Name, first.File, first.NotAfter.UTC().Format(time.DateTime)),
	}
	if left <= 0 {
		x.Text = fmt.Sprintf("%s: certificate %s ran out at %s", h.Name, first.File, first.NotAfter.UTC().Format(time.DateTime))
	}
	if len(soon) > 1 {
		x.Text += fmt.Sprintf(" (%d within 30 days: %s)", len(soon), strings.Join(soon, ", "))
	}
	c.cross(x)
}

// clocks compares the hosts with this machine, and when they agree with each
// other says whose clock is the odd one.
func (c *conclusion) clocks() {
	var low, high, sure time.Duration
	seen, off := 0, 0
	for _, h := range c.st.Hosts {
		if h.Clock == nil {
			continue
		}
		o := h.Clock.Offset.Duration()
		if seen == 0 {
			low, high = o, o
		}
		low, high, sure = min(low, o), max(high, o), max(sure, h.Clock.sureOffset())
		if seen++; h.Clock.sureOffset() > clockWarn {
			off++
		}
	}
	if off == 0 {
		return
	}
	if off == seen && seen > 1 && high-low < clockWarn {
		c.cross(clockCrossing("operator", sure, false, fmt.Sprintf("the hosts' clocks agree with each other and are %+.3f s from this machine's: set the clock of this one", low.Seconds())))
		return
	}
	for _, h := range c.st.Hosts {
		if h.Clock != nil && h.Clock.sureOffset() > clockWarn {
			c.cross(clockCrossing(h.Name, h.Clock.sureOffset(), h.Clock.sureOffset() > clockRefuse, fmt.Sprintf("%s: its clock is %s from this machine's", h.Name, h.Clock)))
		}
	}
}

func clockCrossing(who string, off time.Duration, refuses bool, text string) etcd.Crossing {
	return etcd.Crossing{Subject: who, What: "clock offset", Value: off.Seconds(), Unit: "seconds",
		Warn: clockWarn.Seconds(), Refuse: clockRefuse.Seconds(), Refuses: refuses, Text: text}
}

func (c *conclusion) endpoint(masters int) {
	e := c.st.Endpoint
	if e.Err != "" {
		c.problem("endpoint %s: %s", e.Address, e.Err)
	} else if n := len(e.Backends); n < masters {
		c.problem("endpoint %s: %d of %d masters answer there: %s", e.Address, n, masters, strings.Join(e.Backends, ", "))
	}
	for _, v := range e.From {
		switch {
		case e.Err != "": // said above
		case v.Err != "":
			c.problem("endpoint %s from %s: %s", e.Address, v.Host, v.Err)
		case len(v.Backends) < len(e.Backends):
			c.warnings = append(c.warnings, fmt.Sprintf("endpoint %s from %s: only %s answered", e.Address, v.Host, strings.Join(v.Backends, ", ")))
		}
	}
	if o := e.Operator; o != nil && o.Err != "" && len(o.Backends) == 0 {
		c.warnings = append(c.warnings, fmt.Sprintf("endpoint %s from this machine: %s", e.Address, o.Err))
	}
}

// operations are the projections, with what the hosts add to them: nothing but
// a renewal is begun beside a certificate that is about to run out.
func (c *conclusion) operations() []etcd.Decision {
	decisions := etcd.Projections(c.st.Quorum)
	for _, x := range c.crossed {
		if !x.Refuses || !strings.HasPrefix(x.What, "certificate ") {
			continue
		}
		for i := range decisions {
			d := &decisions[i]
			if d.Allowed && d.Op.Kind != etcd.OpSnapshot && d.Op.Kind != etcd.OpRemoveDead {
				d.Allowed, d.Reason, d.Run = false, x.Text, "renew the certificates first: kubeadm certs renew all on "+x.Subject
			}
		}
	}
	return decisions
}
