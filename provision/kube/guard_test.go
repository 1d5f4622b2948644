package kube

import (
	"context"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestChangesAskBefore has a run that has lost its lock: it may look, and
// change nothing.
func TestChangesAskBefore(t *testing.T) {
	lost := errors.New("the lock is another's")
	api, client := newGuardedAPI(t, func(context.Context) error { return lost })
	setNode(api, "cp-1", "", nil)
	if _, err := client.CreateToken(t.Context(), time.Minute); !errors.Is(err, lost) {
		t.Errorf("a token: %v", err)
	}
	if err := client.DressNode(t.Context(), "cp-1", map[string]string{"a": "b"}, nil); !errors.Is(err, lost) {
		t.Errorf("a label: %v", err)
	}
	if err := client.CoreV1().Nodes().Delete(t.Context(), "cp-1", metav1.DeleteOptions{}); !errors.Is(err, lost) {
		t.Errorf("a deletion: %v", err)
	}
	if err := client.NodeReady(t.Context(), "cp-1"); err != nil {
		t.Errorf("looking is free: %v", err)
	}
	if secrets := api.Names("secrets"); len(secrets) > 0 {
		t.Errorf("secrets %q", secrets)
	}
}

// late is what a client's own time limit ends with.
type late struct{}

func (late) Error() string   { return "no answer in time" }
func (late) Timeout() bool   { return true }
func (late) Temporary() bool { return true }

func TestATokenIsTriedAgainWhenAnAnswerIsLate(t *testing.T) {
	for _, row := range []struct{ lateFor, tries int }{{0, 1}, {2, 3}, {9, 3}} {
		asked := 0
		_, client := newGuardedAPI(t, func(context.Context) error {
			if asked++; asked <= row.lateFor {
				return late{}
			}
			return nil
		})
		token, err := client.CreateToken(t.Context(), time.Minute)
		if made := row.lateFor < row.tries; asked != row.tries || made != (err == nil && token != "") {
			t.Errorf("late for %d tries: %d were made, error %v", row.lateFor, asked, err)
		}
	}
}
