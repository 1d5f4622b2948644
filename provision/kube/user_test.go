package kube

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/ha-install/ha-install/test/kubeapi"
)

// signs plays the controller-manager: what is approved for clients is signed, or
// ends as the condition says.
func signs(t *testing.T, api *kubeapi.Server, ends certificatesv1.RequestConditionType) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	api.React = func(verb, resource, _, name string) {
		object := api.Get(resource, "", name)
		if resource != "certificatesigningrequests" || verb != "PUT" || object == nil {
			return
		}
		data, err := json.Marshal(object)
		if err != nil {
			t.Error(err)
		}
		var csr certificatesv1.CertificateSigningRequest
		if err := json.Unmarshal(data, &csr); err != nil {
			t.Error(err)
		}
		if len(csr.Status.Conditions) != 1 || csr.Status.Conditions[0].Type != certificatesv1.CertificateApproved || csr.Spec.SignerName != "kubernetes.io/kube-apiserver-client" {
			t.Errorf("not an approval for a client: %+v, %s", csr.Status, csr.Spec.SignerName)
		}
		if ends != "" {
			csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: ends, Message: "no such signer"})
			api.Set(resource, "", name, csr)
			return
		}
		block, _ := pem.Decode(csr.Spec.Request)
		request, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			t.Error(err)
			return
		}
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(2), Subject: request.Subject, NotAfter: time.Now().Add(time.Duration(*csr.Spec.ExpirationSeconds) * time.Second),
		}, ca, request.PublicKey, key)
		if err != nil {
			t.Error(err)
		}
		csr.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		api.Set(resource, "", name, csr)
	}
}

func TestIssueUser(t *testing.T) {
	api, client := newAPI(t)
	signs(t, api, "")
	cert, key, err := client.IssueUser(t.Context(), "jane", []string{"developers", "oncall"}, 8*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if s := pair.Leaf.Subject; s.CommonName != "jane" || !slices.Equal(slices.Sorted(slices.Values(s.Organization)), []string{"developers", "oncall"}) {
		t.Errorf("subject %s", s)
	}
	if left := time.Until(pair.Leaf.NotAfter); left > 8*time.Hour || left < 8*time.Hour-time.Minute {
		t.Errorf("good for %s", left)
	}
	if left := api.Names("certificatesigningrequests"); len(left) > 0 {
		t.Errorf("requests are left: %q", left)
	}
}

func TestIssueUserThatIsNotSigned(t *testing.T) {
	api, client := newAPI(t)
	signs(t, api, certificatesv1.CertificateFailed)
	_, _, err := client.IssueUser(t.Context(), "jane", nil, time.Hour)
	if err == nil || !strings.Contains(err.Error(), "client certificate of jane: Failed: no such signer") {
		t.Errorf("error %v", err)
	}
	api.React = nil // no controller-manager
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, _, err = client.IssueUser(ctx, "jane", nil, time.Hour)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "has not signed it") {
		t.Errorf("error %v", err)
	}
	if left := api.Names("certificatesigningrequests"); len(left) > 0 {
		t.Errorf("requests are left: %q", left)
	}
	// No key leaves this process.
	signs(t, api, "")
	if _, key, err := client.IssueUser(t.Context(), "joe", nil, time.Hour); err != nil || strings.Contains(api.Snapshot(), base64.StdEncoding.EncodeToString(key)) {
		t.Errorf("the key was sent, or error %v", err)
	}
}
