//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/bundle"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/test/lab"
)

// usersBalancer is in no inventory of this part: on it the test runs the
// balancer that is the user's own.
const usersBalancer = "lb-1"

// ownBalancer is a configuration of HAProxy as a user may write it.
type ownBalancer struct {
	servers string // for everybody
	self    string // for connections from cp-1; "" for the same
}

const haproxyConfig = `defaults
    mode tcp
    timeout connect 2s
    timeout client 1h
    timeout server 1h
frontend api
    bind :6443
    use_backend self if { src %s }
    default_backend all
backend all
    option httpchk GET /readyz
    default-server inter 1s fall 2 rise 2
%s
backend self
    option httpchk GET /readyz
    default-server inter 1s fall 2 rise 2
%s
frontend other
    bind :7443 ssl crt /root/own/other.pem
    tcp-request content reject
`

// serveScript starts the balancer anew with a configuration.
const serveScript = `set -e
printf '%s' "$1" >/root/own/haproxy.cfg
haproxy -c -q -f /root/own/haproxy.cfg
systemctl stop own-haproxy.service 2>/dev/null || true
systemctl reset-failed own-haproxy.service 2>/dev/null || true
systemd-run --quiet --unit own-haproxy.service haproxy -W -f /root/own/haproxy.cfg`

func (o ownBalancer) serve(t *testing.T) {
	t.Helper()
	if o.self == "" {
		o.self = o.servers
	}
	onHost(t, usersBalancer, "sh", "-c", serveScript, "sh", fmt.Sprintf(haproxyConfig, addressOf(t, "cp-1"), o.servers, o.self))
}

// servers are backends that are checked as they should be.
func servers(t *testing.T, hosts ...string) string {
	t.Helper()
	var b strings.Builder
	for _, name := range hosts {
		fmt.Fprintf(&b, "    server %s %s:6443 check check-ssl verify none\n", name, addressOf(t, name))
	}
	return b.String()
}

// otherServer is a backend that nobody checks, and that is no API server.
const otherServer = "    server other 127.0.0.1:7443\n"

// shows has the other backend serve with a certificate in the user's directory.
func shows(t *testing.T, dir, name string) {
	t.Helper()
	pem := readFile(t, filepath.Join(dir, name+".crt")) + readFile(t, filepath.Join(dir, name+".key"))
	onHost(t, usersBalancer, "sh", "-c", `mkdir -p /root/own && printf '%s' "$1" >/root/own/other.pem`, "sh", pem)
}

// installHAProxy brings the bundle's package to a host, as a user would.
func installHAProxy(t *testing.T, name string) {
	t.Helper()
	b, err := bundle.Open(theLab.Bundle(lab.DefaultVersion))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	h := sceneOn(t, writeInventory(t, baseHosts, nil), name).Host
	argv := []string{"dpkg", "--install", "--force-confold"}
	for _, item := range b.For(inventory.RoleLoadBalancer) {
		if item.Kind != bundle.KindPackage || item.Package.Name == "keepalived" {
			continue
		}
		content, err := io.ReadAll(b.Reader(item))
		if err != nil {
			t.Fatal(err)
		}
		at := path.Join("/root/own", path.Base(item.Path))
		if _, err := h.Upload(t.Context(), host.File{Path: at, Mode: 0o644, Content: bytes.Clone(content)}); err != nil {
			t.Fatal(err)
		}
		argv = append(argv, at)
	}
	onHost(t, name, argv...)
	onHost(t, name, "systemctl", "disable", "--now", "haproxy.service")
}

// externally is the lab's inventory behind the user's balancer.
func externally(t *testing.T, ca string, more ...string) string {
	t.Helper()
	return writeInventory(t, slices.Concat(masters, []string{"w-1"}, more), func(d document) {
		d.spec()["endpoint"] = map[string]any{"host": addressOf(t, usersBalancer)}
		d.spec()["loadBalancer"] = map[string]any{"mode": "external"}
		d.spec()["pki"] = map[string]any{"directory": ca}
	})
}

// externalBalancer makes a cluster behind a balancer that the test runs, and
// lets it grow through one that is not fit for that: found before anything is
// changed.
func externalBalancer(t *testing.T) {
	bareWithSpare(t)
	dir := usersCA(t)
	const leaf = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "
	openssl(t, dir, "req -config openssl.cnf -x509 -days 30 "+leaf+"-keyout stale.key -out stale.crt -subj /CN=another-cluster")
	openssl(t, dir, "req -config openssl.cnf "+leaf+"-keyout nameless.key -out nameless.csr -subj /CN=kube-apiserver")
	openssl(t, dir, "x509 -req -in nameless.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile openssl.cnf -extensions leaf -out nameless.crt")
	installHAProxy(t, usersBalancer)
	good := ownBalancer{servers: servers(t, "cp-1", "cp-2", "cp-3", "cp-4")}

	shows(t, dir, "stale")
	ownBalancer{servers: servers(t, masters...) + otherServer}.serve(t)
	t.Run("a stale backend before there is a cluster", func(t *testing.T) {
		refused(t, externally(t, dir), 4, "a backend answers at "+addressOf(t, usersBalancer)+":6443", "another-cluster", "before this cluster has an API server")
	})
	good.serve(t)
	path := externally(t, dir)
	r := ha(t, "apply", path)
	r.want(t, 0)
	t.Logf("bare hosts to a verified cluster behind the user's balancer: %s", r.took.Round(100*time.Millisecond))
	awaitFaultless(t, path, time.Minute)
	wantBackendsAt(t, net.JoinHostPort(addressOf(t, usersBalancer), "6443"), masters)
	awaitProbePodsGone(t)

	grown := externally(t, dir, "cp-4")
	rows := []struct {
		name  string
		shows string
		own   ownBalancer
		texts []string
	}{
		{"a stale backend", "stale", ownBalancer{servers: good.servers + otherServer}, []string{`issued by "another-cluster", which is not this cluster's CA`, "cp-4"}},
		{"a certificate without the endpoint's name", "nameless", ownBalancer{servers: good.servers + otherServer}, []string{"is not valid for " + addressOf(t, usersBalancer)}},
		{"a master does not reach itself", "stale", ownBalancer{servers: good.servers, self: servers(t, "cp-2", "cp-3") + "    server cp-1 198.51.100.254:6443\n"},
			[]string{"cp-1: 3 of ", "never meets itself, as others do: the balancer cannot hairpin"}},
		{"a master is not among the backends", "stale", ownBalancer{servers: servers(t, "cp-1", "cp-3")}, []string{"nobody meets cp-2, although its API server is ready"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			shows(t, dir, row.shows)
			row.own.serve(t)
			r := refusedOnCluster(t, grown, "cp-4", 4, row.texts...)
			t.Logf("found in %s", r.took.Round(100*time.Millisecond))
		})
	}
	good.serve(t)
	ha(t, "apply", grown).want(t, 0)
	wantMembers(t, append(slices.Clone(masters), "cp-4"))
	ha(t, "reset", "--confirm", clusterName, grown).want(t, 0)
	recreate(t, usersBalancer)
}
