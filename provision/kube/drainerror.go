package kube

import (
	"fmt"
	"strings"
	"time"
)

// BlockedPod is a pod that a drain could not move.
type BlockedPod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Budget    string `json:"budget,omitempty"` // the PodDisruptionBudget that holds it; more than one: "a, b"
	Why       string `json:"why"`
}

// DrainError is a Node that could not be drained.
type DrainError struct {
	Node  string
	Pods  []BlockedPod  // that are left, by namespace and name
	After time.Duration // how long it was tried; 0: it was refused, as Pods would be lost
	Err   error         // why the API could not be asked in the end; nil when it could
}

func (e *DrainError) Error() string {
	var b strings.Builder
	switch {
	case e.After == 0:
		fmt.Fprintf(&b, "%s: not drained: %s would be lost", e.Node, counted(len(e.Pods)))
	case len(e.Pods) == 0:
		fmt.Fprintf(&b, "%s: not drained within %s: which pods are left is not known", e.Node, e.After)
	default:
		fmt.Fprintf(&b, "%s: not drained within %s: %s left", e.Node, e.After, counted(len(e.Pods)))
	}
	for _, p := range e.Pods {
		fmt.Fprintf(&b, "\n  %s/%s: %s", p.Namespace, p.Name, p.Why)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, "\n  %s", e.Err)
	}
	fmt.Fprintf(&b, "\n  %s, then run the same command again", e.next())
	return b.String()
}

// next is what to do about the first pod that is left.
func (e *DrainError) next() string {
	if len(e.Pods) == 0 {
		return "see why the API does not answer"
	}
	p := e.Pods[0]
	for _, other := range e.Pods {
		if other.Budget != "" { // what holds several pods, and what the operator can change
			p = other
			break
		}
	}
	switch {
	case e.After == 0:
		return fmt.Sprintf("delete what may go (`kubectl -n %s delete pod %s`)", p.Namespace, p.Name)
	case p.Budget != "":
		budget, _, _ := strings.Cut(p.Budget, ", ")
		return fmt.Sprintf("see `kubectl -n %s describe poddisruptionbudget %s`: more replicas, or a budget that allows one pod less", p.Namespace, budget)
	default:
		return fmt.Sprintf("see `kubectl -n %s describe pod %s`", p.Namespace, p.Name)
	}
}

func (e *DrainError) Unwrap() error { return e.Err }

func counted(pods int) string {
	if pods == 1 {
		return "1 pod"
	}
	return fmt.Sprintf("%d pods", pods)
}
