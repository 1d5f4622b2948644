package etcdtest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"github.com/ha-install/ha-install/provision/etcd"
)

// TestASurvivorThatWasRestartedTellsByACopy is what `recover` stands on where one
// master of three came back after a power cut: its etcd answers nobody, and a copy
// of its data, started as a cluster of one, has all that was acknowledged, under the
// ID of the cluster that it is of. The data themselves stay as they are.
func TestASurvivorThatWasRestartedTellsByACopy(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	m := c.Connect()
	c.Ready(m)
	keys := c.history(t, false)
	before := m.Look(bg, etcd.Options{ReadOnly: true, Inputs: true})
	for _, x := range c.Members {
		x.Stop()
	}
	survivor := c.Member("cp-1")
	if err := survivor.Restart(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		v := m.Judge(bg, etcd.Options{ReadOnly: true, Inputs: true})
		if sources, err := etcd.SnapshotSources(v); err == nil {
			t.Fatalf("it gives a snapshot: %+v; then recover need not read its data", sources)
		}
	}
	survivor.Stop()

	kept := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(kept, os.DirFS(survivor.Dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(kept, 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "survivor", kept
	peer, client := "http://"+freePort(t), "http://"+freePort(t)
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = urls(peer), urls(peer)
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = urls(client), urls(client)
	cfg.InitialCluster, cfg.ForceNewCluster, cfg.QuotaBackendBytes = "survivor="+peer, true, -1
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithTimeout(bg, 30*time.Second)
	defer cancel()
	select {
	case <-e.Server.ReadyNotify():
	case <-ctx.Done():
		t.Fatal("the copy does not come up")
	}
	r, err := v3client.New(e.Server).Get(ctx, "", clientv3.WithFromKey(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	if r.Count != keys || etcd.MemberID(r.Header.ClusterId) != before.ClusterID {
		t.Errorf("%d keys of cluster %x, want %d of %s", r.Count, r.Header.ClusterId, keys, before.ClusterID)
	}
}
