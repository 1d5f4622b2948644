// Package boot is the restore drill that touches no cluster: it restores a
// backup into a scratch directory on this machine, starts etcd and an API server
// on it from a bundle, on loopback, with keys of their own, and counts what they
// serve.
package boot

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"filippo.io/age"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/rest"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/bundle"
	"github.com/ha-install/ha-install/provision/units"
	"github.com/ha-install/ha-install/templates"
)

// Options say what is booted, and from what.
type Options struct {
	Backup  backup.Entry // whole: it is not verified here
	Bundle  string       // the file
	Openers []age.Identity
	Scratch string // where a directory is made for the while; "": the system's
	Tell    func(string)
}

// Result is what a backup holds, as an API server on it tells.
type Result struct {
	Backup     string        `json:"backup"`
	Kubernetes string        `json:"kubernetesVersion"` // of the API server that was started
	Etcd       string        `json:"etcdVersion"`
	Revision   int64         `json:"revision"` // of the backup
	Keys       int64         `json:"keys"`     // in etcd
	Objects    int64         `json:"objects"`  // through the API
	Kinds      []Kind        `json:"kinds"`
	Unread     []Unread      `json:"unread"`
	Restore    units.Seconds `json:"restoreSeconds"` // until the data were there
	Ready      units.Seconds `json:"readySeconds"`   // from then until /readyz
	Took       units.Seconds `json:"tookSeconds"`
}

// Unread is a kind that the API server could not give.
type Unread struct {
	Resource string `json:"resource"`
	Why      string `json:"why"`
}

