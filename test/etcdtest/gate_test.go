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
	if first > 1500*time.Millisecond || time.Since(began) > 500*time.Millisecond {
		t.Errorf("gates took %s and %s", first, time.Since(began))
	}
	var b bytes.Buffer
	etcd.Render(&b, v, nil)
	t.Log("\n" + b.String())
	if v.State != etcd.Pass || v.CanLose != 1 || len(v.Warnings) > 0 {
		t.Errorf("%s %s %v", v.State, v.Numbers, v.Warnings)
	}
}
