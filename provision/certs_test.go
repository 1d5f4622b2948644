package provision

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/certs"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/test/sim"
)

// month is how soon a certificate is due in the tests.
const month = 30 * 24 * time.Hour

func certificatesOf(ctx context.Context, w *sim.World, c *inventory.Cluster, away ...string) Certificates {
	ctx = w.Begin(ctx, nil)
	site := Connect(ctx, c, "", func(ctx context.Context, c *inventory.Cluster, ih inventory.Host, base string) (host.Host, error) {
		if slices.Contains(away, ih.Name) {
			return nil, &host.UnreachableError{Host: ih.Name, Address: ih.Address, Err: context.DeadlineExceeded}
		}
		return w.Dial(ctx, c, ih, base)
	})
	defer site.Close()
	return TakeCertificates(ctx, site, month)
}

// row is a certificate of a host by the end of its file's name.
func row(t *testing.T, all Certificates, host, file string) certs.Certificate {
	t.Helper()
	for _, h := range all.Hosts {
		for _, c := range h.Certificates {
			if h.Name == host && strings.HasSuffix(c.File, file) {
				return c
			}
		}
	}
	t.Fatalf("%s has no row %s", host, file)
	return certs.Certificate{}
}

func TestCertificatesOfACluster(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		all := certificatesOf(t.Context(), w, c)
		if all.State != certs.Good || all.Err() != nil {
			t.Errorf("state %s, error %v", all.State, all.Err())
		}
		count := map[string]int{}
		for _, h := range all.Hosts {
			count[h.Name] = len(h.Certificates)
			for _, c := range h.Certificates {
				if c.Restart != "" || c.Serial == "" || c.Served != nil && !c.Served.Same {
					t.Errorf("%s: %+v", h.Name, c)
				}
			}
		}
		if count["lb-1"] != 1 || count["cp-2"] != 14 || count["w-1"] != 2 {
			t.Errorf("certificates by host: %v", count)
		}
		for _, file := range []string{"etcd/server.crt", "etcd/peer.crt", "apiserver.crt"} {
			if s := row(t, all, "cp-3", file).Served; s == nil || !s.Same {
				t.Errorf("%s: served %+v", file, s)
			}
		}
	})
}

func TestCertificatesAreSeenWhateverIsDown(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Host("cp-2").Units["kubelet.service"].Active = false // no quorum, no API
		w.Host("cp-3").Expire(time.Now().Add(-time.Minute), "apiserver", "etcd-peer", "controller-manager.conf")
		w.Host("w-1").Expire(time.Now().Add(time.Hour), "kubelet")
		all := certificatesOf(t.Context(), w, c, "cp-1")
		var away *UnreachableError
		if err := all.Err(); !errors.As(err, &away) || !strings.Contains(err.Error(), "cp-1") {
			t.Errorf("error %v", err)
		}
		if all.State != certs.Expired {
			t.Errorf("state %s", all.State)
		}
		if s := row(t, all, "cp-2", "etcd/server.crt").Served; s.Serial != "" || !strings.Contains(s.Err, "refused") {
			t.Errorf("an etcd that does not run: %+v", s)
		}
		if got := row(t, all, "cp-3", "etcd/peer.crt"); got.State != certs.Expired || got.Served.Err != "" || !got.Served.Same {
			t.Errorf("one that has expired is seen in use: %+v, %+v", got, got.Served)
		}
		if got := row(t, all, "cp-3", "controller-manager.conf"); got.State != certs.Expired || got.Process != certs.ControllerManager {
			t.Errorf("in a kubeconfig: %+v", got)
		}
		if got := row(t, all, "w-1", "kubelet-client-current.pem"); got.State != certs.Due {
			t.Errorf("a worker's: %+v", got)
		}
	})
}

func TestParseCertificates(t *testing.T) {
	seen, err := parseCertificates([]byte("file=100 /a b.crt\n-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\nfile=200 /empty\nprocess=300 etcd\nprocess=250 etcd\n"))
	if err != nil {
		t.Fatal(err)
	}
	if f := seen.Files["/a b.crt"]; f.Changed.Unix() != 100 || strings.Count(string(f.PEM), "\n") != 3 {
		t.Errorf("a file: %v %q", f.Changed, f.PEM)
	}
	if len(seen.Files) != 2 || seen.Began["etcd"].Unix() != 250 {
		t.Errorf("%d files, etcd since %v", len(seen.Files), seen.Began["etcd"])
	}
	for _, bad := range []string{"file= /a", "process=x etcd", "process=5"} {
		if _, err := parseCertificates([]byte(bad + "\n")); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// TestProcessArguments: the script splits at blanks, and the kernel has the first
// 15 letters of a name.
func TestProcessArguments(t *testing.T) {
	c := testCluster(t)
	for _, arg := range processArguments(c.ControlPlanes()[0]) {
		f := strings.Fields(strings.TrimPrefix(arg, "process="))
		if len(f) != 3 || len(f[1]) > 15 || !strings.HasPrefix(f[0], f[1]) || !strings.HasPrefix(f[2], "--") {
			t.Errorf("%q", arg)
		}
		if !slices.ContainsFunc(certs.On(true, false, false), func(file certs.File) bool { return file.Process == f[0] }) {
			t.Errorf("%s reads no certificate", f[0])
		}
	}
}
