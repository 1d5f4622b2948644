package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/templates"
)

// Seal says who can open the archive with the keys. The zero Seal is nobody:
// the archive is left out.
type Seal struct {
	recipients []age.Recipient
	names      []string
}

// None reports whether there is nobody to seal for.
func (s Seal) None() bool { return len(s.recipients) == 0 }

// SealFor makes a Seal for age recipients ("age1...") and those in a file of
// them, one a line, or for a passphrase that is the first line of a file. age
// allows a passphrase beside nobody else. Empty names are left out.
func SealFor(recipients []string, recipientsFile, passphraseFile string) (Seal, error) {
	var s Seal
	for i, r := range recipients {
		if err := s.add(r); err != nil { // not quoted: it may be a secret key by mistake
			return Seal{}, fmt.Errorf("recipient number %d is none (age1...): %w", i+1, err)
		}
	}
	if recipientsFile != "" {
		data, err := os.ReadFile(recipientsFile)
		if err != nil {
			return Seal{}, err
		}
		if err := s.add(string(data)); err != nil {
			return Seal{}, fmt.Errorf("%s: %w", recipientsFile, err)
		}
	}
	if passphraseFile == "" {
		return s, nil
	}
	if !s.None() {
		return Seal{}, errors.New("a passphrase cannot be combined with recipients: whoever knows it would have to be trusted as all of them")
	}
	phrase, err := readPassphrase(passphraseFile)
	if err != nil {
		return Seal{}, err
	}
	r, err := age.NewScryptRecipient(phrase)
	if err != nil {
		return Seal{}, err
	}
	return Seal{recipients: []age.Recipient{r}, names: []string{"passphrase"}}, nil
}

// add takes the recipients of a text with one a line.
func (s *Seal) add(text string) error {
	found, err := age.ParseRecipients(strings.NewReader(text))
	if err != nil {
		return err
	}
	for _, r := range found {
		name, ok := r.(fmt.Stringer)
		if !ok {
			return fmt.Errorf("a recipient of the kind %T has no name", r)
		}
		s.recipients, s.names = append(s.recipients, r), append(s.names, name.String())
	}
	return nil
}

func readPassphrase(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", fmt.Errorf("%s: its first line, the passphrase, is empty", file)
	}
	return line, nil
}

// Openers reads what opens archives: a file of age identities, a file with a
// passphrase. Empty names are left out.
func Openers(identityFile, passphraseFile string) ([]age.Identity, error) {
	var all []age.Identity
	if identityFile != "" {
		f, err := os.Open(identityFile)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if all, err = age.ParseIdentities(f); err != nil {
			return nil, fmt.Errorf("%s: no age identities: %w", identityFile, err)
		}
	}
	if passphraseFile != "" {
		phrase, err := readPassphrase(passphraseFile)
		if err != nil {
			return nil, err
		}
		id, err := age.NewScryptIdentity(phrase)
		if err != nil {
			return nil, err
		}
		all = append(all, id)
	}
	return all, nil
}

// WriteKeys puts the files, which hold keys, into the draft as an archive that
// is encrypted before it leaves memory. Paths in it are those on a host,
// without the leading slash.
func (d *Draft) WriteKeys(files []templates.File, s Seal) (Keys, error) {
	out, err := d.Create(KeysFile)
	if err != nil {
		return Keys{}, err
	}
	defer out.Close()
	sum := sha256.New()
	size := counter{}
	err = seal(io.MultiWriter(out, sum, &size), files, s, d.Time)
	if out.Err() != nil {
		err = out.Err()
	}
	if err != nil {
		return Keys{}, err
	}
	if err := out.Sync(); err != nil {
		return Keys{}, err
	}
	return Keys{Bytes: size.n, SHA256: hex.EncodeToString(sum.Sum(nil)), SealedFor: s.names}, out.Keep()
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func seal(w io.Writer, files []templates.File, s Seal, at time.Time) error {
	sealed, err := age.Encrypt(w, s.recipients...)
	if err != nil {
		return fmt.Errorf("encrypt the keys: %w", err)
	}
	archive := tar.NewWriter(sealed)
	for _, f := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(f.Path, "/"), Mode: int64(f.Mode.Perm()), Size: int64(len(f.Content)), ModTime: at}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(f.Content); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), sealed.Close())
}

// mostKeys bounds what is unpacked into memory.
const mostKeys = 4 << 20

// OpenKeys decrypts an archive of WriteKeys; the files are by their paths on a host.
func OpenKeys(file string, by []age.Identity) (map[string][]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	plain, err := age.Decrypt(f, by...)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	archive := tar.NewReader(io.LimitReader(plain, mostKeys))
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		var content bytes.Buffer
		if _, err := io.Copy(&content, archive); err != nil {
			return nil, err
		}
		files["/"+h.Name] = content.Bytes()
	}
}

// ReadKeys decrypts an archive of WriteKeys and returns the CA set, which has to
// bear that fingerprint, and the configuration of the encryption at rest. now is
// when the set is to be in force.
func ReadKeys(file string, by []age.Identity, fingerprint string, now time.Time) (*pki.CASet, []byte, error) {
	files, err := OpenKeys(file, by)
	if err != nil {
		return nil, nil, err
	}
	return keysIn(files, fingerprint, now)
}

// keysIn wants the files to be one usable CA set of that fingerprint, with the
// key of the encryption at rest.
func keysIn(files map[string][]byte, fingerprint string, now time.Time) (*pki.CASet, []byte, error) {
	set, err := pki.Load(func(name string) ([]byte, error) {
		content, ok := files[templates.PKIDir+"/"+name]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return content, nil
	}, now)
	if err != nil {
		return nil, nil, err
	}
	if got := set.Fingerprint(); got != fingerprint {
		return nil, nil, fmt.Errorf("its CA set is %.12s, the manifest says %.12s", got, fingerprint)
	}
	encryption := files[templates.EncryptionConfigPath]
	if len(encryption) == 0 {
		return nil, nil, fmt.Errorf("%s is not in it", templates.EncryptionConfigPath)
	}
	return set, encryption, nil
}
