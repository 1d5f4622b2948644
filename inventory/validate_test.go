package inventory

import "testing"

// TestCluster: what the whole cluster needs.
func TestCluster(t *testing.T) {
	for _, r := range []row{
		{
			name: "no metadata", old: `metadata:
  name: lab
`,
			want: `f:1:1: metadata.name: missing; name the cluster; commands that destroy ask for it`,
		},
		{
			name: "a name that is no DNS label", old: "name: lab", with: "name: Lab.example",
			want: `f:4:9: metadata.name: "Lab.example" is not a DNS label; want at most 63 of a-z, 0-9 and "-", beginning and ending with a letter or digit`,
		},
		{
			name: "a name of 64 letters", old: "name: lab", with: "name: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
			want: `f:4:9: metadata.name: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..." is not a DNS label; want at most 63 of a-z, 0-9 and "-", beginning and ending with a letter or digit`,
		},
		{
			name: "no version", old: `  kubernetes:
    version: v1.36.3
`,
			want: `f:5:1: spec.kubernetes.version: missing; want a release such as v1.36.3`,
		},
		{
			name: "a version without v", old: "v1.36.3", with: "1.36.3",
			want: `f:7:14: spec.kubernetes.version: "1.36.3" is not a release of Kubernetes; write v1.36.3`,
		},
		{
			name: "a version without a patch", old: "v1.36.3", with: "v1.36",
			want: `f:7:14: spec.kubernetes.version: "v1.36" is not a release of Kubernetes; want a release with all three numbers, such as v1.36.3`,
		},
		{
			name: "a version with a pre-release", old: "v1.36.3", with: "v1.36.0-rc.1",
			want: `f:7:14: spec.kubernetes.version: "v1.36.0-rc.1" is not a release of Kubernetes; want a release with all three numbers, such as v1.36.3`,
		},
		{
			name: "a version with leading zeros", old: "v1.36.3", with: "v1.036.3",
			want: `f:7:14: spec.kubernetes.version: "v1.036.3" is not a release of Kubernetes; want a release with all three numbers, such as v1.36.3`,
		},
		{
			name: "another major version", old: "v1.36.3", with: "v2.0.0",
			want: `f:7:14: spec.kubernetes.version: v2.0.0 is not a release of Kubernetes; releases begin with v1.`,
		},
		{
			name: "a version that is too old", old: "v1.36.3", with: "v1.32.9",
			want: `f:7:14: spec.kubernetes.version: v1.32.9 is too old; want v1.33.0 or later`,
		},
		{name: "the oldest version", old: "v1.36.3", with: "v1.33.0"},
		{
			name: "a version newer than this program", old: "v1.36.3", with: "v1.37.0",
			want: `f:7:14: warning: spec.kubernetes.version: v1.37.0 is newer than what this program was tested with (v1.36); look for a newer ha-install`,
		},
		{
			name: "no hosts", old: hostsOfBase, with: "  hosts: []\n",
			want: `f:10:3: spec.hosts: no hosts; list the machines: name, address, role`,
		},
		{
			name: "no control plane hosts", old: hostsOfBase, with: hostsWith(0),
			want: `f:10:3: spec.hosts: no control plane host; give three hosts the role control-plane`,
		},
		{
			name: "one control plane host", old: hostsOfBase, with: hostsWith(1),
			want: `f:10:3: warning: spec.hosts: ONE control plane host: for trying out only, nothing survives its loss; want 3, 5 or 7`,
		},
		{
			name: "two control plane hosts", old: hostsOfBase, with: hostsWith(2),
			want: `f:10:3: warning: spec.hosts: TWO control plane hosts: for trying out only, worse than one: the loss of either stops the cluster; want 3, 5 or 7`,
		},
		{
			name: "four control plane hosts", old: hostsOfBase, with: hostsWith(4),
			want: `f:10:3: warning: spec.hosts: 4 control plane hosts: can lose 1, no more than 3 could, and each write waits for one more; want 3, 5 or 7`,
		},
		{name: "five control plane hosts", old: hostsOfBase, with: hostsWith(5)},
		{
			name: "six control plane hosts", old: hostsOfBase, with: hostsWith(6),
			want: `f:10:3: warning: spec.hosts: 6 control plane hosts: can lose 2, no more than 5 could, and each write waits for one more; want 3, 5 or 7`,
		},
		{name: "seven control plane hosts", old: hostsOfBase, with: hostsWith(7)},
		{
			name: "eight control plane hosts", old: hostsOfBase, with: hostsWith(8),
			want: `f:10:3: spec.hosts: 8 control plane hosts: every write waits for 5 of them; etcd supports at most 7; want 3, 5 or 7`,
		},
		{
			name: "nine control plane hosts", old: hostsOfBase, with: hostsWith(9),
			want: `f:10:3: spec.hosts: 9 control plane hosts: every write waits for 5 of them; etcd supports at most 7; want 3, 5 or 7`,
		},
		{
			name: "no load-balancer host",
			old: `    - name: lb-1
      address: 192.0.2.21
      role: load-balancer
    - name: lb-2
      address: 192.0.2.22
      role: load-balancer
`,
			want: `f:5:1: spec.loadBalancer.mode: no host has the role load-balancer; add two with role load-balancer, or set mode: masters to have the control plane hosts balance, or mode: external when the balancer is your own`,
		},
		{
			name: "one load-balancer host", old: `    - name: lb-2
      address: 192.0.2.22
      role: load-balancer
`,
			want: `f:5:1: warning: spec.loadBalancer.mode: one load-balancer host: the balancer itself is then a single point of failure; want two with role load-balancer`,
		},
		{
			name: "load-balancer hosts in external mode", old: "  hosts:\n", with: `  loadBalancer: {mode: external}
  hosts:
`,
			want: `f:23:13: spec.hosts[3].role: a load-balancer host, but spec.loadBalancer.mode (line 10) is external; remove the host, or set mode: dedicated
f:26:13: spec.hosts[4].role: a load-balancer host, but spec.loadBalancer.mode (line 10) is external; remove the host, or set mode: dedicated`,
		},
		{
			name: "load-balancer hosts where the masters balance", old: "  hosts:\n", with: `  loadBalancer: {mode: masters}
  hosts:
`,
			want: `f:23:13: warning: spec.hosts[3].role: a load-balancer host, but spec.loadBalancer.mode (line 10) is masters: it does not balance any more, and what did is taken off it; remove the host after the next apply
f:26:13: warning: spec.hosts[4].role: a load-balancer host, but spec.loadBalancer.mode (line 10) is masters: it does not balance any more, and what did is taken off it; remove the host after the next apply`,
		},
		{
			name: "an unknown balancer mode", old: "  hosts:\n", with: `  loadBalancer: {mode: externl}
  hosts:
`,
			want: `f:10:24: spec.loadBalancer.mode: "externl" is not known; did you mean external?`,
		},
		{
			name: "settings of keepalived in external mode",
			old:  hostsOfBase, with: `  loadBalancer: {mode: external, vip: 192.0.2.10, interface: eth0, virtualRouterID: 5}
  hosts:
    - {name: cp-1, address: 192.0.2.11, role: control-plane}
    - {name: cp-2, address: 192.0.2.12, role: control-plane}
    - {name: cp-3, address: 192.0.2.13, role: control-plane}
`,
			want: `f:10:39: spec.loadBalancer.vip: an external balancer is not set up, only checked; remove it, or set mode: dedicated
f:10:62: spec.loadBalancer.interface: an external balancer is not set up, only checked; remove it, or set mode: dedicated
f:10:85: spec.loadBalancer.virtualRouterID: an external balancer is not set up, only checked; remove it, or set mode: dedicated`,
		},
		{
			name: "no bundle", old: "    bundle: bundle.tar\n", with: "    source: bundle\n",
			want: `f:26:3: spec.software.bundle: missing; want the path of the bundle, or source: installed when the hosts have the software`,
		},
		{
			name: "no software at all", old: `  software:
    bundle: bundle.tar
`,
			want: `f:5:1: spec.software.bundle: missing; want the path of the bundle, or source: installed when the hosts have the software`,
		},
		{
			name: "a bundle that is not used", old: "    bundle: bundle.tar\n", with: `    source: installed
    bundle: b
`,
			want: `f:28:13: spec.software.bundle: no bundle is used with source installed; remove it, or set source: bundle`,
		},
		{
			name: "an unknown source", old: "    bundle: bundle.tar\n", with: "    source: packages\n",
			want: `f:27:13: spec.software.source: "packages" is not known; want one of bundle, installed`,
		},
		{
			name: "an empty PKI directory", old: "  hosts:\n", with: `  pki: {directory: ""}
  hosts:
`,
			want: `f:10:20: spec.pki.directory: an empty path; want the directory of the CA files, or remove it to have them made`,
		},
		{
			name: "all errors ignored", old: "  hosts:\n", with: `  preflight: {ignoreErrors: [All]}
  hosts:
`,
			want: `f:10:30: spec.preflight.ignoreErrors[0]: "all" would also hide what destroys clusters: files of another cluster, full disks, wrong clocks; name the checks, as preflight prints them`,
		},
		{
			name: "an ignored error that is no name", old: "  hosts:\n", with: `  preflight: {ignoreErrors: ["Memory=1", ""]}
  hosts:
`,
			want: `f:10:30: spec.preflight.ignoreErrors[0]: "Memory=1" is not the name of a check; want a name as preflight prints it, such as SystemVerification
f:10:42: spec.preflight.ignoreErrors[1]: "" is not the name of a check; want a name as preflight prints it, such as SystemVerification`,
		},
		{
			name: "an ignored error twice", old: "  hosts:\n", with: `  preflight: {ignoreErrors: [Memory, memory]}
  hosts:
`,
			want: `f:10:38: warning: spec.preflight.ignoreErrors[1]: the same as spec.preflight.ignoreErrors[0] (line 10); remove one`,
		},
	} {
		r.run(t)
	}
}
