package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubectl/pkg/drain"
)

const (
	drainPoll     = time.Second
	evictAtOnce   = 10
	notYetEvicted = "was not evicted yet"
)

// DrainOptions say how a Node is drained.
type DrainOptions struct {
	// Force has pods evicted that no controller starts anew elsewhere. Without
	// it a Node that has any is not touched.
	Force bool
	// Timeout bounds all of it; 0 leaves that to the context.
	Timeout time.Duration
	// Say is told in a line of each pod that is gone, and once of each that is
	// held back; nil for nobody. It is called from one goroutine.
	Say func(string)
}

// Drain evicts the pods of a Node and waits until they are gone. What a
// DaemonSet or the kubelet itself has made stays, and so does what has ended.
// What pods keep in emptyDir volumes is deleted with them, as in every drain.
// PodDisruptionBudgets are respected: an eviction that one refuses is tried
// again until Timeout. A *DrainError says what could not be moved. Drain does not
// cordon; a pod that tolerates the cordon and comes back meanwhile is left
// alone. It ends within moments of ctx, whose error it returns then.
func (c *Client) Drain(ctx context.Context, node string, o DrainOptions) error {
	if o.Say == nil {
		o.Say = func(string) {}
	}
	d := &draining{Client: c, node: node, o: o, pods: map[types.UID]*leaving{}, said: map[string]bool{}}
	bounded := ctx
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, o.Timeout)
		defer cancel()
	}
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		done, err := d.round(bounded)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%s: draining the Node: %w", node, context.Cause(ctx))
		case done:
			return nil
		case bounded.Err() != nil:
			return d.late()
		case err != nil:
			return err
		}
		select {
		case <-bounded.Done():
		case <-tick.C:
		}
	}
}

// Lost are the pods of a Node for whose sake a Drain without Force would leave
// it alone: nobody would bring them back.
func (c *Client) Lost(ctx context.Context, node string) ([]BlockedPod, error) {
	d := &draining{Client: c, node: node}
	_, err := d.look(ctx)
	return d.alone, err
}

// draining is one drain under way.
type draining struct {
	*Client
	node   string
	o      DrainOptions
	pods   map[types.UID]*leaving // that a drain of the Node has to move and that are there
	begun  bool                   // pods are those that were found at the beginning
	alone  []BlockedPod           // pods that would be lost
	said   map[string]bool
	failed []error // looks in a row to which the API did not answer
}

// leaving is a pod that has to go.
type leaving struct {
	pod    corev1.Pod
	since  time.Time // its eviction was accepted; zero: not yet
	why    string    // it was not
	budget string    // that holds it; "" for none, or when that is not known
}

// round looks once, and evicts what is still to be evicted. Its error is one
// that time does not change.
func (d *draining) round(ctx context.Context) (done bool, err error) {
	if d.before != nil {
		if err := d.before(ctx); err != nil {
			return false, err
		}
	}
	there, err := d.look(ctx)
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		return false, err
	}
	if err != nil {
		d.failed = append(d.failed, err)
		return false, nil
	}
	if len(d.alone) > 0 {
		return false, &DrainError{Node: d.node, Pods: d.alone}
	}
	d.failed = nil
	d.settle(there)
	d.evictAll(ctx)
	return len(d.pods) == 0, nil
}

// look lists the pods that have to go, by UID. kubectl's rules select them;
// that a pod without a controller is lost is judged by ours, which names it.
func (d *draining) look(ctx context.Context) (map[types.UID]corev1.Pod, error) {
	d.alone = nil
	helper := &drain.Helper{
		Ctx: ctx, Client: d.Client, Out: io.Discard, ErrOut: io.Discard,
		Force: true, IgnoreAllDaemonSets: true, DeleteEmptyDirData: true, GracePeriodSeconds: -1,
		AdditionalFilters: []drain.PodFilter{d.filter},
	}
	list, errs := helper.GetPodsForDeletion(d.node)
	if len(errs) > 0 {
		return nil, fmt.Errorf("%s: asking which pods are to be moved: %w", d.node, errors.Join(errs...))
	}
	there := map[types.UID]corev1.Pod{}
	for _, p := range list.Pods() {
		there[p.UID] = p
	}
	return there, nil
}

// filter sorts out what kubectl would delete.
func (d *draining) filter(p corev1.Pod) drain.PodDeleteStatus {
	_, known := d.pods[p.UID]
	switch ref := metav1.GetControllerOf(&p); {
	case ended(&p):
		return drain.MakePodDeleteStatusSkip()
	case d.begun && !known && toleratesCordon(&p):
		return drain.MakePodDeleteStatusSkip()
	case d.o.Force || known || p.DeletionTimestamp != nil:
	case ref == nil:
		d.alone = append(d.alone, BlockedPod{Namespace: p.Namespace, Name: p.Name, Why: "no controller would start it anew elsewhere"})
	case ofDaemonSet(&p): // kubectl lets one through when its DaemonSet is gone
		d.alone = append(d.alone, BlockedPod{Namespace: p.Namespace, Name: p.Name, Why: "its DaemonSet " + ref.Name + " is gone, and no controller would start it anew"})
	}
	return drain.MakePodDeleteStatusOkay()
}

