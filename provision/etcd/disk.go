package etcd

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/ha-install/ha-install/provision/units"
)

const (
	// defaultMetricsURL is where kubeadm's etcd manifests serve metrics.
	defaultMetricsURL = "http://127.0.0.1:2381/metrics"
	fsyncMetric       = "etcd_disk_wal_fsync_duration_seconds"
	slowFsync         = 10 * time.Millisecond // p99 above this warns
)

// fsyncP99 reads the 99th percentile of the member's WAL fsyncs since it
// started, over the host's own connection.
func fsyncP99(ctx context.Context, t Target) (units.Seconds, error) {
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	url := t.MetricsURL
	if url == "" {
		url = defaultMetricsURL
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, fmt.Errorf("%s: etcd metrics: %w", t.Name, err)
	}
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, DialTimeout)
		defer cancel()
		return t.Dial(ctx, network, addr)
	}}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, fmt.Errorf("%s: etcd metrics: %w", t.Name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: etcd metrics: %s", t.Name, resp.Status)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return 0, fmt.Errorf("%s: etcd metrics: %w", t.Name, err)
	}
	f := families[fsyncMetric]
	if f == nil || len(f.GetMetric()) == 0 {
		return 0, fmt.Errorf("%s: etcd metrics: no %s", t.Name, fsyncMetric)
	}
	return units.Seconds(quantile(f.GetMetric()[0].GetHistogram(), 0.99)), nil
}

// quantile is the upper bound of the bucket that holds the q-th observation.
// What lies above the last finite bucket is given as that bucket's bound.
func quantile(h *dto.Histogram, q float64) time.Duration {
	rank := q * float64(h.GetSampleCount())
	var bound float64
	for _, b := range h.GetBucket() {
		if b.GetUpperBound() > 1e6 { // +Inf
			break
		}
		bound = b.GetUpperBound()
		if float64(b.GetCumulativeCount()) >= rank {
			break
		}
	}
	return time.Duration(bound * float64(time.Second))
}
