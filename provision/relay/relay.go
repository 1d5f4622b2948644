// Package relay hands backups from one master to another, over TLS that both sides
// prove themselves with by etcd's own CA: who can send may write to etcd anyhow. What
// is received is one backup, bounded by its manifest, and appears when it is whole;
// nothing can be read or removed this way.
package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/ha-install/ha-install/provision/backup"
)

const (
	// protocol is agreed on in the handshake, so that no other service of the same CA
	// is taken for this one.
	protocol = "ha-install-backup/1"

	mostHello  = 2 << 20 // a manifest, in base64
	mostAnswer = 64 << 10

	shakeHands = 15 * time.Second
	silence    = time.Minute      // ends a transfer
	proving    = 20 * time.Minute // is how long the other side may take to prove what it has
)

// hello is what a sender begins with.
type hello struct {
	Directory string `json:"directory"`
	Manifest  []byte `json:"manifest"` // as it lies in its file
}

// answer is what the receiver says, once to the hello, once at the end.
type answer struct {
	Kind kind   `json:"kind"`
	Err  string `json:"error,omitempty"`
}

type kind string

const (
	send    kind = "send"  // the parts, one after the other, as long as the manifest says
	there   kind = "there" // it is whole there already
	done    kind = "done"
	refused kind = "refused"
)

// line is a connection whose every step has a limit of time.
type line struct {
	net.Conn
	r *bufio.Reader
}

func newLine(c net.Conn) *line { return &line{c, bufio.NewReader(c)} }

func (l *line) patience(d time.Duration) { _ = l.SetDeadline(time.Now().Add(d)) }

func (l *line) say(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = l.Write(append(data, '\n'))
	return err
}

// hear reads one line of JSON of bounded length.
func (l *line) hear(most int, v any) error {
	var data []byte
	for {
		piece, err := l.r.ReadSlice('\n')
		if data = append(data, piece...); len(data) > most {
			return fmt.Errorf("a line of more than %d bytes", most)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(data, v)
	}
}

// shake makes TLS of a connection, and wants the protocol.
func shake(ctx context.Context, c *tls.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, shakeHands)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	if got := c.ConnectionState().NegotiatedProtocol; got != protocol {
		return fmt.Errorf("it speaks %q, want %q", got, protocol)
	}
	return nil
}

// Send sends a backup to the master at an address, into one of its directories; there
// says that it was whole there already. The certificate of cfg is shown, and that of
// the other side verified for the address.
func Send(ctx context.Context, address string, cfg *tls.Config, directory string, e backup.Entry) (there bool, err error) {
	manifest, err := os.ReadFile(filepath.Join(e.Path, backup.ManifestFile))
	if err != nil {
		return false, err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false, err
	}
	dialer := net.Dialer{Timeout: shakeHands}
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return false, err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	cfg = cfg.Clone()
	cfg.ServerName, cfg.NextProtos, cfg.MinVersion = host, []string{protocol}, tls.VersionTLS13
	c := tls.Client(raw, cfg)
	if err := shake(ctx, c); err != nil {
		return false, fmt.Errorf("%s: %w", address, err)
	}
	there, err = converse(newLine(c), hello{directory, manifest}, e)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", address, err)
	}
	return there, err
}

func converse(l *line, h hello, e backup.Entry) (bool, error) {
	l.patience(silence)
	if err := l.say(h); err != nil {
		return false, err
	}
	l.patience(proving) // one that lies there already is proved first
	switch k, err := l.answered(); {
	case err != nil:
		return false, err
	case k == there:
		return true, nil
	case k != send:
		return false, fmt.Errorf("it answered %q", k)
	}
	if sending := l.parts(e); sending != nil {
		var network *net.OpError
		if !errors.As(sending, &network) {
			return false, sending // of the file here
		}
		l.patience(shakeHands)
		if _, err := l.answered(); isRefusal(err) {
			return false, err // why it listens no longer
		}
		return false, sending
	}
	l.patience(proving)
	k, err := l.answered()
	if err == nil && k != done {
		err = fmt.Errorf("it answered %q", k)
	}
	return false, err
}

// parts sends all but the manifest, which went ahead.
func (l *line) parts(e backup.Entry) error {
	for _, part := range e.Manifest.Parts() {
		if part == backup.ManifestFile {
			continue
		}
		if err := l.part(filepath.Join(e.Path, part), e.Manifest.Size(part)); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	return nil
}

func (l *line) part(file string, size int64) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return l.pass(l, f, size)
}

// pass copies exactly so many bytes, in pieces of which none may take too long.
func (l *line) pass(w io.Writer, r io.Reader, size int64) error {
	const piece = 1 << 20
	for left := size; left > 0; {
		l.patience(silence)
		n, err := io.CopyN(w, r, min(left, piece))
		if left -= n; err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("%d bytes less than the manifest says: %w", left, io.ErrUnexpectedEOF)
			}
			return err
		}
	}
	return nil
}

// refusal is why the other side did not take a backup, in its words.
type refusal struct{ why string }

func (e *refusal) Error() string { return e.why }

func isRefusal(err error) bool {
	var r *refusal
	return errors.As(err, &r)
}

// UntidyError means that the copy was made, and what it replaces could not be removed.
type UntidyError struct{ Why string }

func (e *UntidyError) Error() string { return "the copy was made; prune: " + e.Why }

func (l *line) answered() (kind, error) {
	var a answer
	if err := l.hear(mostAnswer, &a); err != nil {
		return "", fmt.Errorf("no answer: %w", err)
	}
	if a.Kind == refused {
		return a.Kind, &refusal{a.Err}
	}
	if a.Err != "" {
		return a.Kind, &UntidyError{a.Err}
	}
	return a.Kind, nil
}
