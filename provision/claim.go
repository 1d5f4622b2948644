package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
)

// Where the installer keeps what is its own on a host.
const (
	stateDir   = "/var/lib/ha-install"
	markerFile = stateDir + "/cluster.json"
)

var errNotOurs = errors.New("not a host of this cluster")

// marker says which cluster a host belongs to. Its name is written before
// anything else, so that what a broken run leaves is never taken for another
// cluster's; the rest when it has become true.
type marker struct {
	Cluster string `json:"cluster"`
	// CASHA256 is the fingerprint of the cluster's CA set: two clusters may
	// bear the same name.
	CASHA256 string `json:"caSHA256,omitempty"`
	// Established says that the cluster was up with this host in it. An API
	// that does not answer is then a cluster that is down, never one to be made.
	Established bool `json:"established,omitempty"`
	// Removed says of a host that belongs to no cluster when it was taken out of
	// one, and by whom.
	Removed string `json:"removed,omitempty"`
}

// claim writes the cluster's name on a host.
func (a *apply) claim(ih inventory.Host) phase.Phase {
	return a.mark("claim", ih, func() marker { return marker{Cluster: a.Cluster.Metadata.Name} })
}

// enrol writes the CA's fingerprint on a host.
func (a *apply) enrol(ih inventory.Host) phase.Phase {
	return a.mark("enrol", ih, func() marker {
		return marker{Cluster: a.Cluster.Metadata.Name, CASHA256: a.secrets.ca.Fingerprint()}
	})
}

// establish notes on a master that it has been part of a working cluster.
func (a *apply) establish(ih inventory.Host) phase.Phase {
	return a.mark("establish", ih, func() marker {
		return marker{Cluster: a.Cluster.Metadata.Name, CASHA256: a.secrets.ca.Fingerprint(), Established: true}
	})
}

// mark brings a host's marker up to what is known; what was noted before stays.
func (a *apply) mark(name string, ih inventory.Host, known func() marker) phase.Phase {
	removed := ""
	wanted := func(ctx context.Context) (host.Host, marker, bool, error) {
		h, err := a.host(ih.Name)
		if err != nil {
			return nil, marker{}, false, err
		}
		seen, err := readMarker(ctx, h)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, marker{}, false, err
		}
		if planned, ok := a.plannedMarker(ih.Name); ok {
			seen = planned
		}
		m := known()
		if seen.Cluster != "" && seen.Cluster != m.Cluster {
			return nil, marker{}, false, fmt.Errorf("the host belongs to cluster %s (%s)", seen.Cluster, markerFile)
		}
		if m.CASHA256 == "" {
			m.CASHA256 = seen.CASHA256
		}
		m.Established = m.Established || seen.Established
		removed = seen.Removed
		return h, m, m == seen, nil
	}
	return phase.Phase{
		Name: name, Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			_, _, same, err := wanted(ctx)
			return same, err
		},
		Do: func(ctx context.Context) error {
			h, m, _, err := wanted(ctx)
			if err != nil {
				return err
			}
			if removed != "" {
				phase.Tell(ctx, ih.Name+" was taken out by ha-install remove ("+removed+"); the inventory has it, so it joins again")
			}
			content, err := json.Marshal(m)
			if err != nil {
				return err
			}
			_, err = h.Upload(ctx, host.File{Path: markerFile, Mode: 0o644, Content: content})
			return err
		},
		Explain: func(ctx context.Context) ([]phase.Change, error) {
			h, m, _, err := wanted(ctx)
			if err != nil {
				return nil, err
			}
			return a.explainMarker(ctx, h, m)
		},
	}
}

func readMarker(ctx context.Context, h fileReader) (marker, error) {
	var m marker
	data, err := h.ReadFile(ctx, markerFile)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("%s: %w", markerFile, err)
	}
	return m, nil
}
