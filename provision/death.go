package provision

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
)

// AliveError is a master that is not dead: somebody has seen it.
type AliveError struct {
	Host string
	Seen []string // "cp-1: port 2379 is open"
}

func (e *AliveError) Error() string {
	return fmt.Sprintf("%s is not dead: refused, nothing was changed\nwhy: %s\nrun: if it only hangs or is slow, wait for it or restart it; to take it out while it lives, ha-install remove; to be rid of it, power it off, then the same command again",
		e.Host, strings.Join(e.Seen, "; "))
}

// masterPorts are what listens on a master: SSH, etcd for clients and for its
// peers, the API server, the kubelet.
var masterPorts = []string{"22", "2379", "2380", apiPort, kubeletPort}

const (
	knock      = 2 * time.Second // how long an answer from a port is waited for
	knockEvery = 2 * time.Second // how often a host is looked for
)

// proveDead passes when nobody has seen the lost master for etcd.MinDead: not
// the operator, no host of the cluster on any of its ports, no member of etcd,
// and its Node's lease has not moved. It is refused at once when anybody sees it.
func (r *replacement) proveDead() phase.Phase {
	search := &search{apply: r.kept, lost: r.Lost}
	return phase.Phase{
		Name: "dead", Host: r.Lost.Name,
		Gate:        []phase.Check{{Name: r.Lost.Name + " to be seen by nobody", Run: search.look}},
		GateTimeout: etcd.MinDead + etcd.PreGateBudget,
	}
}

// proveSick passes when the etcd of a master that answers has not come up for
// etcd.MinDead, be it that it finds no data or damaged ones. One that hangs, or
// comes back meanwhile, is not lost.
func (r *replacement) proveSick() phase.Phase {
	var since time.Time
	return phase.Phase{
		Name: "dead", Host: r.Lost.Name, GateTimeout: etcd.MinDead + etcd.PreGateBudget,
		Gate: []phase.Check{{Name: "etcd on " + r.Lost.Name + " to be down for " + etcd.MinDead.String(), Run: func(ctx context.Context) error {
			v := r.members.Look(ctx, etcd.Options{ReadOnly: true})
			if ctx.Err() != nil {
				return ctx.Err()
			}
			m, _ := v.Find(r.member.ID, "")
			if m.Healthy || m.State == etcd.MemberHung || m.State == etcd.MemberLate {
				return phase.Final(&AliveError{Host: r.Lost.Name, Seen: []string{fmt.Sprintf("etcd: its member %s is %s", r.member.ID, m.State)}})
			}
			if since.IsZero() {
				since = time.Now()
			}
			if down := time.Since(since); down < etcd.MinDead && !r.readOnly {
				return fmt.Errorf("it is %s, and was not up for %s: %s", m.State, down.Round(time.Second), m.Why)
			}
			return nil
		}}},
	}
}

// search looks for a host again and again.
type search struct {
	*apply
	lost    inventory.Host
	since   time.Time // nobody has seen it since then; zero before the first look
	last    time.Time
	renewed time.Time // its Node's lease, at the first look; zero for none
}

// look is a round of looking. Its error is final when the host was seen.
func (s *search) look(ctx context.Context) error {
	if now := time.Now(); now.Sub(s.last) >= knockEvery {
		first := s.since.IsZero()
		if first {
			s.since = now
		}
		s.last = now
		seen, err := s.sightings(ctx, first)
		if err != nil {
			return err
		}
		if len(seen) > 0 {
			return phase.Final(&AliveError{Host: s.lost.Name, Seen: seen})
		}
	}
	if s.readOnly { // a plan looks once
		phase.Tell(ctx, fmt.Sprintf("%s is seen by nobody now; before anything is changed it has to be so for %s", s.lost.Name, etcd.MinDead))
		return nil
	}
	if unseen := time.Since(s.since); unseen < etcd.MinDead {
		return fmt.Errorf("nobody has seen it for %s, %s are wanted", unseen.Round(time.Second), etcd.MinDead)
	}
	phase.Tell(ctx, fmt.Sprintf("%s was seen by nobody for %s: not by this machine, not by %s, not by etcd, and its Node's lease has not moved",
		s.lost.Name, etcd.MinDead, strings.Join(namesOf(s.Cluster.Spec.Hosts), ", ")))
	return nil
}

// sightings are all that say that the host is there. An error is what keeps us
// from looking.
func (s *search) sightings(ctx context.Context, first bool) ([]string, error) {
	seen := s.knock(ctx)
	v := s.members.Look(ctx, etcd.Options{ReadOnly: true})
	if m, ok := v.Find(0, peerURL(s.lost)); ok && (m.Healthy || m.State == etcd.MemberHung || m.State == etcd.MemberForeign) {
		seen = append(seen, fmt.Sprintf("etcd: its member %s is %s", m.ID, m.State))
	}
	client, err := s.anyAPI(ctx)
	if err != nil {
		return seen, err
	}
	lease, err := client.CoordinationV1().Leases(kube.NodeLeases).Get(ctx, s.lost.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return seen, ctx.Err()
	case err != nil:
		return seen, err
	case lease.Spec.RenewTime == nil:
	case first:
		s.renewed = lease.Spec.RenewTime.Time
	case !lease.Spec.RenewTime.Time.Equal(s.renewed):
		seen = append(seen, "the API: its kubelet has renewed its Node's lease, at "+lease.Spec.RenewTime.UTC().Format(time.TimeOnly))
	}
	return seen, ctx.Err()
}

// knock tries the host's ports from this machine and from every host. A port
// that refuses is an answer too: a host without power refuses nothing.
func (s *search) knock(ctx context.Context) []string {
	var mu sync.Mutex
	var seen []string
	var all sync.WaitGroup
	try := func(from string, d kube.Dialer, address, port string) {
		all.Go(func() {
			if how := answer(ctx, d, net.JoinHostPort(address, port)); how != "" {
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, fmt.Sprintf("%s: port %s %s", from, port, how))
			}
		})
	}
	if ssh := s.Cluster.EffectiveSSH(s.lost); s.Operator != nil && ssh.Bastion == nil {
		port := "22"
		if ssh.Port != 0 {
			port = fmt.Sprint(ssh.Port)
		}
		try("this machine", s.Operator, s.lost.Address, port)
	}
	_ = s.onAll(ctx, s.connected(s.Cluster.Spec.Hosts), func(_ context.Context, ih inventory.Host, h host.Host) error {
		for _, port := range masterPorts {
			try(ih.Name, h, s.lost.IP().String(), port)
		}
		return nil
	})
	all.Wait()
	slices.Sort(seen)
	return seen
}

// isOpen is the answer of a port on which something listens.
const isOpen = "is open"

// answer is how a host shows on a port that it is there; "" when it does not.
func answer(ctx context.Context, d kube.Dialer, address string) string {
	ctx, cancel := context.WithTimeout(ctx, knock)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", address)
	switch {
	case err == nil:
		conn.Close()
		return isOpen
	case errors.Is(err, syscall.ECONNREFUSED), strings.Contains(strings.ToLower(err.Error()), "connection refused"):
		return "is refused by it, so that it runs"
	}
	return ""
}
