package provision

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
)

var actionNames = map[joinAction]string{
	joinFresh: "fresh", joinNothing: "nothing", joinTakeBack: "take back", joinPromote: "promote", joinFinish: "finish", joinRefuse: "refuse",
}

func TestJoinAction(t *testing.T) {
	voter := &etcd.Member{ID: 1, Role: etcd.Voter}
	learner := &etcd.Member{ID: 2, Role: etcd.Learner}
	unstarted := &etcd.Member{ID: 3, Role: etcd.Learner, Unnamed: true}
	rows := []struct {
		name string
		f    joinFacts
		want joinAction
	}{
		{"a bare host is joined", joinFacts{}, joinFresh},
		{"a bare host whose Node is still listed is joined", joinFacts{node: true}, joinFresh},
		{"a voter with its data and its mark is a master", joinFacts{member: voter, data: true, manifest: true, node: true}, joinNothing},
		{"a voter that was never marked is finished", joinFacts{member: voter, data: true, manifest: true}, joinFinish},
		{"a voter without its data is refused, whatever else is there", joinFacts{member: voter, manifest: true, node: true}, joinRefuse},
		{"a voter on a host that was wiped is refused", joinFacts{member: voter}, joinRefuse},
		{"a learner that runs gets its vote", joinFacts{member: learner, data: true, manifest: true}, joinPromote},
		{"a learner whose data is not there yet is taken back", joinFacts{member: learner, manifest: true}, joinTakeBack},
		{"a learner whose manifest was never written is taken back", joinFacts{member: learner}, joinTakeBack},
		{"a learner that never started is taken back", joinFacts{member: unstarted, data: true, manifest: true}, joinTakeBack},
		{"data of a member that was removed is taken back", joinFacts{data: true, manifest: true}, joinTakeBack},
		{"a manifest without data and member is taken back", joinFacts{manifest: true}, joinTakeBack},
		{"data without manifest and member is taken back", joinFacts{data: true, node: true}, joinTakeBack},
	}
	for _, row := range rows {
		if got := row.f.action(); got != row.want {
			t.Errorf("%s: %s, wanted %s", row.name, actionNames[got], actionNames[row.want])
		}
	}
}

// TestJoinActionNeverHurts walks all that can be seen of a host.
func TestJoinActionNeverHurts(t *testing.T) {
	members := map[string]*etcd.Member{
		"no member": nil, "a voter": {ID: 1, Role: etcd.Voter}, "an unnamed voter": {ID: 1, Role: etcd.Voter, Unnamed: true},
		"a learner": {ID: 1, Role: etcd.Learner}, "an unnamed learner": {ID: 1, Role: etcd.Learner, Unnamed: true},
	}
	n := 0
	for name, member := range members {
		for bits := range 8 {
			f := joinFacts{member: member, data: bits&1 > 0, manifest: bits&2 > 0, node: bits&4 > 0}
			got, seen := f.action(), fmt.Sprintf("%s, data %t, manifest %t, node %t: %s", name, f.data, f.manifest, f.node, actionNames[f.action()])
			n++
			switch {
			case f.voter() && (got == joinTakeBack || got == joinFresh):
				t.Errorf("%s: a vote would be thrown away", seen)
			case got == joinFresh && (f.data || f.manifest || member != nil):
				t.Errorf("%s: a member would be started over what is there", seen)
			case got == joinNothing && !(f.voter() && f.data && f.node):
				t.Errorf("%s: it is no master yet", seen)
			case f.voter() && !f.data && got != joinRefuse:
				t.Errorf("%s: an empty member would come to life under an old ID", seen)
			case got == joinPromote && (member == nil || member.Unnamed || !f.data):
				t.Errorf("%s: it does not run", seen)
			}
		}
	}
	if n != 40 {
		t.Errorf("%d cases", n)
	}
}

