package provision

import (
	"bytes"
	"context"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
)

const (
	// readyBudget is how long the hosts may take to find what is to be held.
	readyBudget = 2 * time.Second
	// holdBudget is how long all may take to say that they hold.
	holdBudget = 150 * time.Millisecond
	// holdMost is after how long an API server that is held goes on by itself:
	// before a balancer's second check of it could fail.
	holdMost = 500 * time.Millisecond
)

// holdScript stops the API server of the address $1 where it stands from the
// first line that it reads to the second, or to the end of its input, or for $2
// seconds, whatever becomes of us: who sees to that is there before. It says
// "ready" and "held".
const holdScript = `set -u
` + kube.ProcessFunction + `api=$(processes kube-apiserver "--advertise-address=$1")
[ -n "$api" ] || exit 0
echo ready
read -r word || exit 0
most=$2
set -- $api
setsid sh -c 'sleep "$1"; shift; kill -s CONT "$@"' sh "$most" "$@" </dev/null >/dev/null 2>&1 &
kill -s STOP "$@"
echo held
read -r word
kill -s CONT "$@"
exit 0
`

// handOn moves etcd's leadership to another member, if the master's own leads.
func (s *Site) handOn(ctx context.Context, ih inventory.Host) error {
	m, there := s.members.Look(ctx, etcd.Options{ReadOnly: true}).Find(0, peerURL(ih))
	if !there || !m.Leader {
		return nil
	}
	return s.moveLeader(ctx, 0)
}

// moveLeader is etcd's, with all API servers held for the moment in which etcd
// has no leader. It drops what is proposed to it in that moment ("raft proposal
// dropped"; what comes through a follower even unsaid, until the request times
// out after seven seconds), and no API server tries it again: its client would
// see an error. Held, it answers some tenth of a second later.
//
// It is a courtesy: one that cannot be told in time may drop a write, as all
// would without it.
func (s *Site) moveLeader(ctx context.Context, to etcd.MemberID) error {
	ctx, cancel := context.WithTimeout(ctx, moveBudget)
	defer cancel()
	all := s.holders(ctx)
	defer all.release()
	return s.members.MoveLeader(ctx, to, func() func() { all.hold(); return all.release })
}

// holders are the scripts that hold API servers, by host.
type holders []*holder

// holder is one of them, ready to hold.
type holder struct {
	in    *io.PipeWriter
	said  chan string
	ended chan struct{}
}

// holders has all masters ready to hold; who is not ready in time is left out.
func (s *Site) holders(ctx context.Context) holders {
	var all holders
	for _, ih := range s.Cluster.ControlPlanes() {
		h, err := s.host(ih.Name)
		if err != nil {
			continue
		}
		reads, in := io.Pipe()
		one := &holder{in: in, said: make(chan string, 2), ended: make(chan struct{})}
		go func() {
			defer close(one.ended)
			_, _ = h.Run(ctx, host.Command{
				Argv:  []string{"sh", "-c", holdScript, "sh", ih.IP().String(), strconv.FormatFloat(holdMost.Seconds(), 'f', -1, 64)},
				Stdin: reads, Stdout: &words{to: one.said},
			})
			reads.Close()
		}()
		all = append(all, one)
	}
	all.hear("ready", readyBudget)
	return all
}

// hold has all stop their API server, and waits until they have.
func (all holders) hold() {
	for _, h := range all {
		go func() { _, _ = io.WriteString(h.in, "hold\n") }()
	}
	all.hear("held", holdBudget)
}

// hear waits until all who go on have said a word, for so long at most.
func (all holders) hear(word string, most time.Duration) {
	over := time.After(most)
	for _, h := range all {
		for heard := false; !heard; {
			select {
			case said := <-h.said:
				heard = said == word
			case <-h.ended:
				heard = true
			case <-over:
				return
			}
		}
	}
}

// release has all go on, at once, and waits until their scripts have ended: whom
// it does not reach goes on by itself. It may be called again.
func (all holders) release() {
	for _, h := range all {
		h.in.Close()
	}
	over := time.After(holdMost)
	for _, h := range all {
		select {
		case <-h.ended:
		case <-over:
			return
		}
	}
}

// words hands on what is written to it, a line at a time, as long as there is room.
type words struct {
	mu   sync.Mutex
	rest []byte
	to   chan<- string
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	for {
		line, rest, whole := bytes.Cut(w.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		w.rest = rest
		select {
		case w.to <- string(line):
		default:
		}
	}
}
