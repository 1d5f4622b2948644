package inventory

import "testing"

// TestHosts: what each host needs.
func TestHosts(t *testing.T) {
	for _, r := range []row{
		{
			name: "no name", old: "    - name: cp-1\n      address", with: "    - address",
			want: `f:11:7: spec.hosts[0].name: missing; name the host; it becomes the Node's name`,
		},
		{
			name: "a name that is no DNS label", old: "name: cp-1", with: "name: cp_1",
			want: `f:11:13: spec.hosts[0].name: "cp_1" is not a DNS label; want at most 63 of a-z, 0-9 and "-", beginning and ending with a letter or digit`,
		},
		{
			name: "a name twice", old: "name: cp-2", with: "name: cp-1",
			want: `f:14:13: spec.hosts[1].name: the same as spec.hosts[0].name (line 11); every host needs its own`,
		},
		{
			name: "no address", old: "      address: 192.0.2.11\n",
			want: `f:11:7: spec.hosts[0].address: missing; want the IP address or DNS name where SSH reaches the host`,
		},
		{
			name: "an address twice", old: "192.0.2.12", with: "192.0.2.11",
			want: `f:15:16: spec.hosts[1].address: the same as spec.hosts[0].address (line 12); every host needs its own`,
		},
		{name: "an address twice, through other ports",
			old: "      address: 192.0.2.11\n", with: `      address: 192.0.2.12
      internalAddress: 192.0.2.11
      ssh: {port: 2222}
`},
		{
			name: "an address twice, through other ports, without an internal address",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.12
      ssh: {port: 2222}
`,
			want: `f:15:7: spec.hosts[1].internalAddress: the same as spec.hosts[0].internalAddress (line 11); every host needs its own`,
		},
		{
			name: "an IPv6 address twice, written differently",
			old: `      address: 192.0.2.21
      role: load-balancer
    - name: lb-2
      address: 192.0.2.22`, with: `      address: "2001:db8::1"
      role: load-balancer
    - name: lb-2
      address: "2001:db8:0::1"`,
			want: `f:24:16: spec.hosts[4].address: the same as spec.hosts[3].address (line 21); every host needs its own`,
		},
		{
			name: "an address that is nothing", old: "address: 192.0.2.11", with: "address: 192.0.2.300",
			want: `f:12:16: spec.hosts[0].address: "192.0.2.300" is neither an IP address nor a DNS name; want one such as 192.0.2.11 or cp-1.example.com`,
		},
		{
			name: "an address with a port", old: "address: 192.0.2.11", with: "address: 192.0.2.11:22",
			want: `f:12:16: spec.hosts[0].address: "192.0.2.11:22" is neither an IP address nor a DNS name; want the bare name or address: a port has a field of its own`,
		},
		{
			name: "a name with a port", old: "address: 192.0.2.11", with: "address: cp-1.example.com:22",
			want: `f:12:16: spec.hosts[0].address: "cp-1.example.com:22" is neither an IP address nor a DNS name; want the bare name or address: a port has a field of its own`,
		},
		{
			name: "an address with a user", old: "address: 192.0.2.11", with: "address: debian@192.0.2.11",
			want: `f:12:16: spec.hosts[0].address: "debian@192.0.2.11" is neither an IP address nor a DNS name; want the bare name or address: the user goes into ssh.user`,
		},
		{
			name: "a URL", old: "address: 192.0.2.11", with: "address: ssh://192.0.2.11",
			want: `f:12:16: spec.hosts[0].address: "ssh://192.0.2.11" is neither an IP address nor a DNS name; want the bare name or address, without the scheme`,
		},
		{
			name: "the unspecified address", old: "address: 192.0.2.11", with: "address: 0.0.0.0",
			want: `f:12:16: spec.hosts[0].address: 0.0.0.0 is the unspecified address; want an address that this machine can reach`,
		},
		{
			name: "a multicast address", old: "address: 192.0.2.11", with: "address: 224.0.0.1",
			want: `f:12:16: spec.hosts[0].address: 224.0.0.1 is a multicast address; want an address that this machine can reach`,
		},
		{
			name: "a link-local address", old: "address: 192.0.2.11", with: "address: 169.254.1.1",
			want: `f:12:16: spec.hosts[0].address: 169.254.1.1 is a link-local address; want an address that this machine can reach`,
		},
		{
			name: "an address with a zone", old: "address: 192.0.2.11", with: "address: \"2001:db8::1%eth0\"",
			want: `f:12:16: spec.hosts[0].address: 2001:db8::1%eth0 has a zone; want an address that this machine can reach`,
		},
		{
			name: "an IPv4 address in IPv6 form", old: "address: 192.0.2.11", with: "address: \"::ffff:192.0.2.11\"",
			want: `f:12:16: spec.hosts[0].address: ::ffff:192.0.2.11 is an IPv4 address in IPv6 form; want an address that this machine can reach`,
		},
		{
			name: "a taint that is no section",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      taints: [a, {key: a, effect: NoSchedule}]
`,
			want: `f:13:16: spec.hosts[0].taints[0]: want a section with key, value, effect, found the text "a"`,
		},
		{
			name: "a DNS name without an internal address", old: "address: 192.0.2.11", with: "address: cp-1.example.com",
			want: `f:11:7: spec.hosts[0].internalAddress: missing, and the address is a DNS name; want the IP address that the cluster uses for this host`,
		},
		{name: "a DNS name with an internal address",
			old: "address: 192.0.2.11", with: "address: cp-1.example.com\n      internalAddress: 192.0.2.11"},
		{
			name: "a forwarded port on loopback without an internal address", old: "address: 192.0.2.11", with: "address: 127.0.0.1",
			want: `f:11:7: spec.hosts[0].internalAddress: missing, and the address 127.0.0.1 is a loopback address; want the IP address that the cluster uses for this host`,
		},
		{
			name: "an internal address that is a name",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      internalAddress: cp-1
`,
			want: `f:13:24: spec.hosts[0].internalAddress: "cp-1" is not an IP address; want one such as 192.0.2.11`,
		},
		{
			name: "an internal address that is loopback",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      internalAddress: 127.0.0.1
`,
			want: `f:13:24: spec.hosts[0].internalAddress: 127.0.0.1 is a loopback address; want an address that the other hosts can reach`,
		},
		{
			name: "an internal address twice",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      internalAddress: 192.0.2.12
`,
			want: `f:15:7: spec.hosts[1].internalAddress: the same as spec.hosts[0].internalAddress (line 13); every host needs its own`,
		},
		{
			name: "an internal address twice, written differently",
			old: `      address: 192.0.2.11
      role: control-plane
    - name: cp-2
      address: 192.0.2.12
`, with: `      address: cp-1
      internalAddress: "2001:db8::1"
      role: control-plane
    - name: cp-2
      address: cp-2
      internalAddress: "2001:db8:0::1"
`,
			want: `f:13:24: spec.hosts[0].internalAddress: 2001:db8::1 and the pod network 10.244.0.0/16 are of different IP families; want both IPv4 or both IPv6; the networks are set in spec.network
f:17:24: spec.hosts[1].internalAddress: the same as spec.hosts[0].internalAddress (line 13); every host needs its own`,
		},
		{
			name: "no role", old: "      role: control-plane\n",
			want: `f:11:7: spec.hosts[0].role: missing; want one of control-plane, load-balancer, worker`,
		},
		{
			name: "an unknown role", old: "role: load-balancer", with: "role: loadbalancer",
			want: `f:22:13: spec.hosts[3].role: "loadbalancer" is not known; did you mean load-balancer?`,
		},
		{name: "the role master", old: "role: control-plane", with: "role: master"},
		{
			name: "labels of a load-balancer host",
			old:  "      role: load-balancer\n", with: `      role: load-balancer
      labels: {a: b}
      taints: []
`,
			want: `f:23:7: spec.hosts[3].labels: a load-balancer host is no Node of the cluster; remove it
f:24:7: spec.hosts[3].taints: a load-balancer host is no Node of the cluster; remove it`,
		},
		{
			name: "a label's key that is none",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      labels: {a/b/c: x}
`,
			want: `f:13:23: spec.hosts[0].labels["a/b/c"]: "a/b/c" is not a label's key; want [DNS name/]name, such as example.com/rack: at most 63 of letters, digits, "-", "_", "." after the "/"`,
		},
		{
			name: "a label's value that is none",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      labels: {a: "x y"}
`,
			want: `f:13:19: spec.hosts[0].labels.a: "x y" is not a label's value; want at most 63 of letters, digits, "-", "_", ".", beginning and ending with a letter or digit`,
		},
		{
			name: "a label that the kubelet sets",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      labels: {kubernetes.io/hostname: x}
`,
			want: `f:13:40: spec.hosts[0].labels["kubernetes.io/hostname"]: kubernetes.io/hostname is set by Kubernetes itself; remove it`,
		},
		{
			name: "a taint without key and effect",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      taints: [{value: x}]
`,
			want: `f:13:16: spec.hosts[0].taints[0].key: missing; want a key such as example.com/gpu
f:13:16: spec.hosts[0].taints[0].effect: missing; want one of NoSchedule, PreferNoSchedule, NoExecute`,
		},
		{
			name: "a taint's key and value that are none",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      taints: [{key: a b, value: c d, effect: NoExecute}]
`,
			want: `f:13:22: spec.hosts[0].taints[0].key: "a b" is not a taint's key; want [DNS name/]name, such as example.com/gpu
f:13:34: spec.hosts[0].taints[0].value: "c d" is not a taint's value; want at most 63 of letters, digits, "-", "_", "."`,
		},
		{
			name: "a taint's effect that is none",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      taints: [{key: a, effect: NoSchedul}]
`,
			want: `f:13:33: spec.hosts[0].taints[0].effect: "NoSchedul" is not known; did you mean NoSchedule?`,
		},
		{
			name: "a taint twice",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      taints: [{key: a, effect: NoSchedule}, {key: a, value: b, effect: NoSchedule}]
`,
			want: `f:13:46: spec.hosts[0].taints[1]: the same key and effect as spec.hosts[0].taints[0] (line 13); remove one`,
		},
		{name: "no taints at all is a choice", old: "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      taints: []
`},
		{
			name: "a user that is none", old: "  hosts:\n", with: `  ssh: {user: a@b}
  hosts:
`,
			want: `f:10:15: spec.ssh.user: "a@b" is not a user's name; want a name such as debian`,
		},
		{
			name: "a user that looks like an option", old: "  hosts:\n", with: `  ssh: {user: -oProxyCommand=x}
  hosts:
`,
			want: `f:10:15: spec.ssh.user: "-oProxyCommand=x" is not a user's name; want a name such as debian`,
		},
		{
			name: "port 0", old: "  hosts:\n", with: `  ssh: {port: 0}
  hosts:
`,
			want: `f:10:15: spec.ssh.port: 0 is not a port; want 1 to 65535`,
		},
		{
			name: "port 65536 of a host", old: "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      ssh: {port: 65536}
`,
			want: `f:13:19: spec.hosts[0].ssh.port: 65536 is not a port; want 1 to 65535`,
		},
		{
			name: "host keys for all hosts", old: "  hosts:\n", with: `  ssh: {hostKeys: [x]}
  hosts:
`,
			want: `f:10:9: spec.ssh.hostKeys: keys for all hosts at once: each host has its own; move them to the hosts (spec.hosts[].ssh.hostKeys), or list files in knownHosts`,
		},
		{
			name: "no host keys", old: "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      ssh: {hostKeys: []}
`,
			want: `f:13:13: spec.hosts[0].ssh.hostKeys: an empty list pins no key; list the host's keys, or remove it to use known_hosts`,
		},
		{name: "a good host key",
			old: "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      ssh: {hostKeys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC5GlJnXFZmRCWJ4uEkuZLJ3zDmYPXLw9f4DqCtVQuQY cp-1]}
`},
		{
			name: "a host key that is none",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      ssh: {hostKeys: [ssh-ed25519 AAAA]}
`,
			want: `f:13:24: spec.hosts[0].ssh.hostKeys[0]: not an SSH public key; want what ssh-keyscan prints after the host's name, such as: ssh-ed25519 AAAA...`,
		},
		{
			name: "a line of known_hosts",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      ssh: {hostKeys: [192.0.2.11 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC5GlJnXFZmRCWJ4uEkuZLJ3zDmYPXLw9f4DqCtVQuQY]}
`,
			want: `f:13:24: spec.hosts[0].ssh.hostKeys[0]: text in front of the key; want what ssh-keyscan prints after the host's name, such as: ssh-ed25519 AAAA...`,
		},
		{
			name: "a fingerprint",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      ssh: {hostKeys: ["SHA256:abc"]}
`,
			want: `f:13:24: spec.hosts[0].ssh.hostKeys[0]: a fingerprint, not a key; want what ssh-keyscan prints after the host's name, such as: ssh-ed25519 AAAA...`,
		},
		{
			name: "a private key is not repeated",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      ssh: {hostKeys: ["-----BEGIN OPENSSH PRIVATE KEY----- secret"]}
`,
			want: `f:13:24: spec.hosts[0].ssh.hostKeys[0]: a private key; want the host's public key; the private one has no place here`,
		},
		{
			name: "an empty file name", old: "  hosts:\n", with: `  ssh: {identityFiles: [""], knownHosts: [""]}
  hosts:
`,
			want: `f:10:25: spec.ssh.identityFiles[0]: an empty item; fill it in or remove it
f:10:43: spec.ssh.knownHosts[0]: an empty item; fill it in or remove it`,
		},
		{
			name: "a bastion without an address", old: "  hosts:\n", with: `  ssh: {bastion: {port: 22}}
  hosts:
`,
			want: `f:10:9: spec.ssh.bastion.address: missing; want the IP address or DNS name of the jump host`,
		},
		{
			name: "a bastion's fields that are wrong",
			old:  "  hosts:\n", with: `  ssh: {bastion: {address: a b, port: 0, user: "a b", identityFiles: [""], hostKeys: [x]}}
  hosts:
`,
			want: `f:10:28: spec.ssh.bastion.address: "a b" is neither an IP address nor a DNS name; want one such as 192.0.2.11 or cp-1.example.com
f:10:39: spec.ssh.bastion.port: 0 is not a port; want 1 to 65535
f:10:48: spec.ssh.bastion.user: "a b" is not a user's name; want a name such as debian
f:10:71: spec.ssh.bastion.identityFiles[0]: an empty item; fill it in or remove it
f:10:87: spec.ssh.bastion.hostKeys[0]: not an SSH public key; want what ssh-keyscan prints after the host's name, such as: ssh-ed25519 AAAA...`,
		},
		{name: "no bastion for one host",
			old: "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      ssh: {bastion: {address: none}}
`},
	} {
		r.run(t)
	}
}
