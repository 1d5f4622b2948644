// Package probe writes a counter through a cluster's endpoint while something
// breaks, and says afterwards what clients have suffered: which requests failed
// and why, how long no write came through, and whether a write that the API had
// acknowledged is gone.
package probe

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// Kind says how the probe reaches the endpoint.
type Kind string

const (
	// NewConnection opens a TCP and TLS connection for every write: what a
	// kubectl user sees.
	NewConnection Kind = "new connections"
	// LongLived keeps client-go's one HTTP/2 connection, as controllers and
	// kubelets do: it shows connections that were left hanging.
	LongLived Kind = "a long-lived client"
)

// Config says what to write, how often and where.
type Config struct {
	// REST is the endpoint under test, with credentials and, in Dial, the way
	// there (nil: from this machine).
	REST      *rest.Config
	Rate      int           // writes a second, and as many reads; default 20
	Kind      Kind          // default NewConnection
	Timeout   time.Duration // of one request, connecting included; default 1 s
	Namespace string        // default "default"
	Reads     bool          // read the newest acknowledged write, too
	// Patient lets client-go try a request again within its Timeout where a
	// server says Retry-After, as it does for all its users. Else that is a
	// failure: the probe is here to see it.
	Patient bool
	// RemovePatience is how long the removal of what was written goes on while
	// nothing of it goes; default 2 minutes.
	RemovePatience time.Duration
}

// runLabel marks the objects of one probe.
const runLabel = "ha-install.io/probe"

// Probe is a running probe.
type Probe struct {
	config Config
	client kubernetes.Interface
	run    string
	cancel context.CancelFunc
	loops  sync.WaitGroup
	done   chan struct{} // closed when nothing is under way any more

	mu      sync.Mutex
	record  record
	changed chan struct{} // closed and replaced at every success
}

// Start begins to write and returns at once. Every write creates one numbered
// ConfigMap at its own time, whether those before it have been answered or not,
// as independent clients do: a probe that waits for an answer does not see what
// an outage costs the others. The context bounds the whole probe.
func Start(ctx context.Context, config Config) (*Probe, error) {
	config = withDefaults(config)
	client, err := newClient(config)
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &Probe{
		config: config, client: client, run: utilrand.String(8), cancel: cancel,
		done: make(chan struct{}), changed: make(chan struct{}),
		record: record{started: time.Now()},
	}
	p.loops.Go(func() { p.loop(ctx, p.write) })
	if config.Reads {
		p.loops.Go(func() { p.loop(ctx, p.read) })
	}
	go func() {
		p.loops.Wait()
		close(p.done)
	}()
	return p, nil
}

func withDefaults(c Config) Config {
	if c.Rate <= 0 {
		c.Rate = 20
	}
	if c.Kind == "" {
		c.Kind = NewConnection
	}
	if c.Timeout <= 0 {
		c.Timeout = time.Second
	}
	if c.Namespace == "" {
		c.Namespace = metav1.NamespaceDefault
	}
	if c.RemovePatience <= 0 {
		c.RemovePatience = 2 * time.Minute
	}
	return c
}

// loop sends one request at each tick and returns when all have been answered
// or given up; no more than Rate times Timeout are under way at a time.
func (p *Probe) loop(ctx context.Context, request func(context.Context, int)) {
	tick := time.NewTicker(time.Second / time.Duration(p.config.Rate))
	defer tick.Stop()
	var underWay sync.WaitGroup
	defer underWay.Wait()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// Not a child of ctx: Stop must not make a failure of the last requests.
		underWay.Go(func() { request(context.WithoutCancel(ctx), n) })
	}
}

func (p *Probe) write(ctx context.Context, n int) {
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	began := time.Now()
	version, err := p.create(ctx, n)
	ended := time.Now()

	p.mu.Lock()
	defer p.mu.Unlock()
	p.record.add(attempt{number: n, began: began, ended: ended, version: version, err: err})
	if err == nil {
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// create writes number n.
func (p *Probe) create(ctx context.Context, n int) (version uint64, err error) {
	object := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name:   p.name(n),
			Labels: map[string]string{runLabel: p.run},
		},
		Data: map[string]string{"counter": strconv.Itoa(n)},
	}
	stored := &corev1.ConfigMap{}
	if err := p.once(p.client.CoreV1().RESTClient().Post()).
		Namespace(p.config.Namespace).Resource("configmaps").
		VersionedParams(&metav1.CreateOptions{}, scheme.ParameterCodec).
		Body(object).Do(ctx).Into(stored); err != nil {
		return 0, err
	}
	version, err = strconv.ParseUint(stored.ResourceVersion, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("acknowledged with resourceVersion %q: %w", stored.ResourceVersion, err)
	}
	return version, nil
}

// once has client-go send a request once, unless the probe is patient.
func (p *Probe) once(r *rest.Request) *rest.Request {
	if p.config.Patient {
		return r
	}
	return r.MaxRetries(0)
}

// AwaitWrites waits until n more writes have been acknowledged: the endpoint
// works (again). The error carries the last failure.
func (p *Probe) AwaitWrites(ctx context.Context, n int) error {
	_, wanted := p.successes()
	wanted += n
	for {
		changed, now := p.successes()
		if now >= wanted {
			return nil
		}
		select {
		case <-changed:
		case <-p.done:
			return errors.New("probe: it has been stopped")
		case <-ctx.Done():
			return fmt.Errorf("probe: waiting for %d more writes: %w; last failure: %w", wanted-now, context.Cause(ctx), p.lastFailure())
		}
	}
}

func (p *Probe) successes() (<-chan struct{}, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed, len(p.record.acknowledged)
}

func (p *Probe) lastFailure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.record.failures); n > 0 {
		return p.record.failures[n-1]
	}
	return errors.New("none")
}

// Abandon ends the requests, and leaves what was written where it is. After a
// Stop it does nothing.
func (p *Probe) Abandon() {
	p.cancel()
	<-p.done
}

// Stop ends the writing, reads everything back through the endpoint, removes
// it, and reports. When the read does not work before ctx ends, the report
// lacks the verdict on lost writes and the error says so.
func (p *Probe) Stop(ctx context.Context) (Report, error) {
	p.cancel()
	<-p.done
	p.mu.Lock()
	report := p.record.report(p.config.Kind, time.Now())
	acknowledged := p.record.acknowledged
	p.mu.Unlock()

	present, err := p.readBack(ctx)
	if err != nil {
		return report, fmt.Errorf("probe: read the counter back: %w", err)
	}
	report.judge(acknowledged, present)
	if err := p.remove(ctx); err != nil {
		return report, fmt.Errorf("probe: remove its objects: %w", err)
	}
	return report, nil
}
