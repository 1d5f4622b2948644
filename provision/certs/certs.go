package certs

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"k8s.io/client-go/util/cert"
)

// State says how long a certificate, or the worst of several, is good for.
type State string

const (
	Good    State = "ok"
	Due     State = "due"     // it expires within the time that was asked for
	Expired State = "expired" // or is not valid yet
)

// Certificate is one certificate on a host.
type Certificate struct {
	File      string    `json:"file"`
	Subject   string    `json:"subject"`         // its distinguished name
	Names     []string  `json:"names,omitempty"` // DNS names, then IP addresses
	Issuer    string    `json:"issuer"`          // the distinguished name of its CA
	Serial    string    `json:"serial"`          // hexadecimal
	CA        bool      `json:"ca,omitempty"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	State     State     `json:"state"`
	Changed   time.Time `json:"changed"`           // when the file was written, by the host's clock
	Renewal   string    `json:"renewal,omitempty"` // its name for `kubeadm certs renew`
	Process   string    `json:"process,omitempty"` // what reads the file
	// Served is what the process that serves the file's certificate shows; nil
	// where none serves it.
	Served *Served `json:"served,omitempty"`
	// Restart says why the process has to be restarted to use the file; empty
	// when it has not.
	Restart string `json:"restart,omitempty"`

	raw []byte
}

// Served is what a process shows in a TLS handshake.
type Served struct {
	Address  string     `json:"address"`
	Serial   string     `json:"serial,omitempty"` // hexadecimal; empty: no certificate was seen
	NotAfter *time.Time `json:"notAfter,omitempty"`
	Same     bool       `json:"same"`            // it is the file's
	Err      string     `json:"error,omitempty"` // why none was seen, or what is wrong with it but its dates
}

// Found is what a host has in one file.
type Found struct {
	PEM     []byte    // certificates alone
	Changed time.Time // when it was written
}

// Seen is what a host says of its certificates.
type Seen struct {
	Files map[string]Found     // by path
	Began map[string]time.Time // when processes did, the oldest where there are several of a name
}

// slack is by how much the times of files and processes may be off: the kernel
// tells when it began in whole seconds.
const slack = time.Second

// List are the certificates in the files that were found, in the order of files,
// judged at now. What cannot be read is an error beside the others.
func List(files []File, seen Seen, now time.Time, within time.Duration) ([]Certificate, []error) {
	var all []Certificate
	var bad []error
	for _, f := range files {
		found, ok := seen.Files[f.Path]
		if !ok || len(bytes.TrimSpace(found.PEM)) == 0 && f.Path == confDir+"/kubelet.conf" {
			continue
		}
		parsed, err := cert.ParseCertsPEM(found.PEM)
		if err != nil {
			bad = append(bad, fmt.Errorf("%s: no certificate in it", f.Path))
			continue
		}
		for i, p := range parsed {
			c := describe(p)
			c.File, c.Changed, c.State = f.Path, found.Changed.UTC(), stateOf(p, now, within)
			if i == 0 { // what follows is its chain
				c.Renewal, c.Process = f.Renewal, f.Process
				c.Restart = older(f, found, seen)
			}
			all = append(all, c)
		}
	}
	return all, bad
}

func describe(p *x509.Certificate) Certificate {
	c := Certificate{
		Subject: p.Subject.String(), Issuer: p.Issuer.String(), Serial: p.SerialNumber.Text(16), CA: p.IsCA,
		Names: slices.Clone(p.DNSNames), NotBefore: p.NotBefore.UTC(), NotAfter: p.NotAfter.UTC(), raw: p.Raw,
	}
	for _, ip := range p.IPAddresses {
		c.Names = append(c.Names, ip.String())
	}
	return c
}

func stateOf(p *x509.Certificate, now time.Time, within time.Duration) State {
	switch {
	case !now.Before(p.NotAfter), now.Before(p.NotBefore):
		return Expired
	case p.NotAfter.Sub(now) <= within:
		return Due
	}
	return Good
}

// older says that a process began before the file that it reads was written.
func older(f File, found Found, seen Seen) string {
	began, runs := seen.Began[f.Process]
	if !runs || found.Changed.Sub(began) <= slack {
		return ""
	}
	return fmt.Sprintf("%s runs since %s, before the file was written", f.Process, began.UTC().Format(time.RFC3339))
}

// Serves notes what was seen of the certificate's process: the certificate, nil
// for none, and what is wrong.
func (c *Certificate) Serves(address string, shown *x509.Certificate, wrong error) {
	c.Served = &Served{Address: address}
	if wrong != nil {
		c.Served.Err = wrong.Error()
	}
	if shown == nil {
		return
	}
	end := shown.NotAfter.UTC()
	c.Served.Serial, c.Served.NotAfter, c.Served.Same = shown.SerialNumber.Text(16), &end, bytes.Equal(shown.Raw, c.raw)
	if !c.Served.Same {
		c.Restart = cmp.Or(c.Restart, fmt.Sprintf("what listens on %s shows the certificate %s", address, c.Served.Serial))
	}
}

// Worst is the worst state of several certificates, in files and as they are served,
// at now.
func Worst(all []Certificate, now time.Time) State {
	worst := Good
	for _, c := range all {
		switch {
		case c.State == Expired, c.Served != nil && c.Served.NotAfter != nil && !now.Before(*c.Served.NotAfter):
			return Expired
		case c.State == Due:
			worst = Due
		}
	}
	return worst
}
