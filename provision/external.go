package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/phase"
)

// BalancerError is a balancer of the user's own through which no host could
// join, with all that is wrong with it.
type BalancerError struct {
	Endpoint string
	Found    []string
}

func (e *BalancerError) Error() string {
	return "the balancer at " + e.Endpoint + " is not fit for a host to join through it\nwhy: " + strings.Join(e.Found, "\n     ") +
		"\nrun: the same command again, when the balancer is put right"
}

// external says whether the balancer is the user's own.
func (s *Site) external() bool { return s.Cluster.Spec.LoadBalancer.Mode == inventory.BalancerExternal }

// A balancer notices only with its next health checks that an API server has
// come up: until then it is looked at again. Each look costs it many connections.
const (
	balancerPatience = 40 * time.Second
	balancerPause    = 5 * time.Second
)

// balancerFit wants the user's own balancer to lead every host to the API
// servers that run, and to nobody else; else it is a *BalancerError, at once
// where somebody serves who must not.
func (s *Site) balancerFit() phase.Check {
	return phase.Check{Name: "the API servers at " + s.endpoint() + ", from every host", Run: func(ctx context.Context) error {
		for began := time.Now(); ; {
			bad, definite, err := s.lookForFaults(ctx)
			if err != nil || bad == nil {
				return err
			}
			if definite || time.Since(began) > balancerPatience || !pause(ctx, balancerPause) {
				return phase.Final(bad)
			}
			phase.Await(ctx, bad.Error())
		}
	}}
}

// lookForFaults is one look at the balancer; definite says that another one
// would see the same.
func (s *Site) lookForFaults(ctx context.Context) (bad *BalancerError, definite bool, err error) {
	serving, err := s.servingMasters(ctx)
	if err != nil {
		return nil, false, err
	}
	sights, err := s.lookAtEndpoint(ctx, s.connected(s.Cluster.Nodes()), len(serving))
	if err != nil {
		return nil, false, err
	}
	found := unfit(sights, serving)
	if len(found) == 0 {
		return nil, false, nil
	}
	definite = slices.ContainsFunc(sights, func(s sight) bool { return len(s.others) > 0 })
	return &BalancerError{s.endpoint(), found}, definite, nil
}

// checkBalancer is balancerFit between kubeadm init and the first join: only
// then is there an API server for the balancer to lead to.
func (a *apply) checkBalancer() phase.Phase {
	return phase.Phase{Name: "balancer", Gate: []phase.Check{a.balancerFit()}}
}

// withBalancer adds to a kubeadm init that failed what is wrong with the user's
// balancer, which kubeadm goes through to its own API server.
func (a *apply) withBalancer(ctx context.Context, err error) error {
	var bad *BalancerError
	if err != nil && a.external() && errors.As(a.balancerFit().Run(ctx), &bad) {
		return errors.Join(bad, err)
	}
	return err
}

// servingMasters are the masters whose own API server is ready, asked without
// the balancer.
func (s *Site) servingMasters(ctx context.Context) ([]string, error) {
	masters := s.connected(s.Cluster.ControlPlanes())
	failed := make([]error, len(masters))
	var wg sync.WaitGroup
	for i, ih := range masters {
		wg.Go(func() {
			client, err := s.api(ctx, ih)
			if err == nil {
				err = client.Readyz(ctx)
			}
			failed[i] = err
		})
	}
	wg.Wait()
	var serving []string
	for i, ih := range masters {
		if failed[i] == nil {
			serving = append(serving, ih.Name)
		}
	}
	if len(serving) == 0 {
		return nil, fmt.Errorf("no API server is ready: %w", phase.Join(failed...))
	}
	return serving, nil
}

// unfit says what is wrong with a balancer, a sentence each, from what every
// host met there; serving are the masters that should have been met.
func unfit(sights []sight, serving []string) []string {
	var found []string
	met, failed := map[string]bool{}, 0
	others, hosts := map[string]int{}, map[string][]string{} // by what was met instead
	for _, s := range sights {
		for name := range s.answers {
			met[name] = true
		}
		for what, n := range s.others {
			others[what] += n
			hosts[what] = append(hosts[what], s.from)
		}
		failed += s.silences
	}
	for _, what := range sortedKeys(others) {
		found = append(found, fmt.Sprintf("from %s: %d connections meet %s", strings.Join(hosts[what], ", "), others[what], what))
	}
	if len(met) == 0 && len(found) == 0 {
		return []string{fmt.Sprintf("no host meets an API server there (%s), though %s runs: add port 6443 of every master to its backends, and look at its health checks and at the way there",
			sights[0].silence, strings.Join(serving, ", "))}
	}
	for _, s := range sights {
		if s.silences > 0 {
			found = append(found, s.unanswered(met, serving))
		}
	}
	for _, name := range serving {
		if !met[name] && failed == 0 {
			found = append(found, "nobody meets "+name+", although its API server is ready: add it to the backends, or look at its health check")
		}
	}
	return found
}

// unanswered says why a host's connections may have come to nothing.
func (s sight) unanswered(met map[string]bool, serving []string) string {
	count := fmt.Sprintf("%s: %d of %d connections failed (%s)", s.from, s.silences, s.tries(), s.silence)
	switch own := slices.Contains(serving, s.from); {
	case own && s.answers[s.from] == 0 && met[s.from]:
		return count + ", and it never meets itself, as others do: the balancer cannot hairpin; have it connect from an address of its own (source NAT), not from the client's"
	case len(s.answers) == 0:
		return count + ": look at the way there, and at the balancer's own access rules"
	}
	return count + ": a backend that does not answer is in rotation; have the balancer check GET /readyz of each"
}
