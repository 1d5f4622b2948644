package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Ask is what the member on one host of the inventory says of itself now, over
// the host's own connection alone.
func (m *Members) Ask(ctx context.Context, host string) (Status, error) {
	at := slices.IndexFunc(m.targets, func(t Target) bool { return t.Name == host })
	if at < 0 {
		return Status{}, fmt.Errorf("%s: not a master of the inventory", host)
	}
	a := m.try(ctx, m.targets[at].ClientURL, m.targets[at])
	if a.status == nil {
		return Status{}, fmt.Errorf("%s: etcd: %w", host, errors.New(a.attempt.Err))
	}
	return *a.status, nil
}
