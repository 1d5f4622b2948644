package fidelity

import (
	"context"
	"strings"

	"github.com/ha-install/ha-install/provision/kube"
)

// Scripts that the claim about a Node's pod network is played with.
const (
	MakeBridge = `set -eu
ip link add cni0 type bridge
mkdir -p /run/flannel
echo FLANNEL_SUBNET=10.244.0.1/24 >/run/flannel/subnet.env
`
	SeeBridge = `if [ -e /sys/class/net/cni0 ] && [ -e /run/flannel/subnet.env ]; then echo there; else echo gone; fi
`
)

func podNetworkEnds() Claim {
	return Claim{"a pod network is taken away, and one that is not there is no trouble", []string{"sh ... " + kube.EndPodNetwork()[3]}, func(ctx context.Context, s *Scene) string {
		end, look := kube.EndPodNetwork(), []string{"sh", "-c", SeeBridge}
		all := []string{s.run(ctx, "sh", "-c", MakeBridge), s.answers(ctx, look), s.run(ctx, end...), s.answers(ctx, look), s.run(ctx, end...)}
		return strings.Join(all, ", ")
	}, "done, there, done, gone, done"}
}
