package provision

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
)

// peerURL is what ties a master to its etcd member.
func peerURL(ih inventory.Host) string {
	return "https://" + net.JoinHostPort(ih.IP().String(), "2380")
}

// newMembers makes the view of etcd through every master's own connection.
func (s *Site) newMembers() *etcd.Members { return s.membersOf(s.Cluster) }

// membersOf is the view of all masters of a cluster, also of those that the site
// leaves out: without them they would be members on no host of the inventory.
func (s *Site) membersOf(c *inventory.Cluster) *etcd.Members {
	var targets []etcd.Target
	for _, ih := range c.ControlPlanes() {
		targets = append(targets, etcd.Target{
			Name: ih.Name, PeerURL: peerURL(ih), ClientURL: "https://127.0.0.1:2379",
			Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				h, err := s.host(ih.Name)
				if err != nil {
					return nil, err
				}
				return h.DialContext(ctx, network, address)
			},
			TLS: func(ctx context.Context) (*tls.Config, error) { return s.etcdTLS(ctx, ih) },
		})
	}
	return etcd.NewMembers(targets, s.mayAct)
}

// etcdTLS reads the host's own health check certificate, which kubeadm makes
// for this use.
func (s *Site) etcdTLS(ctx context.Context, ih inventory.Host) (*tls.Config, error) {
	h, err := s.host(ih.Name)
	if err != nil {
		return nil, err
	}
	cfg, err := etcdClientTLS(ctx, h)
	return cfg, onHost(ih.Name, err)
}

