// Package kube drives kubeadm on one host and speaks to the API servers,
// each through the SSH connection of its own host.
package kube

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// requestTimeout bounds one API request; what waits longer polls.
const requestTimeout = 10 * time.Second

// Dialer opens connections from the place where the API server can be reached.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Client speaks to one API server. Interface holds the typed API.
type Client struct {
	kubernetes.Interface
	Server string // "https://198.51.100.21:6443"
	config *rest.Config
	before func(context.Context) error // asked before each change; nil allows all
}

// NewClient makes a client for the API server at address ("ip:port") with the
// credentials of kubeconfig, whose own server is not used: each API server is
// asked itself, past any balancer. TLS is verified against kubeconfig's CA.
// before is asked before each request that changes something, and its error is
// the request's; nil allows all.
func NewClient(d Dialer, address string, kubeconfig []byte, before func(context.Context) error) (*Client, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	config.Host = "https://" + address
	config.Timeout = requestTimeout
	config.QPS, config.Burst = 50, 100
	config.UserAgent = "ha-install"
	if d != nil {
		config.Dial = d.DialContext
	}
	if before != nil {
		config.Wrap(func(next http.RoundTripper) http.RoundTripper { return guarded{next, before} })
	}
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Client{Interface: typed, Server: config.Host, config: config, before: before}, nil
}

// guarded asks before it lets a change through.
type guarded struct {
	http.RoundTripper
	before func(context.Context) error
}

func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet && r.URL.Query().Get("dryRun") == "" {
		if err := g.before(r.Context()); err != nil {
			return nil, err
		}
	}
	return g.RoundTripper.RoundTrip(r)
}

func (c *Client) dynamic() (dynamic.Interface, error) { return dynamic.NewForConfig(c.config) }