// Error is a component that failed, with the end of what it said.
type Error struct {
	Component string
	Err       error
	Log       string
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %v", e.Component, e.Err)
	if e.Log != "" {
		text += "\nits last lines:\n" + e.Log
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// How long what is waited for may take. Large databases take etcd a while.
const (
	readyBudget = 3 * time.Minute
	poll        = 200 * time.Millisecond
)

// drill is one boot.
type drill struct {
	Options
	dir       *scratch
	etcd, api *process
	keys      *keys
	began     time.Time
	result    Result
	// encryption is the file with the configuration of the encryption at rest; ""
	// where its key is not known, and what is sealed cannot be read.
	encryption string
	sealed     bool
}

// Boot restores, starts, counts, and stops. Whatever becomes of it, nothing of it
// is left: the processes end with this one, and the directory goes at the end,
// or with the next boot where this one was killed.
func Boot(ctx context.Context, o Options) (r Result, err error) {
	d := &drill{Options: o, began: time.Now()}
	m := o.Backup.Manifest
	d.result = Result{Backup: o.Backup.Path, Revision: m.Snapshot.Revision, Keys: m.Snapshot.Keys, Unread: []Unread{}}
	if d.dir, err = newScratch(o.Scratch); err != nil {
		return d.result, err
	}
	defer func() { err = errors.Join(err, d.dir.remove()) }()
	defer d.stop()
	for _, do := range []func(context.Context) error{d.unpack, d.restore, d.openKeys, d.startEtcd, d.startAPI, d.count} {
		if err := do(ctx); err != nil {
			return d.result, err
		}
	}
	d.result.Took = since(d.began)
	return d.result, nil
}

func since(t time.Time) units.Seconds { return units.Seconds(time.Since(t).Round(time.Millisecond)) }

// stop ends both, the API server first.
func (d *drill) stop() {
	for _, p := range []*process{d.api, d.etcd} {
		if p != nil {
			p.stop()
		}
	}
}

// unpack takes the three programs out of the bundle.
func (d *drill) unpack(ctx context.Context) error {
	b, err := bundle.Open(d.Bundle)
	if err != nil {
		return err
	}
	defer b.Close()
	m := b.Manifest()
	d.result.Kubernetes = m.KubernetesVersion
	if m.Arch != runtime.GOARCH || runtime.GOOS != "linux" {
		return fmt.Errorf("bundle %s is for linux on %s; this machine is %s on %s", d.Bundle, m.Arch, runtime.GOOS, runtime.GOARCH)
	}
	if err := fits(d.Backup.Manifest.KubernetesVersion, m.KubernetesVersion); err != nil {
		return err
	}
	d.Tell(fmt.Sprintf("unpacking etcd and kube-apiserver %s of %s", m.KubernetesVersion, filepath.Base(d.Bundle)))
	for _, name := range []string{"etcdutl", "etcd", "kube-apiserver"} {
		version, err := program(ctx, b, name, d.dir.at(name))
		if err != nil {
			return fmt.Errorf("bundle %s: %s: %w", d.Bundle, name, err)
		}
		if name == "etcd" {
			d.result.Etcd = version
		}
	}
	d.keys, err = newKeys(d.dir.path, time.Now())
	return err
}

// fits refuses an API server that is older than what wrote the data: it may not
// know all of it. One that is newer reads what an older one wrote.
func fits(of, with string) error {
	if of == "" {
		return nil // the backup does not say
	}
	data, err := version.ParseSemantic(of)
	if err != nil {
		return fmt.Errorf("the backup's version: %w", err)
	}
	program, err := version.ParseSemantic(with)
	if err != nil {
		return fmt.Errorf("the bundle's version: %w", err)
	}
	if program.Major() == data.Major() && program.Minor() < data.Minor() {
		return fmt.Errorf("the backup is of Kubernetes %s, the bundle of %s: an older API server may not know all that is in it\nrun: name a bundle of v%d.%d with --bundle", of, with, data.Major(), data.Minor())
	}
	return nil
}

// restore makes a data directory of the snapshot.
func (d *drill) restore(ctx context.Context) error {
	d.Tell(fmt.Sprintf("restoring %s into %s", units.Bytes(d.Backup.Manifest.Snapshot.Bytes), d.dir.path))
	began := time.Now()
	p, err := start(d.dir, "etcdutl", "snapshot", "restore", filepath.Join(d.Backup.Path, backup.SnapshotFile),
		"--data-dir", d.dir.at("data"), "--name", "boot", "--initial-cluster", "boot=https://127.0.0.1:1", "--initial-advertise-peer-urls", "https://127.0.0.1:1")
	if err == nil {
		err = p.wait(ctx)
	}
	d.result.Restore = since(began)
	return err
}

func (d *drill) startEtcd(ctx context.Context) error {
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	d.keys.etcd, d.keys.api = ports[0], ports[2]
	client, peer := "https://"+ports[0], "https://"+ports[1]
	d.etcd, err = start(d.dir, "etcd", "--name", "boot", "--data-dir", d.dir.at("data"),
		"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
		"--cert-file", d.keys.cert, "--key-file", d.keys.key, "--trusted-ca-file", d.keys.ca, "--client-cert-auth",
		"--peer-cert-file", d.keys.cert, "--peer-key-file", d.keys.key, "--peer-trusted-ca-file", d.keys.ca, "--peer-client-cert-auth",
		"--unsafe-no-fsync", "--quota-backend-bytes", fmt.Sprint(16<<30), "--log-level", "warn")
	if err != nil {
		return err
	}
	return d.await(ctx, d.etcd, ports[0], "/readyz")
}

// startAPI starts an API server that answers the holder of the scratch key, and
// runs no webhook: those are pods of a cluster that is not here.
func (d *drill) startAPI(ctx context.Context) error {
	k := d.keys
	host, port, err := net.SplitHostPort(k.api)
	if err != nil {
		return err
	}
	args := []string{
		"--etcd-servers", "https://" + k.etcd, "--etcd-cafile", k.ca, "--etcd-certfile", k.cert, "--etcd-keyfile", k.key,
		"--bind-address", host, "--advertise-address", host, "--secure-port", port, "--tls-cert-file", k.cert, "--tls-private-key-file", k.key,
		"--client-ca-file", k.ca, "--authorization-mode", "RBAC", "--anonymous-auth=false", "--cert-dir", d.dir.path,
		"--service-account-issuer", "https://boot.invalid", "--service-account-key-file", k.key, "--service-account-signing-key-file", k.key,
		"--service-cluster-ip-range", "10.96.0.0/12", "--endpoint-reconciler-type", "none",
		"--disable-admission-plugins", "MutatingAdmissionWebhook,ValidatingAdmissionWebhook,MutatingAdmissionPolicy,ValidatingAdmissionPolicy",
		"--profiling=false", "--v", "1",
		// Who asks once needs no cache; and an API server waits a minute for those that
		// it cannot fill, as that of Secrets without their key.
		"--watch-cache=false",
	}
	if d.encryption != "" {
		args = append(args, "--encryption-provider-config", d.encryption)
	}
	began := time.Now()
	if d.api, err = start(d.dir, "kube-apiserver", args...); err != nil {
		return err
	}
	d.Tell("waiting for /readyz of kube-apiserver " + d.result.Kubernetes)
	ready := "/readyz"
	if d.sealed {
		ready += "?exclude=informer-sync" // that of Secrets never is
	}
	err = d.await(ctx, d.api, k.api, ready)
	d.result.Ready = since(began)
	return err
}

// openKeys writes the configuration of the encryption at rest, where the backup's
// keys can be opened.
func (d *drill) openKeys(context.Context) error {
	sealed := d.Backup.Manifest.Keys
	if sealed == nil || len(d.Openers) == 0 {
		why := "the backup holds no keys"
		if sealed != nil {
			why = "its keys were not opened; give --identity or --passphrase-file"
		}
		d.sealed = true
		d.Tell("what is encrypted at rest (Secrets) cannot be read: " + why)
		return nil
	}
	files, err := backup.OpenKeys(filepath.Join(d.Backup.Path, backup.KeysFile), d.Openers)
	if err != nil {
		return fmt.Errorf("open the backup's keys: %w", err)
	}
	d.encryption = d.dir.at("encryption.yaml")
	return os.WriteFile(d.encryption, files[templates.EncryptionConfigPath], 0o600)
}

// await polls a component until it says that it is ready, or has ended, or time
// is up.
func (d *drill) await(ctx context.Context, p *process, address, path string) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: d.keys.client()}}
	defer client.CloseIdleConnections()
	budget := time.NewTimer(readyBudget)
	defer budget.Stop()
	next := time.NewTicker(poll)
	defer next.Stop()
	var last error
	for {
		if last = ask(ctx, client, "https://"+address+path); last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.ended:
			return p.failed(fmt.Errorf("it ended before it was ready: %w", p.err))
		case <-budget.C:
			return p.failed(fmt.Errorf("it was not ready within %s: %w", readyBudget, last))
		case <-next.C:
		}
	}
}

