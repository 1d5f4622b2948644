package kube

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/ha-install/ha-install/provision/host"
)

// KubeletError is a kubelet that ends as often as systemd starts it.
type KubeletError struct {
	Host   string
	Deaths int
}

func (e *KubeletError) Error() string {
	return fmt.Sprintf("%s: the kubelet does not start: it has ended %d times in a row, and nothing runs on the host without it\n  see `journalctl -u kubelet.service` on %s, then apply again",
		e.Host, e.Deaths, e.Host)
}

// KubeletDeaths is how often systemd has started the kubelet anew since it was
// last started by hand.
func KubeletDeaths(ctx context.Context, h host.Reader) (int, error) {
	out, err := h.Query(ctx, "systemctl", "show", "--property", "NRestarts", "--value", "kubelet.service")
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return 0, fmt.Errorf("%s: how often the kubelet was started anew: %w", h.Name(), err)
	}
	return n, nil
}
