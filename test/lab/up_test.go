package lab

import "testing"

func TestAContainerOfAnotherDirectoryIsNotOurs(t *testing.T) {
	const ours = "/src/ha-install/.lab/pre-start"
	for _, tt := range []struct {
		name, config string
		want         bool
	}{
		{"made here", "lxc.arch = amd64\nlxc.hook.pre-start=" + ours + " /src/ha-install/.lab/hosts/cp-1\n", true},
		{"made in a checkout that was moved", "lxc.hook.pre-start = /old" + ours + " /old/src/ha-install/.lab/hosts/cp-1\n", false},
		{"started from here after it was moved", "lxc.hook.pre-start=/old" + ours + " x\nlxc.hook.pre-start=" + ours + " x\n", false},
		{"without a hook", "lxc.arch = amd64\n", false},
		{"with an empty one", "lxc.hook.pre-start =\n", false},
	} {
		if got := onlyHook(tt.config, ours); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}