func TestRefusalNamesTheMember(t *testing.T) {
	text := joinFacts{member: &etcd.Member{ID: 0xa5d4976c00112233, Role: etcd.Voter}}.refusal("cp-3").Error()
	for _, part := range []string{"cp-3", "a5d4976c00112233", etcdMember, "remove the member by its ID"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in %q", part, text)
		}
	}
}

func TestInitialCluster(t *testing.T) {
	ih := inventory.Host{Name: "cp-3", Address: "198.51.100.23", InternalAddress: "198.51.100.23"}
	member := func(id etcd.MemberID, name string, last int, role etcd.Role) etcd.Member {
		return etcd.Member{ID: id, Name: name, PeerURL: fmt.Sprintf("https://198.51.100.%d:2380", last), Role: role}
	}
	one, two := member(1, "cp-1", 21, etcd.Voter), member(2, "cp-2", 22, etcd.Voter)
	own := "cp-3=https://198.51.100.23:2380"
	both := "cp-1=https://198.51.100.21:2380,cp-2=https://198.51.100.22:2380," + own
	for _, row := range []struct {
		name    string
		members []etcd.Member
		want    string
	}{
		{"the voters and the newcomer", []etcd.Member{one, two}, both},
		{"the newcomer is listed already, without a name", []etcd.Member{one, two, member(3, "", 23, etcd.Learner)}, both},
		{"a host without a member is left out", []etcd.Member{one, two, member(0, "cp-9", 29, etcd.NoRole)}, both},
	} {
		if got := initialCluster(ih, row.members); got != row.want {
			t.Errorf("%s: %q, wanted %q", row.name, got, row.want)
		}
	}
}

func TestWithExistingState(t *testing.T) {
	const wanted = "- name: initial-cluster-state\n      value: existing\n"
	rows := []struct {
		name, document string
		changed        bool
		keeps          []string
	}{
		{"no etcd section", "clusterName: prod\n", true, []string{"clusterName: prod"}},
		{"an empty local etcd, as kubeadm writes it", "etcd:\n  local:\n    dataDir: /var/lib/etcd\n", true, []string{"dataDir: /var/lib/etcd"}},
		{"other arguments stay", "etcd:\n  local:\n    extraArgs:\n    - name: quota-backend-bytes\n      value: \"8589934592\"\n", true, []string{"quota-backend-bytes", "8589934592"}},
		{"the flag with another value", "etcd:\n  local:\n    extraArgs:\n    - name: initial-cluster-state\n      value: new\n", true, nil},
		{"fields of a later version stay", "somethingNew: {a: [1, 2]}\n", true, []string{"somethingNew"}},
		{"it is there already", "etcd:\n  local:\n    extraArgs:\n    - name: initial-cluster-state\n      value: existing\n", false, nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			out, changed, err := withExistingState([]byte(row.document))
			if err != nil || changed != row.changed {
				t.Fatalf("changed %t, %v", changed, err)
			}
			if !changed && string(out) != row.document {
				t.Errorf("it was written anew:\n%s", out)
			}
			if strings.Count(string(out), "initial-cluster-state") != 1 || !strings.Contains(string(out), wanted) {
				t.Errorf("not the flag, once:\n%s", out)
			}
			for _, part := range row.keeps {
				if !strings.Contains(string(out), part) {
					t.Errorf("%q is lost:\n%s", part, out)
				}
			}
			if again, changed, err := withExistingState(out); changed || err != nil || string(again) != string(out) {
				t.Errorf("a second time: changed %t, %v", changed, err)
			}
		})
	}
	if _, _, err := withExistingState([]byte("a: [")); err == nil {
		t.Error("what is no YAML passed")
	}
}

const etcdPod = `apiVersion: v1
kind: Pod
metadata: {name: etcd, namespace: kube-system, annotations: {a: b}}
spec:
  hostNetwork: true
  containers:
  - name: etcd
    image: registry.k8s.io/etcd:3.6.8-0
    command: [etcd, --name=cp-1%s, --snapshot-count=10000]
`

