package etcd

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sort"
	"strings"
)

// normalURL spells a peer or client URL in one way, so that equal addresses
// compare equal: lower case, canonical IP, no trailing slash.
func normalURL(s string) string {
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil || u.Host == "" {
		return strings.TrimRight(strings.ToLower(s), "/")
	}
	host := strings.ToLower(u.Hostname())
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	return strings.ToLower(u.Scheme) + "://" + net.JoinHostPort(host, u.Port())
}

func sameURL(a, b string) bool { return normalURL(a) == normalURL(b) }

// hasURL says whether one of urls is url.
func hasURL(urls []string, want string) bool {
	return slices.ContainsFunc(urls, func(u string) bool { return sameURL(u, want) })
}

// listKey spells a member list so that equal memberships compare equal. Names
// are left out: a member publishes its name later than it joins.
func listKey(l []Listed) string {
	rows := make([]string, len(l))
	for i, m := range l {
		urls := make([]string, len(m.PeerURLs))
		for j, u := range m.PeerURLs {
			urls[j] = normalURL(u)
		}
		sort.Strings(urls)
		role := "v"
		if m.Learner {
			role = "l"
		}
		rows[i] = m.ID.String() + role + strings.Join(urls, ",")
	}
	sort.Strings(rows)
	return strings.Join(rows, " ")
}
