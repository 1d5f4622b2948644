// Package kubeapi is an API server in memory, as far as the installer uses
// one: typed objects by path, label and field selectors, optimistic locking,
// server-side apply with dry run, eviction under budgets, discovery, /readyz and
// /metrics. It validates nothing of what the objects mean.
package kubeapi

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

// Object is one object as JSON has it.
type Object = map[string]any

// Server is the storage that all API servers of a cluster share.
type Server struct {
	// React, when set, is told of each write after it was stored and may
	// change the store with Set and Remove, as controllers do.
	React func(verb, resource, namespace, name string)

	// Metrics is what /metrics answers.
	Metrics string

	mu      sync.Mutex
	objects map[key]Object
	version int
	notOK   []string // parts of /readyz that are not
	fail    map[string]int
}

type key struct{ resource, namespace, name string }

// metrics is some of what every API server counts.
const metrics = `# HELP apiserver_request_total [STABLE] Counter of apiserver requests.
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="nodes",scope="resource",subresource="",verb="GET",version="v1"} 7
`

// New is an empty cluster with the namespaces that every cluster has.
func New() *Server {
	s := &Server{Metrics: metrics, objects: map[key]Object{}, fail: map[string]int{}}
	for _, name := range []string{"default", "kube-system", "kube-public"} {
		s.Set("namespaces", "", name, Object{})
	}
	return s
}

// Clone is a server with the same objects.
func (s *Server) Clone() *Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Server{Metrics: s.Metrics, objects: maps.Clone(s.objects), version: s.version, fail: map[string]int{}} // what is stored is never changed
}

// Clear makes the cluster empty again.
func (s *Server) Clear() {
	empty := New()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects = empty.objects
}

// Snapshot is the objects as lines of text, without what is drawn at random or
// counted. Of pods there are the names only.
func (s *Server) Snapshot() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := make([]string, 0, len(s.objects))
	for k, o := range s.objects {
		line := fmt.Sprintf("object %s %s/%s", k.resource, k.namespace, k.name)
		if k.resource != "pods" {
			o = copied(o)
			meta := o["metadata"].(Object)
			delete(meta, "uid")
			delete(meta, "resourceVersion")
			if data, ok := o["data"].(Object); ok {
				delete(data, "data-path") // a digest of UIDs
			}
			text, err := json.Marshal(o)
			if err != nil {
				panic(err)
			}
			line += " " + string(text)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// NotReady makes /readyz fail with the named parts; none makes it pass.
func (s *Server) NotReady(parts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notOK = parts
}

// Fail makes the next request of that kind ("PUT nodes", "POST pods/eviction")
// end with a code.
func (s *Server) Fail(verbAndResource string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[verbAndResource] = code
}

// Set stores an object; what it lacks of its metadata is filled in. v is an
// Object or a typed one.
func (s *Server) Set(resource, namespace, name string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var o Object
	if err := json.Unmarshal(data, &o); err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store(key{resource, namespace, name}, o)
}

// Get reads an object; nil when there is none.
func (s *Server) Get(resource, namespace, name string) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return copied(s.objects[key{resource, namespace, name}])
}

// Remove deletes an object.
func (s *Server) Remove(resource, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key{resource, namespace, name})
}

// Names are "namespace/name" of all objects of a resource, sorted.
func (s *Server) Names(resource string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for k := range s.objects {
		if k.resource == resource {
			names = append(names, k.namespace+"/"+k.name)
		}
	}
	slices.Sort(names)
	return names
}

// store gives the object the metadata of a stored one.
func (s *Server) store(k key, o Object) Object {
	meta, _ := o["metadata"].(Object)
	if meta == nil {
		meta = Object{}
		o["metadata"] = meta
	}
	s.version++
	meta["name"], meta["resourceVersion"] = k.name, strconv.Itoa(s.version)
	if k.namespace != "" {
		meta["namespace"] = k.namespace
	}
	if old := s.objects[k]; old != nil {
		meta["uid"] = old["metadata"].(Object)["uid"]
	} else if meta["uid"] == nil || meta["uid"] == "" {
		meta["uid"] = fmt.Sprintf("uid-%d", s.version)
	}
	delete(meta, "creationTimestamp")
	if k.resource == "secrets" {
		plainSecret(o)
	}
	if kind, ok := kinds[k.resource]; ok {
		o["kind"], o["apiVersion"] = kind.kind, kind.version
	}
	s.objects[k] = o
	return o
}

