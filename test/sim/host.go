package sim

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/templates"
)

// File is a regular file on a host.
type File struct {
	Mode    fs.FileMode
	Content []byte
}

func (f File) sum() string {
	digest := sha256.Sum256(f.Content)
	return hex.EncodeToString(digest[:])
}

// Host is one machine. Its fields are for a test to prepare and to look at
// while no run is under way.
type Host struct {
	Files           map[string]File
	Packages        map[string]string // name -> dpkg's status
	PackageVersions map[string]string // by name; "" of those that came otherwise
	Units           map[string]*Unit
	Images          map[string]string // reference -> digest
	Sysctls         string            // what sysctl --system last read
	Reloaded        string            // the unit files that systemd last read
	Rules           int               // packet filter rules of a pod network
	Bridge          string            // the UID of the Node whose pod network it has; "" while there is none
	Aside           []string          // what was moved aside, by its old name
	// Lost is what was deleted or overwritten although it may hold a
	// cluster's data or keys. It must stay empty.
	Lost []string
	// Calls is what the host calls itself; default: what the inventory does.
	Calls string
	// Down makes every dial to a port of the host fail silently.
	Down bool
	// Clock is by how much the host's clock is ahead; Filled is how much of its
	// disks, of 40 GB with a quarter in use, is in use besides, in KiB.
	Clock  time.Duration
	Filled int
	// StepFails makes the step of that ID end with code 1, although it did all.
	StepFails string
	// KubeletDies is how often systemd has started a kubelet anew that does not
	// start; 0 for one that does.
	KubeletDies int
	// ReadOnly makes every write fail, as a broken disk does.
	ReadOnly bool
	// Mute keeps etcd from starting: the kubelet never gets it up.
	Mute bool
	// DpkgLocked is how often dpkg finds that another one is at work.
	DpkgLocked int
	// DoesNotStart is a version whose API server never comes up on the host.
	DoesNotStart string
	// NoEtcdutl is a host on which etcd's tool for its files is missing.
	NoEtcdutl bool
	// Unreadable are data that no etcd opens; Lags is by how many revisions those of
	// the host are behind the others.
	Unreadable bool
	Lags       int64
	// Behind keeps a learner from ever catching up with the leader.
	Behind bool

	// Carries are the VRRP packets on the host's link, from the IP header on.
	Carries [][]byte

	// Epoch is what the lock's fence on the host says; Journals are the lines
	// that operations noted, by their IDs.
	Epoch    string
	Journals map[string][]string

	holder  *lock       // who holds the host; nil for nobody
	by      host.Holder // who raised the epoch
	w       *World
	name    string
	address string
	servers map[string]*bufconn.Listener
	tunnels map[*tunnel]bool

	turn      int                  // of the balancer
	drained   map[string]bool      // servers that HAProxy sends nobody new to
	enables   map[string]time.Time // when a timer takes that back, by server
	off       bool                 // no power
	gone      bool                 // and for good
	lostData  string               // the ID of the member whose data were taken away
	boots     int
	lostUntil time.Time // the connection to it
	steps     map[string]*step
	// unfollowed are steps whose next look is answered with a lost connection.
	unfollowed map[string]bool

	failing       *failure  // what a drill has done to it; nil for nothing
	orphans       bool      // its containers run without their kubelet
	apiEnded      bool      // its API server was ended while there was no kubelet
	held          time.Time // until when its API server is stopped for a hand-over
	etcdHas       string    // the ID of the data that its etcd has open; "" while none runs
	etcdRuns      string    // the manifest that etcd was started from
	apiRuns       string    // the version that the API server was started in
	podsRead      string    // the files of /etc/kubernetes as they were when the pods began
	kubeletRuns   string    // the version that the kubelet was started in
	etcdBack      time.Time // until then it does not serve
	etcdUp        time.Time // since then it does; zero: for long
	waits         bool      // its etcd has seen no quorum since it started
	unheard       bool      // its etcd ended without handing over
	isolated      time.Time // its etcd was cut off from the others
	isolatedUntil time.Time
}

