package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/ha-install/ha-install/provision/haproxy"
	"github.com/ha-install/ha-install/test/lab"
)

// standing is what is needed here of `ha-install status -o json`, which asks
// each host and so knows a cluster that was made by hand just as well.
type standing struct {
	Quorum struct {
		State   string
		Leader  string // a host
		Numbers struct{ Voters, Healthy int }
	}
	Hosts []struct {
		Name, APIServer string
		HoldsVIP        bool
		Backend         *haproxy.View
	}
}

// lookAround asks once. The exit code is a verdict on more than is asked for
// here: a cluster that was made by hand has no network and no worker.
func (b *bench) lookAround(ctx context.Context) (standing, error) {
	var s standing
	cmd := exec.CommandContext(ctx, b.binary, "status", "--output", "json", b.lab.Inventory())
	cmd.WaitDelay = time.Second
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	var verdict *exec.ExitError
	if err != nil && !errors.As(err, &verdict) {
		return s, fmt.Errorf("ha-install status: %w", err)
	}
	if err := json.Unmarshal(out, &s); err != nil {
		return s, fmt.Errorf("ha-install status: %w: %s", err, bytes.TrimSpace(complaints.Bytes()))
	}
	return s, nil
}

// whole says what is missing: all masters vote and are healthy, their API
// servers are ready, every balancer sends clients to each of them, and one of the
// balancers has the VIP.
func (s standing) whole(masters, balancers []string) error {
	var missing []string
	if n := s.Quorum.Numbers; s.Quorum.State != "PASS" || n.Voters != len(masters) || n.Healthy != len(masters) || s.Quorum.Leader == "" {
		missing = append(missing, fmt.Sprintf("etcd is %s with %d healthy voters of %d and the leader %q", s.Quorum.State, n.Healthy, n.Voters, s.Quorum.Leader))
	}
	servers, views := map[string]string{}, map[string]*haproxy.View{}
	for _, h := range s.Hosts {
		servers[h.Name], views[h.Name] = h.APIServer, h.Backend
	}
	for _, m := range masters {
		if servers[m] != "ok" {
			missing = append(missing, fmt.Sprintf("the API server of %s is %q", m, servers[m]))
		}
	}
	for _, b := range balancers {
		up := map[string]bool{}
		if views[b] != nil {
			for _, server := range views[b].Servers {
				up[server.Name] = server.State == haproxy.Up
			}
		}
		for _, m := range masters {
			if !up[m] {
				missing = append(missing, fmt.Sprintf("%s does not send clients to %s", b, m))
			}
		}
	}
	if s.holder() == "" {
		missing = append(missing, "no balancer holds the VIP")
	}
	if missing != nil {
		return errors.New(strings.Join(missing, "; "))
	}
	return nil
}

// holder is the balancer that has the VIP; "" when none has.
func (s standing) holder() string {
	for _, h := range s.Hosts {
		if h.HoldsVIP {
			return h.Name
		}
	}
	return ""
}

// awaitWhole waits until nothing is missing.
func (b *bench) awaitWhole(ctx context.Context) (standing, error) {
	var last standing
	err := lab.Await(ctx, "the cluster to be whole", 2*time.Minute, func(ctx context.Context) error {
		s, err := b.lookAround(ctx)
		if err != nil {
			return err
		}
		last = s
		return s.whole(b.result.masters, named(b.lab, "load-balancer"))
	})
	return last, err
}
