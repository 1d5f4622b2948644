package etcdtest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/etcd"
)

// Fill writes until etcd takes no more.
func (c *Cluster) Fill(t testing.TB) {
	t.Helper()
	c.fill(t)
}

// FillWithKeys does so with keys of which none is superfluous.
func (c *Cluster) FillWithKeys(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cl := c.client(t)
	block := strings.Repeat("x", 64<<10)
	for i := 0; ; i++ {
		if _, err := cl.Put(ctx, fmt.Sprintf("/registry/fill/%d", i), block); err != nil {
			if ctx.Err() != nil {
				t.Fatal("the quota was never reached")
			}
			return
		}
	}
}

// Quota starts all members again, with another one.
func (c *Cluster) Quota(t testing.TB, bytes int64) {
	t.Helper()
	c.quota = bytes
	for _, m := range c.Members {
		m.Stop()
	}
	for _, m := range c.Members {
		if err := m.start(); err != nil {
			t.Fatal(err)
		}
	}
}

// Snapshot writes one of a member into a file of the test.
func (c *Cluster) Snapshot(t testing.TB, m *etcd.Members, name string) string {
	t.Helper()
	stream, err := m.Snapshot(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	file := filepath.Join(t.TempDir(), "snapshot.db")
	f, err := os.Create(file)
	if err == nil {
		_, err = io.Copy(f, stream)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// Restore has all members begin again as another cluster, with data that etcdutl has
// made of a snapshot as a restore has it made.
func (c *Cluster) Restore(t testing.TB, snapshot, token string) {
	t.Helper()
	tool := etcdutl(t)
	var initial []string
	for _, m := range c.Members {
		initial = append(initial, m.Name+"="+m.PeerURL)
	}
	c.token = token
	for _, m := range c.Members {
		m.Stop()
		m.Dir += "-" + token
		m.init, m.new = strings.Join(initial, ","), false
		out, err := exec.Command(tool, "snapshot", "restore", snapshot, "--name", m.Name, "--initial-cluster", m.init, "--initial-cluster-token", token,
			"--initial-advertise-peer-urls", m.PeerURL, "--data-dir", m.Dir, "--bump-revision", "1000000000", "--mark-compacted").CombinedOutput()
		if err != nil {
			t.Fatalf("etcdutl: %v\n%s", err, out)
		}
	}
	started := make(chan error, len(c.Members))
	for _, m := range c.Members {
		go func() { started <- m.start() }()
	}
	for range c.Members {
		if err := <-started; err != nil {
			t.Fatal(err)
		}
	}
}

var (
	tool      sync.Mutex
	toolBuilt string
)

// etcdutl is built of the module that the lab's is built of, into the directory of the
// test that first asks; Go remembers what it compiled.
func etcdutl(t testing.TB) string {
	t.Helper()
	tool.Lock()
	defer tool.Unlock()
	if _, err := os.Stat(toolBuilt); err == nil {
		return toolBuilt
	}
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatal(err)
	}
	into := filepath.Join(t.TempDir(), "etcdutl")
	build := exec.Command("go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", into, "go.etcd.io/etcd/etcdutl/v3")
	build.Dir = filepath.Join(strings.TrimSpace(string(dir)), "test", "software", "etcd-3.6.8")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build etcdutl: %v\n%s", err, out)
	}
	toolBuilt = into
	return into
}
