package provision

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/test/sim"
)

// TestARestoreOntoOtherHostsIsRefusedBeforeAnyIsChanged has every reason once.
func TestARestoreOntoOtherHostsIsRefusedBeforeAnyIsChanged(t *testing.T) {
	t.Parallel()
	dirs, others := baseDirs(t), baseDirs(t)
	before := testCluster(t)
	former := before.ControlPlanes()[1].IP().String()
	worker := before.Workers()[0].IP().String()
	lost := loseAll(t, before, dirs[0])
	start := lost.onto(t, elsewhere(t))
	_, stranger := sealed(t)
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, w *sim.World, c *inventory.Cluster, o *RestoreOptions)
		want    string
	}{
		{"nothing that opens the keys", func(_ *testing.T, _ *sim.World, _ *inventory.Cluster, o *RestoreOptions) { o.Openers = nil },
			"the same command with what opens keys.tar.age"},
		{"another's identity", func(t *testing.T, _ *sim.World, _ *inventory.Cluster, o *RestoreOptions) {
			var err error
			if o.Openers, err = backup.Openers(stranger, ""); err != nil {
				t.Fatal(err)
			}
		}, "keys-unusable"},
		{"another pod network", func(_ *testing.T, _ *sim.World, c *inventory.Cluster, _ *RestoreOptions) {
			c.Spec.Network.PodCIDR = "10.99.0.0/16"
		}, "spec.network.podCIDR: the cluster has 10.244.0.0/16, the inventory wants 10.99.0.0/16"},
		{"another CA in the inventory", func(_ *testing.T, _ *sim.World, c *inventory.Cluster, _ *RestoreOptions) {
			c.Spec.PKI.Directory = others[1] + "/pki"
		}, "is not the one of the backup"},
		{"a version two minors further", func(_ *testing.T, _ *sim.World, c *inventory.Cluster, o *RestoreOptions) {
			c.Spec.Kubernetes.Version, c.Spec.Software.Bundle = olderVersion, "older.tar"
		}, "the backup is of Kubernetes v1.36.3, the inventory wants v1.35.4"},
		{"one master of the cluster among them", func(_ *testing.T, w *sim.World, _ *inventory.Cluster, _ *RestoreOptions) {
			w.Host("cp-8").Put(markerFile, 0o644, `{"cluster":"prod","caSHA256":"`+lost.ca+`","established":true}`)
		}, "cp-1, cp-7 is no master of cluster prod, cp-8 is"},
		{"a worker that belongs to it still", func(_ *testing.T, w *sim.World, _ *inventory.Cluster, _ *RestoreOptions) {
			w.Host("w-1").Put(markerFile, 0o644, `{"cluster":"prod","caSHA256":"`+lost.ca+`"}`)
		}, "w-1 belong to a cluster prod already"},
		{"a master of the lost cluster that serves", func(t *testing.T, w *sim.World, _ *inventory.Cluster, _ *RestoreOptions) {
			w.Strangers = map[string]sim.Stranger{former + ":2379": {Shows: shownBy(t, dirs[0], "etcd/ca", former, time.Now().Add(time.Hour))}}
		}, "cp-8 reaches " + former + ":2379: clients would be told two truths"},
		{"one whose certificate has expired, and is for another name", func(t *testing.T, w *sim.World, _ *inventory.Cluster, _ *RestoreOptions) {
			w.Strangers = map[string]sim.Stranger{former + ":6443": {Shows: shownBy(t, dirs[0], "ca", "198.51.100.9", time.Now().Add(-time.Second))}}
		}, "cp-8 reaches " + former + ":6443: clients would be told two truths"},
		{"one that hangs", func(_ *testing.T, w *sim.World, _ *inventory.Cluster, _ *RestoreOptions) {
			w.Strangers = map[string]sim.Stranger{former + ":2380": {Hangs: true}}
		}, "cp-8 reaches " + former + ":2380, which says nothing: clients would be told two truths"},
		{"a worker of the lost cluster that runs", func(_ *testing.T, w *sim.World, _ *inventory.Cluster, _ *RestoreOptions) {
			w.Strangers = map[string]sim.Stranger{worker + ":10250": {Plain: true}}
		}, "cp-7 reaches " + worker + ":10250; cp-8 reaches " + worker + ":10250: their Nodes and pods are taken out"},
		{"a kubelet of a lost master that runs", func(_ *testing.T, w *sim.World, _ *inventory.Cluster, _ *RestoreOptions) {
			w.Strangers = map[string]sim.Stranger{former + ":10250": {Plain: true}}
		}, "Nodes of the cluster in the backup still run"},
		{"a full disk", func(_ *testing.T, w *sim.World, _ *inventory.Cluster, _ *RestoreOptions) {
			w.Host("cp-1").Filled = 30<<20 - 1<<10
		}, "cp-1 has no room for the snapshot"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, o := elsewhere(t), lost.o
				w := start.World(t, c)
				test.prepare(t, w, c, &o)
				before := w.Snapshot(nil)
				_, err := restoreAll(t.Context(), w, c, dirs[0], o, nil, nil)
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want %q", err, test.want)
				}
				if after := w.Snapshot(nil); after != before {
					t.Errorf("hosts were changed:\n%s", after)
				}
			})
		})
	}
	if _, err := os.Stat(lost.o.From); err != nil {
		t.Error(err)
	}
}

// shownBy is the certificate of a server, signed by a CA of the set in dir.
func shownBy(t *testing.T, dir, ca, address string, until time.Time) *tls.Certificate {
	t.Helper()
	signer, err := tls.LoadX509KeyPair(filepath.Join(dir, "pki", ca+".crt"), filepath.Join(dir, "pki", ca+".key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: until.Add(-time.Hour), NotAfter: until, IPAddresses: []net.IP{net.ParseIP(address)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, own, signer.Leaf, key.Public(), signer.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestWhatHasTakenTheAddressesOfLostMastersIsNoneOfThem has the lost masters'
// addresses given to others meanwhile.
func TestWhatHasTakenTheAddressesOfLostMastersIsNoneOfThem(t *testing.T) {
	t.Parallel()
	c, dirs := elsewhere(t), baseDirs(t)
	before := testCluster(t)
	lost := loseAll(t, before, dirs[0])
	start := lost.onto(t, c)
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		address := func(i int, port string) string {
			return net.JoinHostPort(before.ControlPlanes()[i].IP().String(), port)
		}
		valid := time.Now().Add(time.Hour)
		w.Strangers = map[string]sim.Stranger{
			address(0, "6443"): {Shows: shownBy(t, dirs[1], "ca", "198.51.100.21", valid)},
			address(0, "2379"): {Shows: shownBy(t, dirs[1], "etcd/ca", "198.51.100.21", valid)},
			address(1, "6443"): {Shows: shownBy(t, dirs[0], "etcd/ca", "198.51.100.22", valid)}, // the right set's wrong CA
			address(2, "2380"): {Plain: true},
		}
		if _, err := restoreAll(t.Context(), w, c, dirs[0], lost.o, nil, nil); err != nil {
			t.Fatal(err)
		}
		if bad := lost.notRehoused(w, c); bad != "" {
			t.Error(bad)
		}
	})
}
