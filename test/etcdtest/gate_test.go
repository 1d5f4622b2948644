package etcdtest

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
)

func TestGateOfThreeHealthyMembers(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	c.Ready(m)

	fresh := c.Connect()
	began := time.Now()
	v, err := fresh.Gate(context.Background(), etcd.Want{Voters: 3, AllHealthy: true}, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	first := time.Since(began)
	began = time.Now()
	if _, err = fresh.Gate(context.Background(), etcd.Want{Voters: 3, AllHealthy: true}, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	t.Logf("first gate %s, second %s", first, time.Since(began))
	if first < etcd.ElectionTimeout || first > 5*time.Second {
		t.Errorf("the first gate took %s, it must span %s", first, etcd.ElectionTimeout)
	}
	if second := time.Since(began); second >= first {
		t.Errorf("the second gate took %s, the first %s: it did not reuse its samples", second, first)
	}
	var b bytes.Buffer
	if err := etcd.Render(&b, v, nil); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + b.String())
	if v.State != etcd.Pass || v.CanLose != 1 {
		t.Errorf("%s %s %v", v.State, v.Numbers, v.Warnings)
	}
}

func TestFsyncLatencyIsRead(t *testing.T) {
	t.Parallel()
	c := Start(t, 1)
	m := c.Connect()
	c.Ready(m)
	for _, view := range m.Observe(bg, etcd.Options{Disk: true, ReadOnly: true}).Views {
		if view.FsyncP99 <= 0 || view.FsyncP99.Duration() > 10*time.Second {
			t.Errorf("%s: %s", view.Host, view.FsyncP99)
		}
	}
}
