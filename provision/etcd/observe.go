package etcd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ha-install/ha-install/provision/units"
)

// catchUpBudget is how long a follower may need to apply what the leader had.
const catchUpBudget = 500 * time.Millisecond

// Options tune an observation.
type Options struct {
	ReadOnly bool // make no leased write
	Hash     bool // compare HashKV too
	Disk     bool // read the members' fsync latency too
	Inputs   bool // keep the facts beside each row of the verdict
	// NoSpace judges as if no NOSPACE alarm were raised, and tries no write: for
	// what has to be done before one can be taken back.
	NoSpace bool
}

// Look observes and judges once, and remembers the sample.
func (m *Members) Look(ctx context.Context, o Options) Verdict {
	o.ReadOnly = o.ReadOnly || o.NoSpace
	obs := m.Observe(ctx, o)
	raised := len(obs.Alarms)
	if o.NoSpace {
		obs.Alarms = slices.DeleteFunc(obs.Alarms, func(a Alarm) bool { return a.Kind == KindNoSpace })
	}
	v := Assess(obs)
	if n := raised - len(obs.Alarms); n > 0 {
		v.Warnings = append(v.Warnings, fmt.Sprintf("no write is accepted: %d NOSPACE alarms are raised, and are left out of account here", n))
	}
	if ctx.Err() == nil {
		m.remember(v.Sample())
	}
	return v
}

// Judge looks once, and once more an election timeout later if the first look
// may have caught a change under way and ctx leaves the time for it. It is for
// reports; a mutation needs Gate.
func (m *Members) Judge(ctx context.Context, o Options) Verdict {
	began := time.Now()
	v := m.Look(ctx, o)
	if !v.mayBeChanging() {
		return v
	}
	// A look that is cut short would be worth less than the one we have.
	again := ElectionTimeout + time.Since(began)
	if deadline, bounded := ctx.Deadline(); bounded && time.Until(deadline) < again {
		return v
	}
	if pause(ctx, ElectionTimeout) != nil {
		return v
	}
	return m.Look(ctx, o)
}

// Observe asks every member at once. It takes no longer than about six
// seconds whatever hangs, and always returns what it has seen.
func (m *Members) Observe(ctx context.Context, o Options) Observation {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, observeBudget)
	defer cancel()
	o.ReadOnly = o.ReadOnly || m.readOnly
	obs := Observation{ReadOnly: o.ReadOnly, Hashed: o.Hash, Inputs: o.Inputs, Views: make([]View, len(m.targets))}
	for _, t := range m.targets {
		obs.Hosts = append(obs.Hosts, Host{Name: t.Name, PeerURL: t.PeerURL})
	}
	conns := make([]*conn, len(m.targets))
	led := make(chan *conn, len(m.targets)) // members with a leader, as they come
	var once, each sync.WaitGroup
	once.Go(func() { m.askOnce(ctx, led, &obs) })
	for i, t := range m.targets {
		each.Go(func() { obs.Views[i], conns[i] = m.view(ctx, t, led, o) })
	}
	each.Wait()
	close(led)
	for _, g := range m.ghosts(obs.Views) {
		v, c := m.ghostView(ctx, g)
		obs.Views, conns = append(obs.Views, v), append(conns, c)
	}
	once.Wait()
	catchUp(ctx, obs.Views, conns)
	if o.Hash {
		hashAll(whole, obs.Views, conns)
	}
	m.mu.Lock()
	obs.History = slices.Clone(m.history)
	m.mu.Unlock()
	obs.At = m.now()
	return obs
}

// view looks at one target: over its own connection, else through the others.
func (m *Members) view(ctx context.Context, t Target, led chan<- *conn, o Options) (View, *conn) {
	v := View{Host: t.Name, PeerURL: t.PeerURL}
	c, first := m.find(ctx, t, &v)
	m.inOrder(v.Attempts)
	if c != nil {
		v.First = first
		if first.Leader != 0 && !first.Learner {
			led <- c
		}
		var disk sync.WaitGroup
		if o.Disk && v.Via == "" {
			disk.Go(func() {
				p99, _ := fsyncP99(ctx, t)
				v.FsyncP99 = units.Seconds(p99)
			}) // worth a warning at most
		}
		m.details(ctx, c, &v)
		disk.Wait()
	}
	v.DownSince = m.downSince(t.PeerURL, v.Last != nil)
	return v, c
}

// inOrder sorts attempts as the inventory has the hosts, not as they ended.
func (m *Members) inOrder(attempts []Attempt) {
	order := func(a Attempt) int {
		return slices.IndexFunc(m.targets, func(t Target) bool { return t.Name == a.Via })
	}
	slices.SortStableFunc(attempts, func(a, b Attempt) int { return cmp.Compare(order(a), order(b)) })
}

