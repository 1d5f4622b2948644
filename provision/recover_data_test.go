package provision

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/backup"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/test/sim"
)

func TestWhatADataDirectoryTells(t *testing.T) {
	const told = `[{"Endpoint":"unix://client.sock:0","Status":{"header":{"cluster_id":6426217582821000192,"member_id":15073563080646858791,"revision":200,"raft_term":3},"version":"3.6.8","dbSize":53248,"leader":15073563080646858791}}]`
	got, err := parseDataRead("cp-1", []byte(told))
	if want := (dataRead{host: "cp-1", revision: 200, cluster: 6426217582821000192, member: 15073563080646858791, version: "3.6.8"}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for _, text := range []string{"", "[]", `[{"Status":{"header":{"cluster_id":1}}}]`, `[{"Status":{"header":{"revision":7}}}]`, "Error: context deadline exceeded"} {
		if got, err := parseDataRead("cp-1", []byte(text)); err == nil {
			t.Errorf("%q told %+v", text, got)
		}
	}
}

func TestTheMostAdvancedSurvivor(t *testing.T) {
	read := func(name string, revision int64) dataRead { return dataRead{host: name, revision: revision} }
	answers := func(revision int64) recoverSeen {
		return recoverSeen{name: "x", data: true, answers: true, revision: revision}
	}
	for _, test := range []struct {
		says    string
		read    []dataRead
		masters []recoverSeen
		want    string // "" for one that answers
	}{
		{says: "none was read", masters: []recoverSeen{answers(7)}},
		{says: "one is left", read: []dataRead{read("a", 7)}, want: "a"},
		{says: "of two that answer nobody", read: []dataRead{read("a", 7), read("b", 9)}, want: "b"},
		{says: "one that answers has more", read: []dataRead{read("a", 7)}, masters: []recoverSeen{answers(9)}},
		{says: "one that answers has as much", read: []dataRead{read("a", 9)}, masters: []recoverSeen{answers(9)}},
		{says: "one that answers has less", read: []dataRead{read("a", 9)}, masters: []recoverSeen{answers(7)}, want: "a"},
		{says: "one that answers is of the cluster before", read: []dataRead{read("a", 7)}, masters: []recoverSeen{{name: "x", answers: true, returned: true, revision: 9}}, want: "a"},
	} {
		rc := &recovery{read: test.read, facts: recoverFacts{masters: test.masters}}
		got := ""
		if d := rc.mostRead(); d != nil {
			got = d.host
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.says, got, test.want)
		}
	}
}

// cameBack is a cluster that has lost its power: of its masters only the named came
// back, and their etcds answer nobody.
func cameBack(t *testing.T, c *inventory.Cluster, dir string, came ...string) *sim.State {
	t.Helper()
	return madeBy(t, c, func(t *testing.T, w *sim.World) {
		running(t, w, c, dir)
		w.MayEnd = true
		for _, ih := range c.ControlPlanes() {
			if slices.Contains(came, ih.Name) {
				continue
			}
			lost(w, ih.Name)
		}
		for _, name := range came {
			w.Reboot(name)
		}
	})
}

func TestRecoverFromASurvivorThatWasRebootedStoppedAnywhere(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	f := workflow{
		name: "recover from one master of three that was rebooted", c: c, start: cameBack(t, c, dirs[0], "cp-1"),
		run: func(ctx context.Context, w *sim.World, _ bool, cut *sim.Cut) error {
			_, err := recoverAll(ctx, w, withoutCA(c), dirs[0], onlyMasters(w, "cp-1"), cp1Left, cut, nil)
			return err
		},
		wrong: func(w *sim.World) string {
			for p := range w.Host("cp-1").Files {
				if strings.HasPrefix(p, readDir) {
					return p + " was left"
				}
			}
			return onlyOne(w)
		},
		about: notTheLock,
	}
	f.everywhere(t)
}

