package kubeapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// evict is POST pods/NAME/eviction, as far as budgets go: a pod that runs and
// that one PodDisruptionBudget guards is deleted only while the budget's status
// allows it, which counts down; more than one budget is an error. Nothing here
// makes the status of a budget out of its specification and the pods: that is
// the disruption controller's, for whoever plays the controllers.
func (s *Server) evict(w http.ResponseWriter, r *http.Request, at key) bool {
	body, err := read(r)
	if err != nil {
		status(w, http.StatusUnsupportedMediaType, "UnsupportedMediaType", err.Error())
		return false
	}
	var pod corev1.Pod
	if s.objects[at] == nil {
		status(w, http.StatusNotFound, "NotFound", fmt.Sprintf("pods %q not found", at.name))
		return false
	}
	typed(s.objects[at], &pod)
	if waits := pod.Status.Phase == corev1.PodPending; !waits && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed && pod.DeletionTimestamp == nil {
		if !s.spend(w, &pod) {
			return false
		}
	}
	if uid := field(body, "deleteOptions.preconditions.uid"); uid != "" && uid != string(pod.UID) {
		status(w, http.StatusConflict, "Conflict", "the UID in the precondition does not match the UID in record")
		return false
	}
	s.delete(at)
	reply(w, http.StatusCreated, Object{"kind": "Status", "apiVersion": "v1", "status": "Success"})
	return true
}

// spend takes one disruption off the pod's budget, or answers why not.
func (s *Server) spend(w http.ResponseWriter, pod *corev1.Pod) bool {
	var guards []key
	for k, o := range s.objects {
		if k.resource != "poddisruptionbudgets" || k.namespace != pod.Namespace {
			continue
		}
		var b policyv1.PodDisruptionBudget
		typed(o, &b)
		if selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && selector.Matches(labels.Set(pod.Labels)) {
			guards = append(guards, k)
		}
	}
	if len(guards) == 0 {
		return true
	}
	if len(guards) > 1 {
		status(w, http.StatusInternalServerError, "", "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.")
		return false
	}
	var b policyv1.PodDisruptionBudget
	typed(s.objects[guards[0]], &b)
	if b.Status.DisruptionsAllowed == 0 {
		why := fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, b.Status.DesiredHealthy, b.Status.CurrentHealthy)
		reply(w, http.StatusTooManyRequests, Object{
			"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": http.StatusTooManyRequests, "reason": "TooManyRequests",
			"message": "Cannot evict pod as it would violate the pod's disruption budget.",
			"details": Object{"causes": []Object{{"reason": policyv1.DisruptionBudgetCause, "message": why}}},
		})
		return false
	}
	o := copied(s.objects[guards[0]])
	o["status"].(Object)["disruptionsAllowed"] = b.Status.DisruptionsAllowed - 1
	s.store(guards[0], o)
	return true
}

// typed reads a stored object.
func typed(o Object, into any) {
	data, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		panic(err)
	}
}

// evicted is the pod of an eviction's path.
func evicted(r *http.Request) (key, bool) {
	path, ok := strings.CutSuffix(r.URL.Path, "/eviction")
	if !ok || r.Method != http.MethodPost {
		return key{}, false
	}
	return parse(path)
}

// ending says that the object has finalizers: it is marked, and stays until
// whoever has set them removes it.
func (s *Server) ending(at key) bool {
	o := copied(s.objects[at])
	if o == nil {
		return false
	}
	meta := o["metadata"].(Object)
	if finalizers, _ := meta["finalizers"].([]any); len(finalizers) == 0 {
		return false
	}
	if meta["deletionTimestamp"] == nil {
		meta["deletionTimestamp"] = time.Now().UTC().Format(time.RFC3339)
		s.store(at, o)
	}
	return true
}