// details asks an answering member everything else, in parallel, and its
// status again at the end: by then it must have applied what the leader had
// at the start.
func (m *Members) details(ctx context.Context, c *conn, v *View) {
	var wg sync.WaitGroup
	// What does not answer must leave the time for the status at the end.
	asked, cancel := ctx, context.CancelFunc(func() {})
	if deadline, bounded := ctx.Deadline(); bounded {
		asked, cancel = context.WithDeadline(ctx, deadline.Add(-lastStatus))
	}
	defer cancel()
	wg.Go(func() { v.Serializable = c.read(asked, clientv3.WithSerializable()) })
	if !v.First.Learner { // a learner serves nothing else
		wg.Go(func() {
			v.Linearizable = repeated(asked, func(ctx context.Context) Read { return c.read(clientv3.WithRequireLeader(ctx)) })
		})
		wg.Go(func() {
			l, err := c.list(asked, true)
			v.Local, v.LocalErr = l, text(err)
		})
		wg.Go(func() {
			r := repeated(asked, func(ctx context.Context) listing {
				l, err := c.list(ctx, false)
				return listing{l, err}
			})
			v.Agreed, v.AgreedErr = r.list, text(r.err)
		})
	}
	wg.Wait()
	s, err := c.status(ctx)
	if err != nil {
		out, why := c.outcome(err)
		v.Attempts = append(v.Attempts, Attempt{Via: viaOf(v), Outcome: out, Err: why})
		return
	}
	v.Last = s
}

// lastStatus is what is kept of a look's time for the status at its end.
const lastStatus = 400 * time.Millisecond

type listing struct {
	list []Listed
	err  error
}

// repeated asks again each election timeout until one of the questions is
// answered, with yes or no: etcd drops what was on its way to a leader that
// died, and says nothing.
func repeated[T any](ctx context.Context, ask func(context.Context) T) T {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan T, int(CallTimeout/ElectionTimeout)+1)
	again := time.NewTicker(ElectionTimeout)
	defer again.Stop()
	for asked := 0; ; asked++ {
		if asked < cap(answers) {
			go func() { answers <- ask(ctx) }()
		}
		select {
		case a := <-answers:
			return a
		case <-again.C:
		}
	}
}

// catchUp gives members a moment to apply what the leader had when we asked it
// first: they were asked at the same time and may have been a few entries behind.
func catchUp(ctx context.Context, views []View, conns []*conn) {
	var leader *Status
	for _, v := range views {
		if f := v.First; f != nil && f.Leader == f.MemberID && (leader == nil || f.Term > leader.Term) {
			leader = f
		}
	}
	if leader == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, catchUpBudget)
	defer cancel()
	var wg sync.WaitGroup
	for i := range views {
		v, c := &views[i], conns[i]
		if c == nil || v.Last == nil || v.Last.ClusterID != leader.ClusterID {
			continue
		}
		wg.Go(func() {
			for v.Last.AppliedIndex < leader.AppliedIndex && pause(ctx, 20*time.Millisecond) == nil {
				if s, err := c.status(ctx); err == nil {
					v.Last = s
				}
			}
		})
	}
	wg.Wait()
}

func viaOf(v *View) string {
	if v.Via != "" {
		return v.Via
	}
	return v.Host
}

// read gets one key of ours that need not exist.
func (c *conn) read(ctx context.Context, opts ...clientv3.OpOption) Read {
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	began := time.Now()
	_, err := c.Get(ctx, probePrefix, opts...)
	return Read{Done: true, Latency: units.Seconds(time.Since(began)), Err: text(err), Late: err != nil && isTimeout(err)}
}

// ghosts are listed members that no target stands for.
func (m *Members) ghosts(views []View) []Listed {
	var out []Listed
	for _, v := range views {
		for _, l := range append(slices.Clone(v.Agreed), v.Local...) {
			known := slices.ContainsFunc(m.targets, func(t Target) bool { return hasURL(l.PeerURLs, t.PeerURL) }) ||
				slices.ContainsFunc(out, func(o Listed) bool { return o.ID == l.ID })
			if !known && len(l.PeerURLs) > 0 {
				out = append(out, l)
			}
		}
	}
	return out
}

// ghostView looks for a member without a host through the hosts that we have.
func (m *Members) ghostView(ctx context.Context, g Listed) (View, *conn) {
	v := View{PeerURL: g.PeerURLs[0]}
	ghost := Target{PeerURL: g.PeerURLs[0]}
	if len(g.ClientURLs) > 0 {
		ghost.RemoteURL = g.ClientURLs[0]
	}
	c, first := m.find(ctx, ghost, &v)
	m.inOrder(v.Attempts)
	if c != nil {
		v.First = first
		m.details(ctx, c, &v)
	}
	v.DownSince = m.downSince(v.PeerURL, v.Last != nil)
	return v, c
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return reason(err)
}
