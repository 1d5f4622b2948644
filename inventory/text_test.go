package inventory

import "testing"

// TestText: what is no YAML, or no single document of ours, is said with its place.
func TestText(t *testing.T) {
	for _, r := range []row{
		{
			name: "an empty file",
			want: `f:1:1: the file is empty; write one with: ha-install init`,
		},
		{
			name: "only a comment", with: "# nothing\n",
			want: `f:1:1: the file is empty; write one with: ha-install init`,
		},
		{
			name: "only a document start", with: "---\n",
			want: `f:1:1: the file is empty; write one with: ha-install init`,
		},
		{
			name: "a list", with: "- a\n",
			want: `f:1:1: want a section with apiVersion, kind, metadata, ..., found a list`,
		},
		{
			name: "a text", with: "hello\n",
			want: `f:1:1: want a section with apiVersion, kind, metadata, ..., found the text "hello"`,
		},
		{
			name: "a byte that is not UTF-8", old: "name: lab", with: "name: l\xffb",
			want: `f:4:10: byte 0xff is not UTF-8; save the file as UTF-8`,
		},
		{
			name: "a control character", old: "name: lab", with: "name: l\x01b",
			want: `f:4:10: control character U+0001; remove it`,
		},
		{
			name: "a tab in the indentation", old: "  name: lab", with: "\tname: lab",
			want: `f:4:1: not YAML: found character that cannot start any token; indent with spaces, not tabs`,
		},
		{
			name: "a tab after spaces", old: "  name: lab", with: "  \tname: lab",
			want: `f:4:3: not YAML: found a tab character where an indentation space is expected; indent with spaces, not tabs`,
		},
		{
			name: "a bracket that is not closed", old: "name: lab", with: "name: [lab",
			want: `f:5:5: not YAML: did not find expected ',' or ']' while parsing a flow sequence that began on line 4; check the indentation, and that brackets and quotations are closed`,
		},
		{
			name: "a quotation that is not closed", old: "name: lab", with: "name: \"lab",
			want: `f:4:9: not YAML: found unexpected end of stream; close the quotation`,
		},
		{
			name: "a colon inside a plain value", old: "name: lab", with: "name: lab: x",
			want: `f:4:12: not YAML: mapping values are not allowed in this context; check the indentation, and quote a value that contains ": "`,
		},
		{
			name: "a wrong indentation", old: "  name: lab", with: "  name: lab\n x: y",
			want: `f:5:2: not YAML: did not find expected key while parsing a block mapping that began on line 1; check the indentation, and that brackets and quotations are closed`,
		},
		{
			name: "a bracket that is closed by another", old: "name: lab", with: "name: [lab}",
			want: `f:4:13: not YAML: did not find expected ',' or ']'; check the indentation, and that brackets and quotations are closed`,
		},
		{
			name: "a key without a colon", old: "kind: Cluster", with: "kind",
			want: `f:2:1: not YAML: could not find expected ':'; write "key: value", with a space after the colon`,
		},
		{
			name: "an unknown anchor", old: "name: lab", with: "name: *lab",
			want: `f:4:9: not YAML: unknown anchor 'lab' referenced; define it before its use: &name`,
		},
		{
			name: "a value that begins with a reserved character", old: "name: lab", with: "name: @lab",
			want: "f:4:9: not YAML: found character that cannot start any token; quote a value that begins with one of @ ` % or a tab",
		},
		{
			name: "a second document", old: "apiVersion", with: `a: 1
---
apiVersion`,
			want: `f:1:1: a: unknown field; known here: apiVersion, kind, metadata, spec
f:1:1: apiVersion: missing; write apiVersion: ha-install.io/v1alpha1
f:1:1: kind: missing; write kind: Cluster
f:1:1: metadata.name: missing; name the cluster; commands that destroy ask for it
f:1:1: spec.kubernetes.version: missing; want a release such as v1.36.3
f:1:1: spec.hosts: no hosts; list the machines: name, address, role
f:1:1: spec.endpoint.host: missing; want the virtual IP address, or the DNS name of the balancer
f:1:1: spec.software.bundle: missing; want the path of the bundle, or source: installed when the hosts have the software
f:3:1: a second document; one file is one cluster: remove it and the "---" before it`,
		},
		{
			name: "a second document after ours",
			old: `  software:
    bundle: bundle.tar
`, with: `  software:
    bundle: bundle.tar
---
a: 1
`,
			want: `f:29:1: a second document; one file is one cluster: remove it and the "---" before it`,
		},
		{name: "an empty document after ours is nothing",
			old: `  software:
    bundle: bundle.tar
`, with: `  software:
    bundle: bundle.tar
---
`},
		{name: "an empty document before ours is nothing", old: "apiVersion", with: `---
---
apiVersion`},
		{name: "a byte order mark is nothing", old: "apiVersion", with: "\ufeffapiVersion"},
		{name: "line ends of DOS are nothing", old: "kind: Cluster\n", with: "kind: Cluster\r\n"},
		{
			name: "another apiVersion: the rest is not looked at",
			old: `v1alpha1
kind: Cluster
metadata:
  name: lab`, with: `v1
kind: Cluster
metadata:
  nom: lab`,
			want: `f:1:13: apiVersion: "ha-install.io/v1" is not an inventory of this program; want ha-install.io/v1alpha1`,
		},
		{
			name: "another kind", old: "kind: Cluster", with: "kind: ClusterConfiguration",
			want: `f:2:7: kind: "ClusterConfiguration" is not an inventory of this program; want Cluster`,
		},
		{
			name: "no kind", old: "kind: Cluster\n",
			want: `f:1:1: kind: missing; write kind: Cluster`,
		},
		{
			name: "an alias that contains itself", old: "  software:\n", with: `  containerd: &a {b: *a}
  software:
`,
			want: `f:26:22: too deep or too large once aliases are written out; does an alias (*name) contain itself?`,
		},
		{
			name: "merge keys that multiply",
			old:  "  software:\n", with: `  containerd:
    a: &a {k0: 1, k1: 1, k2: 1, k3: 1, k4: 1, k5: 1, k6: 1, k7: 1, k8: 1, k9: 1, k10: 1, k11: 1, k12: 1, k13: 1, k14: 1, k15: 1, k16: 1, k17: 1, k18: 1, k19: 1, k20: 1, k21: 1, k22: 1, k23: 1, k24: 1, k25: 1, k26: 1, k27: 1, k28: 1, k29: 1}
    b: &b {<<: [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]}
    c: &c {<<: [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]}
  software:
`,
			want: `f:28:167: too deep or too large once aliases are written out; does an alias (*name) contain itself?`,
		},
		{
			name: "aliases that multiply",
			old:  "  software:\n", with: `  containerd:
    a: &a [1,1,1,1,1,1,1,1,1,1]
    b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]
    c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]
    d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]
    e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]
    f: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]
  software:
`,
			want: `f:28:21: too deep or too large once aliases are written out; does an alias (*name) contain itself?`,
		},
	} {
		r.run(t)
	}
}
