package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
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
				admin := 0
				if h.sendsNobodyTo(s.name) {
					admin = 8
				}
				fmt.Fprintf(&b, "3 kube-apiserver %d %s %s 2 %d\n", i+1, s.name, s.address, admin)
			}
		case "show stat":
			b.WriteString("# pxname,svname,scur,status,lastchg,check_status,check_code,last_chk,\nkube-apiserver,FRONTEND,0,OPEN,,,,,\n")
			for _, s := range h.backends() {
				status, check := "DOWN", "L4CON,,Connection refused"
				if s.apiServes() {
					status, check = "UP", "L7OK,200,"
					if h.sendsNobodyTo(s.name) {
						status = "DRAIN"
					}
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

// Drain is the script that has HAProxy send nobody new to a server: the name of
// its timer, seconds, the client, the socket, the order, and the one that takes
// it back.
func (h *Host) Drain(args []string) ([]byte, error) { return h.order(args, true) }

// Enable is the script that takes that back, with the same arguments.
func (h *Host) Enable(args []string) ([]byte, error) { return h.order(args, false) }

func (h *Host) order(args []string, drain bool) ([]byte, error) {
	if len(args) != 6 {
		return nil, h.unknown(args)
	}
	order := args[5]
	if drain {
		order = args[4]
	}
	server, state, _ := strings.Cut(strings.TrimPrefix(order, "set server kube-apiserver/"), " state ")
	if args[3] != haproxySocket || !h.active(haproxyUnit) {
		return nil, h.failure(args, 1, "the admin socket of HAProxy: No such file or directory")
	}
	if !slices.ContainsFunc(h.backends(), func(s *Host) bool { return s.name == server }) {
		if drain {
			return []byte("No such server.\n\n"), nil
		}
		return nil, h.failure(args, 1, "No such server.")
	}
	switch {
	case drain && state == "drain":
		seconds, err := strconv.Atoi(args[1])
		if err != nil {
			return nil, h.unknown(args)
		}
		h.enables[server], h.drained[server] = time.Now().Add(time.Duration(seconds)*time.Second), true
		h.w.inspectDrain(server)
	case !drain && state == "ready":
		delete(h.enables, server)
		delete(h.drained, server)
	default:
		return nil, h.unknown(args)
	}
	return []byte("\n"), nil
}

// sendsNobodyTo says whether the server is drained, and its timer has not yet
// taken that back.
func (h *Host) sendsNobodyTo(server string) bool {
	back, timed := h.enables[server]
	return h.drained[server] && (!timed || time.Now().Before(back))
}

// Drained are the servers that a balancer sends nobody new to, as
// "balancer server".
func (w *World) Drained() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, h := range w.sorted() {
		for _, s := range h.backends() {
			if h.sendsNobodyTo(s.name) {
				all = append(all, h.name+" "+s.name)
			}
		}
	}
	return all
}

// out says whether any balancer sends nobody new to the host.
func (w *World) out(name string) bool {
	for _, h := range w.hosts {
		if h.sendsNobodyTo(name) {
			return true
		}
	}
	return false
}

// inspectDrain wants the others to be there for the clients of a server that
// is drained. What a fault of this run has taken away is nobody's fault.
func (w *World) inspectDrain(server string) {
	for _, h := range w.sorted() {
		if _, master := h.Files["/etc/kubernetes/manifests/kube-apiserver.yaml"]; !master || h.name == server {
			continue
		}
		if w.out(h.name) {
			w.accuse("%s is drained while %s is", server, h.name)
		}
		if !h.apiServes() && !w.faulted {
			w.accuse("%s is drained while the API server of %s is down", server, h.name)
		}
	}
}
