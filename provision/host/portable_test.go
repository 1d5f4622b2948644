package host

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/ha-install/ha-install/test/sshd"
)

// TestCarry logs in with what was carried alone, however the host is known here.
func TestCarry(t *testing.T) {
	s := sshd.New(t, sshd.Options{})
	address := net.JoinHostPort(s.Host(), strconv.Itoa(s.Port()))
	key, err := os.ReadFile(s.KnownHosts(t))
	if err != nil {
		t.Fatal(err)
	}
	_, _, host, _, _, err := ssh.ParseKnownHosts(key)
	if err != nil {
		t.Fatal(err)
	}
	stranger := sshd.NewKey(t).PublicKey()
	of := func(names ...string) string { return knownhosts.Line(names, host) }
	for name, row := range map[string]struct {
		lines []string
		alias string
		pins  []string
	}{
		"by its address":       {lines: []string{"# a comment", of(address), "other " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(stranger)))}},
		"hashed":               {lines: []string{knownhosts.HashHostname(knownhosts.Normalize(address)) + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(host)))}},
		"by an alias":          {lines: []string{of("nas")}, alias: "nas"},
		"pinned":               {pins: []string{string(ssh.MarshalAuthorizedKey(host))}},
		"beside a revoked one": {lines: []string{"@revoked * " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(stranger))), of(address)}},
	} {
		t.Run(name, func(t *testing.T) {
			known := tempFile(t, "known", strings.Join(row.lines, "\n")+"\n")
			p, err := Carry(Config{Name: "nas", Address: s.Host(), Port: s.Port(), User: "backup", KnownHosts: []string{known, filepath.Join(t.TempDir(), "none")}, HostKeyAlias: row.alias, HostKeys: row.pins,
				IdentityFiles: []Identity{{Path: s.KeyFile, Required: true}}, AgentSocket: "/nonexistent"})
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(p.KnownHosts), "other") || strings.Contains(strings.Join(row.lines, ""), "@revoked") != strings.Contains(string(p.KnownHosts), "@revoked") {
				t.Errorf("carried:\n%s", p.KnownHosts)
			}
			there := Config{Name: "nas", Address: s.Host(), Port: s.Port(), User: "backup", IdentitiesOnly: true,
				KnownHosts: []string{tempFile(t, "carried", string(p.KnownHosts))}, IdentityFiles: []Identity{{Path: tempFile(t, "id", string(p.Identities[0])), Required: true}}}
			f, err := DialFiles(testContext(t), there)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		})
	}
}

// TestCarryRefuses what would not work elsewhere.
func TestCarryRefuses(t *testing.T) {
	s := sshd.New(t, sshd.Options{})
	good := Config{Name: "nas", Address: s.Host(), Port: s.Port(), KnownHosts: []string{s.KnownHosts(t)}, IdentityFiles: []Identity{{Path: s.KeyFile, Required: true}}}
	for why, change := range map[string]func(*Config){
		"is reached through gate":         func(c *Config) { c.Bastion = &Config{Name: "gate"} },
		"has a passphrase":                func(c *Config) { c.IdentityFiles = []Identity{{Path: lockedKey(t), Required: true}} },
		"is no private key":               func(c *Config) { c.IdentityFiles = []Identity{{Path: c.KnownHosts[0]}} },
		"no such file":                    func(c *Config) { c.IdentityFiles = []Identity{{Path: "/nonexistent", Required: true}} },
		"no identity file holds":          func(c *Config) { c.IdentityFiles = []Identity{{Path: "/nonexistent"}} },
		"host key of 127.0.0.1 is not kn": func(c *Config) { c.KnownHosts = nil },
	} {
		c := good
		change(&c)
		if _, err := Carry(c); err == nil || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "PRIVATE KEY-----") {
			t.Errorf("%s: %v", why, err)
		}
	}
	if _, err := Carry(good); err != nil {
		t.Error(err)
	}
}

func tempFile(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
