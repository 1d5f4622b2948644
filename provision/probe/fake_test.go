package probe_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// fakeAPI keeps ConfigMaps and misbehaves when told. Requests that it does not
// know fail the test.
type fakeAPI struct {
	t      *testing.T
	server *httptest.Server

	mu          sync.Mutex
	objects     map[string]corev1.ConfigMap
	revision    int
	connections int
	// behave is asked for the write of number n and returns how it ends.
	behave func(n int) behaviour
	writes int
	lists  int
	gets   int
	// hangGets are the reads that get no answer.
	hangGets []int
	// failLists makes the first lists answer 503.
	failLists int
	// failRemovals makes the first removals answer 500.
	failRemovals int
	// removalTakes is how long each removal takes.
	removalTakes time.Duration
	// copies are stored beside each write: many objects, without the time to write them.
	copies   int
	removals int
}

type behaviour int

const (
	store       behaviour = iota
	unavailable           // 503 with Retry-After
	hang                  // no answer
	forget                // acknowledge without storing
	goBack                // store, and answer with an old resourceVersion
)

func newFakeAPI(t *testing.T, behave func(n int) behaviour) *fakeAPI {
	f := &fakeAPI{t: t, objects: map[string]corev1.ConfigMap{}, revision: 100, behave: behave}
	f.server = httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	f.server.EnableHTTP2 = true
	f.server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			f.mu.Lock()
			f.connections++
			f.mu.Unlock()
		}
	}
	f.server.StartTLS()
	t.Cleanup(f.server.Close)
	return f
}

// now makes it behave otherwise from now on.
func (f *fakeAPI) now(behave func(n int) behaviour) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.behave = behave
}

func (f *fakeAPI) rest() *rest.Config {
	return &rest.Config{Host: f.server.URL, BearerToken: "token", TLSClientConfig: rest.TLSClientConfig{CAData: pemOf(f.server)}}
}

func (f *fakeAPI) serve(w http.ResponseWriter, r *http.Request) {
	const collection = "/api/v1/namespaces/default/configmaps"
	if name, one := strings.CutPrefix(r.URL.Path, collection+"/"); one && r.Method == http.MethodGet {
		f.get(w, r, name)
		return
	}
	if r.URL.Path != collection || r.Header.Get("Authorization") != "Bearer token" {
		f.t.Errorf("unexpected request: %s %s", r.Method, r.URL)
		w.WriteHeader(http.StatusNotFound)
		return
	}
	switch r.Method {
	case http.MethodPost:
		f.create(w, r)
	case http.MethodGet:
		f.list(w, r)
	case http.MethodDelete:
		f.remove(w, r)
	default:
		f.t.Errorf("unexpected request: %s %s", r.Method, r.URL)
	}
}

// remove deletes as many of a probe's objects as the request allows.
func (f *fakeAPI) remove(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	time.Sleep(f.removalTakes)
	f.removals++
	if f.removals <= f.failRemovals {
		answer(w, http.StatusInternalServerError, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: 500, Message: "etcdserver: request timed out"})
		return
	}
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil {
		f.t.Errorf("a removal without a limit: an API server would give it up half way: %s", r.URL)
	}
	for _, o := range f.selected(r) {
		if limit--; limit < 0 {
			break
		}
		delete(f.objects, o.Name)
	}
	answer(w, http.StatusOK, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess})
}

// selected are the objects that a request's label selects.
func (f *fakeAPI) selected(r *http.Request) (out []corev1.ConfigMap) {
	key, value, _ := strings.Cut(r.URL.Query().Get("labelSelector"), "=")
	for _, o := range f.objects {
		if o.Labels[key] == value {
			out = append(out, o)
		}
	}
	return out
}

func (f *fakeAPI) create(w http.ResponseWriter, r *http.Request) {
	var object corev1.ConfigMap
	if err := json.NewDecoder(r.Body).Decode(&object); err != nil {
		f.t.Errorf("write: %v", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	n, err := strconv.Atoi(object.Data["counter"])
	if err != nil {
		f.t.Errorf("write: %v", err)
	}
	how := f.behave(n)
	f.revision++
	object.ResourceVersion = fmt.Sprint(f.revision)
	switch how {
	case unavailable:
		w.Header().Set("Retry-After", "1")
		answer(w, http.StatusServiceUnavailable, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: 503, Message: "starting"})
		return
	case hang:
		f.mu.Unlock()
		select {
		case <-r.Context().Done():
		case <-time.After(5 * time.Second):
		}
		f.mu.Lock()
		return
	case goBack:
		object.ResourceVersion = "7"
	}
	if how != forget {
		f.objects[object.Name] = object
	}
	for i := range f.copies {
		object := object
		object.Name += fmt.Sprintf("-copy-%d", i)
		f.objects[object.Name] = object
	}
	answer(w, http.StatusCreated, object)
}

func (f *fakeAPI) get(w http.ResponseWriter, r *http.Request, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gets++
	object, found := f.objects[name]
	if slices.Contains(f.hangGets, f.gets) {
		f.mu.Unlock()
		select {
		case <-r.Context().Done():
		case <-time.After(5 * time.Second):
		}
		f.mu.Lock()
		return
	}
	if !found {
		answer(w, http.StatusNotFound, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: 404, Message: "not found"})
		return
	}
	answer(w, http.StatusOK, object)
}

func (f *fakeAPI) list(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	if f.lists <= f.failLists {
		answer(w, http.StatusForbidden, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: 403, Message: "not yet"})
		return
	}
	out := corev1.ConfigMapList{Items: f.selected(r)}
	if r.URL.Query().Get("limit") == "1" && len(out.Items) > 1 { // other pages are large enough here
		out.Items = out.Items[:1]
	}
	answer(w, http.StatusOK, out)
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(body)
}
