package kube

import (
	"context"
	"sort"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// notes is the ConfigMap in kube-system in which we note what was proved.
const notes = "ha-install"

// NoteDataPath is the note of the set of nodes whose data path was proved.
const NoteDataPath = "data-path"

// Noted reads a note, "" when there is none.
func (c *Client) Noted(ctx context.Context, key string) (string, error) {
	cm, err := c.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, notes, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return cm.Data[key], nil
}

// Note writes a note.
func (c *Client) Note(ctx context.Context, key, value string) error {
	maps := c.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	return onConflict(func() error {
		cm, err := maps.Get(ctx, notes, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: notes}, Data: map[string]string{key: value}}, metav1.CreateOptions{})
			return err
		}
		if err != nil {
			return err
		}
		if cm.Data == nil {
			cm.Data = map[string]string{}
		}
		cm.Data[key] = value
		_, err = maps.Update(ctx, cm, metav1.UpdateOptions{})
		return err
	})
}

// NodeUIDs are the UIDs of all Nodes, sorted.
func (c *Client) NodeUIDs(ctx context.Context) ([]string, error) {
	list, err := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	uids := make([]string, 0, len(list.Items))
	for _, n := range list.Items {
		uids = append(uids, string(n.UID))
	}
	sort.Strings(uids)
	return uids, nil
}
