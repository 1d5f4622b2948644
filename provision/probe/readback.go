package probe

import (
	"context"
	"fmt"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// readBack returns the numbers that the API holds, asking until it answers or
// the context ends: whoever breaks things may stop the probe while the endpoint is coming back.
func (p *Probe) readBack(ctx context.Context) (map[int]bool, error) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		present, err := p.list(ctx)
		if err == nil {
			return present, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w; last answer: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// list reads without a resourceVersion, which the API server answers from a
// quorum of etcd, not from its own memory.
func (p *Probe) list(ctx context.Context) (map[int]bool, error) {
	present := map[int]bool{}
	options := metav1.ListOptions{LabelSelector: runLabel + "=" + p.run, Limit: 500}
	for {
		call, cancel := context.WithTimeout(ctx, readTimeout)
		page, err := p.client.CoreV1().ConfigMaps(p.config.Namespace).List(call, options)
		cancel()
		if err != nil {
			return nil, err
		}
		for _, item := range page.Items {
			n, err := strconv.Atoi(item.Data["counter"])
			if err != nil {
				return nil, fmt.Errorf("%s holds counter %q: %w", item.Name, item.Data["counter"], err)
			}
			present[n] = true
		}
		if page.Continue == "" {
			return present, nil
		}
		options.Continue = page.Continue
	}
}

// readTimeout bounds one page: a connection that hangs must not take the
// whole of Stop's time.
const readTimeout = 10 * time.Second
