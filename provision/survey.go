package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/kube"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// hostFacts is what a host's disk says about the cluster, read before
// anything is decided.
type hostFacts struct {
	marker  marker
	etcd    bool   // an etcd manifest or data directory
	node    bool   // a kubelet was configured: the host is, or was, a Node
	version string // of the API server's manifest; "" for none
	// unreadable is why there is no version, although there is a manifest.
	unreadable error
	// exchanging: an upgrade has begun to exchange what runs here, and did not
	// come to its end.
	exchanging bool
	// balances: keepalived was configured, which says that the host holds the
	// VIP, or is ready to.
	balances bool
	routerID int // VRRP's, by that configuration
	// holdsVIP is asked only where who balances, or by which router ID, changes.
	holdsVIP bool
}

// beginning is where a run of apply starts from.
type beginning struct {
	// established: the cluster was up before; every master joins it, or has.
	established bool
	// first is where the cluster is made; without meaning once established.
	first inventory.Host
	// exists: an init has begun on first.
	exists bool
}

// ConflictError is an inventory that cannot be of the cluster that the hosts
// already form.
type ConflictError struct{ What, Why, Run string }

func (e *ConflictError) Error() string {
	return e.What + "\nwhy: " + e.Why + "\nrun: " + e.Run
}

// findFirst reads all hosts and decides where to begin.
func (a *apply) findFirst(ctx context.Context) error {
	facts, err := a.survey(ctx)
	if err != nil {
		return err
	}
	a.facts = facts
	if a.beginning, err = decideBeginning(a.Cluster, facts); err != nil {
		return err
	}
	return sameVersion(a.Cluster, facts)
}

func (a *apply) survey(ctx context.Context) (map[string]hostFacts, error) {
	var mu sync.Mutex
	facts := map[string]hostFacts{}
	err := a.onAll(ctx, a.Cluster.Spec.Hosts, func(ctx context.Context, ih inventory.Host, h host.Host) error {
		f, err := readFacts(ctx, h)
		if err == nil && f.balances && !a.Cluster.Balances(ih) && a.Cluster.Spec.LoadBalancer.VIP != "" {
			f.holdsVIP, err = holds(ctx, h, a.Cluster.Spec.LoadBalancer.VIP)
		}
		mu.Lock()
		defer mu.Unlock()
		facts[ih.Name] = f
		return err
	})
	if all := announcers(a.Cluster, facts); err == nil && len(misnumbered(a.Cluster, facts, all)) > 0 {
		err = a.onAll(ctx, all, func(ctx context.Context, ih inventory.Host, h host.Host) error {
			held, err := holds(ctx, h, a.Cluster.Spec.LoadBalancer.VIP)
			mu.Lock()
			defer mu.Unlock()
			f := facts[ih.Name]
			f.holdsVIP = held
			facts[ih.Name] = f
			return err
		})
	}
	return facts, err
}

func readFacts(ctx context.Context, h host.Reader) (hostFacts, error) {
	var f hostFacts
	var err error
	if f.marker, err = readMarker(ctx, h); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	seen, err := h.Stat(ctx, etcdManifest, etcdMember, kube.KubeletConfig, apiServerManifest, templates.KeepalivedPath, owedUpgrade)
	if err != nil {
		return f, err
	}
	_, manifest := seen[etcdManifest]
	_, data := seen[etcdMember]
	_, f.node = seen[kube.KubeletConfig]
	_, f.exchanging = seen[owedUpgrade]
	_, f.balances = seen[templates.KeepalivedPath]
	f.etcd = manifest || data
	if f.balances {
		config, err := h.ReadFile(ctx, templates.KeepalivedPath)
		if err != nil {
			return f, err
		}
		f.routerID = routerIDIn(config)
	}
	if _, ok := seen[apiServerManifest]; ok {
		pod, err := h.ReadFile(ctx, apiServerManifest)
		if err != nil {
			return f, err
		}
		f.version, f.unreadable = imageVersion(apiServerManifest, pod)
	}
	return f, nil
}

// imageVersion is the tag of a static pod's image.
func imageVersion(path string, manifest []byte) (string, error) {
	var pod corev1.Pod
	if err := yaml.Unmarshal(manifest, &pod); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	if len(pod.Spec.Containers) != 1 {
		return "", fmt.Errorf("%s: %d containers, want one", path, len(pod.Spec.Containers))
	}
	image := pod.Spec.Containers[0].Image
	return image[strings.LastIndex(image, ":")+1:], nil
}