// Unit is a systemd service.
type Unit struct {
	Active  bool
	Enabled bool
	Runs    string   // the configuration that it read when it was started or reloaded
	peers   []string // keepalived's, by that configuration
	router  string   // its router ID
}

func newHost(w *World, ih inventory.Host) *Host {
	return &Host{
		Files: map[string]File{}, Packages: map[string]string{"dpkg": installed}, PackageVersions: map[string]string{}, Units: map[string]*Unit{}, Images: map[string]string{},
		Epoch: "0", Journals: map[string][]string{}, w: w, name: ih.Name, address: ih.IP().String(), servers: map[string]*bufconn.Listener{}, tunnels: map[*tunnel]bool{}, steps: map[string]*step{},
		drained: map[string]bool{}, enables: map[string]time.Time{},
	}
}

// Name is the host's name in the inventory.
func (h *Host) Name() string { return h.name }

// Close does nothing: connections are not what is simulated.
func (h *Host) Close() error { return nil }

// Put writes a file without a remote call, for preparing a host.
func (h *Host) Put(path string, mode fs.FileMode, content string) {
	h.Files[path] = File{mode, []byte(content)}
}

// ReadFile is host.Reader's.
func (h *Host) ReadFile(ctx context.Context, path string) (data []byte, err error) {
	err = h.call(ctx, "read "+path, false, 1, once(func() error {
		f, ok := h.Files[path]
		if !ok {
			return fmt.Errorf("%s: %s: %w", h.name, path, fs.ErrNotExist)
		}
		data = bytes.Clone(f.Content)
		return nil
	}))
	return data, err
}

// Stat is host.Reader's; a directory is there when something is in it.
func (h *Host) Stat(ctx context.Context, paths ...string) (seen map[string]host.FileInfo, err error) {
	seen = map[string]host.FileInfo{}
	err = h.call(ctx, "stat "+strings.Join(paths, " "), false, 1, once(func() error {
		for _, p := range paths {
			if f, ok := h.Files[p]; ok {
				seen[p] = host.FileInfo{Mode: f.Mode, Size: int64(len(f.Content)), Sum: f.sum()}
			} else if len(h.under(p)) > 0 {
				seen[p] = host.FileInfo{Mode: fs.ModeDir | 0o755}
			}
		}
		return nil
	}))
	if err != nil {
		return nil, err
	}
	return seen, nil
}

// under are the paths of the files at or below path, sorted.
func (h *Host) under(path string) []string {
	var found []string
	for p := range h.Files {
		if p == path || strings.HasPrefix(p, path+"/") {
			found = append(found, p)
		}
	}
	slices.Sort(found)
	return found
}

// Upload is host.Writer's.
func (h *Host) Upload(ctx context.Context, f host.File) (bool, error) {
	changed, err := h.UploadAll(ctx, []host.File{f})
	return len(changed) > 0, err
}

// UploadAll puts files in place in their order; cut half way, the first half
// of them is new and the rest is old, but none is torn.
func (h *Host) UploadAll(ctx context.Context, files []host.File) (changed []string, err error) {
	names := make([]string, len(files))
	contents := make([][]byte, len(files))
	for i, f := range files {
		if names[i], contents[i] = f.Path, f.Content; f.Open == nil {
			continue
		}
		if contents[i], err = readAll(f); err != nil {
			return nil, fmt.Errorf("%s: upload %s: %w", h.name, f.Path, err)
		}
	}
	err = h.call(ctx, "upload "+strings.Join(names, " "), true, len(files), func(i int) error {
		now := File{files[i].Mode, contents[i]}
		was, there := h.Files[files[i].Path]
		if there && was.Mode == now.Mode && bytes.Equal(was.Content, now.Content) {
			return nil
		}
		if there && !bytes.Equal(was.Content, now.Content) && h.precious(files[i].Path) {
			h.Lost = append(h.Lost, "overwrote "+files[i].Path)
		}
		h.Files[files[i].Path] = now
		changed = append(changed, files[i].Path)
		return nil
	})
	return changed, err
}

