package provision

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/provision/preflight"
	"github.com/ha-install/ha-install/test/sim"
)

func TestUnfit(t *testing.T) {
	three := []string{"cp-1", "cp-2", "cp-3"}
	all := func(n int) map[string]int { return map[string]int{"cp-1": n, "cp-2": n, "cp-3": n} }
	const stale = `a server with a certificate of "x", issued by "old"`
	rows := []struct {
		name    string
		sights  []sight
		serving []string
		want    []string // how each sentence begins and ends, "..." between
	}{
		{"every host meets every master", []sight{{from: "cp-1", answers: all(4)}, {from: "w-1", answers: all(4)}}, three, nil},
		{"the first master alone serves, and all meet it", []sight{{from: "cp-1", answers: map[string]int{"cp-1": 9}}, {from: "cp-2", answers: map[string]int{"cp-1": 9}}}, three[:1], nil},
		{"a host that misses one by chance is no fault while others meet it", []sight{{from: "cp-1", answers: map[string]int{"cp-1": 2, "cp-2": 2}}, {from: "cp-2", answers: all(4)}}, three, nil},
		{"nobody meets a master that serves", []sight{{from: "cp-1", answers: map[string]int{"cp-1": 9, "cp-2": 9}}}, three, []string{"nobody meets cp-3...health check"}},
		{"nobody is there", []sight{{from: "cp-1", silences: 3, silence: "refused"}}, three[:1], []string{"no host meets an API server there (refused), though cp-1 runs...way there"}},
		{"one host does not get there", []sight{{from: "cp-1", answers: all(4)}, {from: "cp-2", silences: 3, silence: "no answer in time"}}, three[:1], []string{"cp-2: 3 of 3 connections failed (no answer in time): look at the way there...rules"}},
		{"a stale backend among good ones", []sight{{from: "cp-1", answers: all(4), others: map[string]int{stale: 4}}}, three, []string{"from cp-1: 4 connections meet a server...old\""}},
		{"a backend that does not answer", []sight{{from: "w-1", answers: all(4), silences: 3, silence: "EOF"}, {from: "cp-1", answers: all(4), silences: 3, silence: "EOF"}}, three,
			[]string{"w-1: 3 of 15 connections failed (EOF): a backend that does not answer...of each", "cp-1: 3 of 15 connections failed (EOF): a backend that does not answer...of each"}},
		{"a master that never meets itself, as others do", []sight{{from: "cp-1", answers: map[string]int{"cp-2": 4, "cp-3": 4}, silences: 3, silence: "no answer in time"}, {from: "cp-2", answers: all(4)}}, three,
			[]string{"cp-1: 3 of 11 connections failed (no answer in time), and it never meets itself...cannot hairpin...client's"}},
		{"the only master that serves never meets itself", []sight{{from: "cp-1", silences: 3, silence: "no answer in time"}, {from: "cp-2", answers: map[string]int{"cp-1": 9}}}, three[:1],
			[]string{"cp-1: 3 of 3 connections failed (no answer in time), and it never meets itself...cannot hairpin...client's"}},
		{"somebody else answers for all", []sight{{from: "cp-1", others: map[string]int{stale: 9}}, {from: "cp-2", others: map[string]int{stale: 9}}}, three[:1], []string{"from cp-1, cp-2: 18 connections meet a server...old\"", "nobody meets cp-1...health check"}},
	}
	for _, row := range rows {
		got := unfit(row.sights, row.serving)
		if len(got) != len(row.want) {
			t.Errorf("%s: %q, wanted %d sentences", row.name, got, len(row.want))
			continue
		}
		for i, want := range row.want {
			for _, part := range strings.Split(want, "...") {
				if !strings.Contains(got[i], part) {
					t.Errorf("%s: %q, wanted %q", row.name, got[i], want)
				}
			}
		}
	}
}

// externally is the test's cluster behind a balancer of the user's own.
func externally(t *testing.T) *inventory.Cluster {
	c := onMasters(testCluster(t))
	c.Spec.LoadBalancer = inventory.LoadBalancer{Mode: inventory.BalancerExternal}
	c.Spec.Endpoint.Port = 6443
	return c
}

