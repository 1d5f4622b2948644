package preflight

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
)

// packet is an IPv4 packet with a VRRP message in it, the checksums left out:
// the kernel and keepalived look at them, preflight does not.
func packet(source, destination string, message ...byte) []byte {
	p := []byte{0x45, 0xc0, 0, byte(20 + len(message)), 0, 1, 0, 0, 255, 112, 0, 0}
	p = append(p, netip.MustParseAddr(source).AsSlice()...)
	return append(append(p, netip.MustParseAddr(destination).AsSlice()...), message...)
}

func TestParseAdvert(t *testing.T) {
	const from, group = "10.0.0.77", "224.0.0.18"
	v3 := packet(from, group, 0x31, 51, 200, 1, 0, 30, 0, 0, 10, 0, 0, 10)
	v2 := packet(from, group, 0x21, 7, 100, 2, 0, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0)
	options := slices.Concat([]byte{0x46}, v3[1:20], []byte{1, 1, 1, 1}, v3[20:])
	options[3] += 4
	padded := append(slices.Clone(v3), make([]byte, 18)...) // to the least that a frame holds
	changed := func(at int, b byte) []byte { c := slices.Clone(v3); c[at] = b; return c }
	tests := []struct {
		name string
		p    []byte
		want string
	}{
		{"version 3", v3, "10.0.0.77 224.0.0.18 v3 51 200 [10.0.0.10]"},
		{"version 3, as keepalived sends it", unhex(t, "45c0002000040000ff70af9ac63364c9e000001231336401001e341bc63364d2"), "198.51.100.201 224.0.0.18 v3 51 100 [198.51.100.210]"},
		{"version 2 with two addresses", v2, "10.0.0.77 224.0.0.18 v2 7 100 [10.0.0.1 10.0.0.2]"},
		{"a header with options", options, "10.0.0.77 224.0.0.18 v3 51 200 [10.0.0.10]"},
		{"a frame that was filled up", padded, "10.0.0.77 224.0.0.18 v3 51 200 [10.0.0.10]"},
		{"CARP: a count that is none", packet(from, group, slices.Concat([]byte{0x21, 9, 0, 7, 0, 1, 0, 0}, make([]byte, 28))...), "10.0.0.77 224.0.0.18 v2 9 0 []"},
		{"more addresses announced than there are", changed(23, 9), "10.0.0.77 224.0.0.18 v3 51 200 []"},
		{"not VRRP", changed(9, 6), "none"},
		{"IPv6", changed(0, 0x65), "none"},
		{"version 4", changed(20, 0x41), "none"},
		{"not an advertisement", changed(20, 0x32), "none"},
		{"cut short", v3[:24], "none"},
		{"a header that claims to be short", changed(0, 0x41), "none"},
		{"a length that ends in the header", changed(3, 12), "none"},
		{"nothing", nil, "none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := "none"
			if a, ok := parseAdvert(tt.p); ok {
				got = fmt.Sprintf("%s %s v%d %d %d %s", a.source, a.destination, a.version, a.routerID, a.priority, a.addresses)
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	p, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func FuzzParseAdvert(f *testing.F) {
	f.Add(packet("10.0.0.77", "224.0.0.18", 0x31, 51, 200, 1, 0, 30, 0, 0, 10, 0, 0, 10))
	f.Fuzz(func(t *testing.T, p []byte) {
		if a, ok := parseAdvert(p); ok && 4*len(a.addresses) > len(p) {
			t.Errorf("%d addresses in %d bytes", len(a.addresses), len(p))
		}
	})
}

func TestParseHeard(t *testing.T) {
	advert := hex.EncodeToString(packet("10.0.0.77", "10.0.0.11", 0x31, 51, 200, 0, 0, 30, 0, 0))
	for _, tt := range []struct{ name, out, want string }{
		{"silence", "end\n", "0 false"},
		{"one packet, and one that is none", advert + "\nff\nend\n", "1 false"},
		{"in use already", "known\nend\n", "0 true"},
		{"cut off", advert + "\n", "the answer ends early"},
		{"prose", "perl: warning: Setting locale failed.\nend\n", "invalid byte"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := parseHeard([]byte(tt.out))
			got := fmt.Sprint(len(h.adverts), " ", h.known)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tt.want) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestDecideRouterID(t *testing.T) {
	const group = "224.0.0.18"
	heardOf := func(source string, id byte, vip string) heard {
		a, ok := parseAdvert(packet(source, group, slices.Concat([]byte{0x31, id, 200, 1, 0, 100, 0, 0}, netip.MustParseAddr(vip).AsSlice())...))
		if !ok {
			t.Fatal("no advert")
		}
		return heard{host: "lb-1", adverts: []advert{a}}
	}
	tests := []struct {
		name string
		h    heard
		want string // problems
		seen string
	}{
		{"silence is fine", heard{host: "lb-1"}, "", "nobody else announced 51 within 1.5s"},
		{"the other balancer may announce it", heardOf("10.0.0.12", 51, "10.0.0.10"), "", "nobody else"},
		{"the other balancer, by another address of its own", heardOf("10.0.0.112", 51, "10.0.0.10"), "", "nobody else"},
		{"a master that balances until now may", heardOf("10.0.0.21", 51, "10.0.0.10"), "", "nobody else"},
		{"a stranger with our ID is refused", heardOf("10.0.0.77", 51, "10.0.0.9"), "VirtualRouterID error", "10.0.0.77 announces router ID 51 (VRRP version 3, priority 200, for 10.0.0.9)"},
		{"a worker with our ID is refused by name", heardOf("10.0.0.31", 51, "10.0.0.9"), "VirtualRouterID error", "w-1 (10.0.0.31) announces router ID 51"},
		{"a stranger with another ID is fine, and told", heardOf("10.0.0.77", 52, "10.0.0.9"), "", "nobody else announced 51 within 1.5s, others have 52"},
		{"our VIP under another ID is refused", heardOf("10.0.0.77", 52, "10.0.0.10"), "VirtualRouterID error", "router ID 52"},
		{"a link that cannot be listened to is a warning", heard{host: "lb-1", err: errors.New("packet socket: Operation not permitted")}, "VirtualRouterID warning", "Operation not permitted"},
		{"no perl is another check's", heard{host: "lb-1", err: &host.RunError{Host: "lb-1", Argv: []string{"perl"}, Code: 127}}, "", ""},
		{"an ID that is in use was not listened for", heard{host: "lb-1", known: true}, "", "51, in use by this cluster"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := testCluster()
			c.Spec.LoadBalancer.VirtualRouterID = 51
			var all []subject
			for _, h := range c.Spec.Hosts {
				s := subject{cluster: c, opt: &Options{}, host: h, facts: healthy(h)}
				if h.Name == "lb-2" {
					s.facts.Addresses = append(s.facts.Addresses, Address{"eth0", netip.MustParsePrefix("10.0.0.112/24")})
				}
				all = append(all, s)
			}
			got := decideRouterID(c, all, []heard{tt.h})
			if p := problems(got); p != tt.want {
				t.Fatalf("found %q, wanted %q\n%+v", p, tt.want, got)
			}
			if len(got) == 0 != (tt.seen == "") || len(got) > 0 && !strings.Contains(got[0].Seen, tt.seen) {
				t.Errorf("got %+v, want %q seen", got, tt.seen)
			}
			for _, f := range got {
				if f.Severity != OK && (f.Wanted == "" || f.Fix == "") {
					t.Errorf("no way out: %+v", f)
				}
			}
		})
	}
}

// Who balances is listened for, and nobody where the balancer is the user's.
func TestListenAsksBalancers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*inventory.Cluster)
		want   string
	}{
		{"dedicated", func(*inventory.Cluster) {}, "lb-1, lb-2"},
		{"on the masters", onMasters, "cp-1, cp-2, cp-3"},
		{"external", func(c *inventory.Cluster) { c.Spec.LoadBalancer.Mode = inventory.BalancerExternal }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := testCluster()
			tt.change(c)
			readers := map[string]host.Reader{}
			for _, h := range c.Spec.Hosts {
				readers[h.Name] = silentLink{local{t: t, name: h.Name}}
			}
			var asked []string
			for _, h := range listen(t.Context(), c, readers, &Options{}) {
				if h.err != nil {
					t.Error(h.err)
				}
				asked = append(asked, h.host)
			}
			if got := strings.Join(asked, ", "); got != tt.want {
				t.Errorf("asked %q, want %q", got, tt.want)
			}
		})
	}
}

type silentLink struct{ local }

func (silentLink) Query(context.Context, ...string) ([]byte, error) { return []byte("end\n"), nil }

// The script itself hears an advert that comes over loopback, and nothing else
// than VRRP. Whoever may not listen is told so.
func TestVRRPScriptHears(t *testing.T) {
	script := exec.CommandContext(t.Context(), "perl", "-e", vrrpScript, "1.5", "127.0.0.1", "", "0")
	var out, complaints strings.Builder
	script.Stdout, script.Stderr = &out, &complaints
	if os.Geteuid() != 0 {
		if err := script.Run(); err == nil || !strings.Contains(complaints.String(), "packet socket: ") {
			t.Errorf("without the right to listen: %v, %s", err, &complaints)
		}
		return
	}
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	const send = `use Socket;
for my $protocol (253, 112) {
	socket my $s, PF_INET, SOCK_RAW, $protocol or die $!;
	for (1 .. 6) { send $s, pack("H*", $ARGV[0]), 0, pack_sockaddr_in(0, inet_aton("127.0.0.1")) or die $!; select undef, undef, undef, 0.1 }
}`
	if text, err := exec.CommandContext(t.Context(), "perl", "-e", send, "31336401001e00000a00000a").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if err := script.Wait(); err != nil {
		t.Fatalf("%v: %s", err, &complaints)
	}
	h, err := parseHeard([]byte(out.String()))
	if err != nil || len(h.adverts) != 1 || h.adverts[0].routerID != 51 || h.adverts[0].source != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("heard %+v, %v, want one advert of ID 51\n%s%s", h.adverts, err, &out, &complaints)
	}
}
