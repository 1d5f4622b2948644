package preflight

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
)

//go:embed vrrp.pl
var vrrpScript string

const (
	// listenFor is longer than the pause between two adverts of what runs with
	// its defaults, which is 1 s.
	listenFor     = 1500 * time.Millisecond
	listenTimeout = listenFor + 10*time.Second
)

// heard is what one balancer's link carries of VRRP.
type heard struct {
	host    string
	adverts []advert
	known   bool // not listened: its keepalived has the router ID already
	err     error
}

// advert is one VRRP announcement, of version 2 or 3.
type advert struct {
	source, destination netip.Addr
	version             int
	routerID            int
	priority            int
	addresses           []netip.Addr // the virtual ones
}

// listen hears who else speaks VRRP on the links of the balancers, all at once.
func listen(ctx context.Context, c *inventory.Cluster, hosts map[string]host.Reader, opt *Options) []heard {
	if !managed(c) {
		return nil
	}
	known := c.Spec.LoadBalancer.VirtualRouterID
	if opt.ListenAlways {
		known = 0
	}
	balancers := slices.DeleteFunc(c.Balancers(), func(h inventory.Host) bool {
		return hosts[h.Name] == nil || opt.ConnectErrors[h.Name] != nil || !internal(h).IsValid()
	})
	all := make([]heard, len(balancers))
	var g errgroup.Group
	g.SetLimit(parallel(opt))
	for i, h := range balancers {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, listenTimeout)
			defer cancel()
			out, err := hosts[h.Name].Query(ctx, "perl", "-e", vrrpScript, strconv.FormatFloat(listenFor.Seconds(), 'f', -1, 64),
				internal(h).String(), c.Spec.LoadBalancer.Interface, strconv.Itoa(known))
			if err == nil {
				all[i], err = parseHeard(out)
			}
			all[i].host, all[i].err = h.Name, err
			return nil
		})
	}
	_ = g.Wait() // each has its own error
	return all
}

// parseHeard reads the answer of vrrp.pl.
func parseHeard(out []byte) (heard, error) {
	var got heard
	for line := range bytes.Lines(out) {
		switch text := string(bytes.TrimSpace(line)); text {
		case "end":
			return got, nil
		case "known":
			got.known = true
		default:
			packet, err := hex.DecodeString(text)
			if err != nil {
				return heard{}, fmt.Errorf("read what the link carries: %w", err)
			}
			if a, ok := parseAdvert(packet); ok {
				got.adverts = append(got.adverts, a)
			}
		}
	}
	return heard{}, fmt.Errorf("read what the link carries: %w", errTruncated)
}

// parseAdvert takes an IPv4 packet apart; false means that it is no VRRP
// advertisement.
func parseAdvert(p []byte) (advert, bool) {
	const (
		header   = 20
		protocol = 112
		kind     = 1 // the only one that there is
		fixed    = 8
		password = 8 // what version 2 ends with
	)
	if len(p) < header || p[0]>>4 != 4 || p[9] != protocol {
		return advert{}, false
	}
	begin, end := int(p[0]&0xf)*4, int(p[2])<<8|int(p[3])
	if begin < header || end > len(p) || end-begin < fixed {
		return advert{}, false
	}
	v := p[begin:end]
	a := advert{source: netip.AddrFrom4([4]byte(p[12:])), destination: netip.AddrFrom4([4]byte(p[16:])),
		version: int(v[0] >> 4), routerID: int(v[1]), priority: int(v[2])}
	if v[0]&0xf != kind || a.version != 2 && a.version != 3 {
		return advert{}, false
	}
	need := fixed + 4*int(v[3])
	if a.version == 2 { // CARP, of the same number, is not as long as its count says
		need += password
	}
	if len(v) >= need {
		for at := fixed; at < fixed+4*int(v[3]); at += 4 {
			a.addresses = append(a.addresses, netip.AddrFrom4([4]byte(v[at:])))
		}
	}
	return a, true
}

// decideRouterID wants nobody but this cluster's hosts to announce its router
// ID or its VIP where a balancer hears it.
func decideRouterID(c *inventory.Cluster, all []subject, list []heard) []Finding {
	var out []Finding
	for _, h := range list {
		out = append(out, named(h.host, CheckVirtualRouterID, strangersIn(c, all, h))...)
	}
	return out
}

func strangersIn(c *inventory.Cluster, all []subject, h heard) []verdict {
	id := c.Spec.LoadBalancer.VirtualRouterID
	var missing *host.RunError
	switch {
	case errors.As(h.err, &missing) && missing.Code == 127:
		return nil // no perl: Tools says it
	case h.err != nil:
		return warn("the link cannot be listened to: "+brief(h.err), "to hear who else announces router ID "+strconv.Itoa(id),
			"see to it that nobody does, or choose another loadBalancer.virtualRouterID")
	case h.known:
		return ok("%d, in use by this cluster", id)
	}
	var out []verdict
	var used []int
	for _, a := range h.adverts {
		who, mayAnnounce := announcer(c, all, a.source)
		if mayAnnounce {
			continue
		}
		if !slices.Contains(used, a.routerID) {
			used = append(used, a.routerID)
		}
		what := fmt.Sprintf("%s announces router ID %d (VRRP version %d, priority %d, for %s)", who, a.routerID, a.version, a.priority, addressesIn(a))
		switch v := vip(c); {
		case slices.Contains(a.addresses, v):
			out = append(out, fail(what, v.String()+", the VIP, on this cluster's balancers alone",
				"end VRRP there, above all if it was a balancer of this cluster (systemctl disable --now keepalived), or choose another VIP")...)
		case a.routerID == id:
			out = append(out, fail(what, fmt.Sprintf("nobody else with ID %d on the link: by this number two virtual routers are told apart", id),
				"another loadBalancer.virtualRouterID (1 to 255) in the inventory, or end VRRP there")...)
		}
	}
	if len(out) > 0 {
		return out
	}
	seen := fmt.Sprintf("nobody else announced %d within %s", id, listenFor)
	if len(used) > 0 {
		slices.Sort(used)
		seen += ", others have " + strings.Trim(fmt.Sprint(used), "[]")
	}
	return ok("%s", seen)
}

// announcer names who has an address. Balancers may announce, and hosts that
// were balancers until now or will be: both are of the inventory, and no worker.
func announcer(c *inventory.Cluster, all []subject, source netip.Addr) (string, bool) {
	may := func(h inventory.Host) bool { return h.Role != inventory.RoleWorker }
	for _, s := range all { // multicast comes from whichever address is the interface's first
		if s.facts.has(source) {
			return fmt.Sprintf("%s (%s)", s.host.Name, source), may(s.host)
		}
	}
	for _, h := range c.Spec.Hosts {
		if internal(h) == source {
			return fmt.Sprintf("%s (%s)", h.Name, source), may(h)
		}
	}
	return source.String(), false
}

func addressesIn(a advert) string {
	var list []string
	for _, address := range a.addresses {
		list = append(list, address.String())
	}
	if len(list) == 0 {
		return "no address of IPv4"
	}
	return listed(list, 5)
}
