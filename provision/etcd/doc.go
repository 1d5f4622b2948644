// Package etcd proves quorum. It works in three layers: Members gathers an
// Observation from every member over its host's own connection, Assess and
// Project decide (pure, no I/O), and the methods of Members act.
package etcd

import "time"

// The budgets and thresholds of the gate. Durations that bound a single
// exchange are small, because a member that hangs must be found, not waited for.
const (
	DialTimeout = 2 * time.Second // one TCP connection with its TLS handshake
	CallTimeout = 5 * time.Second // one request

	// ElectionTimeout is what kubeadm leaves at etcd's default; leader and term
	// must be the same over at least this span before they count as stable.
	ElectionTimeout = time.Second

	// MaxAge is how old the last sample may be when we act on it.
	MaxAge = 10 * time.Second

	// MinDead is how long a member must have been dead from every vantage
	// point before it may be removed as dead.
	MinDead = 2 * time.Minute

	PreGateBudget     = 60 * time.Second // before a mutation
	JoinGateBudget    = 8 * time.Minute  // after a join
	RestartGateBudget = 5 * time.Minute  // after one static pod's restart

	// hungIsLost is how long a member must have left its open port without an
	// answer before it is more than late.
	hungIsLost = 10 * time.Second

	// QuotaWarn and QuotaRefuse are of a database over its quota: from the one on
	// it warns, from the other on changes are refused.
	QuotaWarn   = 0.80
	QuotaRefuse = 0.95

	slowRead       = 100 * time.Millisecond // a linearizable read above this warns
	hashTimeout    = 60 * time.Second       // HashKV reads the whole database
	observeBudget  = 6 * time.Second        // a whole observation, whatever hangs
	sampleLifetime = 30 * time.Second
)
