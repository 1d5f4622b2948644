package host

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// roundTrip has a shell split what Quote joined.
func roundTrip(t *testing.T, shell string, argv []string) {
	t.Helper()
	line := Quote(append([]string{"printf", `%s\0`}, argv...))
	out, err := exec.Command(shell, "-c", line).Output()
	if err != nil {
		t.Fatalf("%s -c %q: %v", shell, line, err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if !slices.Equal(got, argv) {
		t.Errorf("%s: %q became %q by %q", shell, argv, got, line)
	}
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{
		"", "a", "-n", "a b", "it's", `"`, `\`, `\'`, `'\''`, "$HOME", "`id`", "$(id)", "*", "~", "~root", "a=b", "#", "!", "!!",
		"\n", "\r\n", "\t", "é", "\xff\xfe", "a;b", "&&", "|", "<>", "{a,b}", "[a]", "%s", "\x01\x7f", "if", "''", `\\`, `a\`,
	} {
		f.Add(s, "x")
		f.Add("x", s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.IndexByte(a+b, 0) >= 0 {
			return // no argv can hold it; commandLine refuses it
		}
		roundTrip(t, "/bin/sh", []string{a, b, a + b})
	})
}

func TestQuoteForBash(t *testing.T) {
	var every []byte
	for c := 1; c < 256; c++ {
		every = append(every, byte(c))
	}
	roundTrip(t, "/bin/bash", []string{string(every), "", string(bytes.Repeat([]byte(`'\`), 9)), "$'\\n'"})
}

func TestQuoteKeepsPlainWordsReadable(t *testing.T) {
	for want, argv := range map[string][]string{
		"kubeadm init --config /etc/kubernetes/init.yaml": {"kubeadm", "init", "--config", "/etc/kubernetes/init.yaml"},
		"'if' if":        {"if", "if"},
		"'A=b' ''":       {"A=b", ""},
		`'a'\''b'\\'c'`:  {`a'b\c`},
		"'~' '$x' 'a b'": {"~", "$x", "a b"},
	} {
		if got := Quote(argv); got != want {
			t.Errorf("%q: %s, wanted %s", argv, got, want)
		}
	}
}

func TestCommandLineRefusesWhatCannotBeSaid(t *testing.T) {
	h := &SSH{cfg: Config{Name: "cp-1", User: "root"}}
	for name, c := range map[string]Command{
		"no command":                    {},
		"a NUL byte":                    {Argv: []string{"echo", "a\x00b"}},
		"a name that env would assign":  {Argv: []string{"A=b"}},
		"a variable without a name":     {Argv: []string{"true"}, Env: map[string]string{"": "x"}},
		"a variable named as an option": {Argv: []string{"true"}, Env: map[string]string{"-i": "x"}},
	} {
		if line, err := h.commandLine(c.Argv, c.Env); err == nil {
			t.Errorf("%s: %s", name, line)
		}
	}
}