// decideBeginning refuses an inventory that contradicts what its hosts say,
// and finds where the cluster is, or is to be made.
func decideBeginning(c *inventory.Cluster, facts map[string]hostFacts) (beginning, error) {
	b := beginning{first: c.ControlPlanes()[0]}
	if err := oneCA(c, facts); err != nil {
		return b, err
	}
	for _, h := range c.ControlPlanes() {
		f := facts[h.Name]
		b.established = b.established || f.marker.Established
		if f.etcd && !b.exists {
			b.first, b.exists = h, true
		}
	}
	if err := sameBalancers(c, facts, b); err != nil {
		return b, err
	}
	return b, noOrphans(c, facts, b)
}

// sameVersion refuses to apply another version than what runs, and to build on
// what an upgrade has left half done.
func sameVersion(c *inventory.Cluster, facts map[string]hostFacts) error {
	for _, h := range c.Nodes() {
		if facts[h.Name].exchanging {
			return &ConflictError{
				What: "an upgrade has begun with " + h.Name + " and did not come to its end",
				Why:  "what runs there may be of two versions, or not run at all",
				Run:  "ha-install upgrade with the inventory of that upgrade: it goes on with " + h.Name,
			}
		}
	}
	for _, h := range c.ControlPlanes() {
		if err := facts[h.Name].unreadable; err != nil {
			return onHost(h.Name, err)
		}
		if v := facts[h.Name].version; v != "" && v != c.Spec.Kubernetes.Version {
			return &ConflictError{
				What: fmt.Sprintf("%s runs Kubernetes %s, the inventory wants %s", h.Name, v, c.Spec.Kubernetes.Version),
				Why:  "apply does not change the version of a running cluster: an upgrade has an order of its own",
				Run:  "ha-install upgrade with this inventory; or set spec.kubernetes.version to " + v + " to go on with what runs",
			}
		}
	}
	return nil
}

// sameBalancers refuses a change of who balances that apply cannot make: it
// has to reach who holds the VIP now, for nobody else may take it meanwhile.
func sameBalancers(c *inventory.Cluster, facts map[string]hostFacts, b beginning) error {
	held := false // by one that is to
	for _, h := range c.Balancers() {
		held = held || facts[h.Name].balances
	}
	left := leaving(c, facts)
	refusal := &ConflictError{What: fmt.Sprintf("the inventory wants spec.loadBalancer.mode %s, the cluster has another one", c.Spec.LoadBalancer.Mode)}
	switch {
	case c.Spec.LoadBalancer.Mode == inventory.BalancerExternal && len(left) > 0:
		refusal.Why = fmt.Sprintf("%s balance with HAProxy and keepalived, and would go on holding the endpoint's address", strings.Join(namesOf(left), ", "))
		refusal.Run = "set spec.loadBalancer back to what the cluster was made with"
		return refusal
	case b.established && c.Spec.LoadBalancer.Mode == inventory.BalancerMasters && !held && len(left) == 0:
		refusal.Why = "no host of the inventory has keepalived: what holds " + c.Spec.LoadBalancer.VIP + " is elsewhere, and would go on holding it"
		refusal.Run = "leave the hosts with role load-balancer in the inventory until apply has taken their balancers off"
		return refusal
	}
	return nil
}

// leaving are the hosts of the cluster that balance and are not to any more,
// who holds the VIP last.
func leaving(c *inventory.Cluster, facts map[string]hostFacts) []inventory.Host {
	var left, holders []inventory.Host
	for _, h := range c.Spec.Hosts {
		switch f := facts[h.Name]; {
		case !f.balances || f.marker.Cluster != c.Metadata.Name || c.Balances(h):
		case f.holdsVIP:
			holders = append(holders, h)
		default:
			left = append(left, h)
		}
	}
	return append(left, holders...)
}

func namesOf(hosts []inventory.Host) []string {
	var names []string
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	return names
}

// oneCA refuses hosts that bear the same cluster's name and different CAs.
func oneCA(c *inventory.Cluster, facts map[string]hostFacts) error {
	sum, at := "", ""
	for _, h := range c.Spec.Hosts {
		m := facts[h.Name].marker
		if m.Cluster != c.Metadata.Name || m.CASHA256 == "" {
			continue
		}
		if sum != "" && m.CASHA256 != sum {
			return &ConflictError{
				What: fmt.Sprintf("%s and %s belong to two different clusters of the name %s", at, h.Name, c.Metadata.Name),
				Why:  fmt.Sprintf("their CA sets are %.12s and %.12s", sum, m.CASHA256),
				Run:  "ha-install reset with the inventory of the cluster that is to go, then apply again",
			}
		}
		sum, at = m.CASHA256, h.Name
	}
	return nil
}

