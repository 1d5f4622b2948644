package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// Target is a control plane host where a member is, or may be, found.
type Target struct {
	Name    string // of the host in the inventory
	PeerURL string // https://<internal address>:2380; ties host and member
	// ClientURL is dialled from the host itself: https://127.0.0.1:2379.
	ClientURL string
	// RemoteURL is dialled from other hosts when this one cannot be reached;
	// default: the peer URL's address with port 2379.
	RemoteURL string
	// MetricsURL is dialled from the host itself; default: where kubeadm's
	// manifests serve metrics.
	MetricsURL string
	// Dial opens a TCP connection from this host, through its own SSH connection.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS returns this host's client certificate and etcd's CA; an error that is
	// fs.ErrNotExist says that the host works but has none. It is asked again
	// for new connections after a minute, since certificates are renewed.
	TLS func(ctx context.Context) (*tls.Config, error)
}

func (t Target) remoteURL() string {
	if t.RemoteURL != "" {
		return t.RemoteURL
	}
	u, err := url.Parse(t.PeerURL)
	if err != nil || u.Hostname() == "" {
		return t.ClientURL
	}
	return u.Scheme + "://" + net.JoinHostPort(u.Hostname(), "2379")
}

// classifyDial tells whose fault a failed dial is. An answer from the host's
// sshd ("connection refused", "no route to host") proves that the vantage
// point works; everything else means that it does not, or that time ran out.
func classifyDial(err error) Outcome {
	var open *ssh.OpenChannelError
	switch {
	case errors.As(err, &open) && open.Reason == ssh.ConnectionFailed:
		if strings.Contains(strings.ToLower(open.Message), "timed out") {
			return TimedOut
		}
		return Refused
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return TimedOut
	default:
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			return TimedOut
		}
		return VantageDown
	}
}
