package provision

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/etcd"
)

func TestRevisionsComeOutAboveAllThatWereSeen(t *testing.T) {
	for _, test := range []struct {
		says                 string
		snapshot, seen, want int64
	}{
		{"nobody tells a revision", 5_000, 0, 1_000_000_000},
		{"the cluster has gone on a little", 5_000, 9_000, 1_000_000_000},
		{"the cluster was restored before, from the same backup", 5_000, 1_000_007_000, 2_000_000_000},
		{"it was restored twice before", 5_000, 2_000_000_001, 2_000_000_000},
		{"the backup is of after a restore", 1_000_000_500, 1_000_000_900, 1_000_000_000},
	} {
		got := bumpFor(test.snapshot, test.seen)
		if got != test.want || test.snapshot+got <= test.seen {
			t.Errorf("%s: %d, want %d", test.says, got, test.want)
		}
	}
}

func TestWhichNoteOfAnEarlierRunCounts(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 11, 23, 4, minute, 0, 0, time.UTC) }
	old := restoreNote{Token: "old", SHA256: "s", Cluster: "c", Began: at(1)}
	young := restoreNote{Token: "young", SHA256: "s", Cluster: "c", Began: at(2)}
	done, other, fewer := young, old, old
	done.Done, other.SHA256, fewer.Cluster = true, "other", "fewer"
	for _, test := range []struct {
		says      string
		notes     map[string]restoreNote
		adopted   string // its token
		completed string
	}{
		{"there is none", nil, "", ""},
		{"one master has it", map[string]restoreNote{"cp-2": old}, "old", ""},
		{"a restore was given up for another", map[string]restoreNote{"cp-1": young, "cp-2": old, "cp-3": old}, "young", ""},
		{"it is of another snapshot", map[string]restoreNote{"cp-1": other}, "", ""},
		{"it is of other masters", map[string]restoreNote{"cp-1": fewer}, "", ""},
		{"the last master was not told that all is done", map[string]restoreNote{"cp-1": done, "cp-2": done, "cp-3": young}, "young", ""},
		{"all is done", map[string]restoreNote{"cp-1": done, "cp-2": done, "cp-3": done}, "", "young"},
		{"all is done, but a master was set up anew", map[string]restoreNote{"cp-1": done, "cp-2": done}, "", ""},
	} {
		token := func(n *restoreNote) string {
			if n == nil {
				return ""
			}
			return n.Token
		}
		if got := token(adopt(test.notes, "s", "c")); got != test.adopted {
			t.Errorf("%s: %q is taken up, want %q", test.says, got, test.adopted)
		}
		if got := token(completed(test.notes, 3, "s")); got != test.completed {
			t.Errorf("%s: %q is done, want %q", test.says, got, test.completed)
		}
	}
}

func TestWhatARestoreLoses(t *testing.T) {
	from := time.Date(2026, 11, 23, 4, 26, 1, 0, time.UTC)
	m := backup.Manifest{Time: from, ClusterID: 7, Snapshot: backup.Snapshot{Contents: backup.Contents{Revision: 100}}}
	tells := func(cluster etcd.MemberID, revision int64) etcd.Verdict {
		return etcd.Verdict{State: etcd.Pass, Members: []etcd.Member{{}, {Inputs: &etcd.View{Last: &etcd.Status{ClusterID: cluster, Revision: revision}}}}}
	}
	for _, test := range []struct {
		says string
		now  etcd.Verdict
		want string
	}{
		{"the members tell", tells(7, 531), ": 431 revisions"},
		{"nothing was written", tells(7, 100), ": 0 revisions"},
		{"who is left tells, and may be behind", etcd.Verdict{State: etcd.NoQuorum, Members: tells(7, 531).Members}, "how much that is cannot be known"},
		{"nobody tells", etcd.Verdict{}, "how much that is cannot be known"},
		{"the members are of another restore", tells(8, 531), "how much that is cannot be known"},
	} {
		got := lossOf(m, test.now, from.Add(730*time.Second)).String()
		if !strings.HasPrefix(got, "all that was written between 2026-11-23 04:26:01Z and 2026-11-23 04:38:11Z (12m10s)") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %s", test.says, got)
		}
	}
}