func TestExistingManifest(t *testing.T) {
	rows := []struct {
		name, flag string
		changed    bool
	}{
		{"kubeadm init's, without the flag", "", true},
		{"with the state new", ", --initial-cluster-state=new", true},
		{"with the state existing", ", --initial-cluster-state=existing", false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			in := fmt.Appendf(nil, etcdPod, row.flag)
			out, changed, err := existingManifest(in)
			if err != nil || changed != row.changed {
				t.Fatalf("changed %t, %v", changed, err)
			}
			if !changed && string(out) != string(in) {
				t.Error("it was written anew")
			}
			var pod struct {
				Metadata struct{ Annotations map[string]string }
				Spec     struct {
					HostNetwork bool
					Containers  []struct{ Command []string }
				}
			}
			if err := yaml.Unmarshal(out, &pod); err != nil {
				t.Fatal(err)
			}
			command := pod.Spec.Containers[0].Command
			slices.Sort(command)
			want := []string{"--initial-cluster-state=existing", "--name=cp-1", "--snapshot-count=10000", "etcd"}
			if diff := cmp.Diff(want, command); diff != "" || !pod.Spec.HostNetwork || pod.Metadata.Annotations["a"] != "b" {
				t.Errorf("command (-want +got):\n%s\n%s", diff, out)
			}
			if _, changed, err := existingManifest(out); changed || err != nil {
				t.Errorf("a second time: changed %t, %v", changed, err)
			}
		})
	}
	for name, bad := range map[string]string{
		"no YAML": "a: [", "an unknown field": "apiVersion: v1\nkind: Pod\nspce: {}\n", "no container": "apiVersion: v1\nkind: Pod\n",
	} {
		if _, _, err := existingManifest([]byte(bad)); err == nil || !strings.Contains(err.Error(), etcdManifest) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestKubeconfigIsRenamed(t *testing.T) {
	const admin = `apiVersion: v1
kind: Config
current-context: kubernetes-admin@kubernetes
clusters: [{name: kubernetes, cluster: {server: "https://198.51.100.21:6443", certificate-authority-data: Q0E=}}, {name: other, cluster: {server: "https://192.0.2.1"}}]
users: [{name: kubernetes-admin, user: {client-certificate-data: Q0VSVA==, client-key-data: S0VZ}}]
contexts: [{name: kubernetes-admin@kubernetes, context: {cluster: kubernetes, user: kubernetes-admin}}]
`
	got, err := rename([]byte(admin), "prod", "https://198.51.100.100:6443")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Clusters) != 1 || len(got.AuthInfos) != 1 || len(got.Contexts) != 1 || got.CurrentContext != "prod" {
		t.Errorf("%d clusters, %d users, context %s", len(got.Clusters), len(got.AuthInfos), got.CurrentContext)
	}
	if c := got.Clusters["prod"]; c.Server != "https://198.51.100.100:6443" || string(c.CertificateAuthorityData) != "CA" {
		t.Errorf("cluster %+v", c)
	}
	if u := got.AuthInfos["prod-admin"]; string(u.ClientCertificateData) != "CERT" || got.Contexts["prod"].AuthInfo != "prod-admin" || got.Contexts["prod"].Cluster != "prod" {
		t.Errorf("user %v, context %+v", u, got.Contexts["prod"])
	}
	if _, err := clientcmd.Write(*got); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string]string{"empty": "", "no context": strings.Replace(admin, "current-context: kubernetes-admin@kubernetes", "", 1), "no YAML": "a: ["} {
		if _, err := rename([]byte(bad), "prod", "https://x"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSumOfAFile(t *testing.T) {
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if got := sum(host.File{}); got != empty {
		t.Errorf("of nothing: %s", got)
	}
	if got := sum(host.File{Sum: "abc", Content: []byte("x")}); got != "abc" {
		t.Errorf("a sum that is given: %s", got)
	}
}

func TestSameBalancers(t *testing.T) {
	dedicated, masters, still := testCluster(t), onMasters(testCluster(t)), testCluster(t)
	still.Spec.LoadBalancer.Mode = inventory.BalancerMasters // the old balancers are listed still
	external := onMasters(testCluster(t))
	external.Spec.LoadBalancer = inventory.LoadBalancer{Mode: inventory.BalancerExternal}
	up := marker{Cluster: "prod", Established: true}
	of := func(m marker, balance string, names ...string) map[string]hostFacts {
		facts := map[string]hostFacts{}
		for _, name := range names {
			facts[name] = hostFacts{marker: m, balances: strings.HasPrefix(name, balance)}
		}
		return facts
	}
	all := []string{"lb-1", "lb-2", "cp-1", "cp-2", "cp-3"}
	rows := []struct {
		name  string
		c     *inventory.Cluster
		facts map[string]hostFacts
		want  string // "" is agreement
	}{
		{"hosts of their own balance, as they did", dedicated, of(up, "lb-", all...), ""},
		{"the masters balance, as they did", masters, of(up, "cp-", all...), ""},
		{"a master that joins does not balance yet", masters, of(up, "cp-1", all...), ""},
		{"both balancer hosts were set up anew", dedicated, of(up, "none", all...), ""},
		{"bare hosts", masters, nil, ""},
		{"a run that broke off before any balancer", masters, of(marker{Cluster: "prod"}, "none", all...), ""},
		{"the masters balance, and hand over to other hosts", dedicated, of(up, "cp-", all...), ""},
		{"other hosts balance, and hand over to the masters", still, of(up, "lb-", all...), ""},
		{"a keepalived that was there before us is no balancer of ours", external, of(marker{}, "cp-", all...), ""},
		{"other hosts balance and are not listed, and the masters are to", masters, of(up, "lb-", "cp-1", "cp-2", "cp-3"), "no host of the inventory has keepalived"},
		{"the masters balance, and an external one is to", external, of(up, "cp-", all...), "cp-1, cp-2, cp-3 balance"},
		{"an external balancer, as it was", external, of(up, "none", all...), ""},
	}
	for _, row := range rows {
		b := beginning{}
		for _, f := range row.facts {
			b.established = b.established || f.marker.Established
		}
		err := sameBalancers(row.c, row.facts, b)
		switch {
		case row.want == "" && err != nil:
			t.Errorf("%s: %v", row.name, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
			t.Errorf("%s: %v, wanted %q", row.name, err, row.want)
		}
	}
}

func TestWhoHoldsTheVIPLeavesLast(t *testing.T) {
	c := testCluster(t)
	c.Spec.LoadBalancer.Mode = inventory.BalancerMasters
	ours := marker{Cluster: "prod"}
	facts := map[string]hostFacts{"lb-1": {marker: ours, balances: true, holdsVIP: true}, "lb-2": {marker: ours, balances: true}, "cp-1": {marker: ours, balances: true}}
	if got := strings.Join(namesOf(leaving(c, facts)), " "); got != "lb-2 lb-1" {
		t.Errorf("leaving: %s, wanted lb-2 lb-1", got)
	}
}

func TestNewcomersBalanceLast(t *testing.T) {
	c := onMasters(testCluster(t))
	order := func(balancing ...string) string {
		facts := map[string]hostFacts{}
		for _, name := range balancing {
			facts[name] = hostFacts{balances: true}
		}
		var names []string
		for _, h := range newcomersLast(c.Balancers(), facts) {
			names = append(names, h.Name)
		}
		return strings.Join(names, " ")
	}
	for want, got := range map[string]string{
		"cp-1 cp-2 cp-3": order(),
		"cp-2 cp-3 cp-1": order("cp-2", "cp-3"),
		"cp-3 cp-1 cp-2": order("cp-3"),
	} {
		if got != want {
			t.Errorf("%s, wanted %s", got, want)
		}
	}
}
