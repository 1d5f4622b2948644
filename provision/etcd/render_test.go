package etcd

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ha-install/ha-install/test/golden"
)

func TestRender(t *testing.T) {
	realIDs := func(o *Observation) {
		ids := map[MemberID]MemberID{1: 0x1331223d9f0c5a11, 2: 0x784a333344aa5566, 3: 0xa5d4976c00112233}
		for i := range o.Views {
			for _, s := range []*Status{o.Views[i].First, o.Views[i].Last} {
				if s != nil {
					s.MemberID, s.Leader = ids[s.MemberID], ids[s.Leader]
				}
			}
			for _, l := range [][]Listed{o.Views[i].Local, o.Views[i].Agreed} {
				for k := range l {
					if id, ok := ids[l[k].ID]; ok {
						l[k].ID = id
					}
				}
			}
		}
	}
	slower := edit(2, func(v *View) { v.Linearizable.Latency = 6e6 })
	for _, tt := range []struct {
		file   string
		title  string
		faults []fault
		op     *Operation
	}{
		{"replace.golden", "replace cp-3  step 4/9 remove dead member", []fault{poweredOff(3), slower, realIDs},
			&Operation{Kind: OpRemoveDead, ID: 0xa5d4976c00112233, Fenced: true}},
		{"refused.golden", "upgrade cp-2", []fault{poweredOff(3), slower, realIDs}, &Operation{Kind: OpRestart, Host: "cp-2", ID: 0x784a333344aa5566}},
		{"healthy.golden", "", []fault{slower, realIDs}, nil},
		{"split.golden", "status", []fault{edit(3, func(v *View) { v.Last.ClusterID = 0x99 })}, nil},
		{"no-quorum.golden", "status", []fault{dead(2), poweredOff(3), leaderless(1), noWrite}, nil},
	} {
		t.Run(tt.file, func(t *testing.T) {
			v := Assess(observed(3, tt.faults...))
			v.Title = tt.title
			var d *Decision
			if tt.op != nil {
				p := Project(v, *tt.op)
				d = &p
			}
			var b bytes.Buffer
			if err := Render(&b, v, d); err != nil {
				t.Fatal(err)
			}
			if d != nil {
				if err := d.Err(v); err != nil {
					b.WriteString("\n" + err.Error() + "\n")
				}
			}
			golden.Check(t, tt.file, b.Bytes())
		})
	}
}

func TestVerdictAsJSON(t *testing.T) {
	v := Assess(observed(3, poweredOff(3)))
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "verdict.json", append(got, '\n'))
	var back Verdict
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v, back); diff != "" {
		t.Errorf("read back (-written +read):\n%s", diff)
	}
}

func TestRenderKeepsTheWritersError(t *testing.T) {
	broken := errors.New("broken pipe")
	if err := Render(failing{broken}, Assess(observed(3)), nil); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
