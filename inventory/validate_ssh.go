package inventory

import (
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// ssh looks at how hosts are reached; common says that it is for all of them.
func (v *validator) ssh(path string, s SSH, common bool) {
	v.user(path+".user", s.User)
	v.port(path+".port", s.Port)
	v.filled(path+".identityFiles", s.IdentityFiles)
	v.filled(path+".knownHosts", s.KnownHosts)
	if common && v.given(path+".hostKeys") {
		v.err(path+".hostKeys", "keys for all hosts at once: each host has its own",
			"move them to the hosts (spec.hosts[].ssh.hostKeys), or list files in knownHosts")
	} else {
		v.hostKeys(path+".hostKeys", s.HostKeys)
	}
	if s.Bastion == nil {
		return
	}
	at := path + ".bastion"
	if !common && s.Bastion.Address == NoBastion {
		return
	}
	if v.required(at+".address", s.Bastion.Address, "want the IP address or DNS name of the jump host") {
		v.reachable(at+".address", s.Bastion.Address)
	}
	v.user(at+".user", s.Bastion.User)
	v.port(at+".port", s.Bastion.Port)
	v.filled(at+".identityFiles", s.Bastion.IdentityFiles)
	v.hostKeys(at+".hostKeys", s.Bastion.HostKeys)
}

func (v *validator) user(path, user string) {
	if strings.HasPrefix(user, "-") || strings.ContainsAny(user, " \t@:/\\") {
		v.err(path, quote(user)+" is not a user's name", "want a name such as debian")
	}
}

// port reports a port that was given and is none.
func (v *validator) port(path string, port int) {
	if v.given(path) && (port < 1 || port > 65535) {
		v.err(path, fmt.Sprintf("%d is not a port", port), "want 1 to 65535")
	}
}

// filled reports empty strings in a list.
func (v *validator) filled(path string, list []string) {
	for i, item := range list {
		if item == "" {
			v.err(fmt.Sprintf("%s[%d]", path, i), "an empty item", "fill it in or remove it")
		}
	}
}

// hostKeys never repeats what was written: it may be a private key.
func (v *validator) hostKeys(path string, keys []string) {
	if keys != nil && len(keys) == 0 && v.given(path) {
		v.err(path, "an empty list pins no key", "list the host's keys, or remove it to use known_hosts")
	}
	for i, line := range keys {
		at := fmt.Sprintf("%s[%d]", path, i)
		const want = "want what ssh-keyscan prints after the host's name, such as: ssh-ed25519 AAAA..."
		_, _, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
		switch {
		case strings.Contains(line, "PRIVATE KEY"):
			v.err(at, "a private key", "want the host's public key; the private one has no place here")
		case strings.HasPrefix(line, "SHA256:"), strings.HasPrefix(line, "MD5:"):
			v.err(at, "a fingerprint, not a key", want)
		case err != nil:
			v.err(at, "not an SSH public key", want)
		case len(options) > 0:
			v.err(at, "text in front of the key", want)
		}
	}
}
