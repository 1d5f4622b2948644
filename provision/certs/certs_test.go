package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

var today = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// made is a certificate of its own that ends then.
func made(t *testing.T, serial int64, end time.Time) (*x509.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "cp-1", Organization: []string{"o"}}, NotBefore: today.Add(-time.Hour), NotAfter: end,
		DNSNames: []string{"cp-1"}, IPAddresses: []net.IP{net.IPv4(198, 51, 100, 21)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func server() File { return leaves[0] }

func TestListSaysWhatACertificateIs(t *testing.T) {
	c, text := made(t, 0xabc, today.Add(10*24*time.Hour))
	_, chain := made(t, 2, today.Add(time.Hour))
	seen := Seen{Files: map[string]Found{
		server().Path:                    {PEM: append(text, chain...), Changed: today},
		confDir + "/kubelet.conf":        {PEM: []byte("\n")},
		confDir + "/admin.conf":          {PEM: []byte("nothing")},
		"/etc/kubernetes/of-nobody.conf": {PEM: text},
	}, Began: map[string]time.Time{Etcd: today.Add(time.Minute)}}
	all, bad := List(On(true, false, false), seen, today, 24*time.Hour)
	if len(bad) != 1 || !strings.Contains(bad[0].Error(), "admin.conf") {
		t.Errorf("unreadable: %v", bad)
	}
	if len(all) != 2 {
		t.Fatalf("%d certificates, want 2: %v", len(all), all)
	}
	got := all[0]
	if got.Serial != "abc" || got.Subject != "CN=cp-1,O=o" || !slices.Equal(got.Names, []string{"cp-1", "198.51.100.21"}) || got.State != Good ||
		got.Renewal != "etcd-server" || got.Process != Etcd || got.Restart != "" || !got.NotAfter.Equal(c.NotAfter) {
		t.Errorf("got %+v", got)
	}
	if all[1].State != Due || all[1].Renewal != "" || all[1].Process != "" {
		t.Errorf("what follows in a file is its chain: %+v", all[1])
	}
}

func TestStates(t *testing.T) {
	for name, row := range map[string]struct {
		end    time.Time
		now    time.Time
		within time.Duration
		want   State
	}{
		"good for long":             {today.Add(48 * time.Hour), today, time.Hour, Good},
		"due to the second":         {today.Add(time.Hour), today, time.Hour, Due},
		"a second longer":           {today.Add(time.Hour + time.Second), today, time.Hour, Good},
		"at its end it has expired": {today, today, 0, Expired},
		"it has long expired":       {today.Add(-time.Minute), today, 0, Expired},
		"nothing asked for":         {today.Add(time.Second), today, 0, Good},
		"not valid yet":             {today.Add(time.Hour), today.Add(-2 * time.Hour), 0, Expired},
	} {
		c, _ := made(t, 1, row.end)
		if got := stateOf(c, row.now, row.within); got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
	}
}

func TestAProcessThatIsOlderThanItsFileHasToBeRestarted(t *testing.T) {
	_, text := made(t, 1, today.Add(time.Hour))
	for name, row := range map[string]struct {
		began map[string]time.Time
		want  bool
	}{
		"it began later":               {map[string]time.Time{Etcd: today.Add(time.Minute)}, false},
		"in the same second":           {map[string]time.Time{Etcd: today.Add(-time.Second)}, false},
		"it began before":              {map[string]time.Time{Etcd: today.Add(-2 * time.Second)}, true},
		"it does not run":              {nil, false},
		"another one began before":     {map[string]time.Time{APIServer: today.Add(-time.Hour)}, false},
		"what nobody reads has no one": {map[string]time.Time{"": today.Add(-time.Hour)}, false},
	} {
		all, _ := List([]File{server()}, Seen{Files: map[string]Found{server().Path: {PEM: text, Changed: today}}, Began: row.began}, today, 0)
		if got := all[0].Restart != ""; got != row.want {
			t.Errorf("%s: %q", name, all[0].Restart)
		}
	}
}

func TestWhatIsServedIsComparedWithTheFile(t *testing.T) {
	own, text := made(t, 1, today.Add(48*time.Hour))
	other, _ := made(t, 2, today.Add(-time.Minute))
	list := func() Certificate {
		all, _ := List([]File{server()}, Seen{Files: map[string]Found{server().Path: {PEM: text, Changed: today}}}, today, 0)
		return all[0]
	}
	same := list()
	same.Serves("198.51.100.21:2379", own, nil)
	if !same.Served.Same || same.Restart != "" || same.Served.Serial != "1" || Worst([]Certificate{same}, today) != Good {
		t.Errorf("its own: %+v", same)
	}
	old := list()
	old.Serves("198.51.100.21:2379", other, nil)
	if old.Served.Same || !strings.Contains(old.Restart, "shows the certificate 2") || Worst([]Certificate{same, old}, today) != Expired {
		t.Errorf("another one, which has expired: %+v", old)
	}
	silent := list()
	silent.Serves("198.51.100.21:2379", nil, errors.New("connection refused"))
	if silent.Served.Serial != "" || silent.Restart != "" || silent.Served.Err != "connection refused" {
		t.Errorf("none: %+v", silent)
	}
}

func TestWhereCertificatesLie(t *testing.T) {
	for name, row := range map[string]struct {
		files     []File
		has, none string
	}{
		"a worker has no leaf of kubeadm's": {On(false, true, false), KubeletClient, leaves[0].Path},
		"a balancer has its CA alone":       {On(false, false, true), "/etc/haproxy/kubernetes-ca.crt", KubeletClient},
		"a master that balances":            {On(true, false, true), "/etc/haproxy/kubernetes-ca.crt", ""},
	} {
		has := func(p string) bool { return slices.ContainsFunc(row.files, func(f File) bool { return f.Path == p }) }
		if !has(row.has) || row.none != "" && has(row.none) {
			t.Errorf("%s: %v", name, row.files)
		}
	}
}
