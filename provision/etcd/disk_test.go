package etcd

import (
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

func TestQuantile(t *testing.T) {
	bucket := func(bound float64, n uint64) *dto.Bucket { return &dto.Bucket{UpperBound: &bound, CumulativeCount: &n} }
	histogram := func(total uint64, b ...*dto.Bucket) *dto.Histogram {
		return &dto.Histogram{SampleCount: &total, Bucket: b}
	}
	inf := 1e9
	for _, tt := range []struct {
		name string
		h    *dto.Histogram
		want time.Duration
	}{
		{"nearly all are quick", histogram(1000, bucket(0.001, 900), bucket(0.008, 995), bucket(0.016, 1000)), 8 * time.Millisecond},
		{"one in fifty is slow", histogram(1000, bucket(0.001, 980), bucket(0.128, 1000)), 128 * time.Millisecond},
		{"slower than the last bound is at least that bound", histogram(10, bucket(0.001, 1), bucket(8.192, 2), bucket(inf, 10)), 8192 * time.Millisecond},
		{"nothing was measured", histogram(0, bucket(0.001, 0)), time.Millisecond},
	} {
		if got := quantile(tt.h, 0.99); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
