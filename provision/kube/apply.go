package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/restmapper"
)

// fieldManager owns the fields that we apply.
const fieldManager = "ha-install"

// Decode splits a YAML stream into objects; empty documents are dropped.
func Decode(stream []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(stream), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := dec.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", len(objects)+1, err)
		}
		if len(object.Object) == 0 {
			continue
		}
		if object.GetKind() == "" || object.GetAPIVersion() == "" || object.GetName() == "" {
			return nil, fmt.Errorf("document %d: apiVersion, kind and metadata.name are needed", len(objects)+1)
		}
		objects = append(objects, object)
	}
}

// Apply applies the objects in order, server-side, and returns how many of
// them that changed.
func (c *Client) Apply(ctx context.Context, objects []*unstructured.Unstructured) (changed int, err error) {
	return c.patch(ctx, objects, false)
}

// Differ says whether Apply would change anything, by a server-side dry run.
func (c *Client) Differ(ctx context.Context, objects []*unstructured.Unstructured) (bool, error) {
	changed, err := c.patch(ctx, objects, true)
	if unready(err) {
		return true, nil
	}
	return changed > 0, err
}

// Differing names the objects that Apply would change.
func (c *Client) Differing(ctx context.Context, objects []*unstructured.Unstructured) ([]string, error) {
	var names []string
	for i, o := range objects {
		differs, err := c.Differ(ctx, objects[i:i+1])
		if err != nil {
			return names, err
		}
		if differs {
			names = append(names, ObjectName(o))
		}
	}
	return names, nil
}

// ObjectName reads "DaemonSet kube-flannel/kube-flannel".
func ObjectName(o *unstructured.Unstructured) string {
	return o.GetKind() + " " + path.Join(o.GetNamespace(), o.GetName())
}

// unready: the namespace or the definition of an object is still to be made.
func unready(err error) bool { return apierrors.IsNotFound(err) || meta.IsNoMatchError(err) }

func (c *Client) patch(ctx context.Context, objects []*unstructured.Unstructured, dryRun bool) (changed int, err error) {
	dyn, err := c.dynamic()
	if err != nil {
		return 0, err
	}
	options := metav1.PatchOptions{FieldManager: fieldManager, Force: new(true)}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.Discovery()))
	for _, o := range objects {
		gvk := o.GroupVersionKind()
		mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if meta.IsNoMatchError(err) && !dryRun {
			mapping, err = awaitMapping(ctx, mapper, gvk)
		}
		if err != nil {
			return changed, fmt.Errorf("%s %s: %w", gvk.Kind, o.GetName(), err)
		}
		body, err := o.MarshalJSON()
		if err != nil {
			return changed, fmt.Errorf("%s %s: %w", gvk.Kind, o.GetName(), err)
		}
		resource := dyn.Resource(mapping.Resource).Namespace(namespaceFor(o, mapping))
		before, err := resource.Get(ctx, o.GetName(), metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return changed, fmt.Errorf("%s %s: %w", gvk.Kind, o.GetName(), err)
		}
		after, err := resource.Patch(ctx, o.GetName(), types.ApplyPatchType, body, options)
		if err != nil {
			return changed, fmt.Errorf("applying %s %s: %w", gvk.Kind, o.GetName(), err)
		}
		if before == nil || after.GetResourceVersion() != before.GetResourceVersion() || !sameContent(before, after) {
			changed++
		}
	}
	return changed, nil
}

// definitionBudget is how long a CustomResourceDefinition may take to be served.
const definitionBudget = 30 * time.Second

// awaitMapping waits for the kind of an object whose definition was applied
// just before it.
func awaitMapping(ctx context.Context, mapper *restmapper.DeferredDiscoveryRESTMapper, gvk schema.GroupVersionKind) (mapping *meta.RESTMapping, err error) {
	_ = wait.PollUntilContextTimeout(ctx, probePoll, definitionBudget, true, func(context.Context) (bool, error) {
		mapper.Reset()
		mapping, err = mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		return !meta.IsNoMatchError(err), nil
	}) // what the last try said is the better error
	return mapping, err
}

// sameContent compares two states of an object without the bookkeeping that a
// dry run changes as well.
func sameContent(a, b *unstructured.Unstructured) bool {
	a, b = a.DeepCopy(), b.DeepCopy()
	for _, o := range []*unstructured.Unstructured{a, b} {
		o.SetManagedFields(nil)
		o.SetGeneration(0)
	}
	return equality.Semantic.DeepEqual(a.Object, b.Object)
}

func namespaceFor(o *unstructured.Unstructured, mapping *meta.RESTMapping) string {
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		return ""
	}
	if ns := o.GetNamespace(); ns != "" {
		return ns
	}
	return metav1.NamespaceDefault
}
