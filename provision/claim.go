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

// marker says which cluster a host belongs to. It is written before anything
// else, so that what a broken run leaves is never taken for another cluster's.
type marker struct {
	Cluster string `json:"cluster"`
}

// claim writes the marker.
func (a *apply) claim(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "claim", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			h, err := a.host(ih.Name)
			if err != nil {
				return false, err
			}
			m, err := readMarker(ctx, h)
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			return m.Cluster == a.Cluster.Metadata.Name, err
		},
		Do: func(ctx context.Context) error {
			h, err := a.host(ih.Name)
			if err != nil {
				return err
			}
			content, err := json.Marshal(marker{Cluster: a.Cluster.Metadata.Name})
			if err != nil {
				return err
			}
			_, err = h.Upload(ctx, host.File{Path: markerFile, Mode: 0o644, Content: content})
			return err
		},
	}
}

func readMarker(ctx context.Context, h host.Reader) (marker, error) {
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