func etcdClientTLS(ctx context.Context, h fileReader) (*tls.Config, error) {
	var pem [3][]byte
	for i, name := range []string{"etcd/ca.crt", "etcd/healthcheck-client.crt", "etcd/healthcheck-client.key"} {
		var err error
		if pem[i], err = h.ReadFile(ctx, path.Join(kube.PKIDir, name)); err != nil {
			return nil, err
		}
	}
	pair, err := tls.X509KeyPair(pem[1], pem[2])
	if err != nil {
		return nil, fmt.Errorf("etcd's health check certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem[0]) {
		return nil, fmt.Errorf("%s/etcd/ca.crt holds no certificate", kube.PKIDir)
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// quorum is the gate: every voter healthy, no learner, a stable term. It shows
// its table.
func (s *Site) quorum(title string) phase.Check {
	return s.quorumWith(etcd.Want{What: title, AllHealthy: true})
}

// quorumWithin is the gate while masters are still joining: the named hosts
// must vote, and a learner that a broken run left on a master of the inventory
// is no obstacle, for its own join takes it up. A ghost is one anyhow.
func (s *Site) quorumWithin(title string, voters ...inventory.Host) phase.Check {
	return s.quorumWith(etcd.Want{What: title, AllHealthy: true, Learners: etcd.AnyLearners}, voters...)
}

func (s *Site) quorumWith(want etcd.Want, voters ...inventory.Host) phase.Check {
	return phase.Check{Name: "quorum", Run: func(ctx context.Context) error {
		want := want
		want.Watch = sayMissing(ctx)
		// The phase's own deadline is shorter; this is its upper bound.
		v, err := s.members.Gate(ctx, want, etcd.JoinGateBudget)
		if err != nil {
			return phase.Final(err)
		}
		for _, ih := range voters {
			if m, ok := v.Find(0, peerURL(ih)); !ok || m.Role != etcd.Voter {
				return fmt.Errorf("%s is no voter yet", ih.Name)
			}
		}
		tellVerdict(ctx, v, want.What, nil)
		return nil
	}}
}

// allowed proves quorum anew, projects the operation and shows both; a
// refusal is an *etcd.QuorumError.
func (s *Site) allowed(ctx context.Context, op etcd.Operation, budget time.Duration) (etcd.Verdict, error) {
	return s.allowedWith(ctx, op, etcd.Want{}, budget)
}

// allowedWith is allowed with more that is wanted.
func (s *Site) allowedWith(ctx context.Context, op etcd.Operation, want etcd.Want, budget time.Duration) (etcd.Verdict, error) {
	want.Op, want.Watch = &op, sayMissing(ctx)
	v, err := s.members.Gate(ctx, want, budget)
	if err != nil {
		return v, err
	}
	d := etcd.Project(v, op)
	tellVerdict(ctx, v, op.String(), &d)
	return v, nil
}

// sayMissing reports what a gate still waits for.
func sayMissing(ctx context.Context) func(etcd.Verdict, string) {
	return func(_ etcd.Verdict, missing string) {
		if missing != "" {
			phase.Await(ctx, "quorum: "+missing)
		}
	}
}

func tellVerdict(ctx context.Context, v etcd.Verdict, title string, d *etcd.Decision) {
	v.Title = title
	var text strings.Builder
	if etcd.Render(&text, v, d) == nil { // a Builder does not fail
		data := phase.Data{"quorum": v}
		if d != nil {
			data["decision"] = d
		}
		phase.TellData(ctx, text.String(), data)
	}
}

// columnReady waits for all four static pods of a master and its API server.
func (s *Site) columnReady(ih inventory.Host) phase.Check {
	return s.column(ih, (*kube.Client).Column)
}

// columnRuns is columnReady without the wait for the startup probes; the last
// phase asks for all of it.
func (s *Site) columnRuns(ih inventory.Host) phase.Check {
	return s.column(ih, (*kube.Client).ColumnRuns)
}

func (s *Site) column(ih inventory.Host, ask func(*kube.Client, context.Context, string) error) phase.Check {
	return phase.Check{Name: "the control plane of " + ih.Name, Run: func(ctx context.Context) error {
		client, err := s.api(ctx, ih)
		if err != nil {
			return err
		}
		if err := client.Readyz(ctx); err != nil {
			return err
		}
		return ask(client, ctx, ih.Name)
	}}
}

// apiReady waits for a master's own API server.
func (s *Site) apiReady(ih inventory.Host) phase.Check {
	return phase.Check{Name: "the API server of " + ih.Name, Run: func(ctx context.Context) error {
		client, err := s.api(ctx, ih)
		if err != nil {
			return err
		}
		return client.Readyz(ctx)
	}}
}

// nodeReady waits for a Node to be Ready. Where the pod network is left to the
// user, a Node that lacks nothing else is as ready as we can make it.
func (s *Site) nodeReady(ih inventory.Host) phase.Check {
	return phase.Check{Name: "node " + ih.Name + " to be ready", Run: func(ctx context.Context) error {
		client, err := s.anyAPI(ctx)
		if err != nil {
			return err
		}
		if s.Cluster.Spec.Network.CNI.Plugin == inventory.CNINone {
			return client.NodeReadyForNetwork(ctx, ih.Name)
		}
		return client.NodeReady(ctx, ih.Name)
	}}
}

// kubeletHealthy waits for the kubelet's own health endpoint.
func (s *Site) kubeletHealthy(ih inventory.Host) phase.Check {
	return phase.Check{Name: "the kubelet of " + ih.Name, Run: func(ctx context.Context) error {
		h, err := s.host(ih.Name)
		if err != nil {
			return err
		}
		return kube.KubeletHealthz(ctx, h)
	}}
}

// unitActive waits for a systemd unit.
func (s *Site) unitActive(ih inventory.Host, unit string) phase.Check {
	return phase.Check{Name: unit + " on " + ih.Name, Run: func(ctx context.Context) error {
		h, err := s.host(ih.Name)
		if err != nil {
			return err
		}
		up, err := active(ctx, h, unit)
		if err == nil && !up {
			err = fmt.Errorf("%s: %s is not active", ih.Name, unit)
		}
		return err
	}}
}

// endpointFrom asks whether a host reaches the API through the endpoint: a
// join through a balancer that is not there would hang.
func (s *Site) endpointFrom(ih inventory.Host) phase.Check {
	return phase.Check{Name: "the endpoint from " + ih.Name, Run: func(ctx context.Context) error {
		h, err := s.host(ih.Name)
		if err != nil {
			return err
		}
		ca, err := s.clusterCA(ctx)
		if err != nil {
			return err
		}
		_, err = serving(ctx, h, s.endpoint(), ca)
		if err != nil {
			return fmt.Errorf("%s does not reach the API through %s: %w", ih.Name, s.endpoint(), err)
		}
		return nil
	}}
}

// etcdServes waits until a member that starts answers at all. Its ports are
// open seconds before, so that the gate's patient questions would each be
// held up there; these give up quickly and ask again.
func (s *Site) etcdServes(ih inventory.Host) phase.Check {
	return phase.Check{Name: "etcd on " + ih.Name + " to start", Run: func(ctx context.Context) error {
		h, err := s.host(ih.Name)
		if err != nil {
			return err
		}
		config, err := s.etcdTLS(ctx, ih)
		if err != nil {
			return err
		}
		config.ServerName = "localhost"
		ctx, cancel := context.WithTimeout(ctx, impatience)
		defer cancel()
		_, err = handshake(ctx, h, "127.0.0.1:2379", config)
		return err
	}}
}

const impatience = 300 * time.Millisecond

// etcdRuns waits until the etcd that runs on a host has the argument: a
// manifest is a wish, the process is the fact.
func (s *Site) etcdRuns(ih inventory.Host, arg string) phase.Check {
	return phase.Check{Name: "etcd on " + ih.Name + " to run with " + arg, Run: func(ctx context.Context) error {
		h, err := s.host(ih.Name)
		if err != nil {
			return err
		}
		// pgrep is not on every minimal host; /proc is.
		out, err := h.Query(ctx, "sh", "-c", etcdCommandScript)
		if err != nil {
			return err
		}
		for command := range strings.Lines(string(out)) {
			if strings.Contains(command, arg) {
				return nil
			}
		}
		return errors.New("etcd runs without it: " + strings.TrimSpace(string(out)))
	}}
}

const etcdCommandScript = `for p in /proc/[0-9]*; do
	[ "$(cat "$p/comm" 2>/dev/null)" = etcd ] && tr '\0' ' ' <"$p/cmdline" && echo
done
exit 0
`
