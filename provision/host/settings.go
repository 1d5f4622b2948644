package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kevinburke/ssh_config"
)

// settings is ssh's own client configuration: the user's file, then the system's.
type settings struct {
	home  string
	files []*ssh_config.Config
}

func readSettings(home string, files ...string) (*settings, error) {
	s := &settings{home: home}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("ssh configuration: %w", err)
		}
		c, err := ssh_config.DecodeBytes(b)
		if err != nil {
			return nil, fmt.Errorf("ssh configuration %s: %w", name, err)
		}
		s.files = append(s.files, c)
	}
	return s, nil
}

// get is the first value, as in ssh; "" when nobody sets it.
func (s *settings) get(alias, key string) (string, error) {
	for _, c := range s.files {
		v, err := c.Get(alias, key)
		if err != nil {
			return "", fmt.Errorf("ssh configuration: %s: %w", key, err)
		}
		if v != "" {
			return unquote(v), nil
		}
	}
	return "", nil
}

// all are the values of a keyword that accumulates.
func (s *settings) all(alias, key string) ([]string, error) {
	var out []string
	for _, c := range s.files {
		v, err := c.GetAll(alias, key)
		if err != nil {
			return nil, fmt.Errorf("ssh configuration: %s: %w", key, err)
		}
		for _, one := range v {
			out = append(out, unquote(one))
		}
	}
	return out, nil
}

func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

const maxJumps = 8

// config is what ssh would do for the target.
func (s *settings) config(name string, t target, depth int) (Config, error) {
	if depth > maxJumps {
		return Config{}, fmt.Errorf("ssh configuration: ProxyJump leads through more than %d hosts", maxJumps)
	}
	v, err := s.values(t.address)
	if err != nil {
		return Config{}, err
	}
	cfg := Config{Name: name, Address: t.address, Port: t.port, User: t.user, HostKeyAlias: v["hostkeyalias"]}
	if h := v["hostname"]; h != "" {
		cfg.Address = expandTokens(h, map[byte]string{'h': t.address})
	}
	if cfg.Port == 0 && v["port"] != "" {
		if cfg.Port, err = strconv.Atoi(v["port"]); err != nil {
			return Config{}, fmt.Errorf("ssh configuration: Port %q of %s is no number", v["port"], t.address)
		}
	}
	if cfg.User == "" {
		cfg.User = v["user"]
	}
	cfg.IdentitiesOnly = strings.EqualFold(v["identitiesonly"], "yes")
	if n, err := strconv.Atoi(v["connecttimeout"]); err == nil && n > 0 {
		cfg.ConnectTimeout = time.Duration(n) * time.Second
	}
	full := cfg.withDefaults()
	tokens := s.tokens(t.address, full)
	cfg.AgentSocket = s.agentSocket(v["identityagent"], tokens)
	if cfg.IdentityFiles, err = s.identities(t.address, tokens); err != nil {
		return Config{}, err
	}
	cfg.KnownHosts = s.knownHosts(v["userknownhostsfile"], v["globalknownhostsfile"], tokens)
	if cfg.Bastion, err = s.jumps(v, depth); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// values looks up the single-valued keywords that matter here.
func (s *settings) values(alias string) (map[string]string, error) {
	out := map[string]string{}
	for _, key := range []string{
		"HostName", "User", "Port", "IdentitiesOnly", "IdentityAgent", "ProxyJump", "ProxyCommand",
		"UserKnownHostsFile", "GlobalKnownHostsFile", "HostKeyAlias", "ConnectTimeout",
	} {
		v, err := s.get(alias, key)
		if err != nil {
			return nil, err
		}
		out[strings.ToLower(key)] = v
	}
	return out, nil
}

// jumps turns ProxyJump into a chain of bastions; the last hop named is the
// one next to the host.
func (s *settings) jumps(v map[string]string, depth int) (*Config, error) {
	jump := v["proxyjump"]
	if jump == "" || strings.EqualFold(jump, "none") {
		if c := v["proxycommand"]; jump == "" && c != "" && !strings.EqualFold(c, "none") {
			return nil, fmt.Errorf("ssh configuration: ProxyCommand is not supported; use ProxyJump, or ssh.bastion in the inventory")
		}
		return nil, nil
	}
	var chain *Config
	for _, hop := range strings.Split(jump, ",") {
		t, err := parseTarget(hop)
		if err != nil {
			return nil, fmt.Errorf("ssh configuration: %w", err)
		}
		cfg, err := s.config("bastion "+t.address, t, depth+1)
		if err != nil {
			return nil, err
		}
		if cfg.User == "" {
			cfg.User = localUser()
		}
		cfg = cfg.withDefaults()
		if chain != nil {
			cfg.Bastion = chain // ssh reaches every hop but the first through the one before
		}
		chain = &cfg
	}
	return chain, nil
}

// identities are IdentityFile or ssh's defaults; none of them has to exist.
func (s *settings) identities(alias string, tokens map[byte]string) ([]Identity, error) {
	files, err := s.all(alias, "IdentityFile")
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		files = []string{"~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"}
	}
	var out []Identity
	for _, f := range files {
		if strings.EqualFold(f, "none") {
			continue
		}
		out = append(out, Identity{Path: s.path(f, tokens)})
	}
	return out, nil
}

func (s *settings) knownHosts(user, global string, tokens map[byte]string) []string {
	if user == "" {
		user = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
	}
	if global == "" {
		global = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
	}
	var out []string
	for _, f := range append(strings.Fields(user), strings.Fields(global)...) {
		if !strings.EqualFold(f, "none") {
			out = append(out, s.path(unquote(f), tokens))
		}
	}
	return out
}

func (s *settings) agentSocket(setting string, tokens map[byte]string) string {
	switch {
	case strings.EqualFold(setting, "none"):
		return ""
	case setting == "", setting == "SSH_AUTH_SOCK":
		return os.Getenv("SSH_AUTH_SOCK")
	case strings.HasPrefix(setting, "$"):
		return os.Getenv(strings.Trim(setting[1:], "{}"))
	default:
		return s.path(setting, tokens)
	}
}

// path expands %-tokens and ~; a relative name is relative to the working
// directory, as in ssh.
func (s *settings) path(p string, tokens map[byte]string) string {
	p = s.expandHome(expandTokens(p, tokens))
	if abs, err := filepath.Abs(p); err == nil {
		return abs
	}
	return p
}

func (s *settings) tokens(alias string, c Config) map[byte]string {
	local, _ := os.Hostname()
	return map[byte]string{
		'd': s.home, 'h': c.Address, 'n': alias, 'p': strconv.Itoa(c.Port), 'r': c.User,
		'u': localUser(), 'l': local, 'i': strconv.Itoa(os.Getuid()), 'k': firstOf(c.HostKeyAlias, alias),
		'L': strings.SplitN(local, ".", 2)[0],
	}
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// expandTokens replaces %x by its value and %% by %; what it does not know it leaves.
func expandTokens(s string, tokens map[byte]string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch v, ok := tokens[s[i]]; {
		case s[i] == '%':
			b.WriteByte('%')
		case ok:
			b.WriteString(v)
		default:
			b.WriteByte('%')
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func localUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return os.Getenv("USER")
}
