package boot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/ha-install/ha-install/provision/units"
)

// Kind is how many objects there are of one.
type Kind struct {
	Resource string `json:"resource"` // "deployments.apps"
	Kind     string `json:"kind"`
	Objects  int64  `json:"objects"`
	// Namespaces has the count of each; nil for what has none.
	Namespaces map[string]int64 `json:"namespaces,omitempty"`
}

// counting gathers what an API server serves.
type counting struct {
	since   time.Time // what was made later is of this very API server
	sealed  bool
	kinds   []Kind
	unread  []Unread
	objects int64
}

// page is how many objects are asked for at once.
const page = 500

// all counts every kind that can be listed.
func (c *counting) all(ctx context.Context, config *rest.Config) error {
	c.kinds, c.unread = []Kind{}, []Unread{}
	found, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	lists, err := found.ServerPreferredResources()
	var partly *discovery.ErrGroupDiscoveryFailed
	if errors.As(err, &partly) {
		for group, why := range partly.Groups { // served by a pod of the cluster, which is not here
			c.unread = append(c.unread, Unread{group.String(), "its API is not served here: " + firstLine(why.Error())})
		}
	} else if err != nil {
		return err
	}
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	for _, list := range lists {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return err
		}
		for _, r := range list.APIResources {
			if !counted(group.Group, r) {
				continue
			}
			if err := c.kind(ctx, client.Resource(group.WithResource(r.Name)), group.Group, r); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(c.kinds, func(a, b Kind) int { return cmp.Compare(a.Resource, b.Resource) })
	slices.SortFunc(c.unread, func(a, b Unread) int { return cmp.Compare(a.Resource, b.Resource) })
	return nil
}

// counted leaves out what cannot be listed, what is asked of others than etcd,
// and what is shown a second time under another name.
func counted(group string, r metav1.APIResource) bool {
	switch {
	case strings.Contains(r.Name, "/"), !slices.Contains(r.Verbs, "list"):
		return false
	case group == "" && r.Name == "componentstatuses":
		return false
	case group == "events.k8s.io":
		return false
	}
	return true
}

func named(group, resource string) string {
	return schema.GroupResource{Group: group, Resource: resource}.String()
}

// kind counts one, page by page.
func (c *counting) kind(ctx context.Context, client metadata.Getter, group string, r metav1.APIResource) error {
	k := Kind{Resource: named(group, r.Name), Kind: r.Kind}
	if r.Namespaced {
		k.Namespaces = map[string]int64{}
	}
	options := metav1.ListOptions{Limit: page}
	for {
		list, err := client.List(ctx, options)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case apierrors.IsMethodNotSupported(err), apierrors.IsNotFound(err):
			return nil
		case err != nil && answered(err):
			c.unread = append(c.unread, Unread{k.Resource, c.why(err)})
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", k.Resource, err)
		}
		for _, o := range list.Items {
			if !o.CreationTimestamp.Time.Before(c.since.Truncate(time.Second)) {
				continue
			}
			k.Objects++
			if r.Namespaced {
				k.Namespaces[o.Namespace]++
			}
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	if k.Objects > 0 {
		c.kinds = append(c.kinds, k)
		c.objects += k.Objects
	}
	return nil
}

// answered tells an API server that cannot give a kind from one that is gone.
func answered(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status)
}

func (c *counting) why(err error) string {
	text := firstLine(err.Error())
	if c.sealed {
		return "encrypted at rest, and the key was not opened: " + text
	}
	return text
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// Write renders the result as a table; with namespaces, a line for each of a
// kind's.
func (r Result) Write(out io.Writer, namespaces bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if namespaces {
		fmt.Fprintln(w, "RESOURCE\tNAMESPACE\tOBJECTS")
	} else {
		fmt.Fprintln(w, "RESOURCE\tOBJECTS\tNAMESPACES")
	}
	for _, k := range r.Kinds {
		switch {
		case !namespaces && k.Namespaces != nil:
			fmt.Fprintf(w, "%s\t%d\t%d\n", k.Resource, k.Objects, len(k.Namespaces))
		case !namespaces:
			fmt.Fprintf(w, "%s\t%d\t-\n", k.Resource, k.Objects)
		case k.Namespaces == nil:
			fmt.Fprintf(w, "%s\t-\t%d\n", k.Resource, k.Objects)
		default:
			for _, name := range sorted(k.Namespaces) {
				fmt.Fprintf(w, "%s\t%s\t%d\n", k.Resource, name, k.Namespaces[name])
			}
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, u := range r.Unread {
		fmt.Fprintf(out, "NOT READ  %s: %s\n", u.Resource, u.Why)
	}
	_, err := fmt.Fprintf(out, "\nbooted    %s: revision %d, %d keys\nserved    %d objects of %d kinds, by kube-apiserver %s on etcd %s\ntook      %s (restored in %s, ready %s later)\n",
		r.Backup, r.Revision, r.Keys, r.Objects, len(r.Kinds), r.Kubernetes, r.Etcd, round(r.Took), round(r.Restore), round(r.Ready))
	return err
}

func round(s units.Seconds) units.Seconds {
	return units.Seconds(s.Duration().Round(100 * time.Millisecond))
}

func sorted(of map[string]int64) []string {
	var names []string
	for name := range of {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
