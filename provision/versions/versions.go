// Package versions tells which versions of the software a host has, as its
// programs and its static pods' manifests say, and which ones a bundle brings.
package versions

import (
	"bytes"
	"context"
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/ha-install/ha-install/provision/bundle"
	"github.com/ha-install/ha-install/provision/host"
)

// The programs that are asked.
var (
	OfNodes     = []string{"kubelet", "kubeadm", "kubectl", "containerd", "runc"}
	OfBalancers = []string{"haproxy", "keepalived"}
)

// Components are the static pods of a master.
var Components = []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"}

// Unreadable stands where there is something that does not say its version.
const Unreadable = "?"

// Set is what there is, each by its name. What is not there is not in it.
type Set struct {
	// Pods are the tags of static pods' images: "v1.36.3", "3.6.8-0".
	Pods map[string]string `json:"pods,omitempty"`
	// Programs are versions as each program writes its own: "v1.36.3", "1.1.5+ds1".
	Programs map[string]string `json:"programs,omitempty"`
}

// Of is the version of a static pod or a program, "" when it is not there.
func (s Set) Of(name string) string {
	if v, ok := s.Pods[name]; ok {
		return v
	}
	return s.Programs[name]
}

// Script asks the programs that are its arguments for their versions, those
// that there are, and shows the manifests of static pods, in one round trip.
// What they say is set off by "| ".
const Script = `LC_ALL=C
export LC_ALL
for name; do
	command -v "$name" >/dev/null || continue
	case $name in
	kubeadm) how='version -o short' ;;
	kubectl) how='version --client' ;;
	haproxy) how=-v ;;
	*) how=--version ;;
	esac
	echo "program=$name"
	"$name" $how </dev/null 2>&1 | sed -e 's/^/| /' -e 3q
done
for file in /etc/kubernetes/manifests/*.yaml; do
	[ -f "$file" ] || continue
	echo "manifest=$file"
	sed -e 's/^/| /' "$file"
	echo
done
exit 0
`

// Ask asks a host. The error is that of the connection or the shell: a program
// that fails is Unreadable.
func Ask(ctx context.Context, h host.Reader, programs []string) (Set, error) {
	out, err := h.Query(ctx, append([]string{"sh", "-c", Script, "ha-install-versions"}, programs...)...)
	if err != nil {
		return Set{}, err
	}
	return parse(out), nil
}

// parse reads what the script has printed.
func parse(out []byte) Set {
	s := Set{Pods: map[string]string{}, Programs: map[string]string{}}
	var text bytes.Buffer
	take := func() {}
	for line := range bytes.Lines(out) {
		if said, ok := bytes.CutPrefix(line, []byte("| ")); ok {
			text.Write(said)
			continue
		}
		take()
		text.Reset()
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		switch key {
		case "program":
			take = func() { s.Programs[value] = version(text.String()) }
		case "manifest":
			pod := strings.TrimSuffix(path.Base(value), ".yaml")
			take = func() { s.Pods[pod] = podTag(pod, text.Bytes()) }
		default:
			take = func() {}
		}
	}
	take()
	return s
}

// number is a word that is a version: "v2.4.2", "1.1.5+ds1", "2.6.12-1+deb12u4".
var number = regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+~-]*$`)

// version is the first one that a program names.
func version(text string) string {
	words := strings.Fields(text)
	if i := slices.IndexFunc(words, number.MatchString); i >= 0 {
		return words[i]
	}
	return Unreadable
}

// podTag is the tag of the image of a manifest's container: the one with the
// name of the pod's component, or the only one.
func podTag(component string, manifest []byte) string {
	var pod corev1.Pod
	if yaml.Unmarshal(manifest, &pod) != nil {
		return Unreadable
	}
	containers := pod.Spec.Containers
	i := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == component })
	if i < 0 && len(containers) != 1 {
		return Unreadable
	}
	_, tag := reference(containers[max(i, 0)].Image)
	return tag
}

// reference splits "registry.k8s.io/etcd:3.6.8-0" into the last part of its name
// and its tag, Unreadable when there is none.
func reference(image string) (name, tag string) {
	image, _, _ = strings.Cut(image, "@")
	name, tag, ok := strings.Cut(path.Base(image), ":")
	if !ok || tag == "" {
		return name, Unreadable
	}
	return name, tag
}

// Offered are the versions that a bundle brings of all that hosts are asked for.
func Offered(m bundle.Manifest) Set {
	s := Set{Pods: map[string]string{}, Programs: map[string]string{}}
	programs := slices.Concat(OfNodes, OfBalancers)
	for _, item := range m.Items {
		switch item.Kind {
		case bundle.KindImage:
			for _, image := range item.Images {
				if name, tag := reference(image); slices.Contains(Components, name) {
					s.Pods[name] = tag
				}
			}
		case bundle.KindBinary:
			if name := path.Base(item.Dest); slices.Contains(programs, name) {
				s.Programs[name] = item.Version
			}
		case bundle.KindPackage:
			if item.Package != nil && slices.Contains(programs, item.Package.Name) {
				s.Programs[item.Package.Name] = item.Package.Version
			}
		}
	}
	return s
}
