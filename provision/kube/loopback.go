package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// The ports on a master's loopback where its components say how they are.
const (
	controllerManagerPort = "10257"
	schedulerPort         = "10259"
)

// ControllerManagerHealthz asks the controller-manager of the host behind d,
// which needs no API server to answer.
func ControllerManagerHealthz(ctx context.Context, d Dialer) error {
	return loopbackHealthz(ctx, d, controllerManagerPort)
}

// SchedulerHealthz asks the scheduler of the host behind d.
func SchedulerHealthz(ctx context.Context, d Dialer) error {
	return loopbackHealthz(ctx, d, schedulerPort)
}

// loopbackHealthz asks a component on the host's own loopback, through the
// host's SSH connection, which is what authenticates the host. Nothing is sent
// that is secret, and nothing is trusted but a yes or no about health.
func loopbackHealthz(ctx context.Context, d Dialer, port string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	address := net.JoinHostPort("127.0.0.1", port)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/healthz", nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS12,
		// kubeadm's components make themselves a CA and a certificate in memory
		// at each start: there is no root to verify them against. What can be
		// verified is.
		InsecureSkipVerify: true,
		VerifyConnection:   verifyOwnMade,
	}}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 2000)) // more than the status is a courtesy
		return fmt.Errorf("%s: %s", resp.Status, failingParts(string(text)))
	}
	return nil
}

// verifyOwnMade accepts a chain that holds together up to the root that it
// brings along. Names and dates are not looked at: nobody gave the certificate
// out, and a component that runs for longer than a year does not make a new one.
func verifyOwnMade(s tls.ConnectionState) error {
	chain := s.PeerCertificates
	if len(chain) == 0 {
		return errors.New("no certificate")
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(chain[len(chain)-1])
	for _, c := range chain[:len(chain)-1] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: chain[0].NotBefore.Add(time.Second)}); err != nil {
		return fmt.Errorf("its own certificate: %w", err)
	}
	return nil
}

// failingParts are the lines of a health report that say what is wrong, or the
// whole report where it has no such lines.
func failingParts(report string) string {
	var bad []string
	for line := range strings.Lines(report) {
		if part, ok := strings.CutPrefix(line, "[-]"); ok {
			bad = append(bad, strings.SplitN(part, " ", 2)[0])
		}
	}
	if len(bad) == 0 {
		return strings.TrimSpace(report)
	}
	return strings.Join(bad, ", ")
}
