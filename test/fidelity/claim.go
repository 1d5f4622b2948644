// Package fidelity holds what the simulator's fakes have in common with real
// hosts. A Claim is one behaviour, played through the interfaces that the
// product itself uses: `make test` plays all of them on simulated hosts, `make
// e2e` on real ones, and both must come out as Want says. State does the same
// for what a whole apply leaves on every host.
package fidelity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
)

// Claim is one behaviour of hosts.
type Claim struct {
	Says  string   // what hosts do, in words
	Fakes []string // the beginnings of sim.Call.Name that it speaks for
	Play  func(context.Context, *Scene) string
	Want  string // what was seen, in both worlds
}

// Scene is where claims are played: one host, simulated or real.
type Scene struct {
	T       testing.TB
	Cluster *inventory.Cluster
	// Dial connects to a host by its name, as a new run of the program does.
	Dial func(name string) host.Host
	// Host is the connection that most claims use.
	Host host.Host
	// Pause lets time pass.
	Pause func(time.Duration)
}

// limit is for one claim, on a busy machine.
const limit = time.Minute

// Check plays claims one after the other.
func Check(ctx context.Context, s *Scene, claims []Claim) {
	s.T.Helper()
	for _, c := range claims {
		within, cancel := context.WithTimeout(ctx, limit)
		if got := c.Play(within, s); got != c.Want {
			s.T.Errorf("%s: %s:\n got %s\nwant %s", s.Host.Name(), c.Says, got, c.Want)
		}
		cancel()
	}
}

// Covered says whether any claim speaks for a call of that name.
func Covered(claims []Claim, name string) bool {
	for _, c := range claims {
		for _, f := range c.Fakes {
			if name == f || strings.HasPrefix(name, f+" ") {
				return true
			}
		}
	}
	return false
}

// seen is how a call ended, in a word.
func seen(err error) string {
	var run *host.RunError
	var busy *host.BusyError
	var fenced *host.FencedError
	var lost *host.StepLostError
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &run):
		return fmt.Sprintf("exit %d", run.Code)
	case errors.As(err, &busy):
		return "held by " + busy.Holder.Operation
	case errors.As(err, &fenced):
		return "fenced by " + fenced.By.Operation
	case errors.As(err, &lost):
		return "lost"
	case errors.Is(err, fs.ErrNotExist):
		return "not there"
	case errors.Is(err, context.DeadlineExceeded):
		return "waited for no longer"
	}
	return err.Error()
}

// run makes a change, and asks a question.
func (s *Scene) run(ctx context.Context, argv ...string) string {
	_, err := s.Host.Run(ctx, host.Command{Argv: argv})
	return seen(err)
}

func (s *Scene) query(ctx context.Context, argv ...string) (string, string) {
	out, err := s.Host.Query(ctx, argv...)
	return strings.TrimSpace(string(out)), seen(err)
}

// answers are the answers to several questions, each with how it ended.
func (s *Scene) answers(ctx context.Context, questions ...[]string) string {
	var all []string
	for _, q := range questions {
		out, end := s.query(ctx, q...)
		if end != "done" {
			out = end
		}
		all = append(all, out)
	}
	return strings.Join(all, ", ")
}

// ends are the ends of several changes, made one after the other.
func (s *Scene) ends(ctx context.Context, changes ...[]string) string {
	var all []string
	for _, argv := range changes {
		all = append(all, s.run(ctx, argv...))
	}
	return strings.Join(all, ", ")
}

// put uploads a file with the content.
func (s *Scene) put(ctx context.Context, path string, mode fs.FileMode, content string) bool {
	changed, err := s.Host.Upload(ctx, host.File{Path: path, Mode: mode, Content: []byte(content)})
	if err != nil {
		s.T.Error(err)
	}
	return changed
}

// read returns a file's content, or why there is none.
func (s *Scene) read(ctx context.Context, path string) string {
	data, err := s.Host.ReadFile(ctx, path)
	if err != nil {
		return seen(err)
	}
	return string(data)
}

// etcd is a client of the host's own member, through a tunnel.
func (s *Scene) etcd(ctx context.Context) *clientv3.Client {
	const dir = "/etc/kubernetes/pki/etcd/"
	pair, err := tls.X509KeyPair([]byte(s.read(ctx, dir+"healthcheck-client.crt")), []byte(s.read(ctx, dir+"healthcheck-client.key")))
	if err != nil {
		s.T.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.read(ctx, dir+"ca.crt")))
	const address = "127.0.0.1:2379"
	client, err := clientv3.New(clientv3.Config{
		Context: ctx, Endpoints: []string{"https://" + address}, Logger: zap.NewNop(),
		TLS: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return s.Host.DialContext(ctx, "tcp", address)
		})},
	})
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { client.Close() })
	return client
}

// api is a client of the host's own API server, with an administrator's rights.
func (s *Scene) api(ctx context.Context) *kube.Client {
	ih, _ := s.Cluster.HostByName(s.Host.Name())
	client, err := kube.NewClient(s.Host, net.JoinHostPort(ih.IP().String(), "6443"), []byte(s.read(ctx, "/etc/kubernetes/admin.conf")), nil)
	if err != nil {
		s.T.Fatal(err)
	}
	return client
}