// noOrphans refuses to make a cluster where workers or balancers already serve
// one whose masters the inventory does not have.
func noOrphans(c *inventory.Cluster, facts map[string]hostFacts, b beginning) error {
	if b.established || b.exists {
		return nil
	}
	for _, h := range c.ControlPlanes() {
		if facts[h.Name].marker.CASHA256 != "" {
			return nil // a run broke off before init
		}
	}
	var orphans []string
	for _, h := range c.Spec.Hosts {
		if f := facts[h.Name]; f.marker.Cluster == c.Metadata.Name && (f.marker.CASHA256 != "" || f.node) {
			orphans = append(orphans, h.Name)
		}
	}
	if len(orphans) == 0 {
		return nil
	}
	return &ConflictError{
		What: fmt.Sprintf("%s belong to a cluster %s already, but no master of the inventory does", strings.Join(orphans, ", "), c.Metadata.Name),
		Why:  "making a new cluster would take their balancers and workers away from the running one",
		Run:  "put the cluster's masters into the inventory, or reset these hosts with its old inventory first",
	}
}

// agree proves, before anything is changed, that a cluster that was up is
// whole, that its members are on hosts of the inventory, and that the
// inventory changes nothing that apply cannot change.
func (a *apply) agree() phase.Phase {
	p := phase.Phase{Name: "agree", Gate: []phase.Check{
		a.quorumWithin("before any change"),
		{Name: "the cluster's settings", Run: func(ctx context.Context) error {
			client, err := a.anyAPI(ctx)
			if err != nil {
				return err
			}
			cm, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, configMap, metav1.GetOptions{})
			if err != nil {
				return err
			}
			wanted, err := templates.ClusterConfiguration(a.Cluster, true)
			if err != nil {
				return phase.Final(err)
			}
			return phase.Final(sameSettings([]byte(cm.Data[configMapKey]), wanted))
		}},
	}}
	if _, bare := a.divide(a.Cluster.Nodes()); len(bare) > 0 {
		p.Gate = append(p.Gate, a.ledBeforeJoin())
		if a.external() {
			p.Gate = append(p.Gate, a.balancerFit())
		}
	}
	return p
}

// takeover is how long a component whose leader has died may go without one:
// the lease runs for 15 s.
const takeover = 25 * time.Second

// ledBeforeJoin refuses newcomers while all controller-managers or all
// schedulers are dead: their Nodes would be approved by nobody.
func (a *apply) ledBeforeJoin() phase.Check {
	led := a.leaders()
	return phase.Check{Name: led.Name, Run: func(ctx context.Context) error {
		waiting, cancel := context.WithTimeout(ctx, takeover)
		defer cancel()
		if err := phase.Wait(waiting, led); err != nil {
			return phase.Final(&UnledError{err})
		}
		return nil
	}}
}

// UnledError is a cluster in which every controller-manager or every
// scheduler is dead.
type UnledError struct{ Err error }

func (e *UnledError) Error() string {
	return "no host can join: a component of the control plane runs on no master\nwhy: " + e.Err.Error() +
		"\nrun: ha-install status, which shows the component on each master"
}

func (e *UnledError) Unwrap() error { return e.Err }

// fixedField is a setting by its names in a ClusterConfiguration and in an inventory.
type fixedField struct{ field, inventory string }

// fixed are the settings of a cluster that every certificate, kubeconfig and
// Service in it depends on.
var fixed = []fixedField{
	{"controlPlaneEndpoint", "spec.endpoint"},
	{"networking.podSubnet", "spec.network.podCIDR"},
	{"networking.serviceSubnet", "spec.network.serviceCIDR"},
	{"networking.dnsDomain", "spec.network.dnsDomain"},
}

// sameSettings compares two ClusterConfiguration documents in what apply
// cannot change on a running cluster; all differences are in one error.
func sameSettings(running, wanted []byte) error {
	differ, err := differentSettings(running, wanted, fixed)
	if err != nil || len(differ) == 0 {
		return err
	}
	return &ConflictError{
		What: "the inventory changes what a running cluster cannot change",
		Why:  strings.Join(differ, "\n     "),
		Run:  "set these fields back to what the cluster has",
	}
}

// differentSettings says in which of the fields two ClusterConfigurations differ.
func differentSettings(running, wanted []byte, fields []fixedField) (differ []string, err error) {
	var r, w map[string]any
	if err := yaml.Unmarshal(running, &r); err != nil {
		return nil, fmt.Errorf("ConfigMap %s: %w", configMap, err)
	}
	if err := yaml.Unmarshal(wanted, &w); err != nil {
		return nil, err
	}
	for _, f := range fields {
		if is, want := setting(r, f.field), setting(w, f.field); is != want {
			differ = append(differ, fmt.Sprintf("%s: the cluster has %s, the inventory wants %s", f.inventory, is, want))
		}
	}
	return differ, nil
}

func setting(m map[string]any, path string) string {
	keys := strings.Split(path, ".")
	for _, key := range keys[:len(keys)-1] {
		m, _ = m[key].(map[string]any)
	}
	s, _ := m[keys[len(keys)-1]].(string)
	return s
}
