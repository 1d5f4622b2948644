//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// watcher sees what any user of a host could see while the installer runs:
// the command line of every process. The hosts' processes are in this
// machine's own /proc, so one look shows all hosts, and the installer too. It
// also reads the token of each join out of the file that holds it meanwhile.
type watcher struct {
	stop   func()
	mu     sync.Mutex
	args   map[string]bool
	tokens map[string]bool
}

// sampleEvery bounds how short a process may live unseen.
const sampleEvery = 100 * time.Millisecond

// discoveryFile holds the token of a join, on the host that joins.
const discoveryFile = "var/lib/ha-install/kubeadm/discovery.conf"

func watch(t *testing.T, hosts []string) *watcher {
	t.Helper()
	w := &watcher{args: map[string]bool{}, tokens: map[string]bool{}}
	var roots []string
	for _, host := range hosts {
		roots = append(roots, rootOf(t, host))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	w.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			w.sample(roots)
			select {
			case <-ctx.Done():
			case <-time.After(sampleEvery):
			}
		}
	}()
	return w
}

// rootOf is a running host's file system as this machine sees it.
func rootOf(t *testing.T, host string) string {
	t.Helper()
	pid, err := theLab.PID(context.Background(), host)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join("/proc", pid, "root")
}

var token = regexp.MustCompile(`token: ([a-z0-9]{6}\.[a-z0-9]{16})`)

func (w *watcher) sample(roots []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well-formed
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range files {
		if data, err := os.ReadFile(name); err == nil && len(data) > 0 { // else it has ended
			w.args[strings.ReplaceAll(string(data), "\x00", " ")] = true
		}
	}
	for _, root := range roots {
		data, _ := os.ReadFile(filepath.Join(root, discoveryFile)) // most of the time it is not there
		for _, m := range token.FindAllStringSubmatch(string(data), -1) {
			w.tokens[m[1]] = true
		}
	}
}

// secret is a text that must be seen nowhere.
type secret struct{ name, text string }

// secretsOf collects what must stay secret: the tokens that were seen, and on
// the masters every private key, credential and the key of the encryption.
func (w *watcher) secretsOf(t *testing.T, masters []string) []secret {
	t.Helper()
	var all []secret
	for text := range w.tokens {
		_, half, _ := strings.Cut(text, ".")
		all = append(all, secret{"a join token", half})
	}
	for _, host := range masters {
		root := rootOf(t, host)
		err := filepath.WalkDir(filepath.Join(root, "etc/kubernetes"), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			for _, text := range secretTexts(data) {
				all = append(all, secret{host + ":" + strings.TrimPrefix(path, root), text})
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

var yamlSecret = regexp.MustCompile(`(?m)(?:client-key-data|secret): *([A-Za-z0-9+/=]{40,})$`)

// secretTexts are the telling parts of a file: long enough to be of one key
// only, and within one line, since a log may have cut or indented the rest.
func secretTexts(data []byte) []string {
	var texts []string
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(pem.EncodeToMemory(block))), "\n")
		texts = append(texts, lines[len(lines)/2])
	}
	for _, m := range yamlSecret.FindAllSubmatch(data, -1) {
		middle := len(m[1]) / 2
		texts = append(texts, string(m[1][middle-16:middle+16]))
	}
	return texts
}

// anySecret matches what no log has a reason to hold, whosever it is.
var anySecret = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----|\btoken[:=" ]+[a-z0-9]{6}\.[a-z0-9]{16}\b`)

// secretIn names a secret that the text holds; "" is none.
func secretIn(text string, secrets []secret) string {
	for _, s := range secrets {
		if strings.Contains(text, s.text) {
			return s.name
		}
	}
	return anySecret.FindString(text)
}

// wantNoSecret looks through one text.
func wantNoSecret(t *testing.T, where, text string, secrets []secret) {
	t.Helper()
	if name := secretIn(text, secrets); name != "" {
		t.Errorf("%s holds %.60q", where, name)
	}
}

// The search must find what it is made to find, or its silence means nothing.
func TestSecretsAreFoundWhereTheyAre(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)})
	conf := "users:\n- user:\n    client-key-data: " + base64.StdEncoding.EncodeToString(key) + "\n"
	encryption := "keys:\n- name: a\n  secret: " + base64.StdEncoding.EncodeToString(private.D.Bytes()[:32]) + "\n"
	for what, file := range map[string]string{"a key": string(key), "a kubeconfig": conf, "the key of the encryption": encryption} {
		texts := secretTexts([]byte(file))
		if len(texts) != 1 {
			t.Fatalf("%s: secrets %q, want one", what, texts)
		}
		known := []secret{{what, texts[0]}}
		log := "15:04:05 dumping: " + strings.ReplaceAll(file, "\n", "\n15:04:05 | ")
		if got := secretIn(log, known); got != what {
			t.Errorf("%s in a log: found %q", what, got)
		}
		if got := secretIn("15:04:05 all is well", known); got != "" {
			t.Errorf("nothing in a log: found %q", got)
		}
	}
	for _, leak := range []string{"kubeadm join --token=abcdef.0123456789abcdef", "x: -----BEGIN EC PRIVATE KEY-----"} {
		if secretIn(leak, nil) == "" {
			t.Errorf("%q: found nothing", leak)
		}
	}
}

// wantNoSecretOnHosts looks through the journal, the logs and what the
// installer keeps of its steps.
func wantNoSecretOnHosts(t *testing.T, hosts []string, secrets []secret) {
	t.Helper()
	for host, journal := range onEach(t, hosts, "journalctl --quiet --no-pager --output cat") {
		wantNoSecret(t, host+": journal", journal, secrets)
		root := rootOf(t, host)
		for _, dir := range []string{"var/log", "var/lib/ha-install", "tmp", "run/systemd/transient"} {
			err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
				const largest = 8 << 20 // packages and rotated logs are not what we look for
				if err != nil || !d.Type().IsRegular() || strings.Contains(path, "/packages/") || strings.Contains(path, "/journal/") {
					return nil // files come and go
				}
				if info, err := d.Info(); err != nil || info.Size() > largest {
					return nil
				}
				data, _ := os.ReadFile(path)
				wantNoSecret(t, host+":"+strings.TrimPrefix(path, root), string(data), secrets)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
}