// copied is a deep copy.
func copied(o Object) Object {
	if o == nil {
		return nil
	}
	data, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	var out Object
	if err := json.Unmarshal(data, &out); err != nil {
		panic(err)
	}
	return out
}

// ServeHTTP is one API server.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	verb, at, answered := s.serve(w, r)
	s.mu.Unlock()
	if answered && s.React != nil && r.Method != http.MethodGet {
		s.React(verb, at.resource, at.namespace, at.name)
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) (string, key, bool) {
	if r.URL.Path == "/readyz" {
		s.readyz(w)
		return "", key{}, false
	}
	if r.URL.Path == "/metrics" {
		if s.failing(w, "GET metrics") {
			return "", key{}, false
		}
		fmt.Fprint(w, s.Metrics)
		return "", key{}, false
	}
	if at, ok := evicted(r); ok {
		if s.failing(w, r.Method+" pods/eviction") {
			return "", at, false
		}
		return http.MethodDelete, at, s.evict(w, r, at)
	}
	if s.discover(w, r.URL.Path) {
		return "", key{}, false
	}
	at, ok := parse(r.URL.Path)
	if !ok {
		status(w, http.StatusNotFound, "NotFound", r.URL.Path)
		return "", at, false
	}
	if s.failing(w, r.Method+" "+at.resource) {
		return "", at, false
	}
	if at.resource == "selfsubjectreviews" {
		whoAmI(w, r)
		return "", at, false
	}
	return r.Method, at, s.rest(w, r, at)
}

// failing answers a request that was made to Fail.
func (s *Server) failing(w http.ResponseWriter, verbAndResource string) bool {
	code := s.fail[verbAndResource]
	if code == 0 {
		return false
	}
	delete(s.fail, verbAndResource)
	status(w, code, map[int]string{http.StatusConflict: "Conflict", http.StatusForbidden: "Forbidden", http.StatusNotFound: "NotFound"}[code], "made to fail")
	return true
}

func (s *Server) readyz(w http.ResponseWriter) {
	if len(s.notOK) == 0 {
		fmt.Fprint(w, "ok")
		return
	}
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprint(w, "[+]ping ok\n")
	for _, part := range s.notOK {
		fmt.Fprintf(w, "[-]%s failed: reason withheld\n", part)
	}
	fmt.Fprint(w, "readyz check failed\n")
}

// parse splits /api/v1/namespaces/NS/RESOURCE/NAME and its relatives.
func parse(path string) (key, bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case len(parts) > 2 && parts[0] == "api":
		parts = parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		parts = parts[3:]
	default:
		return key{}, false
	}
	var k key
	if parts[0] == "namespaces" && len(parts) > 2 {
		k.namespace, parts = parts[1], parts[2:]
	}
	k.resource = parts[0]
	if len(parts) > 1 {
		k.name = parts[1]
	}
	// An approval is of the whole object.
	return k, len(parts) < 3 || len(parts) == 3 && k.resource == "certificatesigningrequests" && parts[2] == "approval"
}

