package preflight

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
)

// answer is what a TCP dial from a host met.
type answer int

const (
	connected  answer = iota
	refused           // nobody listens, but packets go both ways
	silent            // nothing came back in time, or no route
	prohibited        // the host's sshd does not let us dial
)

// dial is one TCP connection tried from a host.
type dial struct {
	from, to string // to is "" for the endpoint
	address  netip.AddrPort
	answer   answer
	err      error
	// presented is a certificate that was shown at an external endpoint, where
	// nobody has one of this cluster yet.
	presented *x509.Certificate
}

// The timeouts are also how long silence holds preflight up. Nobody answering
// at the VIP is the usual case, and one who would is on the balancers' link.
const (
	dialTimeout     = 2 * time.Second
	endpointTimeout = time.Second
)

// dialsPerHost bounds the channels opened at a time over one connection.
const dialsPerHost = 16

// pairs are the connections that the cluster will make, as seen before anything
// listens: a refusal proves the way there and back.
func pairs(c *inventory.Cluster, connectedTo func(string) bool) []dial {
	var out []dial
	add := func(from, to inventory.Host, ports ...int) {
		a := internal(to)
		if from.Name == to.Name || !a.IsValid() || !connectedTo(from.Name) || !connectedTo(to.Name) {
			return
		}
		for _, p := range ports {
			out = append(out, dial{from: from.Name, to: to.Name, address: netip.AddrPortFrom(a, uint16(p))})
		}
	}
	for _, from := range c.Spec.Hosts {
		for _, to := range c.Spec.Hosts {
			switch {
			case from.Role == inventory.RoleControlPlane && to.Role == inventory.RoleControlPlane:
				add(from, to, portEtcdClient, portEtcdPeer, portAPI, portKubelet)
			case from.Role == inventory.RoleControlPlane && to.Role == inventory.RoleWorker:
				add(from, to, portKubelet)
			case to.Role == inventory.RoleControlPlane:
				add(from, to, portAPI)
			}
		}
	}
	return out
}

// endpointDials asks for the endpoint from one host of each role, and from all
// of them where others than we see to the way there.
func endpointDials(c *inventory.Cluster, connectedTo func(string) bool) []dial {
	v := vip(c)
	if !v.IsValid() {
		return nil
	}
	var out []dial
	seen := map[inventory.Role]bool{}
	for _, h := range c.Spec.Hosts {
		if (!seen[h.Role] || !managed(c)) && connectedTo(h.Name) {
			seen[h.Role] = true
			out = append(out, dial{from: h.Name, address: netip.AddrPortFrom(v, uint16(endpointPort(c)))})
		}
	}
	return out
}

// dialAll tries the connections, all hosts at once.
func dialAll(ctx context.Context, hosts map[string]host.Reader, dials []dial, timeout time.Duration) []dial {
	done := slices.Clone(dials)
	slots := map[string]chan struct{}{}
	for _, d := range dials {
		if slots[d.from] == nil {
			slots[d.from] = make(chan struct{}, dialsPerHost)
		}
	}
	var g errgroup.Group
	for i, d := range done {
		g.Go(func() error {
			slots[d.from] <- struct{}{}
			defer func() { <-slots[d.from] }()
			done[i].answer, done[i].err = try(ctx, hosts[d.from], d.address, timeout)
			if done[i].answer == silent && d.to != "" { // a lossy link gets a second chance
				done[i].answer, done[i].err = try(ctx, hosts[d.from], d.address, timeout)
			}
			return nil
		})
	}
	_ = g.Wait() // every dial keeps its own error
	return done
}

// presentTries is how often a balancer that sends nearly nobody on is asked:
// one stale backend among many is met once in so many connections.
const presentTries = 8

// present makes TLS handshakes with an external balancer, before the cluster
// has an API server, and returns the dials with the certificates that were shown.
func present(ctx context.Context, c *inventory.Cluster, hosts map[string]host.Reader, dials []dial) []dial {
	var g errgroup.Group
	for i, d := range dials {
		if d.answer == connected {
			g.Go(func() error {
				dials[i].presented = shown(ctx, hosts[d.from], d.address, c.Spec.Endpoint.Host)
				return nil
			})
		}
	}
	_ = g.Wait() // that nothing is shown is how it should be
	return dials
}

// shown is the first certificate that a handshake was refused for, with an
// empty set of CAs; nil when nobody has shown one.
func shown(ctx context.Context, from host.Reader, at netip.AddrPort, name string) *x509.Certificate {
	for range presentTries {
		ctx, cancel := context.WithTimeout(ctx, endpointTimeout)
		err := greet(ctx, from, at, name)
		cancel()
		var refused *tls.CertificateVerificationError
		if errors.As(err, &refused) && len(refused.UnverifiedCertificates) > 0 {
			return refused.UnverifiedCertificates[0]
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return nil // it holds connections until a backend is up
		}
	}
	return nil
}

func greet(ctx context.Context, from host.Reader, at netip.AddrPort, name string) error {
	conn, err := from.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	nobody := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: name, MinVersion: tls.VersionTLS12}
	return tls.Client(conn, nobody).HandshakeContext(ctx)
}

func try(ctx context.Context, from host.Reader, to netip.AddrPort, timeout time.Duration) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := from.DialContext(ctx, "tcp", to.String())
	if err == nil {
		err = conn.Close()
		return connected, err
	}
	return classify(err), err
}

