package provision

import (
	"context"
	"fmt"
	"sync"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
)

// origin is what a backup is taken of, beside etcd: the hosts over SSH, or the
// master that the program runs on.
type origin interface {
	// commonSecrets reads the secrets of every master that answers; they must be
	// the same.
	commonSecrets(ctx context.Context) (*secrets, error)
	// caFingerprint is that of the CA set; empty when nobody can say.
	caFingerprint(ctx context.Context) string
	// runningVersion is what the API server on a master is of, or on another one;
	// empty when nobody can say.
	runningVersion(ctx context.Context, on string) string
}

func (s *Site) caFingerprint(ctx context.Context) string { return CAFingerprint(ctx, s) }

// CAFingerprint tells the cluster of the hosts from others of its name: the
// fingerprint of its CA set, as the first master with a marker of the cluster
// says; empty when none does.
func CAFingerprint(ctx context.Context, s *Site) string {
	for _, ih := range s.Cluster.ControlPlanes() {
		h, err := s.host(ih.Name)
		if err != nil {
			continue
		}
		if m, err := readMarker(ctx, h); err == nil && m.Cluster == s.Cluster.Metadata.Name && m.CASHA256 != "" {
			return m.CASHA256
		}
	}
	return ""
}

func (s *Site) commonSecrets(ctx context.Context) (*secrets, error) {
	var mu sync.Mutex
	found := map[string]*secrets{}
	failed := s.onAll(ctx, s.Cluster.ControlPlanes(), func(ctx context.Context, ih inventory.Host, h host.Host) error {
		seen, err := readSecrets(ctx, h, s.Cluster.Metadata.Name)
		if err == nil {
			mu.Lock()
			found[ih.Name] = seen
			mu.Unlock()
		}
		return err
	})
	names := sortedKeys(found)
	if len(names) == 0 {
		return nil, fmt.Errorf("no master has given the cluster's CA set:\n%w", failed)
	}
	for _, name := range names[1:] {
		if err := sameSecrets(names[0], name, found[names[0]], found[name]); err != nil {
			return nil, err
		}
	}
	return found[names[0]], nil
}

// runningVersion is what the manifests of the API servers say.
func (s *Site) runningVersion(ctx context.Context, on string) string {
	masters := s.Cluster.ControlPlanes()
	for _, first := range []bool{true, false} {
		for _, ih := range masters {
			if (ih.Name == on) != first {
				continue
			}
			h, err := s.host(ih.Name)
			if err != nil {
				continue
			}
			pod, err := h.ReadFile(ctx, apiServerManifest)
			if err != nil {
				continue
			}
			if v, err := imageVersion(apiServerManifest, pod); err == nil {
				return v
			}
		}
	}
	return ""
}
