package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// removePage is how many objects one request removes. An API server deletes a
	// collection one object after the other (--delete-collection-workers) and gives
	// a request up after a minute; what it has deleted until then is gone.
	removePage = 500
	removeCall = 30 * time.Second
)

// remove deletes what the probe has written, a page at a time, asking again
// after failures. The error has the command that removes what is left.
func (p *Probe) remove(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(p.config.RemovePatience, func() { cancel(context.DeadlineExceeded) })
	defer stalled.Stop()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		left, err := p.removeSome(ctx)
		switch {
		case err == nil && !left:
			return nil
		case err == nil && ctx.Err() == nil:
			stalled.Reset(p.config.RemovePatience)
			continue
		case err != nil && (ctx.Err() == nil || last == nil): // a request that the deadline cut off says nothing
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; run: kubectl --namespace %s delete configmaps --selector %s=%s",
				errors.Join(context.Cause(ctx), last), p.config.Namespace, runLabel, p.run)
		case <-tick.C:
		}
	}
}

// removeSome deletes one page and says whether anything is left.
func (p *Probe) removeSome(ctx context.Context) (left bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, removeCall)
	defer cancel()
	maps, mine := p.client.CoreV1().ConfigMaps(p.config.Namespace), runLabel+"="+p.run
	if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: mine, Limit: removePage}); err != nil {
		return false, err
	}
	// Without a resourceVersion: what is gone is gone for a quorum.
	rest, err := maps.List(ctx, metav1.ListOptions{LabelSelector: mine, Limit: 1})
	if err != nil {
		return false, err
	}
	return len(rest.Items) > 0 || rest.Continue != "", nil
}
