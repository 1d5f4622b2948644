package provision

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/drill"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/units"
)

// What runs in the drill's namespace, by name.
const (
	servesPod   = "serves"   // is asked all the time
	replacedPod = "replaced" // its pod is deleted
	newPod      = "new"      // is made after the failure
)

const (
	podBudget  = 2 * time.Minute
	askEvery   = 100 * time.Millisecond
	askTimeout = time.Second
	podPoll    = 250 * time.Millisecond
)

// workload is what pods go through in one scenario.
type workload struct {
	d      *drilling
	victim inventory.Host
	image  string
	old    kube.ReadyPod // of the Deployment whose pod is deleted

	asking context.CancelFunc
	asked  sync.WaitGroup
	mu     sync.Mutex
	seen   drill.Workload
}

func (w *workload) of(name string) kube.Workload {
	return kube.Workload{Namespace: w.d.namespace, Name: name, Image: w.image, Not: w.victim.Name}
}

// startWorkload brings up what is watched, on other hosts than the victim, and
// begins to ask it. nil when there is no image to run.
func (d *drilling) startWorkload(ctx context.Context, victim inventory.Host) (*workload, error) {
	if d.image == "" {
		return nil, nil
	}
	w := &workload{d: d, victim: victim, image: d.image}
	starting, cancel := context.WithTimeout(ctx, podBudget)
	defer cancel()
	client, err := d.anyAPI(starting)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{servesPod, replacedPod} {
		if err := client.Deploy(starting, w.of(name)); err != nil {
			return nil, err
		}
	}
	serves, err := client.AwaitPod(starting, w.of(servesPod))
	if err == nil {
		w.old, err = client.AwaitPod(starting, w.of(replacedPod))
	}
	if err != nil {
		return nil, err
	}
	from, err := d.asker(victim, serves)
	if err != nil {
		return nil, err
	}
	asking, stop := context.WithCancel(ctx)
	w.asking = stop
	w.asked.Go(func() { w.ask(asking, from, "http://"+serves.Address+"/") })
	return w, nil
}

// asker is a node that is neither the victim nor, where there is a choice, the
// pod's own: the pod network is asked, too.
func (d *drilling) asker(victim inventory.Host, pod kube.ReadyPod) (kube.Dialer, error) {
	var own kube.Dialer
	for _, ih := range d.Cluster.Nodes() {
		h, err := d.host(ih.Name)
		switch {
		case err != nil || ih.Name == victim.Name:
		case ih.Name == pod.Node:
			own = h
		default:
			return h, nil
		}
	}
	if own == nil {
		return nil, errors.New("no node is left to ask a pod from")
	}
	return own, nil
}

// ask sends one request after the other, each with a new connection.
func (w *workload) ask(ctx context.Context, from kube.Dialer, url string) {
	transport := &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true}
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := askOnce(context.WithoutCancel(ctx), transport, url)
		w.mu.Lock()
		w.seen.Requests++
		if err != nil {
			w.seen.Failed++
		}
		w.mu.Unlock()
	}
}

func askOnce(ctx context.Context, transport http.RoundTripper, url string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", resp.Status)
	}
	return nil
}

// suffer makes a new pod and deletes one of a Deployment, as soon as an API
// server takes it, and notes when there is another one. It ends with ctx.
func (w *workload) suffer(ctx context.Context, failed time.Time) {
	var both sync.WaitGroup
	both.Go(func() {
		made := w.until(ctx, func(ctx context.Context, c *kube.Client) error { return c.StartPod(ctx, w.of(newPod)) })
		if made && w.until(ctx, w.runs(newPod, "")) {
			w.note(&w.seen.Scheduled, failed)
		}
	})
	both.Go(func() {
		gone := w.until(ctx, func(ctx context.Context, c *kube.Client) error {
			return c.RemovePod(ctx, w.of(replacedPod), w.old.Name)
		})
		if gone && w.until(ctx, w.runs(replacedPod, w.old.Name)) {
			w.note(&w.seen.Replaced, failed)
		}
	})
	both.Wait()
}

func (w *workload) runs(name, not string) func(context.Context, *kube.Client) error {
	return func(ctx context.Context, c *kube.Client) error {
		_, err := c.ReadyPod(ctx, w.of(name), not)
		return err
	}
}

func (w *workload) note(at **units.Seconds, failed time.Time) {
	took := units.Seconds(time.Since(failed))
	w.mu.Lock()
	defer w.mu.Unlock()
	*at = &took
}

// until tries something on the API servers that are left until one does it; false
// when ctx ended before.
func (w *workload) until(ctx context.Context, try func(context.Context, *kube.Client) error) bool {
	for {
		for _, ih := range w.d.Cluster.ControlPlanes() {
			if ih.Name == w.victim.Name || ctx.Err() != nil {
				continue
			}
			client, err := w.d.api(ctx, ih)
			if err != nil {
				continue
			}
			once, cancel := context.WithTimeout(ctx, 2*askBudget)
			err = try(once, client)
			cancel()
			if err == nil {
				return true
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(podPoll):
		}
	}
}

// end stops asking, takes everything away, and returns what was seen.
func (w *workload) end(ctx context.Context) (*drill.Workload, error) {
	w.asking()
	w.asked.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), namespaceBudget)
	defer cancel()
	client, err := w.d.anyAPI(ctx)
	if err == nil {
		err = client.Withdraw(ctx, w.d.namespace, servesPod, replacedPod, newPod)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	return &seen, err
}

// probeImage is the image of the bundle that answers HTTP, which the nodes
// have; "" with a word to the operator where there is none.
func (d *drilling) probeImage(ctx context.Context) string {
	b, err := OpenBundle(d.Site)
	why := "the software is not from a bundle"
	if err != nil {
		why = err.Error()
	}
	if b != nil {
		defer b.Close() // it was only read
		if image, found := b.Probe(); found {
			return image
		}
		why = `no image with purpose "probe" is in the bundle`
	}
	phase.Tell(ctx, "what becomes of pods is not watched: "+why)
	return ""
}