func TestWhatAMasterSaysOfARestore(t *testing.T) {
	f, err := parseRestoreFacts("etcdutl 3.6.8\netcd-free 1024\nstate-free 2048\nkubelet active\nmanifest etcd\nruns etcd\nruns kube-apiserver\ndata yes\ntoken lab-1\nunpacked\n")
	want := restoreFacts{etcdutl: "3.6.8", etcdFree: 1 << 20, stateFree: 2 << 20, kubelet: true, data: true, token: "lab-1",
		manifest: map[string]bool{"etcd": true}, runs: map[string]bool{"etcd": true, "kube-apiserver": true}}
	if diff := cmp.Diff(want, f, cmp.AllowUnexported(restoreFacts{})); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if err := f.stopped(); err == nil || !strings.Contains(err.Error(), "etcd still runs") {
		t.Errorf("stopped: %v", err)
	}
	f.runs = nil
	if err := f.stopped(); err == nil || !strings.Contains(err.Error(), "would run again") {
		t.Errorf("stopped: %v", err)
	}
	f.manifest = nil
	if err := f.stopped(); err != nil {
		t.Errorf("stopped: %v", err)
	}
	if _, err := parseRestoreFacts("etcd-free much\n"); err == nil {
		t.Error("no number is taken for one")
	}
}

func TestWhichVersionsARestoreReads(t *testing.T) {
	source := func(etcdVersion, kubernetes string) restoreSource {
		return restoreSource{m: backup.Manifest{EtcdVersion: etcdVersion, KubernetesVersion: kubernetes}}
	}
	for _, test := range []struct {
		says   string
		source restoreSource
		seen   masterSeen
		want   string // "" for none
	}{
		{"all the same", source("3.6.8", "v1.36.3"), masterSeen{restoreFacts: restoreFacts{etcdutl: "3.6.8"}, tags: map[string]string{"etcd": "3.6.8-0", "kube-apiserver": "v1.36.3"}}, ""},
		{"the backup is of the minor before", source("3.5.24", "v1.35.4"), masterSeen{restoreFacts: restoreFacts{etcdutl: "3.6.8"}, tags: map[string]string{"etcd": "3.6.8-0", "kube-apiserver": "v1.36.3"}}, ""},
		{"the backup is of a newer etcd", source("3.7.0", "v1.36.3"), masterSeen{restoreFacts: restoreFacts{etcdutl: "3.6.8"}}, "the backup is of etcd 3.7.0"},
		{"the backup is of a newer Kubernetes", source("3.6.8", "v1.37.0"), masterSeen{restoreFacts: restoreFacts{etcdutl: "3.6.8"}, tags: map[string]string{"kube-apiserver": "v1.36.3"}}, "the backup is of Kubernetes v1.37.0"},
		{"two minors lie between", source("3.6.8", "v1.34.4"), masterSeen{restoreFacts: restoreFacts{etcdutl: "3.6.8"}, tags: map[string]string{"kube-apiserver": "v1.36.3"}}, "the backup is of Kubernetes v1.34.4"},
		{"the tool is another minor's", source("3.6.8", ""), masterSeen{restoreFacts: restoreFacts{etcdutl: "3.6.8"}, tags: map[string]string{"etcd": "3.5.24-0"}}, "has etcdutl 3.6.8 and runs etcd 3.5.24-0"},
		{"no tool", source("3.6.8", ""), masterSeen{}, "has no etcdutl"},
		{"a mirror's tag", source("3.6.8", ""), masterSeen{restoreFacts: restoreFacts{etcdutl: "3.6.8"}, tags: map[string]string{"etcd": "our-build"}}, ""},
	} {
		text := ""
		for _, err := range fits("cp-1", test.source, test.seen) {
			text += err.Error()
		}
		if test.want == "" && text != "" || !strings.Contains(text, test.want) {
			t.Errorf("%s: %q, want %q", test.says, text, test.want)
		}
	}
}

// TestDataThatAreHalfUnpackedAreNone: the host died between the mark and the last name.
func TestDataThatAreHalfUnpackedAreNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	look := func() string {
		out, err := exec.Command("sh", "-c", strings.ReplaceAll(restoreLookScript, "/var/lib/etcd", dir), "sh", "no such", "argument").Output()
		if err != nil {
			t.Fatal(err)
		}
		f, err := parseRestoreFacts(string(out))
		if err != nil {
			t.Fatal(err)
		}
		return f.unpacked
	}
	part := filepath.Join(dir, "restore-prod-1.part")
	if err := os.MkdirAll(filepath.Join(part, "member"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(part, "member", restoreMark), []byte("prod-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := look(); got != "" {
		t.Errorf("half unpacked: %q", got)
	}
	if err := os.Rename(part, strings.TrimSuffix(part, ".part")); err != nil {
		t.Fatal(err)
	}
	if got := look(); got != "prod-1" {
		t.Errorf("unpacked: %q", got)
	}
}
