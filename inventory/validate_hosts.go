package inventory

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

func (v *validator) hosts() {
	if len(v.c.Spec.Hosts) == 0 {
		v.err("spec.hosts", "no hosts", "list the machines: name, address, role")
		return
	}
	for i, h := range v.c.Spec.Hosts {
		path := fmt.Sprintf("spec.hosts[%d]", i)
		if v.spoilt(path) {
			continue
		}
		v.host(path, h)
	}
	v.unique("name", func(h Host) string { return h.Name })
	v.unique("address", v.reachedAt)
	v.unique("internalAddress", func(h Host) string {
		if ip := h.IP(); ip.IsValid() {
			return ip.String()
		}
		return ""
	})
}

// reachedAt is what must differ between hosts: with one address forwarded to
// many (Vagrant, NAT), the port does.
func (v *validator) reachedAt(h Host) string {
	if h.Address == "" {
		return ""
	}
	s := v.c.EffectiveSSH(h)
	address := strings.ToLower(h.Address)
	if ip, err := netip.ParseAddr(address); err == nil {
		address = ip.String() // IPv6 has many spellings
	}
	key := fmt.Sprintf("%s %d", address, s.Port)
	if s.Bastion != nil {
		key += fmt.Sprintf(" %s %d", s.Bastion.Address, s.Bastion.Port)
	}
	return key
}

// unique reports hosts that share what each must have for itself.
func (v *validator) unique(field string, of func(Host) string) {
	first := map[string]string{}
	for i, h := range v.c.Spec.Hosts {
		path, value := fmt.Sprintf("spec.hosts[%d].%s", i, field), of(h)
		if value == "" || v.spoilt(path) {
			continue
		}
		earlier, taken := first[value]
		switch {
		case !taken:
			first[value] = path
		case field == "internalAddress" && !v.given(path) && v.spoilt(fmt.Sprintf("spec.hosts[%d].address", i)):
			// It is the address, and that has been reported.
		default:
			v.err(path, "the same as "+v.line(earlier), "every host needs its own")
		}
	}
}

func (v *validator) host(path string, h Host) {
	if v.required(path+".name", h.Name, "name the host; it becomes the Node's name") {
		v.label(path+".name", h.Name)
	}
	if v.required(path+".address", h.Address, "want the IP address or DNS name where SSH reaches the host") {
		v.reachable(path+".address", h.Address)
	}
	v.internal(path, h)
	if v.required(path+".role", string(h.Role), "want one of control-plane, load-balancer, worker") {
		oneOf(v, path+".role", h.Role, RoleControlPlane, RoleLoadBalancer, RoleWorker)
	}
	if h.Role == RoleLoadBalancer {
		for _, field := range []string{".labels", ".taints"} {
			if v.given(path + field) {
				v.err(path+field, "a load-balancer host is no Node of the cluster", "remove it")
			}
		}
	}
	v.labels(path+".labels", h.Labels)
	v.taints(path+".taints", h.Taints)
	v.ssh(path+".ssh", h.SSH, false)
}

func (v *validator) internal(path string, h Host) {
	at := path + ".internalAddress"
	if h.InternalAddress == "" {
		switch ip, err := netip.ParseAddr(h.Address); {
		case h.Address == "" || v.spoilt(path+".address"):
		case err != nil:
			v.err(at, "missing, and the address is a DNS name", "want the IP address that the cluster uses for this host")
		default:
			v.err(at, fmt.Sprintf("missing, and the address %s %s", ip, usable(ip)),
				"want the IP address that the cluster uses for this host")
		}
		return
	}
	if v.given(at) {
		v.machineIP(at, h.InternalAddress)
	}
}

// machineIP reports what is no IP address that other machines can use.
func (v *validator) machineIP(path, text string) {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		v.err(path, quote(text)+" is not an IP address", "want one such as 192.0.2.11")
		return
	}
	if why := usable(ip); why != "" {
		v.err(path, text+" "+why, "want an address that the other hosts can reach")
	}
}

var allDigits = regexp.MustCompile(`^[0-9.]+$`)

// reachable reports what is neither an IP address nor a DNS name; loopback is
// allowed, for ports that are forwarded.
func (v *validator) reachable(path, text string) {
	if ip, err := netip.ParseAddr(text); err == nil {
		if why := usable(ip); why != "" && !ip.IsLoopback() {
			v.err(path, text+" "+why, "want an address that this machine can reach")
		}
		return
	}
	v.dnsName(path, text)
}

// dnsName reports what is no DNS name, with a guess at what else it is.
func (v *validator) dnsName(path, text string) {
	lower := strings.ToLower(text)
	if len(validation.IsDNS1123Subdomain(lower)) == 0 && !allDigits.MatchString(text) {
		return
	}
	hint := "want one such as 192.0.2.11 or cp-1.example.com"
	_, port := netip.ParseAddrPort(text)
	switch {
	case strings.Contains(text, "://"):
		hint = "want the bare name or address, without the scheme"
	case strings.Contains(text, "@"):
		hint = "want the bare name or address: the user goes into ssh.user"
	case port == nil, strings.Count(text, ":") == 1:
		hint = "want the bare name or address: a port has a field of its own"
	}
	v.err(path, quote(text)+" is neither an IP address nor a DNS name", hint)
}

// ownedLabels are set by the kubelet or by kubeadm.
var ownedLabels = []string{
	"kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch",
	"node-role.kubernetes.io/control-plane",
}

func (v *validator) labels(path string, labels map[string]string) {
	for key, value := range labels {
		at := child(path, key)
		switch problems := validation.IsQualifiedName(key); {
		case len(problems) > 0:
			v.err(at, quote(key)+" is not a label's key", "want [DNS name/]name, such as example.com/rack: at most 63 of letters, digits, \"-\", \"_\", \".\" after the \"/\"")
		case slices.Contains(ownedLabels, key):
			v.err(at, key+" is set by Kubernetes itself", "remove it")
		case len(validation.IsValidLabelValue(value)) > 0:
			v.err(at, quote(value)+" is not a label's value", "want at most 63 of letters, digits, \"-\", \"_\", \".\", beginning and ending with a letter or digit")
		}
	}
}

func (v *validator) taints(path string, taints []Taint) {
	first := map[string]string{}
	for i, taint := range taints {
		at := fmt.Sprintf("%s[%d]", path, i)
		if v.spoilt(at) {
			continue
		}
		if v.required(at+".key", taint.Key, "want a key such as example.com/gpu") &&
			len(validation.IsQualifiedName(taint.Key)) > 0 {
			v.err(at+".key", quote(taint.Key)+" is not a taint's key", "want [DNS name/]name, such as example.com/gpu")
		}
		if len(validation.IsValidLabelValue(taint.Value)) > 0 {
			v.err(at+".value", quote(taint.Value)+" is not a taint's value", "want at most 63 of letters, digits, \"-\", \"_\", \".\"")
		}
		const effects = "want one of NoSchedule, PreferNoSchedule, NoExecute"
		if v.required(at+".effect", taint.Effect, effects) {
			oneOf(v, at+".effect", taint.Effect, "NoSchedule", "PreferNoSchedule", "NoExecute")
		}
		key := taint.Key + ":" + taint.Effect
		if earlier, taken := first[key]; taken {
			v.err(at, "the same key and effect as "+v.line(earlier), "remove one")
		}
		first[key] = at
	}
}
