package etcd

import (
	"context"
	"time"
)

// hedge is how long a host's own connection has before others are asked too.
const hedge = 500 * time.Millisecond

// answer is how one try to reach a member ended.
type answer struct {
	conn    *conn
	status  *Status
	attempt Attempt
}

// find gets a connection to a target's member. The own connection is given a
// head start; then every other host is a vantage point, all at once, so that
// "SSH is down" and "etcd is down" can be told apart. A ghost, which has no
// connection of its own, is looked for through the others only.
func (m *Members) find(ctx context.Context, t Target, v *View) (*conn, *Status) {
	own := make(chan answer, 1)
	ownDone := t.Dial == nil
	start := hedge
	if ownDone || m.wasDown(t.PeerURL) {
		start = 0
	}
	if !ownDone {
		go func() { own <- m.try(ctx, t.ClientURL, t) }()
	}
	timer := time.NewTimer(start)
	defer timer.Stop()
	select {
	case a := <-own:
		if a.conn != nil {
			return a.conn, a.status
		}
		ownDone = true
		v.Attempts = append(v.Attempts, a.attempt)
		if o := a.attempt.Outcome; o == Refused || o == Rejected {
			return nil, nil // its own host is witness enough
		}
	case <-timer.C:
	}
	others, asked := m.askOthers(ctx, t)
	peers := m.askPeerPort(ctx, t)
	for asked > 0 || !ownDone {
		select {
		case a := <-own:
			ownDone = true
			if a.conn != nil {
				return a.conn, a.status
			}
			v.Attempts = append(v.Attempts, a.attempt)
		case a := <-others:
			asked--
			if a.conn == nil {
				v.Attempts = append(v.Attempts, a.attempt)
				continue
			}
			if !ownDone {
				v.Attempts = append(v.Attempts, Attempt{Via: t.Name, Outcome: TimedOut, Err: "slow or down"})
			}
			v.Via = a.attempt.Via
			return a.conn, a.status
		}
	}
	v.PeerCluster = <-peers
	return nil, nil
}

func (m *Members) try(ctx context.Context, url string, via Target) answer {
	c, s, a := m.reach(ctx, url, via)
	return answer{c, s, a}
}

// askOthers looks for t's member from all other hosts at once.
func (m *Members) askOthers(ctx context.Context, t Target) (<-chan answer, int) {
	others := make(chan answer, len(m.targets))
	asked := 0
	for _, via := range m.targets {
		if via.Name == t.Name {
			continue
		}
		asked++
		go func() { others <- m.try(ctx, t.remoteURL(), via) }()
	}
	return others, asked
}
