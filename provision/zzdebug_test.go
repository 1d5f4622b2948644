package provision

import (
	"context"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/phase"
)

func TestZZ(t *testing.T) {
	c, dirs := testCluster(t), baseDirs(t)
	w := newWorld(t, c)
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	_, err := applyAll(ctx, w, c, dirs[0], nil, func(e phase.Event) { t.Log(e.Host, e.Phase, e.Kind, e.Elapsed, e.Message) })
	t.Log(err)
}