// toleratesCordon says that the scheduler may put the pod on a cordoned Node.
func toleratesCordon(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Spec.Tolerations, func(t corev1.Toleration) bool {
		return (t.Key == corev1.TaintNodeUnschedulable || t.Key == "") && (t.Effect == corev1.TaintEffectNoSchedule || t.Effect == "") &&
			(t.Operator == corev1.TolerationOpExists || t.Value == "")
	})
}

// settle takes up what is there, and says what is gone.
func (d *draining) settle(there map[types.UID]corev1.Pod) {
	for _, l := range d.sorted() {
		if _, still := there[l.pod.UID]; still {
			continue
		}
		delete(d.pods, l.pod.UID)
		text := name(&l.pod) + " is gone"
		if !l.since.IsZero() {
			text = fmt.Sprintf("%s was evicted and is gone after %s", name(&l.pod), time.Since(l.since).Round(100*time.Millisecond))
		}
		d.o.Say(text)
	}
	for uid, p := range there {
		if l := d.pods[uid]; l != nil {
			l.pod = p
		} else {
			d.pods[uid] = &leaving{pod: p, why: notYetEvicted}
		}
	}
	d.begun = true
}

// sorted are the pods that are left, by name.
func (d *draining) sorted() []*leaving {
	all := make([]*leaving, 0, len(d.pods))
	for _, l := range d.pods {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *leaving) int { return strings.Compare(name(&a.pod), name(&b.pod)) })
	return all
}

func name(p *corev1.Pod) string { return p.Namespace + "/" + p.Name }

// evictAll asks for the eviction of each pod that is not ending already. What
// is refused is asked again in the next round, whatever the reason: beside
// budgets there are webhooks that first move what a pod keeps.
func (d *draining) evictAll(ctx context.Context) {
	var group errgroup.Group
	group.SetLimit(evictAtOnce)
	var mu sync.Mutex
	var refused []*leaving
	for _, l := range d.sorted() {
		if l.pod.DeletionTimestamp != nil {
			continue
		}
		group.Go(func() error {
			err := d.evict(ctx, &l.pod)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				l.since, l.why, l.budget = time.Now(), "", ""
			case apierrors.IsNotFound(err) || apierrors.IsConflict(err): // gone, or another of this name
			case ctx.Err() == nil:
				l.why = refusal(err)
				refused = append(refused, l)
			}
			return nil
		})
	}
	_ = group.Wait() // errors are sorted above
	if ctx.Err() == nil {
		d.sayRefused(ctx, refused)
	}
}

// evict asks once. The UID keeps a namesake safe that a StatefulSet has made
// elsewhere meanwhile. The bound is for the answer that another should be tried
// after 10 s, which client-go does by itself without saying so.
func (d *draining) evict(ctx context.Context, p *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return d.PolicyV1().Evictions(p.Namespace).Evict(ctx, &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}},
	})
}

// refusal is why an eviction was refused, in the API server's words.
func refusal(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil {
		for _, cause := range status.Status().Details.Causes {
			if text, ok := strings.CutPrefix(cause.Message, "The "); ok && cause.Type == policyv1.DisruptionBudgetCause {
				return "the " + text
			}
		}
	}
	return err.Error()
}

// sayRefused finds the budgets of the pods that were held back, and says each
// of them once.
func (d *draining) sayRefused(ctx context.Context, refused []*leaving) {
	budgets := map[string][]policyv1.PodDisruptionBudget{}
	slices.SortFunc(refused, func(a, b *leaving) int { return strings.Compare(name(&a.pod), name(&b.pod)) })
	for _, l := range refused {
		in, asked := budgets[l.pod.Namespace]
		if !asked {
			if list, err := d.PolicyV1().PodDisruptionBudgets(l.pod.Namespace).List(ctx, metav1.ListOptions{}); err == nil {
				in = list.Items // else the refusal names it in its own words
			}
			budgets[l.pod.Namespace] = in
		}
		var names []string
		for _, b := range in {
			if ok, err := guards(&b, &l.pod); err == nil && ok {
				names = append(names, b.Name)
			}
		}
		l.budget = strings.Join(names, ", ")
		if once := string(l.pod.UID) + " " + l.budget; !d.said[once] {
			d.said[once] = true
			d.o.Say(fmt.Sprintf("%s is held back: %s", name(&l.pod), l.why))
		}
	}
}

// late is the error of a drain whose time is over.
func (d *draining) late() error {
	e := &DrainError{Node: d.node, After: d.o.Timeout}
	if len(d.failed) > 1 || !d.begun && len(d.failed) > 0 { // the last one may be cut short, or not even begin, for the end is near
		e.Err = d.failed[0]
	}
	for _, l := range d.sorted() {
		b := BlockedPod{Namespace: l.pod.Namespace, Name: l.pod.Name, Budget: l.budget, Why: l.why}
		if ending := l.pod.DeletionTimestamp; ending != nil {
			b.Budget, b.Why = "", "was told to end and still runs"
			if grace := l.pod.DeletionGracePeriodSeconds; grace != nil {
				b.Why += fmt.Sprintf(", with %d s to do so", *grace)
			}
		}
		e.Pods = append(e.Pods, b)
	}
	return e
}
