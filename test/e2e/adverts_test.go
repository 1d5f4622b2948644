//go:build e2e

package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

// advertise sends VRRP adverts from a raw socket, with the TTL that they are to
// have: $1 destination, $2 the message in hex, $3 how often, $4 seconds between.
const advertise = `use Socket;
my ($to, $message, $times, $pause) = @ARGV;
socket my $s, PF_INET, SOCK_RAW, 112 or die $!;
setsockopt $s, 0, $_, pack "i", 255 or die $! for 2, 33;
for (1 .. $times) { send $s, pack("H*", $message), 0, pack_sockaddr_in(0, inet_aton($to)) or die $!; select undef, undef, undef, $pause }`

// advert is a VRRP message of version 3 that keepalived takes for a good one.
func advert(from, to string, routerID, priority byte, vip string) string {
	source, destination := netip.MustParseAddr(from).AsSlice(), netip.MustParseAddr(to).AsSlice()
	m := append([]byte{0x31, routerID, priority, 1, 0, 100, 0, 0}, netip.MustParseAddr(vip).AsSlice()...)
	sum := uint32(0)
	for _, part := range [][]byte{source, destination, {0, 112, 0, byte(len(m))}, m} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(part[i])<<8 | uint32(part[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	m[6], m[7] = ^byte(sum>>8), ^byte(sum)
	return hex.EncodeToString(m)
}

// advertising has a host announce a router ID and an address, once a second,
// until the test ends.
func advertising(t *testing.T, host, to string, routerID byte, vip string) {
	t.Helper()
	unit := "e2e-advertise-" + strings.ReplaceAll(to, ".", "-")
	onHost(t, host, "systemd-run", "--quiet", "--collect", "--unit", unit, "perl", "-e", strings.ReplaceAll(advertise, "$", "$$"),
		to, advert(addressOf(t, host), to, routerID, 200, vip), "120", "1")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if out, err := theLab.Exec(ctx, host, "systemctl", "stop", unit); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// strangersAdverts has a worker announce the VIP to both balancers with more
// than they have: the VIP stays where it is, on one host, and the endpoint answers.
func strangersAdverts(t *testing.T) {
	path := writeInventory(t, nil, nil)
	awaitFaultless(t, path, 3*time.Minute)
	holder := vipHolder(t, path)
	ps := startProbes(t, kubeconfigOf(t, path))
	const stranger = "w-1"
	since := strings.TrimSpace(onHost(t, holder, "date", "+%s"))
	for _, lb := range []string{"lb-1", "lb-2"} {
		advertising(t, stranger, addressOf(t, lb), 51, theLab.VIP)
	}
	for i := range 5 {
		time.Sleep(time.Second)
		for lb, shown := range onEach(t, []string{"lb-1", "lb-2"}, "ip -oneline address show to "+theLab.VIP) {
			if (shown != "") != (lb == holder) {
				t.Fatalf("%d s after %s began to announce the VIP, %s shows %q; %s had it", i+1, stranger, lb, shown, holder)
			}
		}
	}
	ignored := fmt.Sprintf("unicast source address %s not a unicast peer", addressOf(t, stranger))
	if n, err := strconv.Atoi(shell(t, holder, fmt.Sprintf("journalctl --quiet --no-pager --unit keepalived --since @%s | grep -c '%s'; exit 0", since, ignored))); err != nil || n < 3 {
		t.Errorf("%s has ignored %d adverts, %v; 5 were sent", holder, n, err)
	}
	ps.stop(t, stranger+" announcing the VIP")
}

// refuseRouterID has a worker announce the router ID of the inventory as a
// router does, and the VIP to one balancer as a forgotten one does.
func refuseRouterID(t *testing.T) {
	path := writeInventory(t, nil, nil)
	t.Run("the router ID", func(t *testing.T) {
		advertising(t, "w-1", "224.0.0.18", 51, "198.51.100.99")
		refused(t, path, 4, "lb-1: VirtualRouterID: w-1 (198.51.100.31) announces router ID 51 (VRRP version 3, priority 200, for 198.51.100.99)",
			"lb-2: VirtualRouterID", "loadBalancer.virtualRouterID")
		other := writeInventory(t, nil, func(d document) { d.spec()["loadBalancer"] = map[string]any{"virtualRouterID": 77} })
		ha(t, "preflight", other).want(t, 0)
	})
	t.Run("the VIP", func(t *testing.T) {
		advertising(t, "w-1", addressOf(t, "lb-2"), 9, theLab.VIP)
		r := refused(t, path, 4, "lb-2: VirtualRouterID: w-1 (198.51.100.31) announces router ID 9", theLab.VIP+", the VIP, on this cluster's balancers alone")
		if strings.Contains(r.stdout+r.stderr, "lb-1: VirtualRouterID") {
			t.Errorf("lb-1 hears what is sent to lb-2:\n%s", r.tail())
		}
	})
}
