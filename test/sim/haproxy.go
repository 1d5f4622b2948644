package sim

import (
	"fmt"
	"slices"
	"strings"
)

const (
	haproxyUnit   = "haproxy.service"
	haproxyConfig = "/etc/haproxy/haproxy.cfg"
	haproxySocket = "/run/haproxy/admin.sock"
)

// askHAProxy is the client of the admin socket that is sent as a script: its
// arguments are the socket and the orders.
func (h *Host) askHAProxy(argv []string) ([]byte, error) {
	socket, orders := argv[3], argv[4]
	if socket != haproxySocket || !h.active(haproxyUnit) {
		return nil, h.failure(argv, 1, "the admin socket of HAProxy: No such file or directory")
	}
	var b strings.Builder
	for order := range strings.SplitSeq(orders, "; ") {
		switch order {
		case "show info":
			b.WriteString("Name: HAProxy\nVersion: 2.6.12-1+deb12u4\nUptime_sec: 3600\n")
		case "show servers state kube-apiserver":
			b.WriteString("1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state\n")
			for i, s := range h.backends() {
				fmt.Fprintf(&b, "3 kube-apiserver %d %s %s 2 0\n", i+1, s.name, s.address)
			}
		case "show stat":
			b.WriteString("# pxname,svname,scur,status,lastchg,check_status,check_code,last_chk,\nkube-apiserver,FRONTEND,0,OPEN,,,,,\n")
			for _, s := range h.backends() {
				status, check := "DOWN", "L4CON,,Connection refused"
				if s.apiUp() {
					status, check = "UP", "L7OK,200,"
				}
				fmt.Fprintf(&b, "kube-apiserver,%s,0,%s,600,%s,\n", s.name, status, check)
			}
		default:
			return nil, h.unknown(argv)
		}
		b.WriteString("\n")
	}
	return []byte(b.String()), nil
}

// backends are the hosts that HAProxy's configuration names as servers.
func (h *Host) backends() []*Host {
	var all []*Host
	for line := range strings.Lines(string(h.Files[haproxyConfig].Content)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "server" {
			all = append(all, h.w.hosts[f[1]])
		}
	}
	return slices.DeleteFunc(all, func(s *Host) bool { return s == nil })
}
