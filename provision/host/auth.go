package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// identities are the keys to offer to a host, in order, and the story of how
// they were found, for the error when none is accepted.
type identities struct {
	signers []ssh.Signer
	tried   []string
	skipped []string
	close   func()
}

// loadIdentities gathers keys as ssh does: identity files first (through the
// agent where it holds the same key), then the agent's others.
func loadIdentities(cfg Config) (*identities, error) {
	ids := &identities{close: func() {}}
	held, err := ids.openAgent(cfg)
	if err != nil {
		return nil, err
	}
	for _, f := range cfg.IdentityFiles {
		if err := ids.addFile(f, &held); err != nil {
			ids.close()
			return nil, fmt.Errorf("%s: identity file: %w", cfg.Name, err)
		}
	}
	if !cfg.IdentitiesOnly {
		for _, s := range held {
			ids.add(s, "agent key "+ssh.FingerprintSHA256(s.PublicKey()))
		}
	}
	return ids, nil
}

// openAgent lists the agent's keys. An agent that does not answer is noted,
// not fatal: identity files may do.
func (ids *identities) openAgent(cfg Config) ([]ssh.Signer, error) {
	if cfg.AgentSocket == "" {
		return nil, nil
	}
	conn, err := net.Dial("unix", cfg.AgentSocket)
	if err != nil {
		ids.skipped = append(ids.skipped, fmt.Sprintf("the agent (%v)", err))
		return nil, nil
	}
	signers, err := agent.NewClient(conn).Signers()
	if err != nil {
		conn.Close()
		ids.skipped = append(ids.skipped, fmt.Sprintf("the agent (%v)", err))
		return nil, nil
	}
	ids.close = func() { conn.Close() }
	return signers, nil
}

func (ids *identities) addFile(f Identity, held *[]ssh.Signer) error {
	raw, err := os.ReadFile(f.Path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return ids.addPublic(f, held, err)
		}
		if f.Required {
			return err
		}
		ids.skipped = append(ids.skipped, err.Error())
		return nil
	}
	if pub := readPublic(f.Path); pub != nil { // the public half is named: the agent has the other
		if s := take(held, pub); s != nil {
			ids.add(s, f.Path+" (agent)")
			return nil
		}
		ids.skipped = append(ids.skipped, f.Path+" (a public key, which the agent does not hold)")
		return nil
	}
	signer, err := ssh.ParsePrivateKey(raw)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		pub := locked.PublicKey
		if pub == nil {
			pub = readPublic(f.Path + ".pub")
		}
		if s := take(held, pub); s != nil {
			ids.add(s, f.Path+" (agent)")
			return nil
		}
		ids.skipped = append(ids.skipped, fmt.Sprintf("%s (it has a passphrase: add it to the agent with `ssh-add %s`)", f.Path, f.Path))
		return nil
	case err != nil && f.Required:
		return fmt.Errorf("%s: %w", f.Path, err)
	case err != nil:
		ids.skipped = append(ids.skipped, fmt.Sprintf("%s (%v)", f.Path, err))
		return nil
	}
	if cert, ok := readPublic(f.Path + "-cert.pub").(*ssh.Certificate); ok {
		if cs, err := ssh.NewCertSigner(cert, signer); err == nil {
			ids.add(cs, f.Path+"-cert.pub")
		}
	}
	take(held, signer.PublicKey())
	ids.add(signer, f.Path)
	return nil
}

// addPublic serves keys that live in an agent only, of which the disk holds
// just the public half: "id" is missing, "id.pub" is there, or is what was named.
func (ids *identities) addPublic(f Identity, held *[]ssh.Signer, missing error) error {
	pub := readPublic(f.Path + ".pub")
	if s := take(held, pub); s != nil {
		ids.add(s, f.Path+" (agent)")
		return nil
	}
	if f.Required {
		return missing
	}
	return nil
}

func (ids *identities) add(s ssh.Signer, what string) {
	ids.signers = append(ids.signers, s)
	ids.tried = append(ids.tried, what)
}

// take removes the agent's signer for a key from held and returns it.
func take(held *[]ssh.Signer, pub ssh.PublicKey) ssh.Signer {
	if pub == nil {
		return nil
	}
	i := slices.IndexFunc(*held, func(s ssh.Signer) bool {
		return bytes.Equal(s.PublicKey().Marshal(), pub.Marshal())
	})
	if i < 0 {
		return nil
	}
	s := (*held)[i]
	*held = slices.Delete(*held, i, i+1)
	return s
}

func readPublic(path string) ssh.PublicKey {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	pub, _, _, _, err := ssh.ParseAuthorizedKey(raw)
	if err != nil {
		return nil
	}
	return pub
}
