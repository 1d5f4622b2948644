package inventory

import (
	"strings"
	"testing"
)

// withCopies puts entries of spec.backup.copies at the end of base's spec.
func withCopies(entries ...string) (old, with string) {
	return "  software:\n", "  backup:\n    copies:\n      - " + strings.Join(entries, "\n      - ") + "\n  software:\n"
}

func TestCopies(t *testing.T) {
	for name, of := range map[string]struct {
		entries []string
		want    string
	}{
		"all kinds": {[]string{
			"to: sftp://backup@nas.example.com:2222/srv/backups\n        ssh: {knownHosts: [known], identityFiles: [id]}",
			"{to: s3://bucket/a/b, endpoint: https://s3.example.com:9000, region: eu-1, credentialsFile: keys, caFile: ca.crt}",
			"{to: s3://bucket, endpoint: \"http://127.0.0.1:9000\"}",
			"{to: masters:///var/backups/ha-install}",
		}, ""},
		"everything wrong at once": {[]string{
			"{to: ftp://nas/x}",
			"{region: eu-1}",
			"{to: sftp://backup@nas.example.com}",
			"{to: s3://B_ucket/x}",
			"{to: s3://bucket/x, endpoint: \"http://s3.example.com\", ssh: {user: me}}",
			"{to: \"sftp://me:hunter2@nas.example.com/x\"}",
			"{to: \"s3://bucket/x?endpoint=https://a\"}",
			"{to: masters://cp-1/x/y}",
			"{to: masters:///x}",
			"{to: sftp://nas.example.com/x, endpoint: \"https://a\", ssh: {user: me, port: 3, sudo: true, hostKeys: [x]}}",
			"{to: s3://bucket/x, endpoint: \"https://me:hunter2@a\", colour: red}",
		}, `f:28:14: spec.backup.copies[0].to: "ftp://nas/x" is of no known kind; want sftp://user@host:port/dir, s3://bucket/prefix, or masters:///dir
f:29:9: spec.backup.copies[1].to: missing; want sftp://user@host:port/dir, s3://bucket/prefix, or masters:///dir
f:30:14: spec.backup.copies[2].to: "sftp://backup@nas.example.com" lacks a host or a directory; want sftp://user@host:port/dir
f:31:14: spec.backup.copies[3].to: "s3://B_ucket/x" does not begin with a bucket's name; want s3://bucket/prefix; the storage's address is the endpoint
f:32:39: spec.backup.copies[4].endpoint: http:// has nobody verified: backups would go to whoever answers; want one such as https://s3.example.com
f:32:64: spec.backup.copies[4].ssh: is of no use for s3; it belongs to sftp://
f:33:14: spec.backup.copies[5].to: holds a password; take it out: SFTP logs in with a key or an agent, S3 takes its keys from the environment or from credentialsFile
f:34:14: spec.backup.copies[6].to: "s3://bucket/x?endpoint=https://a" has more than a place in it; take what is behind "?" or "#" out; endpoint and region are fields of their own
f:35:14: spec.backup.copies[7].to: "masters://cp-1/x/y" is not a directory on the control plane hosts; want masters:///dir with at least two names, such as masters:///var/backups/ha-install
f:36:14: spec.backup.copies[8].to: "masters:///x" is not a directory on the control plane hosts; want masters:///dir with at least two names, such as masters:///var/backups/ha-install
f:37:50: spec.backup.copies[9].endpoint: is of no use for sftp; it belongs to s3://
f:37:75: spec.backup.copies[9].ssh.user: stands in the URL; write sftp://user@host:port/dir, and remove it here
f:37:85: spec.backup.copies[9].ssh.port: stands in the URL; write sftp://user@host:port/dir, and remove it here
f:37:94: spec.backup.copies[9].ssh.sudo: no command runs there; remove it
f:37:111: spec.backup.copies[9].ssh.hostKeys[0]: not an SSH public key; want what ssh-keyscan prints after the host's name, such as: ssh-ed25519 AAAA...
f:38:39: spec.backup.copies[10].endpoint: not the bare address of a server; want one such as https://s3.example.com
f:38:63: spec.backup.copies[10].colour: unknown field; known here: to, ssh, endpoint, region, credentialsFile, caFile`},
	} {
		t.Run(name, func(t *testing.T) {
			old, with := withCopies(of.entries...)
			_, warnings, err := Parse("f", []byte(edit(t, base, old, with)))
			if got := report(warnings, err); got != of.want {
				t.Errorf("got\n%s\nwant\n%s", got, of.want)
			}
		})
	}
}

// TestCopiesByMasters: with a schedule masters send, with nothing of this machine's.
func TestCopiesByMasters(t *testing.T) {
	for name, of := range map[string]struct{ entries, want string }{
		"all kinds": {`[{to: sftp://backup@nas/x/y, ssh: {identityFiles: [id]}}, {to: s3://bucket/x}, {to: masters:///var/backups}]`, ""},
		"what is this machine's": {`[{to: sftp://backup@nas/x/y}, {to: sftp://backup@nas/z, ssh: {identityFiles: [id], bastion: {address: gate}}}, {to: s3://bucket/x, endpoint: "http://127.0.0.1:9000"}, {to: masters:///var/lib/ha-install/backups}]`,
			`f:29:154: warning: spec.backup.copies[2].endpoint: masters send scheduled backups there, and on a master it is the master itself; want https:// and an address that masters reach
f:29:14: spec.backup.copies[0]: masters send scheduled backups there, and have no key for it: an agent, or what ~/.ssh has, is this machine's alone; write ssh: {identityFiles: [FILE]}, a key without a passphrase for this purpose alone; masters are given it
f:29:96: spec.backup.copies[1].ssh.bastion: masters send scheduled backups there, and pass through no bastion; remove it, and give the server an address that masters reach
f:29:185: spec.backup.copies[3].to: /var/lib/ha-install/ is where masters keep their own; want another directory, such as masters:///var/backups/ha-install`},
	} {
		_, warnings, err := Parse("f", []byte(edit(t, base, "  software:\n", "  backup:\n    schedule: 6h\n    recipients: ["+aRecipient+"]\n    copies: "+of.entries+"\n  software:\n")))
		if got := report(warnings, err); got != of.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, of.want)
		}
	}
}

func TestParseCopyTo(t *testing.T) {
	c, err := ParseCopyTo("s3://bucket/x?endpoint=https://s3.example.com&region=eu-1")
	if err != nil || c.To != "s3://bucket/x" || c.Endpoint != "https://s3.example.com" || c.Region != "eu-1" {
		t.Errorf("%+v, %v", c, err)
	}
	p, err := c.Place()
	if err != nil || p != (CopyPlace{Scheme: CopyS3, Host: "bucket", Dir: "x"}) {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{"x", "sftp://u:hunter2@h/d", "s3://b-b/x?secret=hunter2", "s3://bbb?endpoint=http://h", "sftp://h/d?region=x", "sftp://u:hunter2@[/d", "sftp://h:0/d", "s3://bucket?region=%zz"} {
		if _, err := ParseCopyTo(bad); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
