package preflight

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// listen takes "port hexaddress inode" as /proc/net/tcp writes it.
func (p *parser) listen(value string) {
	fields := strings.Fields(value)
	if len(fields) != 3 {
		return
	}
	port, err := strconv.Atoi(fields[0])
	if err != nil {
		return
	}
	p.listeners = append(p.listeners, rawListener{
		Listener: Listener{Port: port, Address: procAddr(fields[1])}, inode: fields[2]})
}

// procAddr reads an address of /proc/net: 32-bit words, each in the host's
// byte order, which is little-endian on every architecture that we install.
func procAddr(s string) netip.Addr {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw)%4 != 0 {
		return netip.Addr{}
	}
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.LittleEndian.Uint32(raw[i:]))
	}
	a, _ := netip.AddrFromSlice(raw)
	return a.Unmap()
}

// appendDisk takes "path size avail inodes ifree mount", sizes in KiB.
func appendDisk(disks []Disk, value string) []Disk {
	fields := strings.Fields(value)
	if len(fields) < 6 {
		return disks
	}
	var n [4]int64
	for i := range n {
		n[i], _ = strconv.ParseInt(fields[i+1], 10, 64) // "-" where there is none
	}
	return append(disks, Disk{Path: fields[0], Mount: strings.Join(fields[5:], " "),
		SizeMB: n[0] / 1024, AvailMB: n[1] / 1024, Inodes: n[2], InodesFree: n[3]})
}

// appendAddress takes a line of "ip -o addr show".
func appendAddress(list []Address, value string) []Address {
	fields := strings.Fields(value)
	if len(fields) < 4 || !strings.HasPrefix(fields[2], "inet") {
		return list
	}
	text := fields[3]
	if !strings.Contains(text, "/") { // a point-to-point address has its peer's length
		text += "/32"
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return list
	}
	name, _, _ := strings.Cut(strings.TrimSuffix(fields[1], ":"), "@")
	return append(list, Address{Interface: name, Prefix: prefix})
}

// appendInet6 takes a line of /proc/net/if_inet6.
func appendInet6(list []Address, value string) []Address {
	fields := strings.Fields(value)
	if len(fields) != 6 {
		return list
	}
	raw, err := hex.DecodeString(fields[0])
	length, lengthErr := strconv.ParseInt(fields[2], 16, 32)
	a, ok := netip.AddrFromSlice(raw)
	if err != nil || lengthErr != nil || !ok {
		return list
	}
	return append(list, Address{Interface: fields[5], Prefix: netip.PrefixFrom(a, int(length))})
}

// addressesOf finds the IPv4 addresses where there is no ip(8): fib_trie lists
// the local ones, the routing table says which link and prefix each is of.
func addressesOf(fib, route []string) []Address {
	var list []Address
	seen := map[netip.Addr]bool{}
	var last netip.Addr
	for _, line := range fib {
		line = strings.TrimSpace(line)
		if text, ok := strings.CutPrefix(line, "|-- "); ok {
			last, _ = netip.ParseAddr(text)
			continue
		}
		if strings.HasPrefix(line, "/32 host LOCAL") && last.IsValid() && !seen[last] {
			seen[last] = true
			list = append(list, routed(last, route))
		}
	}
	return list
}

// routed gives a local address the longest route that holds it.
func routed(a netip.Addr, route []string) Address {
	best := Address{Prefix: netip.PrefixFrom(a, 32)}
	if a.IsLoopback() {
		best.Interface = "lo"
		return best
	}
	length := 0
	for _, line := range route {
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[0] == "Iface" {
			continue
		}
		mask := procAddr(fields[7])
		if !mask.Is4() {
			continue
		}
		m := mask.As4()
		ones := bits.OnesCount32(binary.BigEndian.Uint32(m[:]))
		dst := netip.PrefixFrom(procAddr(fields[1]), ones)
		if ones > length && dst.Contains(a) {
			length = ones
			best = Address{Interface: fields[0], Prefix: netip.PrefixFrom(a, ones)}
		}
	}
	return best
}
