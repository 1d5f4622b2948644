package kube

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/keyutil"
)

// MinUserTTL is the shortest life of a client certificate that the API signs.
const MinUserTTL = 10 * time.Minute

const (
	signPoll   = 200 * time.Millisecond
	signBudget = 30 * time.Second
)

// IssueUser has the cluster sign a client certificate for a user in groups, good
// for ttl: the request is made, approved with the client's own rights, and taken
// away again. Certificate and key are PEM; the key is made here and goes nowhere.
func (c *Client) IssueUser(ctx context.Context, user string, groups []string, ttl time.Duration) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: user, Organization: groups}}, private)
	if err != nil {
		return nil, nil, err
	}
	if key, err = keyutil.MarshalPrivateKeyToPEM(private); err != nil {
		return nil, nil, err
	}
	if cert, err = c.sign(ctx, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}), ttl); err != nil {
		return nil, nil, fmt.Errorf("client certificate of %s: %w", user, err)
	}
	return cert, key, nil
}

func (c *Client) sign(ctx context.Context, request []byte, ttl time.Duration) (cert []byte, err error) {
	csrs := c.CertificatesV1().CertificateSigningRequests()
	seconds := int32(ttl / time.Second)
	csr, err := csrs.Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "ha-install-user-" + randomText(8)},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: request, SignerName: certificatesv1.KubeAPIServerClientSignerName, ExpirationSeconds: &seconds,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
		defer cancel()
		if removal := csrs.Delete(ctx, csr.Name, metav1.DeleteOptions{}); removal != nil && err == nil {
			err = fmt.Errorf("removing the request %s: %w", csr.Name, removal)
		}
	}()
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "HAInstallUser", Message: "asked for by ha-install kubeconfig user",
	})
	if csr, err = csrs.UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{}); err != nil {
		return nil, err
	}
	var last error
	name := csr.Name
	err = wait.PollUntilContextTimeout(ctx, signPoll, signBudget, true, func(ctx context.Context) (bool, error) {
		now, err := csrs.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			last = err
			return false, nil
		}
		for _, cond := range now.Status.Conditions {
			if cond.Type == certificatesv1.CertificateFailed || cond.Type == certificatesv1.CertificateDenied {
				return false, fmt.Errorf("%s: %s", cond.Type, cond.Message)
			}
		}
		cert = now.Status.Certificate
		return len(cert) > 0, nil
	})
	if wait.Interrupted(err) {
		err = fmt.Errorf("the controller-manager has not signed it; `ha-install status` shows who leads: %w", errors.Join(err, last))
	}
	return cert, err
}

// WhoAmI is whom the API server takes the client for, and the groups.
func (c *Client) WhoAmI(ctx context.Context) (user string, groups []string, err error) {
	r, err := c.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return "", nil, err
	}
	return r.Status.UserInfo.Username, r.Status.UserInfo.Groups, nil
}
