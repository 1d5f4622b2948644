package kube

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
)

// joinGroup is the group that kubeadm's RBAC rules let read the cluster's
// configuration and ask for a kubelet certificate.
const joinGroup = "system:bootstrappers:kubeadm:default-node-token"

// tokenDescription marks our bootstrap tokens.
const tokenDescription = "made by ha-install for one join"

// tokenAlphabet is what kubeadm's token pattern allows.
const tokenAlphabet = "abcdefghijklmnopqrstuvwxyz0123456789"

// tokenTries is how often the making of a token is tried. An API server has a
// connection to etcd for each kind of object, and after a restart of etcd each
// comes back in its own time, /readyz or not: the first write may hang.
const tokenTries = 3

// CreateToken makes a bootstrap token that lives for ttl at most. It
// authenticates but does not sign cluster-info: our joins pin the CA by file.
func (c *Client) CreateToken(ctx context.Context, ttl time.Duration) (string, error) {
	id, secret := randomText(6), randomText(16)
	object := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: bootstrapapi.BootstrapTokenSecretPrefix + id,
		},
		Type: bootstrapapi.SecretTypeBootstrapToken,
		StringData: map[string]string{
			bootstrapapi.BootstrapTokenIDKey:               id,
			bootstrapapi.BootstrapTokenSecretKey:           secret,
			bootstrapapi.BootstrapTokenExpirationKey:       time.Now().UTC().Add(ttl).Format(time.RFC3339),
			bootstrapapi.BootstrapTokenUsageAuthentication: "true",
			bootstrapapi.BootstrapTokenExtraGroupsKey:      joinGroup,
			bootstrapapi.BootstrapTokenDescriptionKey:      tokenDescription,
		},
	}
	var err error
	for try := range tokenTries {
		_, err = c.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, object, metav1.CreateOptions{})
		if try > 0 && apierrors.IsAlreadyExists(err) { // an earlier try's answer was late
			err = nil
		}
		var late net.Error
		if ctx.Err() != nil || !errors.As(err, &late) || !late.Timeout() {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("creating a bootstrap token: %w", err)
	}
	return id + "." + secret, nil
}

// DeleteToken deletes one token; one that is gone already is no error.
func (c *Client) DeleteToken(ctx context.Context, token string) error {
	id, _, _ := strings.Cut(token, ".")
	err := c.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, bootstrapapi.BootstrapTokenSecretPrefix+id, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting the bootstrap token %s: %w", id, err)
	}
	return nil
}

// bootstrapTokens lists the bootstrap tokens that are ours, and those with the
// given descriptions. What others made for joins of their own stays.
func (c *Client) bootstrapTokens(ctx context.Context, descriptions []string) (*corev1.SecretList, error) {
	list, err := c.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{
		FieldSelector: "type=" + string(bootstrapapi.SecretTypeBootstrapToken),
	})
	if err != nil {
		return nil, fmt.Errorf("listing bootstrap tokens: %w", err)
	}
	list.Items = slices.DeleteFunc(list.Items, func(s corev1.Secret) bool {
		description := string(s.Data[bootstrapapi.BootstrapTokenDescriptionKey])
		return description != tokenDescription && !slices.Contains(descriptions, description)
	})
	return list, nil
}

// CountTokens counts the bootstrap tokens that DeleteTokens would delete.
func (c *Client) CountTokens(ctx context.Context, descriptions ...string) (int, error) {
	list, err := c.bootstrapTokens(ctx, descriptions)
	if err != nil {
		return 0, err
	}
	return len(list.Items), nil
}

// DeleteTokens deletes the bootstrap tokens that CreateToken made, and those
// with the given descriptions.
func (c *Client) DeleteTokens(ctx context.Context, descriptions ...string) error {
	list, err := c.bootstrapTokens(ctx, descriptions)
	if err != nil {
		return err
	}
	for _, s := range list.Items {
		if err := c.DeleteToken(ctx, strings.TrimPrefix(s.Name, bootstrapapi.BootstrapTokenSecretPrefix)); err != nil {
			return err
		}
	}
	return nil
}

// randomText draws n letters. 256 is not a multiple of 36, so bytes beyond the
// last full round are drawn again.
func randomText(n int) string {
	out := make([]byte, 0, n)
	limit := byte(256 / len(tokenAlphabet) * len(tokenAlphabet))
	for buf := make([]byte, 1); len(out) < n; {
		rand.Read(buf)
		if buf[0] < limit {
			out = append(out, tokenAlphabet[int(buf[0])%len(tokenAlphabet)])
		}
	}
	return string(out)
}
