package cmd

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision"
	"github.com/ha-install/ha-install/provision/certs"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/test/golden"
)

func TestRenderCerts(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	one := func(file, subject, serial string, left time.Duration, state certs.State) certs.Certificate {
		return certs.Certificate{File: "/etc/kubernetes/" + file, Subject: subject, Issuer: "CN=kubernetes", Serial: serial, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(left), State: state}
	}
	day := 24 * time.Hour
	server := one("pki/apiserver.crt", "CN=kube-apiserver", "1f", 364*day, certs.Good)
	server.Names = []string{"cp-1", "kubernetes", "kubernetes.default", "10.96.0.1", "198.51.100.21"}
	server.Served = &certs.Served{Address: "198.51.100.21:6443", Serial: "1f", Same: true}
	old := one("pki/etcd/server.crt", "CN=cp-1", "2a", 364*day, certs.Good)
	old.Names, old.Process, old.Restart = []string{"cp-1", "127.0.0.1"}, certs.Etcd, "etcd runs since 2026-11-22T00:00:00Z, before the file was written"
	old.Served = &certs.Served{Address: "198.51.100.21:2379", Serial: "29"}
	silent := one("pki/etcd/peer.crt", "CN=cp-1", "2b", -3*time.Hour, certs.Expired)
	silent.Served = &certs.Served{Address: "198.51.100.21:2380", Err: "connection refused"}
	scheduler := one("scheduler.conf", "CN=system:kube-scheduler", "2c", 29*day, certs.Due)
	scheduler.Process, scheduler.Restart = certs.Scheduler, "kube-scheduler runs since 2026-11-22T00:00:00Z, before the file was written"
	early := one("admin.conf", "O=kubeadm:cluster-admins,CN=kubernetes-admin", "2d", 364*day, certs.Expired)
	early.NotBefore = now.Add(time.Hour)
	all := provision.Certificates{At: now, Within: units.Seconds(30 * day), State: certs.Expired, Hosts: []provision.HostCertificates{
		{Name: "cp-1", Role: inventory.RoleControlPlane, SSH: "ok", Certificates: []certs.Certificate{server, old, silent, scheduler, early}, Problems: []string{"/etc/kubernetes/super-admin.conf: no certificate in it"}},
		{Name: "cp-2", Role: inventory.RoleControlPlane, SSH: "cp-2: dial 198.51.100.22:22: no SSH connection within 1.3s"},
	}}
	var out bytes.Buffer
	if err := renderCerts(&out, all); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "certs.txt", out.Bytes())
}

func TestCertsOfHostsOutOfReach(t *testing.T) {
	file := writeInventory(t, nil)
	code, out, errOut := run(t, "", "certs", "check", file)
	if code != exitUnreachable || errOut != "" || !strings.Contains(out, "0 certificates on 0 of 5 hosts") || !strings.Contains(out, "\n  cp-3: ") {
		t.Errorf("exit code %d, %s\n%s", code, errOut, out)
	}
	code, out, _ = run(t, "", "certs", "check", "-o", "json", "--within", "60d", file)
	var v map[string]any
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != exitUnreachable || v["schema"] != 1.0 || v["withinSeconds"] != 5184000.0 {
		t.Errorf("exit code %d, %v\n%s", code, err, out)
	}
}

func TestDays(t *testing.T) {
	for text, want := range map[string]time.Duration{"30d": 720 * time.Hour, "12h": 12 * time.Hour, "0d": 0, "90m": 90 * time.Minute} {
		var d days
		if err := d.Set(text); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %v, %v", text, time.Duration(d), err)
		}
	}
	for _, text := range []string{"", "30", "-1d", "-5h", "30dd", "d", "1.5d"} {
		var d days
		if err := d.Set(text); err == nil {
			t.Errorf("%q was taken for %v", text, time.Duration(d))
		}
	}
	for d, want := range map[time.Duration]string{defaultWithin: "30d", 36 * time.Hour: "36h0m0s", 24 * time.Hour: "1d", 1500 * time.Millisecond: "2s"} {
		if got := spanOf(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}