// classify reads why a dial failed. OpenSSH's server answers a channel that it
// could not connect with the system's error text, and forbids with a reason code.
func classify(err error) answer {
	var open *ssh.OpenChannelError
	switch {
	case errors.As(err, &open) && open.Reason == ssh.Prohibited:
		return prohibited
	case errors.Is(err, syscall.ECONNREFUSED), errors.As(err, &open) && strings.Contains(strings.ToLower(open.Message), "refused"):
		return refused
	default:
		return silent
	}
}

// decideReach turns the dials between hosts into findings.
func decideReach(c *inventory.Cluster, dials []dial) []Finding {
	var out []Finding
	for _, h := range c.Spec.Hosts {
		var mine []dial
		for _, d := range dials {
			if d.from == h.Name {
				mine = append(mine, d)
			}
		}
		if slices.ContainsFunc(mine, func(d dial) bool { return d.answer == prohibited }) {
			out = append(out, named(h.Name, CheckTunnels, fail("sshd forbids TCP forwarding", "connections to etcd and the API through SSH",
				"AllowTcpForwarding yes (or local), and no PermitOpen, in /etc/ssh/sshd_config"))...)
			continue
		}
		if len(mine) > 0 {
			out = append(out, named(h.Name, CheckReachability, unreached(mine))...)
		}
	}
	return out
}

// unreached is one verdict for each host that did not answer, with its ports.
func unreached(mine []dial) []verdict {
	var to []string
	ports, address := map[string][]string{}, map[string]netip.Addr{}
	for _, d := range mine {
		if d.answer != silent {
			continue
		}
		if len(ports[d.to]) == 0 {
			to = append(to, d.to)
		}
		ports[d.to] = append(ports[d.to], strconv.Itoa(int(d.address.Port())))
		address[d.to] = d.address.Addr()
	}
	if len(to) == 0 {
		return ok("%s to other hosts", count(len(mine), "way"))
	}
	var out []verdict
	for _, name := range to {
		out = append(out, fail(fmt.Sprintf("no answer from %s (%s) on TCP %s", name, address[name], strings.Join(ports[name], ", ")),
			fmt.Sprintf("an answer within %s, a refusal too", dialTimeout), "look at routes, firewalls and security groups between the two")...)
	}
	return out
}

// decideEndpoint judges who answers at the endpoint. Only a balancer of ours
// that holds the VIP may: anybody else has the address already, and even a
// refusal says so.
func decideEndpoint(c *inventory.Cluster, all []subject, dials []dial) []Finding {
	v := vip(c)
	if !v.IsValid() || len(dials) == 0 {
		return nil
	}
	at := net.JoinHostPort(v.String(), strconv.Itoa(endpointPort(c)))
	if !managed(c) {
		return decideExternal(at, dials)
	}
	for _, s := range all {
		switch name := s.facts.interfaceOf(v); {
		case name == "":
		case s.ours():
			return named("", CheckEndpoint, ok("%s is on %s", v, s.host.Name))
		default:
			return named(s.host.Name, CheckEndpoint, fail(fmt.Sprintf("the VIP %s is on %s already", v, name), "an address that is free",
				"stop what put it there, or choose another VIP"))
		}
	}
	if unseenBalancer(c, all) {
		return nil // it may be the one that answers; that it cannot be asked is an error already
	}
	for _, d := range dials {
		switch d.answer {
		case connected:
			return named("", CheckEndpoint, fail("something that is not ours answers at "+at, "an address that is free",
				"choose another VIP, or stop what answers"))
		case refused:
			return named("", CheckEndpoint, fail(fmt.Sprintf("a machine that is not ours holds the VIP %s (it refused port %d)", v, endpointPort(c)),
				"an address that is free", "choose another VIP, or take it from that machine"))
		}
	}
	return named("", CheckEndpoint, ok("nobody answers at %s yet", at))
}

// strangerAnswers reports whether somebody answers at a VIP that no host says
// it has.
func strangerAnswers(c *inventory.Cluster, all []subject, dials []dial) bool {
	v := vip(c)
	if !v.IsValid() || !managed(c) || slices.ContainsFunc(all, func(s subject) bool { return s.facts.interfaceOf(v) != "" }) {
		return false
	}
	return slices.ContainsFunc(dials, func(d dial) bool { return d.answer == connected || d.answer == refused })
}

// unseenBalancer reports whether a balancer of this cluster told no facts.
func unseenBalancer(c *inventory.Cluster, all []subject) bool {
	for _, h := range c.Balancers() {
		if !slices.ContainsFunc(all, func(s subject) bool { return s.host.Name == h.Name }) {
			return true
		}
	}
	return false
}

// decideExternal only warns of silence: many balancers are silent until a
// backend is up. One that is up already is not of this cluster.
func decideExternal(at string, dials []dial) []Finding {
	var out []Finding
	for _, d := range dials {
		v := ok("%s answers", at)
		if d.answer == refused || d.answer == silent {
			v = warn("nothing answers at "+at, "a balancer that forwards to port 6443 of every master",
				"let it listen before its backends are up, and check the way there from this host")
		}
		if p := d.presented; p != nil {
			v = fail(fmt.Sprintf("a backend answers at %s, with a certificate of %q issued by %q, before this cluster has an API server", at, p.Subject.CommonName, p.Issuer.CommonName),
				"no backend yet", "take backends that are stale or of another cluster out of the balancer")
		}
		if d.answer != prohibited {
			out = append(out, named(d.from, CheckEndpoint, v)...)
		}
	}
	return out
}
