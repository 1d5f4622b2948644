package etcd

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// clusterHeader is what etcd puts into its answers to peers: the ID of the cluster
// that its data are of.
const clusterHeader = "X-Etcd-Cluster-ID"

// askPeerPort asks the port of a host's etcd for peers which cluster it is of, with the
// host's own client certificate, which etcd's CA has signed as well. An etcd that has
// not seen a quorum since it started answers no client, but it answers there: so one
// that came back with data of before a restore is told from one that hangs. The channel
// gets 0 when nothing is learnt within DialTimeout.
func (m *Members) askPeerPort(ctx context.Context, t Target) <-chan MemberID {
	said := make(chan MemberID, 1)
	if t.Dial == nil {
		said <- 0
		return said
	}
	go func() {
		id, err := m.peerCluster(ctx, t)
		if err != nil {
			id = 0 // it is asked beside others, who say what is wrong with the host
		}
		said <- id
	}()
	return said
}

func (m *Members) peerCluster(ctx context.Context, t Target) (id MemberID, err error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	cfg, err := m.clientTLS(ctx, t)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(t.PeerURL, "/")+"/members", nil)
	if err != nil {
		return 0, fmt.Errorf("%s: etcd's peer port: %w", t.Name, err)
	}
	tr := &http.Transport{DisableKeepAlives: true, TLSClientConfig: cfg.Clone(),
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return within(ctx, DialTimeout, func(ctx context.Context) (net.Conn, error) { return t.Dial(ctx, network, addr) }, func(c net.Conn) { c.Close() })
		}}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, fmt.Errorf("%s: etcd's peer port: %w", t.Name, err)
	}
	defer resp.Body.Close()
	if err := id.UnmarshalText([]byte(resp.Header.Get(clusterHeader))); err != nil {
		return 0, fmt.Errorf("%s: etcd's peer port: %w", t.Name, err)
	}
	return id, nil
}
