package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
)

// restoreFile is the note about a restore on every master that takes part.
const restoreFile = stateDir + "/restore.json"

// restoreNote says on a master that etcd is made anew from a snapshot. It is
// written before anything stops: until it says Done nothing else may be done to
// the cluster, for half of its members may be of a cluster that is gone.
type restoreNote struct {
	// Token is the initial cluster token of the new members, met only once: no
	// member of the cluster before can join those that bear it.
	Token string `json:"token"`
	Verb  string `json:"verb"` // "restore" or "recover"
	From  string `json:"from"` // the backup, on the machine of who began
	By    string `json:"by"`   // who began
	// SHA256 and Bytes are of the snapshot's file.
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
	// Manifest is the backup's: a recovery is finished from any machine.
	Manifest backup.Manifest `json:"manifest"`
	// Lost are the hosts that the operator has said to be lost for good.
	Lost []string `json:"lost,omitempty"`
	// Bump is what is added to the snapshot's revision.
	Bump int64 `json:"bump"`
	// Cluster is the new members' --initial-cluster.
	Cluster string `json:"initialCluster"`
	// Before is the ID of the cluster that was there; 0 when nobody told.
	Before etcd.MemberID `json:"before"`
	// Revision is above all that anybody has seen before, and that of the first
	// write after.
	Revision int64     `json:"revision"`
	Loss     Loss      `json:"loss"`
	Began    time.Time `json:"began"`
	Done     bool      `json:"done"`
	// Onto says that the cluster is made anew on bare hosts; Made, on the host of
	// its first member, that kubeadm init has come to its end there.
	Onto bool `json:"onto,omitempty"`
	Made bool `json:"made,omitempty"`
	// After is the ID of the new cluster; 0 before it is Done.
	After etcd.MemberID `json:"after"`
}

func readRestoreNote(ctx context.Context, h host.Reader) (*restoreNote, error) {
	data, err := h.ReadFile(ctx, restoreFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var n restoreNote
	if err := json.Unmarshal(data, &n); err != nil {
		return nil, fmt.Errorf("%s: %w", restoreFile, err)
	}
	return &n, nil
}

func writeRestoreNote(ctx context.Context, h host.Host, n restoreNote) error {
	content, err := json.Marshal(n)
	if err != nil {
		return err
	}
	_, err = h.Upload(ctx, host.File{Path: restoreFile, Mode: 0o600, Content: content})
	return err
}

// restoreNotes reads the notes and markers of the masters that are connected;
// nothing else of them is seen.
func (s *Site) restoreNotes(ctx context.Context) (map[string]masterSeen, error) {
	var mu sync.Mutex
	seen := map[string]masterSeen{}
	err := s.onAll(ctx, s.connected(s.Cluster.ControlPlanes()), func(ctx context.Context, ih inventory.Host, h host.Host) (err error) {
		var m masterSeen
		if m.note, err = readRestoreNote(ctx, h); err != nil {
			return err
		}
		if m.marker, err = readMarker(ctx, h); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		seen[ih.Name] = m
		return nil
	})
	return seen, err
}

// makesAnew are the verbs that may run while a restore is half done: those that
// finish it, the one that takes all away, and the one that a restore needs whose
// cluster serves and is full by now. That one's gates want all members to vote, and
// to be of one cluster.
var makesAnew = map[string]bool{"restore": true, "recover": true, "reset": true, disarmVerb: true}

// notHalfRestored refuses every other operation while a restore is half done.
func (s *Site) notHalfRestored(ctx context.Context, verb string) error {
	if makesAnew[verb] {
		return nil
	}
	seen, err := s.restoreNotes(ctx)
	if err != nil {
		return err
	}
	if err := givenUp(s.Cluster, seen); err != nil {
		return err
	}
	var on []string
	var first restoreNote
	for _, name := range sortedKeys(seen) {
		if n := seen[name].note; n != nil && !n.Done {
			on, first = append(on, name), *n
		}
	}
	if len(on) == 0 {
		return nil
	}
	return halfDone(first, strings.Join(on, ", "))
}

func halfDone(n restoreNote, on string) error {
	why := "Members of two clusters may run until it is finished"
	if n.Onto {
		why = "Until it is finished its hosts hold a part of the backup at most"
	}
	return &ConflictError{
		What: fmt.Sprintf("a %s of the cluster is half done", n.Verb),
		Why:  fmt.Sprintf("%s began it at %s; %s on %s says so. %s", n.By, n.Began.UTC().Format(time.DateTime+"Z"), restoreFile, on, why),
		Run:  n.goOn(),
	}
}

// goOn is the command that finishes what the note is about.
func (n restoreNote) goOn() string {
	if n.Verb == "recover" {
		return "ha-install recover INVENTORY, which goes on from what is there"
	}
	with := ""
	if n.Onto {
		with = ", with the same --identity or --passphrase-file"
	}
	text := "ha-install restore INVENTORY --from " + n.From + with + ", which goes on from what is there"
	if !n.Onto {
		text += "; where a master was lost since: ha-install recover INVENTORY"
	}
	return text
}

// noteBegun writes the note on a master, before anything stops.
func (r *restore) noteBegun(ih inventory.Host) phase.Phase {
	return phase.Phase{
		Name: "note", Host: ih.Name,
		Done: func(context.Context) (bool, error) {
			n := r.seen[ih.Name].note
			return n != nil && n.Token == r.note.Token, nil
		},
		Do: func(ctx context.Context) error {
			h, err := r.host(ih.Name)
			if err != nil {
				return err
			}
			return writeRestoreNote(ctx, h, r.note)
		},
		Explain: func(context.Context) ([]phase.Change, error) {
			return []phase.Change{{Kind: changeFile, Name: restoreFile, Mode: "0600", Text: "no other operation may run until the restore is done"}}, nil
		},
	}
}

// adopt takes up the note of an earlier run that is half done and is about the
// same snapshot and the same masters; else nil. Of several the newest counts:
// one that an even earlier run left was given up for it.
func adopt(notes map[string]restoreNote, sum, cluster string) *restoreNote {
	var newest *restoreNote
	for _, name := range sortedKeys(notes) {
		n := notes[name]
		if n.Done || n.SHA256 != sum || n.Cluster != cluster {
			continue
		}
		if newest == nil || n.Began.After(newest.Began) {
			newest = &n
		}
	}
	return newest
}

// completed is the note that all masters bear of the same restore of the same
// snapshot when nothing of it is left to do; else nil.
func completed(notes map[string]restoreNote, masters int, sum string) *restoreNote {
	var first *restoreNote
	for _, name := range sortedKeys(notes) {
		n := notes[name]
		if !n.Done || n.SHA256 != sum || first != nil && n.Token != first.Token {
			return nil
		}
		first = &n
	}
	if len(notes) < masters {
		return nil
	}
	return first
}
