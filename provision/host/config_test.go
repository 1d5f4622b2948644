package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ha-install/ha-install/inventory"
)

const sshConfig = `
Host cp-*.example
  HostName %h.internal
  User ops
  Port 2222
  IdentityFile ~/.ssh/ops_%r
  IdentityFile "/keys/with blank"
  IdentitiesOnly yes
  ProxyJump gate,admin@second.example:2200
Host gate
  HostName gate.example
  User jumper
  HostKeyAlias the-gate
  IdentityAgent none
Host direct
  ProxyJump none
  IdentityAgent ~/agent.sock
  UserKnownHostsFile ~/.ssh/kh1 /kh2
  GlobalKnownHostsFile none
Host odd
  ProxyCommand nc %h %p
Host loop
  ProxyJump loop
Host *
  User everybody
`

func testSettings(t *testing.T) *settings {
	t.Helper()
	t.Setenv("SSH_AUTH_SOCK", "/agent")
	name := filepath.Join(t.TempDir(), "config")
	write(t, name, sshConfig)
	s, err := readSettings("/home/me", name, name+".none")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	usual = []string{"/home/me/.ssh/known_hosts", "/home/me/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"}
	keys  = []Identity{{Path: "/home/me/.ssh/id_ed25519"}, {Path: "/home/me/.ssh/id_ecdsa"}, {Path: "/home/me/.ssh/id_rsa"}}
)

func TestConfigFor(t *testing.T) {
	off := false
	for name, c := range map[string]struct {
		all, own inventory.SSH
		address  string
		want     Config
	}{
		"nothing is said: ssh's configuration counts": {
			address: "203.0.113.1",
			want:    Config{Address: "203.0.113.1", Port: 22, User: "everybody", IdentityFiles: keys, AgentSocket: "/agent", KnownHosts: usual},
		},
		"ssh's configuration leads through two bastions": {
			address: "cp-1.example",
			want: Config{
				Address: "cp-1.example.internal", Port: 2222, User: "ops", IdentitiesOnly: true, AgentSocket: "/agent", KnownHosts: usual,
				IdentityFiles: []Identity{{Path: "/home/me/.ssh/ops_ops"}, {Path: "/keys/with blank"}},
				Bastion: &Config{
					Address: "second.example", Port: 2200, User: "admin", IdentityFiles: keys, AgentSocket: "/agent", KnownHosts: usual,
					Bastion: &Config{
						Address: "gate.example", Port: 22, User: "jumper", IdentityFiles: keys, KnownHosts: usual, HostKeyAlias: "the-gate",
					},
				},
			},
		},
		"the host overrides the defaults, which override ssh's configuration": {
			all:     inventory.SSH{User: "a", Port: 1022, IdentityFiles: []string{"keys/a"}, KnownHosts: []string{"~/kh", "kh"}, Sudo: &off},
			own:     inventory.SSH{User: "b", Agent: &off, HostKeys: []string{"ssh-ed25519 AAAA"}},
			address: "direct",
			want: Config{
				Address: "direct", Port: 1022, User: "b", IdentityFiles: []Identity{{Path: "/inv/keys/a", Required: true}},
				KnownHosts: []string{"/home/me/kh", "/inv/kh"}, HostKeys: []string{"ssh-ed25519 AAAA"}, Sudo: &off,
			},
		},
		"an agent and known_hosts of ssh's configuration": {
			address: "direct",
			want: Config{
				Address: "direct", Port: 22, User: "everybody", IdentityFiles: keys, AgentSocket: "/home/me/agent.sock",
				KnownHosts: []string{"/home/me/.ssh/kh1", "/kh2"},
			},
		},
		"the inventory's bastion comes before ProxyJump and takes over the host's keys": {
			all: inventory.SSH{
				IdentityFiles: []string{"/k"}, KnownHosts: []string{"/kh"},
				Bastion: &inventory.Bastion{Address: "198.51.100.1", Port: 2022, HostKeys: []string{"ssh-ed25519 BBBB"}},
			},
			address: "cp-2.example",
			want: Config{
				Address: "cp-2.example.internal", Port: 2222, User: "ops", AgentSocket: "/agent", KnownHosts: []string{"/kh"},
				IdentityFiles: []Identity{{Path: "/k", Required: true}},
				Bastion: &Config{
					Address: "198.51.100.1", Port: 2022, User: "everybody", AgentSocket: "/agent", KnownHosts: []string{"/kh"},
					HostKeys: []string{"ssh-ed25519 BBBB"}, IdentityFiles: []Identity{{Path: "/k", Required: true}},
				},
			},
		},
		"a host that is reached directly although ssh and the others go through bastions": {
			all:     inventory.SSH{Bastion: &inventory.Bastion{Address: "198.51.100.1"}, IdentityFiles: []string{"/k"}},
			own:     inventory.SSH{Bastion: &inventory.Bastion{Address: inventory.NoBastion}},
			address: "cp-1.example",
			want: Config{
				Address: "cp-1.example.internal", Port: 2222, User: "ops", AgentSocket: "/agent", KnownHosts: usual,
				IdentityFiles: []Identity{{Path: "/k", Required: true}},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := &inventory.Cluster{Spec: inventory.Spec{SSH: c.all}}
			got, err := testSettings(t).configFor(cluster, inventory.Host{Name: "cp-1", Address: c.address, SSH: c.own}, "/inv")
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got, cmpopts.IgnoreFields(Config{}, "Name", "ConnectTimeout", "KeepAlive")); d != "" {
				t.Error(d)
			}
			if got.Name != "cp-1" || got.ConnectTimeout == 0 || got.KeepAlive == 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestConfigForRefuses(t *testing.T) {
	for address, want := range map[string]string{"odd": "ProxyCommand is not supported", "loop": "more than"} {
		_, err := testSettings(t).configFor(&inventory.Cluster{}, inventory.Host{Name: "cp-1", Address: address}, "/inv")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "cp-1: ") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestConfigForReadsTheUsersFile(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	if err := os.Mkdir(home+"/.ssh", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, home+"/.ssh/config", "Host 203.0.113.9\n User someone\n")
	cfg, err := ConfigFor(&inventory.Cluster{}, inventory.Host{Name: "cp-1", Address: "203.0.113.9"}, "/inv")
	if err != nil || cfg.User != "someone" {
		t.Errorf("%+v, %v", cfg, err)
	}
}

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]target{
		"gate":                {address: "gate"},
		"me@gate:2222":        {address: "gate", port: 2222, user: "me"},
		"ssh://me@gate:2222/": {address: "gate", port: 2222, user: "me"},
		"[2001:db8::1]:22":    {address: "2001:db8::1", port: 22},
		"me@2001:db8::1":      {address: "2001:db8::1", user: "me"},
		"dom@in@gate":         {address: "gate", user: "dom@in"},
	} {
		if got, err := parseTarget(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "gate:0", "gate:x", "[::1", "me@"} {
		if got, err := parseTarget(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}
