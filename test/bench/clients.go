package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/ha-install/ha-install/provision/probe"
)

const (
	writesASecond = 20
	requestLimit  = time.Second
	// patientLimit is for the operator's machine, which is all hosts here.
	patientLimit = 3 * time.Second
	// steadySeconds is how long writes have to come through, second by second,
	// until a failover counts as over.
	steadySeconds = 10
	// failoverPatience is more than client-go needs at the most to give up a
	// connection that was left hanging: 30 s of silence, and 15 s for a ping.
	failoverPatience = 2 * time.Minute
)

// clients write while a master dies: one with new connections, and a
// long-lived one that is connected to that master. Were it connected to another
// one it would see the election alone, and a few rounds would tell how the
// balancer's dice fell.
type clients struct{ fresh, lasting *probe.Probe }

// startClients starts both and waits until they write steadily. The master's
// API server has the certificate (PEM).
func startClients(ctx context.Context, endpoint *rest.Config, certificate []byte) (clients, error) {
	fresh, err := probe.Start(ctx, probe.Config{REST: endpoint, Rate: writesASecond, Timeout: requestLimit, Kind: probe.NewConnection})
	if err != nil {
		return clients{}, err
	}
	cs := clients{fresh: fresh}
	if err := cs.connect(ctx, endpoint, certificate); err != nil {
		cs.abandon()
		return clients{}, err
	}
	return cs, nil
}

// startPatient starts both as ordinary users of a cluster in which nothing is
// meant to fail: a request has time, and a client that keeps its connection does
// what a server's Retry-After says, as client-go does by itself.
func startPatient(ctx context.Context, endpoint *rest.Config) (clients, error) {
	var cs clients
	for _, kind := range []probe.Kind{probe.NewConnection, probe.LongLived} {
		p, err := probe.Start(ctx, probe.Config{REST: endpoint, Rate: writesASecond, Timeout: patientLimit, Kind: kind, Patient: kind == probe.LongLived})
		if err != nil {
			cs.abandon()
			return clients{}, err
		}
		if kind == probe.NewConnection {
			cs.fresh = p
		} else {
			cs.lasting = p
		}
	}
	if err := cs.awaitSteady(ctx, 2); err != nil {
		cs.abandon()
		return clients{}, err
	}
	return cs, nil
}

// connect starts long-lived clients until the balancer has sent one to the API
// server with the certificate, and it has stayed there.
func (cs *clients) connect(ctx context.Context, endpoint *rest.Config, certificate []byte) error {
	const tries = 30 // of a round robin over three, which others turn as well
	for range tries {
		lasting, seen, err := startLasting(ctx, endpoint)
		if err != nil {
			return err
		}
		if bytes.Equal(seen.last(), certificate) {
			cs.lasting = lasting
			// It may be told to move on meanwhile (goaway-chance).
			if err := cs.awaitSteady(ctx, 2); err != nil || bytes.Equal(seen.last(), certificate) {
				return err
			}
		}
		if _, err := lasting.Stop(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("the balancer sent none of %d long-lived clients to the master that was wanted", tries)
}

func startLasting(ctx context.Context, endpoint *rest.Config) (*probe.Probe, *answering, error) {
	seen := &answering{}
	config := rest.CopyConfig(endpoint)
	config.Dial = (&net.Dialer{}).DialContext // clients without one share a connection
	config.Wrap(seen.wrap)
	p, err := probe.Start(ctx, probe.Config{REST: config, Rate: writesASecond, Timeout: requestLimit, Kind: probe.LongLived})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := p.AwaitWrites(ctx, 3); err != nil {
		p.Abandon()
		return nil, nil, err
	}
	return p, seen, nil
}

// answering notes who has answered last, by the certificate.
type answering struct {
	mu          sync.Mutex
	certificate []byte // PEM, as kubeadm keeps it
}

func (a *answering) last() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.certificate
}

func (a *answering) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(r)
		if err == nil && response.TLS != nil {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: response.TLS.PeerCertificates[0].Raw})
		}
		return response, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// awaitSteady waits until both have written without a break for so many seconds.
func (cs clients) awaitSteady(ctx context.Context, seconds int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, failoverPatience, errors.New("it took too long"))
	defer cancel()
	var both errgroup.Group
	for _, p := range []*probe.Probe{cs.fresh, cs.lasting} {
		both.Go(func() error { return steady(ctx, p, seconds) })
	}
	return both.Wait()
}

// steady counts the seconds in a row in which every write came through, or all
// but what a busy machine delays.
func steady(ctx context.Context, p *probe.Probe, seconds int) error {
	for inARow := 0; inARow < seconds; {
		second, cancel := context.WithTimeout(ctx, 1250*time.Millisecond)
		err := p.AwaitWrites(second, writesASecond)
		cancel()
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("waiting for %d s of steady writes: %w: %w", seconds, context.Cause(ctx), err)
		case err != nil:
			inARow = 0
		default:
			inARow++
		}
	}
	return nil
}

// stop reads back what was written, takes it away, and reports.
func (cs clients) stop(ctx context.Context) (fresh, lasting probe.Report, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	var both errgroup.Group
	both.Go(func() (err error) { fresh, err = cs.fresh.Stop(ctx); return err })
	both.Go(func() (err error) { lasting, err = cs.lasting.Stop(ctx); return err })
	err = both.Wait()
	return fresh, lasting, err
}

// abandon ends what was not stopped.
func (cs clients) abandon() {
	for _, p := range []*probe.Probe{cs.fresh, cs.lasting} {
		if p != nil {
			p.Abandon()
		}
	}
}
