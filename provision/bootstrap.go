package provision

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

const (
	etcdManifest = kube.ManifestDir + "/etcd.yaml"
	etcdMember   = kube.EtcdDir + "/member"

	apiServerManifest = kube.ManifestDir + "/kube-apiserver.yaml"
)

// initialise runs kubeadm init on the first master. kubeadm init takes up what
// is already there (certificates, kubeconfigs, a running etcd), so a first run
// that broke off is simply run again, with its complaints about files and
// ports of the first run set aside.
func (a *apply) initialise() phase.Phase {
	ih := a.first
	return phase.Phase{
		Name: "init", Host: ih.Name,
		Done: func(ctx context.Context) (bool, error) { return a.initialised(ctx) },
		Do: func(ctx context.Context) error {
			h, err := a.host(ih.Name)
			if err != nil {
				return err
			}
			if a.exists {
				if err := a.onlyMember(ctx, ih); err != nil {
					return err
				}
			}
			documents, err := templates.InitDocuments(a.Cluster, ih, templates.Init{})
			if err != nil {
				return err
			}
			if _, err := h.Upload(ctx, host.File{Path: kube.InitConfig, Mode: 0o600, Content: documents}); err != nil {
				return err
			}
			args := []string{"--config", kube.InitConfig, "--skip-token-print", "--skip-certificate-key-print"}
			// Asked anew: an earlier try of this run may have begun it.
			facts, err := readFacts(ctx, h)
			if err != nil {
				return err
			}
			// Without a member in it, etcd's directory is a mount point at most.
			ignores := append([]string{"DirAvailable--var-lib-etcd"}, a.Cluster.Spec.Preflight.IgnoreErrors...)
			if facts.etcd {
				ignores = append(ignores, resumeIgnores()...)
			}
			args = append(args, "--ignore-preflight-errors", strings.Join(ignores, ","))
			return a.withBalancer(ctx, kube.Kubeadm(ctx, h, "init", sayIn(ctx), args...))
		},
		Gate:        []phase.Check{a.columnRuns(ih), a.quorumWithin("init "+ih.Name, a.first)},
		GateTimeout: joinGate,
		ForAll:      true,
		Explain:     a.explainInit,
	}
}

// resumeIgnores are kubeadm's complaints about what its own first run left.
func resumeIgnores() []string {
	ignores := []string{"Port-6443", "Port-10259", "Port-10257", "Port-10250", "Port-2379", "Port-2380"}
	for _, component := range kube.Components {
		ignores = append(ignores, "FileAvailable--etc-kubernetes-manifests-"+component+".yaml")
	}
	return ignores
}

// initialised says whether kubeadm init has run to its end: the last things it
// makes are the addons. It may have been on any master.
func (a *apply) initialised(ctx context.Context) (bool, error) {
	if !a.exists {
		return false, nil
	}
	client, err := a.anyAPI(ctx)
	if err != nil {
		return false, a.notInitialised(ctx, err)
	}
	for _, name := range []string{"kubeadm-config", "kubelet-config", "kube-proxy", "coredns"} {
		_, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// notInitialised tells an init that broke off before its API server was up
// from a cluster that is down: the second must not be initialised again.
func (a *apply) notInitialised(ctx context.Context, cause error) error {
	if err := a.onlyMember(ctx, a.first); err != nil {
		return errors.Join(err, cause)
	}
	return nil
}

// onlyMember is an error unless no other master than ih has anything of etcd.
func (a *apply) onlyMember(ctx context.Context, ih inventory.Host) error {
	var others []inventory.Host
	for _, m := range a.Cluster.ControlPlanes() {
		if m.Name != ih.Name {
			others = append(others, m)
		}
	}
	return a.onAll(ctx, others, func(ctx context.Context, _ inventory.Host, h host.Host) error {
		seen, err := h.Stat(ctx, etcdManifest, etcdMember)
		if err != nil {
			return err
		}
		if len(seen) > 0 {
			return fmt.Errorf("it has etcd data, and no API server of the cluster answers: this is a cluster that is down, not one to be made; run `ha-install status`")
		}
		return nil
	})
}

// sayIn reports the lines of a long command in the name of ctx's phase.
func sayIn(ctx context.Context) func(string) {
	return func(line string) { phase.Say(ctx, line) }
}

func tellIn(ctx context.Context) func(string) {
	return func(text string) { phase.Tell(ctx, text) }
}

// path resolves what the inventory names relative to itself.
func (s *Site) path(name string) string {
	if path.IsAbs(name) {
		return name
	}
	return path.Join(s.BaseDir, name)
}
