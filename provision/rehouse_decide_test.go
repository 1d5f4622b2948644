package provision

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ha-install/ha-install/provision/backup"
)

func TestWhereARestoreGoes(t *testing.T) {
	t.Parallel()
	bare := masterSeen{}
	claimed := masterSeen{marker: marker{Cluster: "prod"}}
	removed := masterSeen{marker: marker{Removed: "2026-11-23"}}
	master := masterSeen{marker: marker{Cluster: "prod", CASHA256: "ab", Established: true}}
	begun := masterSeen{marker: marker{Cluster: "prod", CASHA256: "ab"}, note: &restoreNote{Onto: true}}
	made := masterSeen{marker: marker{Cluster: "prod", CASHA256: "ab", Established: true}, note: &restoreNote{Onto: true, Done: true}}
	inPlace := masterSeen{marker: marker{Cluster: "prod", CASHA256: "ab", Established: true}, note: &restoreNote{}}
	stranger := masterSeen{marker: marker{Cluster: "staging"}}
	// Of an earlier try, on a host that has come back.
	early := masterSeen{marker: marker{Cluster: "prod", CASHA256: "ab", Established: true}, note: &restoreNote{Onto: true, Token: "prod-0", From: "b", By: "ops", Began: time.Unix(0, 0)}}
	late := masterSeen{note: &restoreNote{Onto: true, Token: "prod-1", Began: time.Unix(60, 0)}}
	leftover := masterSeen{restoreFacts: restoreFacts{data: true}}
	for _, test := range []struct {
		says    string
		masters [3]masterSeen
		bare    bool
		refused string
	}{
		{"all are masters of the cluster", [3]masterSeen{master, master, master}, false, ""},
		{"all are bare", [3]masterSeen{bare, bare, bare}, true, ""},
		{"all are claimed by name, and no more", [3]masterSeen{claimed, bare, claimed}, true, ""},
		{"they were taken out of a cluster before", [3]masterSeen{removed, bare, bare}, true, ""},
		{"one is bare", [3]masterSeen{master, bare, master}, false, "cp-2 is no master of cluster prod, cp-1, cp-3 is"},
		{"one is not", [3]masterSeen{bare, bare, master}, false, "cp-1, cp-2 is no master of cluster prod, cp-3 is"},
		{"one has etcd's data, of whatever", [3]masterSeen{bare, leftover, bare}, false, "cp-1, cp-3 is no master"},
		{"one belongs to another cluster", [3]masterSeen{bare, stranger, bare}, false, "cp-1, cp-3 is no master"},
		{"an earlier run has begun on bare hosts", [3]masterSeen{begun, claimed, claimed}, true, ""},
		{"it has come to its end on one of them", [3]masterSeen{made, begun, begun}, true, ""},
		{"it has come to its end", [3]masterSeen{made, made, made}, false, ""},
		{"one was left by a try that was given up, the others are masters by another", [3]masterSeen{made, early, made}, false, "begun on cp-2 and given up: what is there is no part of the cluster of cp-1, cp-3\nwhy: ops began it at 1970-01-01"},
		{"the others are masters that were never restored", [3]masterSeen{early, master, bare}, false, "begun on cp-1 and given up"},
		{"two were left", [3]masterSeen{early, early, made}, false, "take cp-1, cp-2 out of the inventory"},
		{"the others are masters that a restore of theirs has left half done", [3]masterSeen{inPlace, inPlace, early}, false, "begun on cp-3 and given up"},
		{"a later try is half done", [3]masterSeen{late, early, bare}, false, "begun on cp-2 and given up: what is there is no part of the cluster of cp-1\n"},
		{"only what is left of a try is there", [3]masterSeen{bare, early, early}, true, ""},
		{"a restore of the masters is half done", [3]masterSeen{inPlace, master, master}, false, ""},
	} {
		seen := map[string]masterSeen{"cp-1": test.masters[0], "cp-2": test.masters[1], "cp-3": test.masters[2]}
		got, err := onto(testCluster(t), seen)
		if got != test.bare || (err == nil) != (test.refused == "") || err != nil && !strings.Contains(err.Error(), test.refused) {
			t.Errorf("%s: onto bare hosts %t, error %v", test.says, got, err)
		}
	}
}

func TestWhoServedBeforeAndIsNoHostNow(t *testing.T) {
	t.Parallel()
	m := backup.Manifest{Members: []backup.Member{{PeerURL: "https://198.51.100.21:2380"}, {PeerURL: "https://198.51.100.77:2380"}, {PeerURL: "https://[2001:db8::7]:2380"}}}
	if got := formerly(testCluster(t), m); !slices.Equal(got, []string{"198.51.100.77", "2001:db8::7"}) {
		t.Errorf("%q", got)
	}
}

func TestWhatFinishesAHalfDoneRestore(t *testing.T) {
	t.Parallel()
	for want, n := range map[string]restoreNote{
		"ha-install restore INVENTORY --from b, which goes on":                                                {Verb: "restore", From: "b"},
		"ha-install restore INVENTORY --from b, with the same --identity or --passphrase-file, which goes on": {Verb: "restore", From: "b", Onto: true},
		"ha-install recover INVENTORY, which goes on":                                                         {Verb: "recover", From: "b"},
	} {
		if got := n.goOn(); !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
