package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ha-install/ha-install/inventory"
)

// Config says how one host is reached and who to be there. ConfigFor makes it.
type Config struct {
	Name    string // in the inventory; prefixes every error
	Address string // IP or DNS name to dial
	Port    int
	User    string
	// IdentityFiles are private keys. Those of the inventory must be there;
	// ssh's defaults may be missing.
	IdentityFiles []Identity
	// IdentitiesOnly keeps agent keys that are not among IdentityFiles from being offered.
	IdentitiesOnly bool
	AgentSocket    string   // "" for no agent
	KnownHosts     []string // files in ssh's known_hosts format
	HostKeys       []string // pinned keys; when set, KnownHosts is not asked
	HostKeyAlias   string   // the name to look up in KnownHosts; default Address
	// Sudo gives root where the user has not got it; nil: unless User is root.
	Sudo    *bool
	Bastion *Config // jump host, itself perhaps behind one

	ConnectTimeout time.Duration // for TCP and handshake together; default 15 s
	// KeepAlive is how often a silent peer is asked for a sign of life. A peer
	// that has sent nothing for 2.5 of them is given up; default 5 s.
	KeepAlive time.Duration
}

// Identity is a private key file.
type Identity struct {
	Path     string
	Required bool // given by the inventory: an error when missing
}

func (c Config) withDefaults() Config {
	if c.Port == 0 {
		c.Port = 22
	}
	if c.User == "" {
		c.User = "root"
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 15 * time.Second
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = 5 * time.Second
	}
	return c
}

func (c Config) sudo() bool {
	if c.Sudo != nil {
		return *c.Sudo && c.User != "root"
	}
	return c.User != "root"
}

// ConfigFor merges, field by field and most specific first: the host's own ssh
// section, the inventory's defaults, ~/.ssh/config and /etc/ssh/ssh_config as
// ssh reads them for the host's address, and ssh's defaults. Relative paths of
// the inventory start at baseDir.
func ConfigFor(c *inventory.Cluster, h inventory.Host, baseDir string) (Config, error) {
	s, err := loadSettings()
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", h.Name, err)
	}
	return s.configFor(c, h, baseDir)
}

func (s *settings) configFor(c *inventory.Cluster, h inventory.Host, baseDir string) (Config, error) {
	in := c.EffectiveSSH(h)
	cfg, err := s.config(h.Name, target{address: h.Address, port: in.Port, user: in.User}, 0)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", h.Name, err)
	}
	cfg.Sudo = in.Sudo
	if len(in.IdentityFiles) > 0 {
		cfg.IdentityFiles = s.required(in.IdentityFiles, baseDir)
		cfg.IdentitiesOnly = false
	}
	if in.Agent != nil && !*in.Agent {
		cfg.AgentSocket = ""
	}
	if len(in.KnownHosts) > 0 {
		cfg.KnownHosts = s.paths(in.KnownHosts, baseDir)
		cfg.HostKeyAlias = ""
	}
	cfg.HostKeys = in.HostKeys
	if direct := h.SSH.Bastion; direct != nil && direct.Address == inventory.NoBastion {
		cfg.Bastion = nil
	} else if b := in.Bastion; b != nil {
		if cfg.Bastion, err = s.bastion(b, cfg, in, baseDir); err != nil {
			return Config{}, fmt.Errorf("%s: %w", h.Name, err)
		}
	} else {
		for j := cfg.Bastion; j != nil; j = j.Bastion {
			if len(in.KnownHosts) > 0 {
				j.KnownHosts = cfg.KnownHosts
			}
		}
	}
	return cfg.withDefaults(), nil
}

// bastion is the inventory's jump host; what it does not say is taken from
// ssh's configuration, then from the host's own settings.
func (s *settings) bastion(b *inventory.Bastion, host Config, in inventory.SSH, baseDir string) (*Config, error) {
	cfg, err := s.config("bastion "+b.Address, target{address: b.Address, port: b.Port, user: b.User}, 0)
	if err != nil {
		return nil, fmt.Errorf("bastion %s: %w", b.Address, err)
	}
	if cfg.User == "" {
		cfg.User = host.User
	}
	switch {
	case len(b.IdentityFiles) > 0:
		cfg.IdentityFiles, cfg.IdentitiesOnly = s.required(b.IdentityFiles, baseDir), false
	case len(in.IdentityFiles) > 0:
		cfg.IdentityFiles, cfg.IdentitiesOnly = host.IdentityFiles, false
	}
	if len(in.KnownHosts) > 0 {
		cfg.KnownHosts, cfg.HostKeyAlias = host.KnownHosts, ""
	}
	if in.Agent != nil && !*in.Agent {
		cfg.AgentSocket = ""
	}
	cfg.HostKeys = b.HostKeys
	cfg = cfg.withDefaults()
	return &cfg, nil
}

func (s *settings) required(files []string, baseDir string) []Identity {
	var out []Identity
	for _, f := range s.paths(files, baseDir) {
		out = append(out, Identity{Path: f, Required: true})
	}
	return out
}

func (s *settings) paths(files []string, baseDir string) []string {
	var out []string
	for _, f := range files {
		f = s.expandHome(f)
		if !filepath.IsAbs(f) {
			f = filepath.Join(baseDir, f)
		}
		out = append(out, f)
	}
	return out
}

func (s *settings) expandHome(path string) string {
	if path == "~" {
		return s.home
	}
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		return filepath.Join(s.home, rest)
	}
	return path
}

// target is what a user would say to ssh: ssh -p port user@address.
type target struct {
	address string
	port    int
	user    string
}

// parseTarget reads a hop of ProxyJump: [user@]host[:port] or ssh://[user@]host[:port].
func parseTarget(s string) (target, error) {
	var t target
	rest := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(s), "ssh://"), "/")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		t.user, rest = rest[:i], rest[i+1:]
	}
	port := ""
	switch {
	case strings.HasPrefix(rest, "["):
		var ok bool
		if t.address, rest, ok = strings.Cut(rest[1:], "]"); !ok {
			return t, fmt.Errorf("ProxyJump %q: a bracket is not closed", s)
		}
		port = strings.TrimPrefix(rest, ":")
	case strings.Count(rest, ":") == 1:
		t.address, port, _ = strings.Cut(rest, ":")
	default:
		t.address = rest
	}
	if t.address == "" {
		return t, fmt.Errorf("ProxyJump %q: no host", s)
	}
	if port != "" {
		n, err := strconv.Atoi(port)
		if err != nil || n < 1 || n > 65535 {
			return t, fmt.Errorf("ProxyJump %q: bad port %q", s, port)
		}
		t.port = n
	}
	return t, nil
}

// loadSettings reads the user's and the system's ssh configuration.
func loadSettings() (*settings, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, fmt.Errorf("ssh configuration: %w", err)
	}
	return readSettings(home, filepath.Join(home, ".ssh", "config"), "/etc/ssh/ssh_config")
}