func readAll(f host.File) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err == nil && (File{Content: data}).sum() != f.Sum {
		err = fmt.Errorf("the sum is not %s", f.Sum)
	}
	return data, err
}

// precious says whether losing the file could lose a cluster: etcd's data, and
// keys once there is any.
func (h *Host) precious(path string) bool {
	if strings.HasPrefix(path, etcdDir+"/") {
		return !strings.HasPrefix(path, survivorDir+"/") // a copy
	}
	return strings.HasPrefix(path, pkiDir+"/") && h.w.anyData()
}

// anyData says whether any host holds etcd data.
func (w *World) anyData() bool {
	for _, h := range w.hosts {
		if len(h.under(etcdDir)) > 0 {
			return true
		}
	}
	return false
}

// MoveAside is host.Writer's.
func (h *Host) MoveAside(ctx context.Context, path string) (to string, err error) {
	err = h.call(ctx, "move aside "+path, true, 1, once(func() error {
		found := h.under(path)
		if len(found) == 0 {
			return nil
		}
		h.Aside = append(h.Aside, path)
		to = fmt.Sprintf("%s.ha-install-%d", path, len(h.Aside))
		for _, p := range found {
			h.Files[to+strings.TrimPrefix(p, path)] = h.Files[p]
			delete(h.Files, p)
		}
		if path == templates.CNIConfigDir { // containerd watches it, and ends when it is gone
			if u := h.Units["containerd.service"]; u != nil {
				u.Active = false
			}
		}
		return nil
	}))
	return to, err
}

// Entries lists what a directory holds, a path a line, but not what was moved aside.
func (h *Host) Entries(directory string) string {
	var found []string
	for _, p := range h.under(directory) {
		name, _, _ := strings.Cut(strings.TrimPrefix(p, directory+"/"), "/")
		if !strings.Contains(name, ".ha-install-") {
			found = append(found, directory+"/"+name+"\n")
		}
	}
	return strings.Join(slices.Compact(found), "")
}

// remove is rm -rf, which must not touch what is precious.
func (h *Host) remove(path string) {
	for _, p := range h.under(path) {
		if h.precious(p) || strings.Contains(p, ".ha-install-") {
			h.Lost = append(h.Lost, "deleted "+p)
		}
		delete(h.Files, p)
	}
}

// calls is the host's own name.
func (h *Host) calls() string { return cmp.Or(h.Calls, h.name) }

// DialContext leads to what listens there. It refuses at once where nothing
// does; a host that is down and an address that nobody has do not answer.
func (h *Host) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ip, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	at, to, err := h.route(ip, port)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	conn, err := to.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	t := &tunnel{conn, h, at}
	h.tunnels[t], at.tunnels[t] = true, true
	return t, nil
}

// route finds the host and the service that a connection from here ends at.
func (h *Host) route(ip, port string) (*Host, *bufconn.Listener, error) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if err := h.reach(context.Background()); err != nil {
		return nil, nil, err
	}
	if ip == h.w.vip && h.w.Outside != nil {
		return h.w.Outside.lead(h)
	}
	if strings.HasPrefix(ip, "10.244.") && port == "8080" {
		return h, h.server("pod", func(p *bufconn.Listener) {
			h.serveHTTP(p, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }), nil)
		}), nil
	}
	for _, other := range h.w.hosts {
		if ip == h.w.vip && other.HoldsVIP() {
			if at := h.w.behind(h); at != nil {
				return at, at.service("6443"), nil
			}
			return nil, nil, syscall.ECONNREFUSED
		}
		if (ip == other.address || ip == "127.0.0.1" && other == h) && !other.Down && !other.off {
			if to := other.service(port); to != nil {
				return other, to, nil
			}
			return nil, nil, syscall.ECONNREFUSED
		}
	}
	if at := net.JoinHostPort(ip, port); h.w.Strangers[at] != (Stranger{}) {
		return h, h.server("stranger at "+at, func(p *bufconn.Listener) { h.stranger(p, h.w.Strangers[at]) }), nil
	}
	return nil, nil, syscall.ETIMEDOUT
}
