package cmd

import (
	_ "filippo.io/age"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/google/go-containerregistry/pkg/v1"
	_ "github.com/hashicorp/go-multierror"
	_ "github.com/kevinburke/ssh_config"
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/pkg/sftp"
	_ "github.com/spf13/cobra"
	_ "go.etcd.io/etcd/client/v3"
	_ "go.yaml.in/yaml/v3"
	_ "golang.org/x/crypto/ssh"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/term"
	_ "k8s.io/client-go/kubernetes"
	_ "k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm/scheme"
	_ "k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm/v1beta4"
	_ "k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm/validation"
	_ "k8s.io/kubernetes/cmd/kubeadm/app/util/config"
	_ "sigs.k8s.io/yaml"
)
