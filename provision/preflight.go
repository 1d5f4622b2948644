package provision

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/bundle"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/pki"
	"github.com/ha-install/ha-install/provision/preflight"
	"github.com/ha-install/ha-install/templates"
)

// Preflight asks all hosts whether the cluster can be built on them, and
// changes nothing. software may be nil.
func Preflight(ctx context.Context, s *Site, software *bundle.Bundle) preflight.Report {
	return s.preflight(ctx, software, false, true)
}

// preflight writes only when probeDisks is set: the short probe of etcd's disk.
// With patience it also looks for what takes a while and seldom changes.
func (s *Site) preflight(ctx context.Context, software *bundle.Bundle, probeDisks, patience bool) preflight.Report {
	readers := map[string]host.Reader{}
	for name, h := range s.hosts {
		readers[name] = h
	}
	options := preflight.Options{ConnectErrors: s.down, CAFingerprint: s.runningCA(ctx), ListenAlways: patience}
	if software != nil {
		options.Arch = software.Manifest().Arch
		options.Debs = slices.ContainsFunc(software.Manifest().Items, func(i bundle.Item) bool { return i.Kind == bundle.KindPackage })
	}
	if options.Debs {
		options.Distribution = software.Manifest().Distribution
	}
	if probeDisks {
		options.DiskProbe = func(ctx context.Context, name string, cmd host.Command) ([]byte, error) {
			h, err := s.host(name)
			if err != nil {
				return nil, err
			}
			return h.Run(ctx, cmd)
		}
	}
	return preflight.Run(ctx, s.Cluster, readers, options)
}

// runningCA is the fingerprint of the CA of the cluster that already runs on
// the masters, "" when there is none: by it a host is told from one of an
// earlier cluster of the same name.
func (s *Site) runningCA(ctx context.Context) string {
	for _, ih := range s.connected(s.Cluster.ControlPlanes()) {
		h := s.hosts[ih.Name]
		if seen, err := h.Stat(ctx, etcdMember); err != nil || len(seen) == 0 {
			continue
		}
		if m, err := readMarker(ctx, h); err != nil || m.Cluster != s.Cluster.Metadata.Name {
			continue
		}
		if pem, err := h.ReadFile(ctx, path.Join(kube.PKIDir, pki.CACert)); err == nil {
			return preflight.Fingerprint(pem)
		}
	}
	return ""
}

// preflight is the first phase: what is found on any host is reported at once,
// before anything is changed.
func (a *apply) preflight() phase.Phase {
	return phase.Phase{
		Name: "preflight",
		Gate: []phase.Check{{Name: "preflight", Run: func(ctx context.Context) error {
			report := a.Site.preflight(ctx, a.bundle, !a.readOnly, false)
			var table strings.Builder
			if err := report.Render(&table); err != nil {
				return phase.Final(err)
			}
			phase.TellData(ctx, table.String(), phase.Data{"preflight": report})
			return phase.Final(report.Err())
		}}},
	}
}

// Render checks what would be made of the inventory: the documents as kubeadm
// validates them. For the files that it names see Site.Files.
func (s *Site) Render() error {
	if err := s.unsupported(); err != nil {
		return err
	}
	if err := templates.Validate(s.Cluster); err != nil {
		return placed(s.Cluster, err)
	}
	return nil
}

// unsupported are settings that the inventory allows and the workflows do not
// know yet, or that collide with what we run.
func (s *Site) unsupported() error {
	var issues []inventory.Issue
	for i, h := range s.Cluster.Spec.Hosts {
		if h.IP().Is6() {
			field := fmt.Sprintf("spec.hosts[%d].address", i)
			issues = append(issues, s.Cluster.Issue(field, "IPv6 hosts are not supported yet", "give an IPv4 address (internalAddress)"))
		}
	}
	if s.Cluster.Spec.Endpoint.Port == templates.BalancerHealthPort {
		issues = append(issues, s.Cluster.Issue("spec.endpoint.port", fmt.Sprintf("%d is taken by HAProxy's own health answer", templates.BalancerHealthPort), "take another port, 6443 for example"))
	}
	return inventory.Join(issues...)
}

// A complaint about a raw field begins with where it is; the field within is
// named by kubeadm's strict decoder.
var (
	rawPlace = regexp.MustCompile(`^(spec\.[A-Za-z0-9_.]+): (.*)$`)
	rawField = regexp.MustCompile(`^(?:unknown field "([^"]+)"|([A-Za-z0-9_.]+) is an? )`)
)

// placed gives the complaints about raw fields their place in the file. What
// has none is said as it is.
func placed(c *inventory.Cluster, err error) error {
	var issues []inventory.Issue
	var others []error
	for _, e := range Flat(err) {
		m := rawPlace.FindStringSubmatch(e.Error())
		if m == nil {
			others = append(others, e)
			continue
		}
		path := m[1]
		if f := rawField.FindStringSubmatch(m[2]); f != nil {
			path += "." + f[1] + f[2]
		}
		issues = append(issues, c.Issue(path, m[2], ""))
	}
	if len(issues) == 0 {
		return err
	}
	return phase.Join(append([]error{inventory.Join(issues...)}, others...)...)
}

// Flat takes multierrors apart, however deep, and drops those that are nil.
func Flat(errs ...error) []error {
	var out []error
	for _, err := range errs {
		var all *multierror.Error
		if errors.As(err, &all) {
			out = append(out, Flat(all.Errors...)...)
		} else if err != nil {
			out = append(out, err)
		}
	}
	return out
}