// servedBy is a server's certificate that a CA of the tests has issued for an address.
func servedBy(t *testing.T, ca *pki.CASet, address string) *tls.Certificate {
	t.Helper()
	pem := map[string][]byte{}
	for _, f := range ca.Files() {
		pem[strings.TrimPrefix(f.Path, kube.PKIDir+"/")] = f.Content
	}
	pair, err := tls.X509KeyPair(pem[pki.CACert], pem["ca.key"])
	if err != nil {
		t.Fatal(err)
	}
	parent, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "kube-apiserver"}, IPAddresses: []net.IP{net.ParseIP(address)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, key.Public(), pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestExternalBalancerIsCheckedBeforeAnybodyJoins has a running cluster grow
// through balancers that are not fit for it: nothing is changed.
func TestExternalBalancerIsCheckedBeforeAnybodyJoins(t *testing.T) {
	t.Parallel()
	c, dirs := externally(t), baseDirs(t)
	sets, err := caSets()
	if err != nil {
		t.Fatal(err)
	}
	five := withoutCA(fiveMasters(c))
	rows := []struct {
		name    string
		outside sim.Outside
		want    string
	}{
		{"a stale backend of another CA", sim.Outside{Other: servedBy(t, sets[1], c.Spec.Endpoint.Host)}, "not this cluster's CA: a stale backend"},
		{"a stale backend of another CA, for another name", sim.Outside{Other: servedBy(t, sets[1], "198.51.100.99")}, "not this cluster's CA: a stale backend"},
		{"a server of this CA that is no master", sim.Outside{Other: servedBy(t, sets[0], c.Spec.Endpoint.Host)}, "no master of the inventory"},
		{"a certificate without the endpoint's name", sim.Outside{Other: servedBy(t, sets[0], "198.51.100.99")}, "not valid for 198.51.100.100 but for 198.51.100.99"},
		{"no hairpin", sim.Outside{NoHairpin: true}, "cp-1: 3 of "},
		{"a master that is not among the backends", sim.Outside{Without: "cp-2"}, "nobody meets cp-2"},
	}
	bubble(t, func(t *testing.T) {
		w := newWorld(t, five)
		w.Slow, w.Outside = true, &sim.Outside{}
		running(t, w, c, dirs[0])
		for _, row := range rows {
			w.Outside = &row.outside
			w.Begin(t.Context(), nil)
			before := w.Snapshot(nil)
			_, err := applyAll(t.Context(), w, five, dirs[1], nil, nil)
			var unfit *BalancerError
			if !errors.As(err, &unfit) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: %v, wanted %q", row.name, err, row.want)
			}
			if diff := cmp.Diff(before, w.Snapshot(nil)); diff != "" {
				t.Errorf("%s: hosts were changed (-before +after):\n%s", row.name, diff)
			}
		}
		w.Outside = &sim.Outside{}
		running(t, w, five, dirs[1])
		if bad := unfinished(w, five); bad != "" {
			t.Error(bad)
		}
	})
}

// TestExternalBalancerOfANewCluster is found out before anything is changed
// where somebody else answers, and before the first join where it takes an API
// server to tell.
func TestExternalBalancerOfANewCluster(t *testing.T) {
	t.Parallel()
	c, dirs := externally(t), baseDirs(t)
	sets, err := caSets()
	if err != nil {
		t.Fatal(err)
	}
	bubble(t, func(t *testing.T) {
		w := newWorld(t, c)
		w.Slow, w.Outside = true, &sim.Outside{Other: servedBy(t, sets[1], "198.51.100.99")}
		before := w.Snapshot(nil)
		_, err := applyAll(context.Background(), w, c, dirs[0], nil, nil)
		var found *preflight.Failure
		if !errors.As(err, &found) {
			t.Errorf("a stale backend: %v, wanted preflight to find it", err)
		}
		if diff := cmp.Diff(before, w.Snapshot(nil)); diff != "" {
			t.Errorf("hosts were changed (-before +after):\n%s", diff)
		}
		w.Outside = &sim.Outside{NoHairpin: true}
		_, err = applyAll(context.Background(), w, c, dirs[0], nil, nil)
		var unfit *BalancerError
		if !errors.As(err, &unfit) || !strings.Contains(err.Error(), "cp-1: 3 of 3 connections failed") {
			t.Errorf("no hairpin: %v", err)
		}
		if diff := cmp.Diff([]string{"cp-1 voter"}, w.Votes()); diff != "" {
			t.Errorf("members (-want +got):\n%s", diff)
		}
		w.Outside = &sim.Outside{}
		running(t, w, withoutCA(c), dirs[1])
		if bad := unfinished(w, c); bad != "" {
			t.Error(bad)
		}
	})
}
