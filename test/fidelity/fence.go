package fidelity

import (
	"context"
	"net"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/provision/kube"
)

// Scripts that claims about a master's etcd are played with. Their first argument
// tells its process from others; that of PutBack is where its data are.
const (
	EtcdStand = kube.ProcessFunction + kube.HoldsFunction + `stand='none runs'
for p in $(processes etcd "$1"); do
	if holds "$p"; then stand='runs with what is there'; else stand='runs with other data'; fi
done
echo "$stand"
`
	// EndEtcd ends the API server before: beside one that goes on, the kubelet needs
	// two minutes to bring etcd up. Its second argument tells that one's process.
	EndEtcd = kube.ProcessFunction + `kill -s KILL $(processes kube-apiserver "$2") $(processes etcd "$1")
while [ -n "$(processes etcd "$1")" ]; do sleep 0.1; done
`
	PutBack = `mv -T -- "$1" /var/lib/etcd/member
`
)

// fences are claims about what a restore stands on: which etcd runs, with which
// data, while there is no kubelet. A member is away for it, and comes back.
func fences() []Claim {
	return []Claim{{"an etcd goes on with data that are moved, and once it has ended no data bring it back but a kubelet does",
		[]string{"systemctl stop", "systemctl start", "move aside"}, leftAlone,
		"runs with what is there, done, runs with what is there, done, runs with other data, done, none runs, done, none runs, done, runs with what is there; done"}}
}

func leftAlone(ctx context.Context, s *Scene) string {
	ih, _ := s.Cluster.HostByName(s.Host.Name())
	argument, api := "--advertise-client-urls=https://"+net.JoinHostPort(ih.IP().String(), "2379"), "--advertise-address="+ih.IP().String()
	stands := func() string { return s.answers(ctx, []string{"sh", "-c", EtcdStand, "sh", argument}) }
	all := []string{stands(), s.run(ctx, "systemctl", "stop", "kubelet.service"), stands()}
	kept, err := s.Host.MoveAside(ctx, "/var/lib/etcd/member")
	all = append(all, seen(err), stands(), s.run(ctx, "sh", "-c", EndEtcd, "sh", argument, api), stands(), s.run(ctx, "sh", "-c", PutBack, "sh", kept))
	s.Pause(3 * time.Second)
	all = append(all, stands(), s.run(ctx, "systemctl", "start", "kubelet.service"))
	err, c := ctx.Err(), s.api(ctx)
	for last := ""; err == nil; s.Pause(200 * time.Millisecond) {
		if last = stands(); last != "runs with what is there" {
			err = ctx.Err()
			continue
		}
		if _, err = c.CoreV1().Namespaces().Get(ctx, "kube-system", metav1.GetOptions{}); err == nil { // it serves again
			return strings.Join(append(all, last), ", ") + "; " + seen(err)
		}
		err = ctx.Err()
	}
	return strings.Join(all, ", ") + "; " + seen(err)
}
