package inventory

import "testing"

// TestTypes: fields are known, there once, and of their type.
func TestTypes(t *testing.T) {
	for _, r := range []row{
		{
			name: "an unknown field with a near name", old: "  name: lab", with: "  nmae: lab",
			want: `f:4:3: metadata.nmae: unknown field; did you mean name?`,
		},
		{
			name: "an unknown field of another style",
			old:  "      address: 192.0.2.11", with: "      address: 192.0.2.11\n      internal_address: 192.0.2.11",
			want: `f:13:7: spec.hosts[0].internal_address: unknown field; did you mean internalAddress?`,
		},
		{
			name: "an unknown field with no near name", old: "  name: lab", with: "  name: lab\n  colour: red",
			want: `f:5:3: metadata.colour: unknown field; known here: name`,
		},
		{
			name: "a field in another section", old: "    host: 192.0.2.10", with: "    host: 192.0.2.10\n    vip: 192.0.2.10",
			want: `f:10:5: spec.endpoint.vip: unknown field; known here: host, port`,
		},
		{
			name: "a field in the wrong case", old: "    host: 192.0.2.10", with: "    Host: 192.0.2.10",
			want: `f:9:5: spec.endpoint.Host: unknown field; did you mean host?`,
		},
		{
			name: "a fault in a duplicate section is told too",
			old:  "  hosts:\n", with: `  endpoint: {host: 192.0.2.10}
  ssh: {port: 0}
  ssh: {port: 1}
  hosts:
`,
			want: `f:10:3: spec.endpoint: duplicate key; remove one: the first is on line 8
f:11:15: spec.ssh.port: 0 is not a port; want 1 to 65535
f:12:3: spec.ssh: duplicate key; remove one: the first is on line 11`,
		},
		{
			name: "a duplicate key", old: "  name: lab", with: "  name: lab\n  name: lab",
			want: `f:5:3: metadata.name: duplicate key; remove one: the first is on line 4`,
		},
		{
			name: "a duplicate section", old: "  hosts:\n", with: `  kubernetes: {version: v1.36.3}
  hosts:
`,
			want: `f:10:3: spec.kubernetes: duplicate key; remove one: the first is on line 6`,
		},
		{
			name: "a number for text", old: "  name: lab", with: "  name: 12",
			want: `f:4:9: metadata.name: want text, found the number 12; quote it: "12"`,
		},
		{
			name: "a version that YAML takes for a number", old: "v1.36.3", with: "1.36",
			want: `f:7:14: spec.kubernetes.version: want text, found the number 1.36; quote it: "1.36"`,
		},
		{
			name: "a truth value for text", old: "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      labels: {gpu: true}
`,
			want: `f:13:21: spec.hosts[0].labels.gpu: want text, found the truth value true; quote it: "true"`,
		},
		{name: "the word yes is text where text is wanted",
			old: "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      labels: {gpu: yes}
`},
		{name: "a date is text where text is wanted",
			old: "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      labels: {made: 2026-01-02}
`},
		{
			name: "a section for text", old: "  name: lab", with: "  name: {a: b}",
			want: `f:4:9: metadata.name: want text, found a section`,
		},
		{
			name: "a list for text", old: "  name: lab", with: "  name: [a]",
			want: `f:4:9: metadata.name: want text, found a list`,
		},
		{
			name: "text for a section", old: "    version: v1.36.3", with: "    v1.36.3",
			want: `f:7:5: spec.kubernetes: want a section with version, found the text "v1.36.3"`,
		},
		{
			name: "a list for a section", old: "  hosts:\n", with: `  ssh: [a]
  hosts:
`,
			want: `f:10:8: spec.ssh: want a section with user, port, identityFiles, ..., found a list`,
		},
		{
			name: "text for a list", old: "  hosts:\n", with: `  ssh: {identityFiles: ~/.ssh/id}
  hosts:
`,
			want: `f:10:24: spec.ssh.identityFiles: want a list, found the text "~/.ssh/id"; for one item: [~/.ssh/id]`,
		},
		{
			name: "a section for a list", old: "  hosts:\n", with: `  preflight: {ignoreErrors: {a: b}}
  hosts:
`,
			want: `f:10:29: spec.preflight.ignoreErrors: want a list, found a section`,
		},
		{
			name: "text for a section of keys and values",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      labels: gpu
`,
			want: `f:13:15: spec.hosts[0].labels: want a section of keys and values, found the text "gpu"`,
		},
		{
			name: "text for a number", old: "  hosts:\n", with: `  ssh: {port: ssh}
  hosts:
`,
			want: `f:10:15: spec.ssh.port: want a whole number, found the text "ssh"`,
		},
		{
			name: "a quoted number", old: "  hosts:\n", with: `  ssh: {port: "22"}
  hosts:
`,
			want: `f:10:15: spec.ssh.port: want a whole number, found the text "22"; write it without quotation marks: 22`,
		},
		{
			name: "a fraction for a number", old: "  hosts:\n", with: `  ssh: {port: 22.5}
  hosts:
`,
			want: `f:10:15: spec.ssh.port: want a whole number, found the number 22.5`,
		},
		{
			name: "an octal number", old: "  hosts:\n", with: `  ssh: {port: 0022}
  hosts:
`,
			want: `f:10:15: spec.ssh.port: 0022 is not a plain decimal number; a leading 0 means octal to some readers: write 22, or the octal value in decimal, or quote it when it is text`,
		},
		{
			name: "a hexadecimal number", old: "  hosts:\n", with: `  ssh: {port: 0x16}
  hosts:
`,
			want: `f:10:15: spec.ssh.port: 0x16 is not a plain decimal number; write it in decimal, or quote it when it is text`,
		},
		{
			name: "a number with underscores", old: "  hosts:\n", with: `  ssh: {port: 2_2}
  hosts:
`,
			want: `f:10:15: spec.ssh.port: 2_2 is not a plain decimal number; write it in decimal, or quote it when it is text`,
		},
		{
			name: "a number out of range", old: "  hosts:\n", with: `  ssh: {port: 99999999999}
  hosts:
`,
			want: `f:10:15: spec.ssh.port: 99999999999 is out of range`,
		},
		{
			name: "a number beyond 64 bits", old: "  hosts:\n", with: `  ssh: {port: 99999999999999999999}
  hosts:
`,
			want: `f:10:15: spec.ssh.port: want a whole number, found the number 99999999999999999999`,
		},
		{
			name: "the word yes for a truth value", old: "  hosts:\n", with: `  ssh: {agent: yes}
  hosts:
`,
			want: `f:10:16: spec.ssh.agent: want true or false, found the text "yes"; write true`,
		},
		{
			name: "the word off for a truth value", old: "  hosts:\n", with: `  ssh: {agent: off}
  hosts:
`,
			want: `f:10:16: spec.ssh.agent: want true or false, found the text "off"; write false`,
		},
		{
			name: "a number for a truth value", old: "  hosts:\n", with: `  ssh: {agent: 1}
  hosts:
`,
			want: `f:10:16: spec.ssh.agent: want true or false, found the number 1`,
		},
		{
			name: "a tag of YAML's own that does not fit", old: "  hosts:\n", with: `  ssh: {port: !!int x}
  hosts:
`,
			want: `f:10:15: spec.ssh.port: x is not a plain decimal number; write it in decimal, or quote it when it is text`,
		},
		{
			name: "an unknown tag", old: "  hosts:\n", with: `  ssh: {user: !vault x}
  hosts:
`,
			want: `f:10:15: spec.ssh.user: want text, found a value with the tag !vault; remove the tag`,
		},
		{
			name: "binary data", old: "  hosts:\n", with: `  ssh: {user: !!binary aGk=}
  hosts:
`,
			want: `f:10:15: spec.ssh.user: want text, found a value with the tag !!binary; remove the tag`,
		},
		{
			name: "an empty item in a list", old: "  hosts:\n", with: `  hosts:
    -
`,
			want: `f:11:6: spec.hosts[0]: an empty item; fill it in or remove the "-"`,
		},
		{
			name: "a null in a list of texts", old: "  hosts:\n", with: `  ssh: {identityFiles: [~, null]}
  hosts:
`,
			want: `f:10:25: spec.ssh.identityFiles[0]: an empty item; fill it in or remove the "-"
f:10:28: spec.ssh.identityFiles[1]: an empty item; fill it in or remove the "-"`,
		},
		{
			name: "a text of several lines", old: "  hosts:\n", with: `  ssh:
    user: |
      debian
      x
  hosts:
`,
			want: `f:11:11: spec.ssh.user: the text contains a line break or a tab; write it on one line`,
		},
		{
			name: "a text with spaces around it", old: "  hosts:\n", with: `  ssh: {user: " debian "}
  hosts:
`,
			want: `f:10:15: spec.ssh.user: the text begins or ends with a space; write "debian"`,
		},
		{
			name: "a key that is no text", old: "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      labels: {1: a}
`,
			want: `f:13:16: spec.hosts[0].labels: want text as a key, found the number 1; quote it`,
		},
		{
			name: "a key that is a list", old: "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      labels: {[a]: b}
`,
			want: `f:13:16: spec.hosts[0].labels: want text as a key, found a list; quote it`,
		},
		{name: "an empty section counts as left out", old: "  hosts:\n", with: `  ssh:
  hosts:
`},
		{name: "empty values count as left out",
			old: "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      labels:
      taints: ~
      internalAddress: null
`},
		{
			name: "a value that is null and needed", old: "  name: lab", with: "  name:",
			want: `f:4:3: metadata.name: missing; name the cluster; commands that destroy ask for it`,
		},
		{name: "an anchor and its alias",
			old: `      role: control-plane
    - name: cp-2
      address: 192.0.2.12
`, with: `      role: control-plane
      labels: &a {zone: a}
    - name: cp-2
      address: 192.0.2.12
      labels: *a
`},
		{name: "a merge key",
			old: `      role: control-plane
    - name: cp-2
      address: 192.0.2.12
`, with: `      role: control-plane
      labels: &a {zone: a}
    - name: cp-2
      address: 192.0.2.12
      labels: {<<: *a, zone: b}
`},
		{
			name: "a merge key with no section", old: "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      labels: {<<: a}
`,
			want: `f:13:20: spec.hosts[0].labels.<<: want a section to merge in, found the text "a"; write <<: *name`,
		},
		{
			name: "a fault in what two aliases share is told once",
			old: `      role: control-plane
    - name: cp-2
      address: 192.0.2.12
`, with: `      role: control-plane
      ssh: &a {prot: 1}
    - name: cp-2
      address: 192.0.2.12
      ssh: *a
`,
			want: `f:14:16: spec.hosts[0].ssh.prot: unknown field; did you mean port?`,
		},
		{
			name: "two merge keys",
			old:  "      address: 192.0.2.11\n", with: `      address: 192.0.2.11
      labels:
        <<: {a: b}
        <<: {c: d}
`,
			want: `f:15:9: spec.hosts[0].labels.<<: duplicate key; remove one: the first is on line 14`,
		},
		{
			name: "raw: the word no", old: "  software:\n", with: `  kubeadm:
    clusterConfiguration: {a: no}
  software:
`,
			want: `f:27:31: spec.kubeadm.clusterConfiguration.a: no is a truth value to some readers and text to others; write false, or "no" when it is text`,
		},
		{name: "raw: a quoted no is text", old: "  software:\n", with: `  kubeadm:
    clusterConfiguration: {a: 'no'}
  software:
`},
		{
			name: "raw: an octal number", old: "  software:\n", with: `  kubeadm:
    clusterConfiguration: {a: 0644}
  software:
`,
			want: `f:27:31: spec.kubeadm.clusterConfiguration.a: 0644 is not a plain decimal number; a leading 0 means octal to some readers: write 644, or the octal value in decimal, or quote it when it is text`,
		},
		{
			name: "raw: a number that JSON has not", old: "  software:\n", with: `  kubeadm:
    clusterConfiguration: {a: .nan}
  software:
`,
			want: `f:27:31: spec.kubeadm.clusterConfiguration.a: .nan is not a number that JSON can carry; quote it when it is text`,
		},
		{
			name: "raw: a duplicate key, deep inside",
			old:  "  software:\n", with: `  kubeadm:
    clusterConfiguration: {a: {b: [{c: 1, c: 2}]}}
  software:
`,
			want: `f:27:43: spec.kubeadm.clusterConfiguration.a.b[0].c: duplicate key; remove one: the first is on line 27`,
		},
		{
			name: "raw: a number beyond 64 bits",
			old:  "  software:\n", with: `  kubeadm:
    clusterConfiguration: {a: -9223372036854775809, b: 9223372036854775808, c: 1e3}
  software:
`,
			want: `f:27:31: spec.kubeadm.clusterConfiguration.a: -9223372036854775809 is out of range; quote it when it is text
f:27:56: spec.kubeadm.clusterConfiguration.b: 9223372036854775808 is out of range; quote it when it is text`,
		},
		{
			name: "raw: a tag", old: "  software:\n", with: `  kubeadm:
    clusterConfiguration: {a: !vault x}
  software:
`,
			want: `f:27:31: spec.kubeadm.clusterConfiguration.a: want a plain value, found a value with the tag !vault; remove the tag`,
		},
		{
			name: "raw: a key with dots", old: "  software:\n", with: `  containerd: {plugins: {io.containerd.cri: {x: on}}}
  software:
`,
			want: `f:26:49: spec.containerd.plugins["io.containerd.cri"].x: on is a truth value to some readers and text to others; write true, or "on" when it is text`,
		},
	} {
		r.run(t)
	}
}
