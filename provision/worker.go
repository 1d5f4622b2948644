package provision

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// tokenLife is the longest that one join may take; the token is deleted when
// it ends, this bound is for an installer that dies.
const tokenLife = 20 * time.Minute

// joinWorker joins a worker; workers may join all at once.
func (a *apply) joinWorker(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "join", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) {
			h, err := a.host(ih.Name)
			if err != nil {
				return false, err
			}
			seen, err := h.Stat(ctx, kube.KubeletConf)
			if err != nil || len(seen) == 0 {
				return false, err
			}
			client, err := a.anyAPI(ctx)
			if err != nil {
				return false, err
			}
			_, err = client.CoreV1().Nodes().Get(ctx, ih.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return false, nil
			}
			return err == nil, err
		},
		Needs: []phase.Check{a.endpointFrom(ih)},
		Do: func(ctx context.Context) error {
			h, err := a.host(ih.Name)
			if err != nil {
				return err
			}
			// What a broken join left on a worker holds no data of the cluster.
			if seen, err := h.Stat(ctx, kube.KubeletConf, kube.BootstrapKubeletConf); err != nil {
				return err
			} else if running, err := kube.StepRunning(ctx, h, "kubeadm-join"); err != nil {
				return err
			} else if len(seen) > 0 && !running {
				if err := cleanNode(ctx, h); err != nil {
					return err
				}
			}
			return a.kubeadmJoin(ctx, ih)
		},
		Gate:        []phase.Check{a.kubeletHealthy(ih), a.nodeRegistered(ih)},
		GateTimeout: joinGate,
		After:       []string{"init"},
		Explain:     func(ctx context.Context) ([]phase.Change, error) { return a.explainJoinWorker(ctx, ih) },
		Foresee: func(ctx context.Context, _ []string) (phase.State, []phase.Change, error) {
			changes, err := a.explainJoinWorker(ctx, ih)
			return phase.ToChange, changes, err
		},
	}
}

// nodeRegistered waits for a host's Node to be there: kubeadm join ends when
// the kubelet has its certificate, some time before it registers.
func (s *Site) nodeRegistered(ih inventory.Host) phase.Check {
	return phase.Check{Name: "node " + ih.Name + " to register", Run: func(ctx context.Context) error {
		client, err := s.anyAPI(ctx)
		if err != nil {
			return err
		}
		_, err = client.CoreV1().Nodes().Get(ctx, ih.Name, metav1.GetOptions{})
		return err
	}}
}

func (a *apply) kubeadmJoin(ctx context.Context, ih inventory.Host) error {
	return a.withToken(ctx, ih, func(h host.Host) error {
		return kube.Kubeadm(ctx, h, "join", sayIn(ctx), "--config", kube.JoinConfig)
	})
}

// withToken puts the join documents on the host with a token made for this one
// join; both token and file are gone afterwards, also when do failed.
func (a *apply) withToken(ctx context.Context, ih inventory.Host, do func(host.Host) error) (err error) {
	h, err := a.host(ih.Name)
	if err != nil {
		return err
	}
	client, err := a.anyAPI(ctx)
	if err != nil {
		return err
	}
	token, err := client.CreateToken(ctx, tokenLife)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
		defer cancel()
		_, removal := h.Run(ctx, host.Command{Argv: []string{"rm", "-f", kube.DiscoveryFile}})
		err = errors.Join(err, client.DeleteToken(ctx, token), removal)
	}()
	documents, err := templates.JoinDocuments(a.Cluster, ih, templates.Join{DiscoveryFile: kube.DiscoveryFile})
	if err != nil {
		return err
	}
	discovery, err := templates.DiscoveryKubeconfig(a.Cluster, a.endpoint(), a.secrets.ca.CAPEM(), token)
	if err != nil {
		return err
	}
	err = putFiles(ctx, h, []host.File{
		{Path: kube.JoinConfig, Mode: 0o600, Content: documents},
		{Path: kube.DiscoveryFile, Mode: 0o600, Content: discovery, Secret: true},
	})
	if err != nil {
		return err
	}
	return do(h)
}

// sweepTokens deletes what joins of killed runs left behind: tokens in the
// cluster, and on workers the file that held one.
func (a *apply) sweepTokens() phase.Phase {
	return phase.Phase{
		Name: "tokens",
		Done: func(ctx context.Context) (bool, error) {
			client, err := a.anyAPI(ctx)
			if err != nil {
				return false, err
			}
			if n, err := client.CountTokens(ctx, templates.InitTokenDescription); err != nil || n > 0 {
				return false, err
			}
			var left atomic.Bool
			err = a.onAll(ctx, a.Cluster.Workers(), func(ctx context.Context, _ inventory.Host, h host.Host) error {
				seen, err := h.Stat(ctx, kube.DiscoveryFile)
				if len(seen) > 0 {
					left.Store(true)
				}
				return err
			})
			return !left.Load(), err
		},
		Do: func(ctx context.Context) error {
			client, err := a.anyAPI(ctx)
			if err != nil {
				return err
			}
			if err := client.DeleteTokens(ctx, templates.InitTokenDescription); err != nil {
				return err
			}
			return a.onAll(ctx, a.Cluster.Workers(), func(ctx context.Context, _ inventory.Host, h host.Host) error {
				return runAll(ctx, h, []string{"rm", "-f", kube.DiscoveryFile})
			})
		},
		After:   []string{"init", "kubeadm-config"},
		Explain: func(context.Context) ([]phase.Change, error) { return explainTokens(), nil },
		// kubeadm makes one, whatever its configuration says.
		Foresee: func(context.Context, []string) (phase.State, []phase.Change, error) {
			return phase.ToChange, explainTokens(), nil
		},
	}
}
