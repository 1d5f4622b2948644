package sim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/test/bufconn"
)

// buffer is what a connection in memory holds: without any, TLS on both ends
// would wait for the other to read.
const buffer = 256 << 10

// service is what a port of a host leads to; nil when nothing listens.
func (h *Host) service(port string) *bufconn.Listener {
	switch port {
	case "2379":
		if h.serving() != nil {
			return h.server("etcd", h.newEtcd)
		}
	case "2380":
		if h.serving() != nil {
			return h.server("etcd-peer", func(p *bufconn.Listener) {
				h.serveHTTP(p, http.NotFoundHandler(), h.serverTLS(pkiDir+"/etcd/peer", pkiDir+"/etcd/ca.crt"))
			})
		}
	case "6443":
		if h.apiUp() {
			return h.server("api", h.newAPI)
		}
	case "10257":
		return h.component("kube-controller-manager")
	case "10259":
		return h.component("kube-scheduler")
	case "10248":
		if h.active("kubelet.service") && !h.off && !h.hit("kubelet") {
			return h.server("kubelet", func(p *bufconn.Listener) {
				h.serveHTTP(p, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }), nil)
			})
		}
	}
	return nil
}

// component is a controller-manager's or scheduler's own health port.
func (h *Host) component(name string) *bufconn.Listener {
	if _, manifest := h.Files["/etc/kubernetes/manifests/"+name+".yaml"]; !manifest || h.hit(name) {
		return nil
	}
	return h.server(name, func(p *bufconn.Listener) {
		h.serveHTTP(p, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }), h.serverTLS(pkiDir+"/apiserver", pkiDir+"/ca.crt"))
	})
}

// server starts a service once.
func (h *Host) server(name string, start func(*bufconn.Listener)) *bufconn.Listener {
	if h.servers[name] == nil {
		p := bufconn.Listen(buffer)
		h.servers[name] = p
		h.w.t.Cleanup(func() { p.Close() })
		start(p)
	}
	return h.servers[name]
}

// apiUp says whether the host's API server runs: it needs its etcd, and that
// one a leader.
func (h *Host) apiUp() bool {
	_, manifest := h.Files["/etc/kubernetes/manifests/kube-apiserver.yaml"]
	m := h.serving()
	starts := h.DoesNotStart == "" || h.DoesNotStart != h.apiRuns
	return !h.apiEnded && starts && manifest && h.valid(pkiDir+"/apiserver-etcd-client.crt") && m != nil && !m.learner && h.leader() != nil && !h.hit("kube-apiserver")
}

func (h *Host) newEtcd(p *bufconn.Listener) {
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(h.serverTLS(pkiDir+"/etcd/server", pkiDir+"/etcd/ca.crt"))))
	s := &etcdServer{h: h}
	pb.RegisterClusterServer(server, s)
	pb.RegisterMaintenanceServer(server, s)
	pb.RegisterKVServer(server, s)
	pb.RegisterLeaseServer(server, s)
	go func() { _ = server.Serve(p) }() // ends with the test
	h.w.t.Cleanup(server.Stop)
}

func (h *Host) newAPI(p *bufconn.Listener) {
	h.serveHTTP(p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		if err := h.answer(answer, r); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // a client that went away
	}), h.serverTLS(pkiDir+"/apiserver", pkiDir+"/ca.crt"))
}

// answer serves one request; what changes something is a call to the host,
// which may be cut. A server whose etcd has no leader fails.
func (h *Host) answer(w http.ResponseWriter, r *http.Request) error {
	serve := func() error {
		if !h.apiUp() {
			return errors.New("etcd failed")
		}
		if r.URL.Path == "/version" {
			w.Header().Set("Content-Type", "application/json")
			return json.NewEncoder(w).Encode(map[string]string{"gitVersion": h.apiRuns})
		}
		if needsSpace(r) && len(h.w.etcd.space.full) > 0 {
			return errors.New("etcdserver: mvcc: database space exceeded")
		}
		if name, node := strings.CutPrefix(r.URL.Path, "/api/v1/nodes/"); node && r.Method == http.MethodDelete {
			h.w.inspectDeletion(name)
		}
		h.w.API.ServeHTTP(w, r)
		return nil
	}
	name, writes := r.Method+" "+withoutNames(r.URL.Path), r.Method != http.MethodGet && r.URL.Query().Get("dryRun") == ""
	if !writes && r.Method != http.MethodGet {
		name += " (dry run)"
	}
	return h.served(r.Context(), name, writes, serve)
}

// withoutNames takes what is drawn at random out of a path.
func withoutNames(path string) string {
	before, _, found := strings.Cut(path, "/bootstrap-token-")
	if found {
		before += "/bootstrap-token-"
	}
	return before
}

func (h *Host) serveHTTP(p *bufconn.Listener, handler http.Handler, config *tls.Config) {
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	var l net.Listener = p
	if config != nil {
		l = tls.NewListener(p, config)
	}
	go func() { _ = server.Serve(l) }() // ends with the test
	h.w.t.Cleanup(func() { server.Close() })
}

// serverTLS reads certificates anew for each connection, as they are on disk.
func (h *Host) serverTLS(pair, ca string) *tls.Config {
	return &tls.Config{NextProtos: []string{"h2"}, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		h.w.mu.Lock()
		defer h.w.mu.Unlock()
		own, err := tls.X509KeyPair(h.Files[pair+".crt"].Content, h.Files[pair+".key"].Content)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(h.Files[ca].Content)
		return &tls.Config{Certificates: []tls.Certificate{own}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven, NextProtos: []string{"h2"}}, nil
	}}
}

// issueUntil signs a certificate with a CA that is on the host, for all the names
// by which the host is asked.
func (h *Host) issueUntil(end time.Time, ca, cn string, orgs ...string) (cert, key string) {
	pair, err := tls.X509KeyPair(h.Files[ca+".crt"].Content, h.Files[ca+".key"].Content)
	if err != nil {
		h.w.t.Errorf("sim: %s: %s: %v", h.name, ca, err)
		return "", ""
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn, Organization: orgs},
		NotBefore: end.Add(-lifetime - time.Hour), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{h.name, "localhost"}, IPAddresses: []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(h.address), net.ParseIP(h.w.vip)},
	}
	authority, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		panic(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, private.Public(), pair.PrivateKey)
	if err != nil {
		panic(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}

// behind is the next API server behind the balancers, in turn for each host.
func (w *World) behind(from *Host) *Host {
	balancer := false
	for _, h := range w.hosts {
		balancer = balancer || h.keepalived() && h.active("haproxy.service") && strings.Contains(h.Units["haproxy.service"].Runs, "haproxy.cfg")
	}
	up := slices.DeleteFunc(w.up(), func(h *Host) bool { return w.out(h.name) })
	if !balancer || len(up) == 0 {
		return nil
	}
	from.turn++
	return up[from.turn%len(up)]
}

// apiServes says whether the API server runs with a certificate that clients accept.
func (h *Host) apiServes() bool { return h.apiUp() && h.valid(pkiDir+"/apiserver.crt") }

// up are the hosts whose API server serves.
func (w *World) up() []*Host {
	return slices.DeleteFunc(w.sorted(), func(h *Host) bool { return !h.apiServes() })
}
