package sim

import (
	"crypto/tls"
	"net/http"
	"syscall"

	"google.golang.org/grpc/test/bufconn"
)

// Outside is a balancer that nobody of the hosts runs: it leads each host to
// the API servers that are up in turn.
type Outside struct {
	// NoHairpin loses the connections of a host to itself.
	NoHairpin bool
	// Other is one more backend, which serves with this certificate; nil for none.
	Other *tls.Certificate
	// Without is a host that is not among the backends.
	Without string
}

// Stranger is somebody in the hosts' network who is none of them: one of the three.
type Stranger struct {
	Plain bool             // answers, and knows nothing of TLS
	Hangs bool             // takes connections, and says nothing
	Shows *tls.Certificate // serves with this certificate
}

func (h *Host) stranger(p *bufconn.Listener, is Stranger) {
	switch {
	case is.Shows != nil:
		h.serveHTTP(p, http.NotFoundHandler(), &tls.Config{Certificates: []tls.Certificate{*is.Shows}})
	case is.Plain:
		h.serveHTTP(p, http.NotFoundHandler(), nil)
	default:
		go func() {
			for _, err := p.Accept(); err == nil; { // ends with the test
				_, err = p.Accept()
			}
		}()
	}
}

// lead finds the backend of a connection from a host.
func (o *Outside) lead(from *Host) (*Host, *bufconn.Listener, error) {
	var backends []*Host
	for _, h := range from.w.up() {
		if h.name != o.Without {
			backends = append(backends, h)
		}
	}
	all := len(backends)
	if o.Other != nil {
		all++
	}
	if all == 0 {
		return nil, nil, syscall.ECONNREFUSED
	}
	from.turn++
	at := from.turn % all
	switch {
	case at == len(backends):
		return from, from.server("other", func(p *bufconn.Listener) {
			from.serveHTTP(p, http.NotFoundHandler(), &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				from.w.mu.Lock()
				defer from.w.mu.Unlock()
				return from.w.Outside.Other, nil
			}})
		}), nil
	case o.NoHairpin && backends[at] == from:
		return nil, nil, syscall.ETIMEDOUT
	}
	return backends[at], backends[at].service("6443"), nil
}
