package release

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, row := range []struct {
		text string
		want Version // zero: refused
	}{
		{"v1.36.3", Version{1, 36, 3}},
		{"v1.35.0", Version{1, 35, 0}},
		{"v1.100.12", Version{1, 100, 12}},
		{"1.36.3", Version{}},
		{"v1.36", Version{}},
		{"v1.36.3-rc.1", Version{}},
		{"v1.36.3-0", Version{}},
		{"v1.36.3+vendor.2", Version{}},
		{"v1.036.3", Version{}},
		{"v1.36.3 ", Version{}},
		{"v1.36.-3", Version{}},
		{"v1.36.99999999999999999999", Version{}},
		{"", Version{}},
	} {
		got, err := Parse(row.text)
		if got != row.want || (err == nil) != (row.want != Version{}) {
			t.Errorf("%q: %v, %v", row.text, got, err)
		}
		if err == nil && got.String() != row.text {
			t.Errorf("%q is written %q", row.text, got)
		}
	}
}

func TestParseEtcd(t *testing.T) {
	for _, row := range []struct {
		text string
		want Version
	}{
		{"3.6.8", Version{3, 6, 8}},
		{"3.6.8-0", Version{3, 6, 8}},
		{"3.5.24-12", Version{3, 5, 24}},
		{"v3.6.8", Version{}},
		{"3.6.8-", Version{}},
		{"3.6.8-rc.0", Version{}},
		{"3.6.8-0-1", Version{}},
		{"3.6", Version{}},
	} {
		got, err := ParseEtcd(row.text)
		if got != row.want || (err == nil) != (row.want != Version{}) {
			t.Errorf("%q: %v, %v", row.text, got, err)
		}
	}
}

func must(t *testing.T, text string) Version {
	t.Helper()
	v, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestKind(t *testing.T) {
	for _, row := range []struct {
		name, from, to string
		want           Kind
		refused        string
	}{
		{"nothing to do", "v1.36.3", "v1.36.3", Same, ""},
		{"the next patch", "v1.36.2", "v1.36.3", Patch, ""},
		{"patches may be passed over", "v1.36.1", "v1.36.12", Patch, ""},
		{"the next minor", "v1.35.4", "v1.36.3", Minor, ""},
		{"the next minor with a lower patch", "v1.35.9", "v1.36.0", Minor, ""},
		{"over a hundred", "v1.99.0", "v1.100.0", Minor, ""},
		{"a patch back", "v1.36.3", "v1.36.2", "", "cannot go back"},
		{"a minor back", "v1.36.0", "v1.35.9", "", "cannot go back"},
		{"two minors", "v1.34.1", "v1.36.3", "", "upgrade to a v1.35 first"},
		{"many minors", "v1.9.0", "v1.36.3", "", "upgrade to a v1.10 first"},
		{"another major", "v1.36.3", "v2.0.0", "", "one minor at a time"},
		{"another major, numbers as if next", "v1.36.3", "v2.37.0", "", "one minor at a time"},
		{"a major back", "v2.0.0", "v1.36.3", "", "cannot go back"},
	} {
		t.Run(row.name, func(t *testing.T) {
			kind, err := Step{must(t, row.from), must(t, row.to)}.Kind()
			var problem *Problem
			if kind != row.want || (err != nil) != (row.refused != "") || err != nil && !errors.As(err, &problem) {
				t.Fatalf("%q, %v", kind, err)
			}
			if err == nil {
				return
			}
			if text := err.Error(); !strings.Contains(text, row.refused) || strings.Count(text, "\n") != 2 {
				t.Errorf("the refusal %q", text)
			}
		})
	}
}

// TestKindOfEverySmallStep enumerates all pairs of a small range against the
// rule in words.
func TestKindOfEverySmallStep(t *testing.T) {
	var all []Version
	for minor := 33; minor <= 37; minor++ {
		for patch := range 3 {
			all = append(all, Version{1, minor, patch})
		}
	}
	for _, from := range all {
		for _, to := range all {
			want := Kind("")
			switch {
			case to.Minor == from.Minor && to.Patch == from.Patch:
				want = Same
			case to.Minor == from.Minor && to.Patch > from.Patch:
				want = Patch
			case to.Minor == from.Minor+1:
				want = Minor
			}
			if kind, err := (Step{from, to}).Kind(); kind != want || (err == nil) != (want != "") {
				t.Errorf("%s to %s: %q, %v; want %q", from, to, kind, err, want)
			}
		}
	}
}