// TestTheSurvivorWasRebooted: its etcd answers nobody, and its data are all there.
func TestTheSurvivorWasRebooted(t *testing.T) {
	t.Parallel()
	c, dirs := testCluster(t), baseDirs(t)
	start, from := backedUpCluster(t, c, dirs[0])
	store := from[:strings.LastIndex(from, "/prod/")]
	for _, test := range []struct {
		says string
		meet func(*testing.T, *sim.World, *RecoverOptions)
		said []string
		want string // of the error; "" for none
	}{
		{"a backup is there", func(t *testing.T, w *sim.World, o *RecoverOptions) { o.Backup.Directory = store },
			[]string{"its etcd does not answer; its data are there, revision ", "way      survivor", "revisions"}, ""},
		{"no backup is there", func(t *testing.T, w *sim.World, o *RecoverOptions) { o.Backup.Directory = t.TempDir() },
			[]string{"its data are there, revision ", "way      survivor"}, ""},
		{"nobody can read its data", func(t *testing.T, w *sim.World, o *RecoverOptions) {
			o.Backup.Directory, w.Host("cp-1").Unreadable = store, true
		}, []string{"cp-1: its data cannot be read"}, ", and loses all that was written after"},
		{"nobody can read its data, and there is no backup", func(t *testing.T, w *sim.World, o *RecoverOptions) {
			o.Backup.Directory, w.Host("cp-1").Unreadable = t.TempDir(), true
		}, nil, "there is no backup that is whole"},
		{"it had fallen behind the backup", func(t *testing.T, w *sim.World, o *RecoverOptions) {
			o.Backup.Directory, w.Host("cp-1").Lags = store, 1
		}, []string{"way      backup: the backup has revision "}, ""},
	} {
		t.Run(test.says, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := start.World(t, c)
				w.Slow = true
				lost(w, "cp-2", "cp-3")
				w.Reboot("cp-1")
				o := cp1Left
				test.meet(t, w, &o)
				var said []string
				_, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], onlyMasters(w, "cp-1"), o, nil, func(e phase.Event) { said = append(said, e.Message) })
				text := strings.Join(said, "\n")
				for _, want := range test.said {
					if !strings.Contains(text, want) {
						t.Errorf("%q is not said:\n%s", want, text)
					}
				}
				if test.want != "" {
					if err == nil || !strings.Contains(err.Error(), test.want) || !w.Host("cp-1").Units["kubelet.service"].Active {
						t.Errorf("kubelet %v, error %v, want %q", w.Host("cp-1").Units["kubelet.service"], err, test.want)
					}
					return
				}
				if err != nil {
					t.Fatalf("%v\n%s", err, text)
				}
				if bad := onlyOne(w); bad != "" {
					t.Error(bad)
				}
			})
		})
	}
}

// TestTheMostAdvancedOfTwoThatWereRebooted: two of five came back, and neither answers.
func TestTheMostAdvancedOfTwoThatWereRebooted(t *testing.T) {
	t.Parallel()
	three, dirs := dressed(t), baseDirs(t)
	c := fiveMasters(three)
	start := cameBack(t, c, dirs[0], "cp-1", "cp-2")
	bubble(t, func(t *testing.T) {
		w := start.World(t, c)
		w.Slow = true
		w.Host("cp-1").Lags = 1
		o := RecoverOptions{Lost: []string{"cp-3", "cp-4", "cp-5"}, Backup: BackupOptions{Directory: t.TempDir()}}
		if _, err := recoverAll(t.Context(), w, withoutCA(c), dirs[0], onlyMasters(w, "cp-1", "cp-2"), o, nil, nil); err != nil {
			t.Fatal(err)
		}
		all, err := backup.In(o.Backup.Directory, c.Metadata.Name).List()
		if err != nil || len(all) != 1 || all[0].Manifest.From != "cp-2" || all[0].Manifest.Quorum {
			t.Errorf("the snapshot is of %+v, %v, want one of cp-2, without quorum", all, err)
		}
		if votes := w.Votes(); !slices.Equal(votes, []string{"cp-1 voter", "cp-2 voter"}) {
			t.Errorf("members %q", votes)
		}
	})
}
