//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// kubeconfigOfAUser wants the cluster to know the user by the certificate, with no
// right but those of anybody, and nothing to be left of the request.
func kubeconfigOfAUser(t *testing.T) {
	path, file := writeInventory(t, nil, nil), filepath.Join(t.TempDir(), "jane")
	ha(t, "kubeconfig", "user", "jane", "--group", "developers", "--group", "oncall", "--ttl", "1h", "--file", file, path).want(t, 0)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info, err)
	}
	client := clientOf(t, file)
	me, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if who := me.Status.UserInfo; who.Username != "jane" || !slices.Contains(who.Groups, "developers") || !slices.Contains(who.Groups, "oncall") {
		t.Errorf("the cluster knows %s of %q", who.Username, who.Groups)
	}
	if _, err := client.CoreV1().Secrets(corev1.NamespaceAll).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("listing Secrets: %v", err)
	}
	if left := kubectl(t, "get", "certificatesigningrequests", "-o", "name"); strings.Contains(left, "ha-install-user") {
		t.Errorf("requests are left: %s", left)
	}
}
