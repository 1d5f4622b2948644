package provision

import (
	"context"
	"fmt"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
)

// How long a status waits for a connection: for the last host at least
// leastPatience, three times what the others took, but never more than
// mostPatience. A dead host must not keep the answer of the living back, and a
// slow one must not be called dead.
const (
	leastPatience = 1300 * time.Millisecond
	mostPatience  = 2500 * time.Millisecond
	// dialBudget bounds a dial that nobody waits for any more; it may still
	// bring the host back for a later look.
	dialBudget = 10 * time.Second
)

// dialled is how one dial ended.
type dialled struct {
	name string
	conn host.Host
	err  error
}

// ConnectSoon begins to connect to all hosts at once and does not wait for
// them: who asks for a host waits until it is connected, or patience is over.
// Its hosts refuse to be changed; it is for workflows that only look. The
// caller closes the Site; ctx has to outlive it.
func ConnectSoon(ctx context.Context, c *inventory.Cluster, baseDir string, dial Dial) *Site {
	s := newSite(c, baseDir)
	began := time.Now()
	s.dial, s.began = dial, began
	s.pending = map[string]chan struct{}{}
	for _, h := range c.Spec.Hosts {
		s.pending[h.Name] = make(chan struct{})
	}
	s.members = s.newMembers()
	results := make(chan dialled, len(c.Spec.Hosts))
	for _, h := range c.Spec.Hosts {
		s.dialSoon(ctx, h, func(d dialled) { results <- d })
	}
	go s.settle(began, results, len(c.Spec.Hosts))
	return s
}

// dialSoon dials one host in the background and keeps what comes of it.
func (s *Site) dialSoon(ctx context.Context, ih inventory.Host, tell func(dialled)) {
	s.mu.Lock()
	s.dialling[ih.Name] = true
	s.mu.Unlock()
	go func() {
		ctx, cancel := context.WithTimeout(ctx, dialBudget)
		defer cancel()
		conn, err := s.dial(ctx, s.Cluster, ih, s.BaseDir)
		s.keep(dialled{ih.Name, conn, err})
		tell(dialled{ih.Name, conn, err})
	}()
}

// keep files the result of a dial. One that comes after Close is closed.
func (s *Site) keep(d dialled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.dialling, d.name)
	switch {
	case d.err != nil:
		s.down[d.name] = d.err
	case s.closed:
		go d.conn.Close()
	default:
		s.hosts[d.name] = host.ReadOnly(d.conn)
		delete(s.down, d.name)
	}
	s.release(d.name)
}

// release ends the wait for a host; s.mu is held.
func (s *Site) release(name string) {
	if waiting := s.pending[name]; waiting != nil {
		close(waiting)
		delete(s.pending, name)
	}
}

// settle gives up the wait for hosts that take much longer than the others.
func (s *Site) settle(began time.Time, results <-chan dialled, total int) {
	timer := time.NewTimer(mostPatience)
	defer timer.Stop()
	connected := 0
	for left := total; left > 0; left-- {
		select {
		case d := <-results:
			if d.err == nil {
				connected++
			}
			if connected*2 >= total {
				took := time.Since(began)
				timer.Reset(min(max(leastPatience, 3*took), mostPatience) - took)
			}
		case <-timer.C:
			s.mu.Lock()
			defer s.mu.Unlock()
			for name := range s.pending {
				s.down[name] = &host.UnreachableError{Host: name, Address: s.address(name),
					Err: fmt.Errorf("no SSH connection within %s", time.Since(began).Round(100*time.Millisecond))}
				s.release(name)
			}
			return
		}
	}
}

func (s *Site) address(name string) string {
	ih, _ := s.Cluster.HostByName(name)
	return ih.Address
}

// Redial begins to connect to the hosts that are not connected, and waits for
// none of them.
func (s *Site) Redial(ctx context.Context) {
	for _, ih := range s.Cluster.Spec.Hosts {
		s.mu.Lock()
		idle := s.hosts[ih.Name] == nil && !s.dialling[ih.Name]
		s.mu.Unlock()
		if idle {
			s.dialSoon(ctx, ih, func(dialled) {})
		}
	}
}
