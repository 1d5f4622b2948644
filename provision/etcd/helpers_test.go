package etcd

import (
	"fmt"
	"slices"
	"time"

	"github.com/ha-install/ha-install/provision/units"
)

// The pure tests describe clusters by what is wrong with them; everything
// else is healthy. Members are cp-1..cp-n, IDs 1..n, cp-1 leads at term 7.

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const cluster = MemberID(0x14bfbf98a1b2c3d4)

func peerURL(i int) string { return fmt.Sprintf("https://10.0.0.%d:2380", i) }

func name(i int) string { return fmt.Sprintf("cp-%d", i) }

type fault func(*Observation)

// observed makes an observation of n healthy voters and applies the faults.
func observed(n int, faults ...fault) Observation {
	o := Observation{At: t0, Write: &Write{Latency: units.Seconds(5 * time.Millisecond)}}
	list := listOf(n)
	for i := 1; i <= n; i++ {
		o.Hosts = append(o.Hosts, Host{Name: name(i), PeerURL: peerURL(i)})
		o.Views = append(o.Views, healthyView(i, list))
	}
	o.History = []Sample{{At: t0.Add(-1100 * time.Millisecond), Leader: 1, Term: 7}}
	for _, f := range faults {
		f(&o)
	}
	return o
}

func listOf(n int) []Listed {
	var l []Listed
	for i := 1; i <= n; i++ {
		l = append(l, Listed{ID: MemberID(i), Name: name(i), PeerURLs: []string{peerURL(i)}})
	}
	return l
}

func healthyView(i int, list []Listed) View {
	s := Status{
		ClusterID: cluster, MemberID: MemberID(i), Leader: 1, Term: 7, RaftIndex: 61042, AppliedIndex: 61042,
		Revision: 500, DBSize: 38 << 20, DBInUse: 20 << 20, DBQuota: 8 << 30, Version: "3.6.8",
	}
	first, last := s, s
	ok := Read{Done: true, Latency: units.Seconds(4 * time.Millisecond)}
	return View{
		Host: name(i), PeerURL: peerURL(i), First: &first, Last: &last,
		Local: list, Agreed: list, Serializable: ok, Linearizable: ok,
	}
}

// silence makes a member unanswering, with what each vantage point saw.
func silence(i int, since time.Duration, attempts ...Attempt) fault {
	return func(o *Observation) {
		v := &o.Views[i-1]
		*v = View{Host: v.Host, PeerURL: v.PeerURL, Attempts: attempts, DownSince: o.At.Add(-since)}
	}
}

// dead: its own host says that nothing listens.
func dead(i int) fault {
	return silence(i, 3*time.Minute, Attempt{Via: name(i), Outcome: Refused})
}

// poweredOff: SSH fails and the others cannot connect.
func poweredOff(i int) fault {
	return silence(i, 190*time.Second, Attempt{Via: name(i), Outcome: TimedOut, Err: "timeout"},
		Attempt{Via: name(i%3 + 1), Outcome: Refused}, Attempt{Via: name((i+1)%3 + 1), Outcome: Refused})
}

// unseen: SSH fails and there is nobody else to look from.
func unseen(i int) fault {
	return silence(i, time.Second, Attempt{Via: name(i), Outcome: VantageDown, Err: "no route to host"})
}

func hung(i int) fault {
	return silence(i, 5*time.Second, Attempt{Via: name(i), Outcome: Hung})
}

// ofBefore serves no client, and tells its peers of another cluster.
func ofBefore(i int) fault {
	return func(o *Observation) {
		hung(i)(o)
		o.Views[i-1].PeerCluster = 900
	}
}

func unverified(i int) fault {
	return silence(i, time.Second, Attempt{Via: name(i), Outcome: Rejected, Err: "tls: unknown authority"})
}

func edit(i int, f func(*View)) fault {
	return func(o *Observation) { f(&o.Views[i-1]) }
}

