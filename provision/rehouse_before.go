package provision

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
)

// atOnceKnocked is how many ports one host tries at a time.
const atOnceKnocked = 32

// kubeletPort is where every kubelet answers its API server.
const kubeletPort = "10250"

// stillThere refuses while anything of the cluster before is open to one of the
// new masters: a member or an API server, and there would be two clusters with one
// identity; or a kubelet, which would end its pods when their Node is taken out, or
// go on with them beside those that are made anew. Members and API servers are told
// by who has signed their certificates, kubelets have made theirs themselves.
func (r *rehousing) stillThere(ctx context.Context) error {
	etcdCA, clusterCA := x509.NewCertPool(), x509.NewCertPool()
	etcdCA.AppendCertsFromPEM(r.keys.ca.EtcdCAPEM())
	clusterCA.AppendCertsFromPEM(r.keys.ca.CAPEM())
	masters, err := r.reached(ctx, formerly(r.Cluster, r.source.m), map[string]*x509.CertPool{"2379": etcdCA, "2380": etcdCA, apiPort: clusterCA})
	if err != nil {
		return err
	}
	kubelets, err := r.reached(ctx, elsewhereThan(r.Cluster, r.then.kubelets), map[string]*x509.CertPool{kubeletPort: nil})
	if err != nil {
		return err
	}
	var all []error
	if len(masters) > 0 {
		all = append(all, &ConflictError{
			What: "masters of the cluster in the backup still serve",
			Why:  strings.Join(masters, "; ") + ": clients would be told two truths by two clusters with the same CA",
			Run:  "power them off for good, or restore onto them: ha-install restore with their inventory. Something else that says nothing there: stop it until the restore is done",
		})
	}
	if len(kubelets) > 0 {
		all = append(all, &ConflictError{
			What: "Nodes of the cluster in the backup still run, and are not in the inventory",
			Why: strings.Join(kubelets, "; ") + ": their Nodes and pods are taken out of the API. What runs there would go on beside what is made anew, or, " +
				"where their kubelets find the new cluster, be ended with what only it has on its disks",
			Run: "save what their disks have, then power them off for good; or install them anew and put them into the inventory; then the same command again. " +
				"A kubelet of another cluster, at an address that this one had: stop it until the restore is done",
		})
	}
	return phase.Join(all...)
}

// reached are those of the addresses at which something of the cluster before is
// open to a master, by port: a pool has the CA that has signed what counts, without
// one everything does.
func (r *rehousing) reached(ctx context.Context, addresses []string, ports map[string]*x509.CertPool) ([]string, error) {
	var mu sync.Mutex
	var seen []string
	err := r.onAll(ctx, r.Cluster.ControlPlanes(), func(ctx context.Context, ih inventory.Host, h host.Host) error {
		var all errgroup.Group
		all.SetLimit(atOnceKnocked)
		for _, address := range addresses {
			for port, ca := range ports {
				all.Go(func() error {
					at := net.JoinHostPort(address, port)
					if answer(ctx, h, at) != isOpen {
						return nil
					}
					if how, is := ofBefore(ctx, h, at, ca); is {
						mu.Lock()
						defer mu.Unlock()
						seen = append(seen, ih.Name+" reaches "+at+how)
					}
					return nil
				})
			}
		}
		_ = all.Wait() // knocking has no errors
		return ctx.Err()
	})
	slices.Sort(seen)
	return seen, err
}

// ofBefore says whether what listens at an address shows a certificate that the CA
// has signed, for whatever name and however long ago. What hangs shows none, and
// counts: a member that is stopped comes back with its data.
func ofBefore(ctx context.Context, d kube.Dialer, at string, ca *x509.CertPool) (how string, is bool) {
	if ca == nil {
		return "", true
	}
	ctx, cancel := context.WithTimeout(ctx, shownTimeout)
	defer cancel()
	name, _, _ := net.SplitHostPort(at)
	// With no CA at all whatever is shown is handed over, to be judged here.
	_, err := handshake(ctx, d, at, &tls.Config{RootCAs: x509.NewCertPool(), ServerName: name, MinVersion: tls.VersionTLS12})
	var shown *tls.CertificateVerificationError
	switch {
	case errors.As(err, &shown) && len(shown.UnverifiedCertificates) > 0:
		return "", signedBy(ca, shown.UnverifiedCertificates)
	case errors.Is(err, context.DeadlineExceeded):
		return ", which says nothing", true
	}
	return "", false
}

func signedBy(ca *x509.CertPool, chain []*x509.Certificate) bool {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	for _, when := range []time.Time{chain[0].NotBefore, chain[0].NotAfter} { // at one end or the other the CA was there, too
		if _, err := chain[0].Verify(x509.VerifyOptions{Roots: ca, Intermediates: between, CurrentTime: when, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
			return true
		}
	}
	return false
}
