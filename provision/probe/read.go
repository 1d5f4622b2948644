package probe

import (
	"context"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// read asks for the newest acknowledged write, once. Without a resourceVersion
// the API server answers from a quorum of etcd: it has to be there.
func (p *Probe) read(ctx context.Context, _ int) {
	newest := p.newest()
	if newest == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	began := time.Now()
	found := &corev1.ConfigMap{}
	err := p.once(p.client.CoreV1().RESTClient().Get()).
		Namespace(p.config.Namespace).Resource("configmaps").Name(p.name(newest)).Do(ctx).Into(found)
	stale := apierrors.IsNotFound(err)
	if err == nil && found.Data["counter"] != strconv.Itoa(newest) {
		stale, err = true, fmt.Errorf("%s holds counter %q", found.Name, found.Data["counter"])
	}
	s := Sample{At: began, Took: time.Since(began), Read: true, Failed: err != nil}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.record.addRead(s, err, stale)
}

// newest is the number of the newest acknowledged write; 0 for none yet.
func (p *Probe) newest() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.record.acknowledged); n > 0 {
		return p.record.acknowledged[n-1].number
	}
	return 0
}

func (p *Probe) name(n int) string { return fmt.Sprintf("ha-probe-%s-%06d", p.run, n) }