// leaderless: it answers, but without quorum.
func leaderless(i int) fault {
	return edit(i, func(v *View) {
		v.First.Leader, v.Last.Leader = 0, 0
		v.Agreed, v.AgreedErr = nil, "etcdserver: no leader"
		v.Linearizable.Err = "etcdserver: no leader"
	})
}

// noWrite belongs to every cluster without quorum.
func noWrite(o *Observation) {
	o.Write = nil
	o.AlarmErr = "no member has a leader"
}

// extra lists one more member, without a host unless hosted.
func extra(l Listed, hosted bool) fault {
	return func(o *Observation) {
		for i := range o.Views {
			if v := &o.Views[i]; v.Last != nil {
				if v.Agreed != nil {
					v.Agreed = append(v.Agreed[:len(v.Agreed):len(v.Agreed)], l)
				}
				v.Local = append(v.Local[:len(v.Local):len(v.Local)], l)
			}
		}
		host := ""
		if hosted {
			host = fmt.Sprintf("cp-%d", len(o.Hosts)+1)
			o.Hosts = append(o.Hosts, Host{Name: host, PeerURL: l.PeerURLs[0]})
		}
		o.Views = append(o.Views, View{Host: host, PeerURL: l.PeerURLs[0], DownSince: o.At.Add(-3 * time.Minute),
			Attempts: []Attempt{{Via: "cp-1", Outcome: Refused}}})
	}
}

// learnerAt makes member i a learner that has applied up to index.
func learnerAt(i int, index uint64) fault {
	return func(o *Observation) {
		for k := range o.Views {
			for _, l := range []*[]Listed{&o.Views[k].Local, &o.Views[k].Agreed} {
				if *l == nil {
					continue
				}
				c := append([]Listed(nil), *l...)
				c[i-1].Learner = true
				*l = c
			}
		}
		v := &o.Views[i-1]
		v.First.Learner, v.Last.Learner, v.Last.AppliedIndex = true, true, index
		v.Local, v.Agreed, v.Linearizable = nil, nil, Read{}
	}
}

func history(keys ...string) fault {
	return func(o *Observation) {
		o.History = []Sample{{At: t0.Add(-1100 * time.Millisecond), Leader: 1, Term: 7, Disagrees: keys}}
	}
}

func alarm(i int, kind string) fault {
	return func(o *Observation) {
		o.Alarms = append(o.Alarms, Alarm{Member: MemberID(i), Kind: kind})
		if kind == "NOSPACE" {
			o.Write = &Write{Err: "etcdserver: mvcc: database space exceeded"}
		}
	}
}

func hashesOf(sums ...uint32) fault {
	return func(o *Observation) {
		o.Hashed = true
		for i, s := range sums {
			o.Views[i].Hash = &Hash{Revision: 500, CompactRevision: 100, Sum: s}
		}
	}
}

// late: it answers, but its read through quorum not in time.
func late(i int) fault {
	return edit(i, func(v *View) {
		v.Agreed, v.AgreedErr = nil, "timeout"
		v.Linearizable = Read{Done: true, Late: true, Err: "timeout"}
	})
}

func hungFor(i int, d time.Duration) fault {
	return silence(i, d, Attempt{Via: name(i), Outcome: Hung})
}

// timedOut: SSH fails, and the first master, which works, gets no connection.
func timedOut(i int) fault {
	return silence(i, time.Minute, Attempt{Via: name(i), Outcome: TimedOut, Err: "timeout"}, Attempt{Via: name(1), Outcome: TimedOut})
}

// following: it follows a leader of its own, at a term of its own.
func following(i int, leader MemberID, term uint64) fault {
	return edit(i, func(v *View) { v.Last.Leader, v.Last.Term = leader, term })
}

// noHost takes a member's host out of the inventory.
func noHost(i int) fault {
	return func(o *Observation) {
		o.Hosts = slices.Delete(slices.Clone(o.Hosts), i-1, i)
		o.Views[i-1].Host = ""
	}
}
