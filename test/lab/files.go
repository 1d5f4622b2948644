package lab

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// writeFiles makes what the hosts and their operator need: the login key, each
// host's name, machine ID and SSH host key, known_hosts. Keys and IDs that are
// there are kept, so a host that is recreated keeps its identity.
func (l *Lab) writeFiles() error {
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		return fmt.Errorf("lab: make its directory: %w", err)
	}
	login, err := ensureKey(l.Key(), "ha-install lab")
	if err != nil {
		return err
	}
	hook, err := os.ReadFile(l.source("box", "pre-start"))
	if err != nil {
		return fmt.Errorf("lab: read the pre-start hook: %w", err)
	}
	if err := os.WriteFile(filepath.Join(l.Dir, "pre-start"), hook, 0o755); err != nil {
		return fmt.Errorf("lab: place the pre-start hook: %w", err)
	}
	var known strings.Builder
	for _, h := range l.Hosts {
		public, err := l.writeHostFiles(h, login)
		if err != nil {
			return fmt.Errorf("lab: files of %s: %w", h.Name, err)
		}
		fmt.Fprintf(&known, "%s,%s %s", h.Address, h.Name, ssh.MarshalAuthorizedKey(public))
	}
	if err := os.WriteFile(l.KnownHosts(), []byte(known.String()), 0o644); err != nil {
		return fmt.Errorf("lab: write known_hosts: %w", err)
	}
	return nil
}

// removeFiles removes only what Up wrote: the directory may be the user's own.
func (l *Lab) removeFiles() error {
	for _, name := range []string{"box", "hosts", "id_ed25519", "id_ed25519.pub", "inventory.yaml", "known_hosts", "pre-start", "vagrant"} {
		if err := os.RemoveAll(filepath.Join(l.Dir, name)); err != nil {
			return fmt.Errorf("lab: remove its files: %w", err)
		}
	}
	return nil
}

// hostFiles is a tree that is laid over the host's root before its first boot.
func (l *Lab) hostFiles(h Host) string { return filepath.Join(l.Dir, "hosts", h.Name) }

func (l *Lab) writeHostFiles(h Host, login ssh.PublicKey) (ssh.PublicKey, error) {
	dir := l.hostFiles(h)
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{{"etc/ssh", 0o755}, {"home/vagrant/.ssh", 0o700}} {
		if err := os.MkdirAll(filepath.Join(dir, d.path), d.mode); err != nil {
			return nil, err
		}
	}
	public, err := ensureKey(filepath.Join(dir, "etc/ssh/ssh_host_ed25519_key"), h.Name)
	if err != nil {
		return nil, err
	}
	machineID := filepath.Join(dir, "etc/machine-id")
	if _, err := os.Stat(machineID); errors.Is(err, fs.ErrNotExist) {
		id := make([]byte, 16)
		rand.Read(id)
		if err := os.WriteFile(machineID, []byte(hex.EncodeToString(id)+"\n"), 0o444); err != nil {
			return nil, err
		}
	}
	for _, f := range []struct {
		path, content string
		mode          fs.FileMode
	}{
		{"etc/hostname", h.Name + "\n", 0o644},
		{"etc/hosts", fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", h.Address, h.Name), 0o644},
		{"home/vagrant/.ssh/authorized_keys", string(ssh.MarshalAuthorizedKey(login)), 0o600},
	} {
		if err := os.WriteFile(filepath.Join(dir, f.path), []byte(f.content), f.mode); err != nil {
			return nil, err
		}
	}
	return public, nil
}

// ensureKey returns the public half of the OpenSSH key at path, made when it
// is not there, with the public half beside it in path.pub.
func ensureKey(path, comment string) (ssh.PublicKey, error) {
	raw, err := os.ReadFile(path)
	if err == nil {
		signer, err := ssh.ParsePrivateKey(raw)
		if err != nil {
			return nil, fmt.Errorf("lab: read key %s: %w", path, err)
		}
		return signer.PublicKey(), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lab: read key: %w", err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("lab: make a key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return nil, fmt.Errorf("lab: encode a key: %w", err)
	}
	out, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("lab: encode a key: %w", err)
	}
	if err := os.WriteFile(path+".pub", ssh.MarshalAuthorizedKey(out), 0o644); err != nil {
		return nil, fmt.Errorf("lab: write a public key: %w", err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, fmt.Errorf("lab: write a key: %w", err)
	}
	return out, nil
}
