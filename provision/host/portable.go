package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// Portable is what another machine needs to log in somewhere as this one does.
type Portable struct {
	Identities [][]byte // private keys
	KnownHosts []byte   // lines of known_hosts for this one host
}

// Carry takes what a login stands on out of this machine's files. What has no file
// of its own (an agent, a bastion, a passphrase in somebody's head) cannot be
// carried, and is refused; so is a host whose key is not known here.
func Carry(cfg Config) (Portable, error) {
	var p Portable
	cfg = cfg.withDefaults()
	if cfg.Bastion != nil {
		return p, fmt.Errorf("it is reached through %s, which only this machine does", cfg.Bastion.Name)
	}
	for _, f := range cfg.IdentityFiles {
		raw, err := os.ReadFile(f.Path)
		if errors.Is(err, fs.ErrNotExist) && !f.Required {
			continue
		}
		if err != nil {
			return p, fmt.Errorf("identity file: %w", err)
		}
		var locked *ssh.PassphraseMissingError
		switch _, err := ssh.ParsePrivateKey(raw); {
		case errors.As(err, &locked):
			return p, fmt.Errorf("identity file: %s has a passphrase, which nobody would enter there", f.Path)
		case err != nil:
			return p, fmt.Errorf("identity file: %s is no private key: %w", f.Path, err)
		}
		p.Identities = append(p.Identities, raw)
	}
	if len(p.Identities) == 0 {
		return p, errors.New("no identity file holds a private key for it")
	}
	lines, err := knownLines(cfg)
	if err == nil && len(lines) == 0 {
		err = fmt.Errorf("the host key of %s is not known here", cfg.Address)
	}
	p.KnownHosts = lines
	return p, err
}

// knownLines are the keys by which a host is known, and those that are revoked, under
// the address at which it is dialled, whatever alias or hash they have here.
func knownLines(cfg Config) ([]byte, error) {
	v, err := newVerifier(cfg)
	if err != nil {
		return nil, err
	}
	name := knownhosts.Normalize(fmt.Sprintf("[%s]:%d", strings.Trim(cfg.Address, "[]"), cfg.Port))
	var lines []string
	add := func(marker, hosts string, key ssh.PublicKey) {
		line := hosts + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
		if marker != "" {
			line = "@" + marker + " " + line
		}
		if line += "\n"; !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if len(v.pinned) > 0 {
		for _, key := range v.pinned {
			add("", name, key)
		}
		return []byte(strings.Join(lines, "")), nil
	}
	known := map[string]bool{} // "file:line"
	for _, k := range v.records() {
		known[fmt.Sprintf("%s:%d", k.Filename, k.Line)] = true
	}
	if len(known) == 0 {
		return nil, nil
	}
	for _, file := range cfg.KnownHosts {
		raw, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for i, line := range bytes.Split(raw, []byte("\n")) {
			marker, _, key, _, _, err := ssh.ParseKnownHosts(append(line, '\n'))
			switch {
			case err != nil: // a comment, or nothing
			case marker == "revoked":
				add(marker, "*", key)
			case known[fmt.Sprintf("%s:%d", file, i+1)]:
				add(marker, name, key)
			}
		}
	}
	return []byte(strings.Join(lines, "")), nil
}
