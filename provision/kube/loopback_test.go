package kube

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// to dials one address, whatever is asked for.
type to string

func (a to) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, string(a))
}

func TestComponentsSayHowTheyAre(t *testing.T) {
	for _, row := range []struct {
		name, body, want string
		code             int
	}{
		{"well", "ok", "", http.StatusOK},
		{"a part is not", "[+]ping ok\n[-]leaderElection failed: reason withheld\nhealthz check failed\n", "500 Internal Server Error: leaderElection", http.StatusInternalServerError},
		{"it says nothing that we know", "go away", "403 Forbidden: go away", http.StatusForbidden},
	} {
		s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/healthz" || r.Header.Get("Authorization") != "" {
				t.Errorf("%s asked with %v", r.URL, r.Header)
			}
			w.WriteHeader(row.code)
			_, _ = w.Write([]byte(row.body))
		}))
		defer s.Close()
		for name, ask := range map[string]func(context.Context, Dialer) error{"controller-manager": ControllerManagerHealthz, "scheduler": SchedulerHealthz} {
			err := ask(t.Context(), to(s.Listener.Addr().String()))
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: %s: %v, want %q", row.name, name, err, row.want)
			}
		}
	}
}
