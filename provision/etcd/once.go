package etcd

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ha-install/ha-install/provision/units"
)

// probePrefix is where our own keys live; the lease removes them if we cannot.
const probePrefix = "/ha-install/probe/"

const probeTTL = 15 // seconds

// onceHedge is how long a request through quorum may be out before it is made
// again: etcd drops what was on its way to a leader that died, and says nothing.
const onceHedge = 1500 * time.Millisecond

// onceResult is what is asked once for the whole cluster.
type onceResult struct {
	alarms   []Alarm
	alarmErr error
	write    *Write
}

func (r onceResult) ok() bool {
	return r.alarmErr == nil && (r.write == nil || r.write.Err == "" || len(r.alarms) > 0)
}

// askOnce takes what goes through quorum once, from the first member with a
// leader; if it fails or is slow there, from the next one that comes.
func (m *Members) askOnce(ctx context.Context, led <-chan *conn, obs *Observation) {
	obs.AlarmErr = "no member has a leader"
	c, ok := <-led
	if !ok {
		return
	}
	results := make(chan onceResult, len(m.targets)+2)
	running, hedged := 0, c
	start := func(c *conn) {
		running++
		go func() { results <- c.once(ctx, obs.ReadOnly) }()
	}
	start(c)
	slow := time.NewTimer(onceHedge)
	defer slow.Stop()
	for running > 0 {
		select {
		case r := <-results:
			running--
			obs.Alarms, obs.AlarmErr, obs.Write = r.alarms, text(r.alarmErr), r.write
			if r.ok() {
				return
			}
			if c, ok := <-led; ok {
				start(c)
			}
		case <-slow.C:
			select {
			case c, ok := <-led:
				if ok {
					hedged = c
				}
			default:
			}
			start(hedged)
		}
	}
}

func (c *conn) once(ctx context.Context, readOnly bool) onceResult {
	var r onceResult
	var wg sync.WaitGroup
	wg.Go(func() { r.alarms, r.alarmErr = c.alarms(ctx) })
	if !readOnly {
		wg.Go(func() { r.write = c.write(ctx) })
	}
	wg.Wait()
	return r
}

// alarms says which member bears which alarm. Status shows every alarm on
// every member and cannot be used for that.
func (c *conn) alarms(ctx context.Context) ([]Alarm, error) {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), CallTimeout)
	defer cancel()
	r, err := c.maint.AlarmList(ctx)
	if err != nil {
		return nil, err
	}
	var out []Alarm
	for _, a := range r.Alarms {
		if a.Alarm != pb.AlarmType_NONE {
			out = append(out, Alarm{Member: MemberID(a.MemberID), Kind: a.Alarm.String()})
		}
	}
	return out, nil
}

// write puts a leased key and takes it back.
func (c *conn) write(ctx context.Context) *Write {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), CallTimeout)
	defer cancel()
	began := time.Now()
	lease, err := c.Grant(ctx, probeTTL)
	if err != nil {
		return &Write{Err: reason(err)}
	}
	_, err = c.Put(ctx, probePrefix+rand.Text(), began.UTC().Format(time.RFC3339Nano), clientv3.WithLease(lease.ID))
	w := &Write{Latency: units.Seconds(time.Since(began)), Err: text(err)}
	// The lease would expire by itself, but its end is a write through quorum as
	// well, and the last thing that is heard of it before somebody acts.
	if _, err := c.Revoke(ctx, lease.ID); err != nil && w.Err == "" {
		w.Err = reason(err)
	}
	return w
}

// hashAll takes HashKV at one revision that every member has: the lowest of
// those that they had after a read through quorum.
func hashAll(ctx context.Context, views []View, conns []*conn) {
	var rev int64
	for _, v := range views {
		if v.Last != nil && !v.Last.Learner && (rev == 0 || v.Last.Revision < rev) {
			rev = v.Last.Revision
		}
	}
	if rev == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hashTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i := range views {
		v, c := &views[i], conns[i]
		if c == nil || v.Last == nil || v.Last.Learner {
			continue
		}
		wg.Go(func() {
			r, err := c.maint.HashKV(ctx, "", rev)
			if err != nil {
				v.HashErr = reason(err)
				return
			}
			v.Hash = &Hash{Revision: rev, CompactRevision: r.CompactRevision, Sum: r.Hash}
		})
	}
	wg.Wait()
}
