//go:build e2e

package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// clientOf is a client with a kubeconfig that the program wrote.
func clientOf(t *testing.T, kubeconfig string) *kubernetes.Clientset {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(config.Host, "https://"+theLab.VIP+":") {
		t.Errorf("the kubeconfig leads to %s, want the endpoint at %s", config.Host, theLab.VIP)
	}
	config.Timeout = 10 * time.Second
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// wantNodes wants exactly these nodes, all ready, seen with the program's
// kubeconfig through the endpoint.
func wantNodes(t *testing.T, inventory string, want []string) {
	t.Helper()
	list, err := clientOf(t, kubeconfigOf(t, inventory)).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, node := range list.Items {
		got = append(got, node.Name)
		for _, c := range node.Status.Conditions {
			if c.Type == "Ready" && c.Status != "True" {
				t.Errorf("node %s is not ready: %s: %s", node.Name, c.Reason, c.Message)
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("nodes %v, want %v", got, want)
	}
}

// servedFingerprint is that of the certificate served to a new connection.
// Whose it is, is what the caller compares.
func servedFingerprint(address string) (string, error) {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	conn, err := tls.DialWithDialer(dialer, "tcp", address, &tls.Config{InsecureSkipVerify: true}) // nothing is sent
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return fmt.Sprintf("%x", sha256.Sum256(conn.ConnectionState().PeerCertificates[0].Raw)), nil
}

// fingerprint is that of a certificate in a file.
func fingerprint(t *testing.T, file string) string {
	t.Helper()
	block, _ := pem.Decode([]byte(file))
	if block == nil {
		t.Fatalf("no certificate: %q", file)
	}
	return fmt.Sprintf("%x", sha256.Sum256(block.Bytes))
}
