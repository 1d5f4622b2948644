package provision

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/test/sim"
)

// signing has the controller-manager sign what is approved, with the CA of cp-1, for
// the name that is asked for or another one.
func signing(t *testing.T, w *sim.World, as string) {
	w.API.React = func(verb, resource, _, name string) {
		object := w.API.Get(resource, "", name)
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
		block, _ := pem.Decode(csr.Spec.Request)
		request, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			t.Error(err)
			return
		}
		h := w.Host("cp-1")
		ca, err := tls.X509KeyPair(h.Files[kube.PKIDir+"/ca.crt"].Content, h.Files[kube.PKIDir+"/ca.key"].Content)
		if err != nil {
			t.Error(err)
			return
		}
		if as != "" {
			request.Subject.CommonName = as
		}
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(2), Subject: request.Subject, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Duration(*csr.Spec.ExpirationSeconds) * time.Second),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}, ca.Leaf, request.PublicKey, ca.PrivateKey)
		if err != nil {
			t.Error(err)
		}
		csr.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		w.API.Set(resource, "", name, csr)
	}
}

func TestUserKubeconfigIsKnownAtTheEndpoint(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start := finished(t, c, c, dirs[0])
	for name, row := range map[string]struct {
		spoil func(w *sim.World)
		as    string
		want  string // of the error; "" for none
	}{
		"a cluster that is well":  {func(*sim.World) {}, "", ""},
		"the first master is off": {func(w *sim.World) { w.Destroy("cp-1") }, "", ""},
		"nobody balances":         {func(w *sim.World) { w.Destroy("lb-1"); w.Destroy("lb-2") }, "", "cp-1: the certificate of jane was signed and is thrown away: the endpoint"},
		"another name was signed": {func(*sim.World) {}, "joe", `takes its bearer for "joe"`},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				row.spoil(w)
				signing(t, w, row.as)
				site := Connect(t.Context(), c, dirs[0], w.Dial)
				defer site.Close()
				issued, err := UserKubeconfig(t.Context(), site, "jane", []string{"developers", "oncall"}, 8*time.Hour)
				if row.want != "" {
					if err == nil || !strings.Contains(err.Error(), row.want) || issued.Config != nil {
						t.Errorf("error %v, want %q", err, row.want)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if left := time.Until(issued.NotAfter); left > 8*time.Hour || left < 8*time.Hour-time.Minute {
					t.Errorf("good for %s", left)
				}
				at := issued.Config.Contexts[issued.Config.CurrentContext]
				if issued.Config.CurrentContext != "jane@prod" || at.AuthInfo != "jane@prod" || issued.Config.Clusters[at.Cluster].Server != "https://"+site.endpoint() {
					t.Errorf("context %q leads to %+v", issued.Config.CurrentContext, issued.Config.Clusters[at.Cluster])
				}
				if left := w.API.Names("certificatesigningrequests"); len(left) > 0 {
					t.Errorf("requests are left: %q", left)
				}
				key := string(issued.Config.AuthInfos[at.AuthInfo].ClientKeyData)
				if key == "" || strings.Contains(w.Snapshot(nil), strings.Split(key, "\n")[1]) {
					t.Error("the key is on a host")
				}
			})
		})
	}
}