func (s *Server) rest(w http.ResponseWriter, r *http.Request, at key) bool {
	body, err := read(r)
	if err != nil {
		status(w, http.StatusUnsupportedMediaType, "UnsupportedMediaType", err.Error())
		return false
	}
	old := s.objects[at]
	switch {
	case r.Method == http.MethodGet && at.name == "":
		reply(w, http.StatusOK, s.list(r, at))
		return true
	case r.Method == http.MethodPost:
		return s.create(w, at, body)
	case r.Method == http.MethodDelete && at.name == "":
		for _, o := range s.list(r, at)["items"].([]Object) {
			s.delete(key{at.resource, at.namespace, field(o, "metadata.name")})
		}
		reply(w, http.StatusOK, Object{"kind": "Status", "apiVersion": "v1", "status": "Success"})
		return true
	case old == nil && r.Method != http.MethodPatch:
		status(w, http.StatusNotFound, "NotFound", fmt.Sprintf("%s %q not found", at.resource, at.name))
		return false
	}
	switch r.Method {
	case http.MethodGet:
		reply(w, http.StatusOK, old)
	case http.MethodPut:
		version := field(body, "metadata.resourceVersion")
		if version != "" && version != field(old, "metadata.resourceVersion") {
			status(w, http.StatusConflict, "Conflict", "the object has been modified")
			return false
		}
		reply(w, http.StatusOK, s.store(at, body))
	case http.MethodDelete:
		s.delete(at)
		reply(w, http.StatusOK, Object{"kind": "Status", "apiVersion": "v1", "status": "Success"})
	case http.MethodPatch:
		return s.apply(w, r, at, old, body)
	default:
		status(w, http.StatusMethodNotAllowed, "MethodNotAllowed", r.Method)
		return false
	}
	return true
}

// read takes the body in either form that clients send; the typed ones choose
// protobuf.
func read(r *http.Request) (Object, error) {
	if r.Body == nil {
		return nil, nil
	}
	data, err := io.ReadAll(r.Body)
	if err != nil || len(data) == 0 {
		return nil, err
	}
	if r.Header.Get("Content-Type") == runtime.ContentTypeProtobuf {
		typed, _, err := scheme.Codecs.UniversalDeserializer().Decode(data, nil, nil)
		if err != nil {
			return nil, err
		}
		if data, err = json.Marshal(typed); err != nil {
			return nil, err
		}
	}
	var body Object
	err = json.Unmarshal(data, &body)
	return body, err
}

func (s *Server) create(w http.ResponseWriter, at key, body Object) bool {
	at.name = field(body, "metadata.name")
	if at.namespace != "" && s.objects[key{"namespaces", "", at.namespace}] == nil {
		status(w, http.StatusNotFound, "NotFound", fmt.Sprintf("namespaces %q not found", at.namespace))
		return false
	}
	if s.objects[at] != nil {
		status(w, http.StatusConflict, "AlreadyExists", fmt.Sprintf("%s %q already exists", at.resource, at.name))
		return false
	}
	reply(w, http.StatusCreated, s.store(at, body))
	return true
}

// delete takes a namespace's objects with it.
func (s *Server) delete(at key) {
	if s.ending(at) {
		return
	}
	delete(s.objects, at)
	if at.resource != "namespaces" {
		return
	}
	maps.DeleteFunc(s.objects, func(k key, _ Object) bool { return k.namespace == at.name })
}

// apply merges the body over the object; lists are replaced as a whole.
func (s *Server) apply(w http.ResponseWriter, r *http.Request, at key, old, body Object) bool {
	if r.Header.Get("Content-Type") != "application/apply-patch+yaml" || r.URL.Query().Get("fieldManager") == "" {
		status(w, http.StatusUnsupportedMediaType, "UnsupportedMediaType", r.Header.Get("Content-Type"))
		return false
	}
	if at.namespace != "" && s.objects[key{"namespaces", "", at.namespace}] == nil {
		status(w, http.StatusNotFound, "NotFound", fmt.Sprintf("namespaces %q not found", at.namespace))
		return false
	}
	merged := merge(copied(old), body)
	delete(merged["metadata"].(Object), "creationTimestamp")
	if old != nil && reflect.DeepEqual(copied(old), copied(merged)) {
		reply(w, http.StatusOK, old)
		return true
	}
	if r.URL.Query().Get("dryRun") == "All" {
		reply(w, http.StatusOK, merged)
		return false
	}
	reply(w, http.StatusOK, s.store(at, merged))
	return true
}

func merge(into, from Object) Object {
	if into == nil {
		into = Object{}
	}
	for k, v := range from {
		if below, ok := v.(Object); ok {
			at, _ := into[k].(Object)
			into[k] = merge(at, below)
			continue
		}
		into[k] = v
	}
	return into
}