func ask(ctx context.Context, c *http.Client, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := c.Do(r)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s says %s", url, answer.Status)
	}
	return nil
}

// client speaks TLS to what was started, and to nobody else.
func (k *keys) client() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(k.caPEM)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{k.pair}, MinVersion: tls.VersionTLS12}
}

// count asks the API server for all that there is.
func (d *drill) count(ctx context.Context) error {
	d.Tell("counting objects")
	config := &rest.Config{Host: "https://" + d.keys.api, QPS: 200, Burst: 400, Timeout: time.Minute, WarningHandler: rest.NoWarnings{},
		TLSClientConfig: rest.TLSClientConfig{CAData: d.keys.caPEM, CertData: d.keys.certPEM, KeyData: d.keys.keyPEM}}
	c := &counting{since: d.began, sealed: d.sealed}
	if err := c.all(ctx, config); err != nil {
		select {
		case <-d.api.ended:
			return d.api.failed(fmt.Errorf("it ended while objects were counted: %w", d.api.err))
		case <-d.etcd.ended:
			return d.etcd.failed(fmt.Errorf("it ended while objects were counted: %w", d.etcd.err))
		default:
			return d.api.failed(fmt.Errorf("count objects: %w", err))
		}
	}
	d.result.Kinds, d.result.Unread, d.result.Objects = c.kinds, c.unread, c.objects
	return nil
}
