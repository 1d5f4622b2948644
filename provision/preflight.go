package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/provision/preflight"
	"github.com/ha-install/ha-install/templates"
)

// Preflight asks all hosts whether the cluster can be built on them. It
// changes nothing but for the short write probe of etcd's disk, and only when
// probeDisks is set.
func Preflight(ctx context.Context, s *Site, arch string, debs, probeDisks bool) (preflight.Report, error) {
	clusters, err := s.markers(ctx)
	if err != nil {
		return preflight.Report{}, err
	}
	readers := map[string]host.Reader{}
	for name, h := range s.hosts {
		readers[name] = h
	}
	options := preflight.Options{
		ConnectErrors: s.down, Arch: arch, Debs: debs,
		Ours: func(name string) bool { return clusters[name] == s.Cluster.Metadata.Name },
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
	report := preflight.Run(ctx, s.Cluster, readers, options)
	report.Findings = append(report.Findings, foreign(s.Cluster, clusters)...)
	return report, nil
}

// markers reads which cluster each reachable host belongs to; "" for none.
func (s *Site) markers(ctx context.Context) (map[string]string, error) {
	var mu sync.Mutex
	clusters := map[string]string{}
	err := s.onAll(ctx, s.connected(s.Cluster.Spec.Hosts), func(ctx context.Context, ih inventory.Host, h host.Host) error {
		m, err := readMarker(ctx, h)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		clusters[ih.Name] = m.Cluster
		return err
	})
	return clusters, err
}

// foreign are the findings for hosts that bear another cluster's marker.
func foreign(c *inventory.Cluster, clusters map[string]string) []preflight.Finding {
	var findings []preflight.Finding
	for _, h := range c.Spec.Hosts {
		if other := clusters[h.Name]; other != "" && other != c.Metadata.Name {
			findings = append(findings, preflight.Finding{
				Host: h.Name, Check: "Cluster", Severity: preflight.Error,
				Seen:   fmt.Sprintf("%s says that the host belongs to cluster %q", markerFile, other),
				Wanted: fmt.Sprintf("a bare host, or one of %q", c.Metadata.Name),
				Fix:    "take it out of that cluster first (`ha-install reset` with that cluster's inventory)",
			})
		}
	}
	return findings
}

// preflight is the first phase: what is found on any host is reported at once,
// before anything is changed.
func (a *apply) preflight() phase.Phase {
	return phase.Phase{
		Name: "preflight",
		Gate: []phase.Check{{Name: "preflight", Run: func(ctx context.Context) error {
			arch := ""
			if a.bundle != nil {
				arch = a.bundle.Manifest().Arch
			}
			report, err := Preflight(ctx, a.Site, arch, a.bundle != nil, !a.exists)
			if err != nil {
				return phase.Final(err)
			}
			var table strings.Builder
			if err := report.Render(&table); err != nil {
				return phase.Final(err)
			}
			phase.Tell(ctx, table.String())
			return phase.Final(report.Err())
		}}},
	}
}

// Render checks everything that can be checked without a host: the documents
// as kubeadm validates them, and the manifests of the pod network.
func (s *Site) Render() error {
	if err := templates.Validate(s.Cluster); err != nil {
		return err
	}
	_, err := s.networkManifests()
	return err
}
