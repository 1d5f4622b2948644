package provision

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
)

// sight is what one host meets at the endpoint, connection by connection.
type sight struct {
	from     string
	answers  map[string]int // connections by the master that served them
	others   map[string]int // connections by what was wrong with who served them
	silences int            // connections that nobody served
	silence  string         // why, of the last one
}

// tries is how many connections were made.
func (s sight) tries() int {
	n := s.silences
	for _, count := range s.answers {
		n += count
	}
	for _, count := range s.others {
		n += count
	}
	return n
}

const (
	// sightsOfEach is how often each backend is met where they take turns: one
	// that is met by chance is hardly ever missed.
	sightsOfEach = 6
	// silencesEnough ends a look: a silence takes as long as sightTimeout.
	silencesEnough = 3
	sightTimeout   = 2 * time.Second
)

// lookAtEndpoint has all hosts connect to the endpoint at once, often enough to
// meet so many backends, and a few that should not be there.
func (s *Site) lookAtEndpoint(ctx context.Context, from []inventory.Host, backends int) ([]sight, error) {
	ca, err := s.clusterCA(ctx)
	if err != nil {
		return nil, err
	}
	byPrint, err := s.servingCertificates(ctx)
	if err != nil {
		return nil, err
	}
	sights := make([]sight, len(from))
	at := map[string]int{}
	for i, ih := range from {
		at[ih.Name] = i
	}
	err = s.onAll(ctx, from, func(ctx context.Context, ih inventory.Host, h host.Host) error {
		seen := sight{from: ih.Name, answers: map[string]int{}, others: map[string]int{}}
		for range sightsOfEach * (backends + 1) {
			// In step they would all meet the same backend of a round robin.
			if seen.silences == silencesEnough || !stagger(ctx) {
				break
			}
			seen.add(meet(ctx, h, s.endpoint(), ca, byPrint))
		}
		sights[at[ih.Name]] = seen
		return nil
	})
	if err == nil {
		err = ctx.Err() // what was cut short is no sight
	}
	return sights, err
}

// encounter is the end of one connection: the master that served it, or what
// is wrong with who did, or why nobody did.
type encounter struct{ master, other, silence string }

func (s *sight) add(e encounter) {
	switch {
	case e.master != "":
		s.answers[e.master]++
	case e.other != "":
		s.others[e.other]++
	default:
		s.silences++
		s.silence = e.silence
	}
}

// meet makes one TLS handshake with the endpoint.
func meet(ctx context.Context, d kube.Dialer, endpoint string, ca *x509.CertPool, byPrint map[string]string) encounter {
	ctx, cancel := context.WithTimeout(ctx, sightTimeout)
	defer cancel()
	print, err := serving(ctx, d, endpoint, ca)
	if err == nil {
		if name := byPrint[print]; name != "" {
			return encounter{master: name}
		}
		return encounter{other: fmt.Sprintf("a server with a certificate of this cluster that is no master of the inventory (SHA-256 %.12s): take it out of the backends", print)}
	}
	var refused *tls.CertificateVerificationError
	if !errors.As(err, &refused) || len(refused.UnverifiedCertificates) == 0 {
		return encounter{silence: endpointError(err)}
	}
	return encounter{other: mismatch(err, refused.UnverifiedCertificates[0], ca, byPrint)}
}

// mismatch says why a certificate was not accepted, and what to do. A name that
// is missing counts for less than a CA that is not ours, which is asked after it.
func mismatch(err error, shown *x509.Certificate, ca *x509.CertPool, byPrint map[string]string) string {
	whose := fmt.Sprintf("a server with a certificate of %q", shown.Subject.CommonName)
	if name := byPrint[fingerprint(shown.Raw)]; name != "" {
		whose = name
	}
	var name x509.HostnameError
	var authority x509.UnknownAuthorityError
	_, issued := shown.Verify(x509.VerifyOptions{Roots: ca})
	switch {
	case errors.As(issued, &authority):
		return fmt.Sprintf("%s, issued by %q, which is not this cluster's CA: a stale backend, or one of another cluster; take it out of the backends", whose, shown.Issuer.CommonName)
	case errors.As(err, &name):
		names := append([]string(nil), shown.DNSNames...)
		for _, ip := range shown.IPAddresses {
			names = append(names, ip.String())
		}
		if len(names) == 0 {
			names = []string{"no name at all"}
		}
		return fmt.Sprintf("%s, which is not valid for %s but for %s: have the balancer pass TLS through to the API servers, whose certificates have the name",
			whose, name.Host, strings.Join(names, ", "))
	}
	return whose + ": " + err.Error()
}
