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
	// holdBudget is how long all may take to say that they hold, or go on.
	holdBudget = 150 * time.Millisecond
	// holdMost is after how long an API server that is held goes on by itself:
	// before a balancer's second check of it could fail.
	holdMost = 500 * time.Millisecond
	// holdTries is how often it is tried to have all hold at once.
	holdTries = 4
	// inFlight is how long what an API server wrote right before it was held may
	// take to etcd's leader.
	inFlight = 20 * time.Millisecond
)

// holdScript stops the API server of the address $1 where it stands when it reads
// "hold ...", and lets it go on when it reads another line, at the end of its
// input, or after $2 seconds, whatever becomes of us and of it: who sees to that
// is there before, and hears each line first. It says "ready", and each line when
// it has done so.
const holdScript = `set -u
` + kube.ProcessFunction + `api=$(processes kube-apiserver "--advertise-address=$1")
[ -n "$api" ] || exit 0
most=$2
set -- $api
exec 3>&1
{
	while read -r word; do
		echo "$word"
		case $word in
		hold*) kill -s STOP "$@" ;;
		*) kill -s CONT "$@" ;;
		esac
		echo "$word" >&3
	done
	kill -s CONT "$@"
} | setsid -f bash -c '
most=$1; shift
echo ready >&3
exec 3>&-
while read -r word; do
	case $word in hold*) read -r -t "$most" word || kill -s CONT "$@" ;; esac
done' bash "$most" "$@" >/dev/null 2>&1
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
	return s.members.MoveLeader(ctx, to, func() func() { return all.hold(ctx) })
}

// holders are the scripts that hold API servers, by host.
type holders []*holder

// holder is one of them, ready to hold.
type holder struct {
	lines chan string // to its script
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
		one := &holder{lines: make(chan string, 2*holdTries), said: make(chan string, 2*holdTries+1), ended: make(chan struct{})}
		go func() {
			defer in.Close()
			for line := range one.lines {
				_, _ = io.WriteString(in, line+"\n")
			}
		}()
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

// hold has all stop their API server, and waits until they have. One that is late
// would be caught writing, so that all go on and are asked once more; when one is
// late each time, the rest hold without it. What it returns has all go on.
func (all holders) hold(ctx context.Context) (goOn func()) {
	for try := 1; ; try++ {
		turn := strconv.Itoa(try)
		goOn = func() { all.tell("go on " + turn) }
		if all.tell("hold "+turn) || try == holdTries {
			break
		}
		goOn()
		if !pause(ctx, holdMost) { // what they held is answered meanwhile
			return func() {}
		}
	}
	pause(ctx, inFlight)
	return goOn
}

// tell sends all a line, at once, and waits until they have done as it says.
func (all holders) tell(line string) bool {
	for _, h := range all {
		h.lines <- line
	}
	return all.hear(line, holdBudget)
}

// hear waits until all who are there still have said a line, for so long at most,
// and says whether they have.
func (all holders) hear(line string, most time.Duration) bool {
	over := time.After(most)
	for _, h := range all {
		for heard := false; !heard; {
			select {
			case said := <-h.said:
				heard = said == line
			case <-h.ended:
				heard = true
			case <-over:
				return false
			}
		}
	}
	return true
}

// release ends the scripts; an API server that is held then goes on.
func (all holders) release() {
	for _, h := range all {
		close(h.lines)
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
