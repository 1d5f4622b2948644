package sim

import (
	"fmt"
	"strings"
)

// fromPackages are the programs that packages bring, and what they say when they
// are asked for their version.
var fromPackages = map[string]string{
	"runc":       "runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\nspec: 1.0.2-dev",
	"haproxy":    "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\nStatus: long-term supported branch",
	"keepalived": "Keepalived v2.2.7 (01/16,2022)\n\nCopyright(C) 2001-2022 Alexandre Cassen",
}

// Versions is what provision/versions asks: the named programs, each in the
// words of the real one, and the manifests of static pods. A program of a test's
// bundle may end in its version ("the program kubelet v1.35.4").
func (h *Host) Versions(programs []string) []byte {
	var b strings.Builder
	say := func(head, text string) {
		fmt.Fprintln(&b, head)
		for line := range strings.Lines(text) {
			b.WriteString("| " + line)
		}
		fmt.Fprintln(&b)
	}
	for _, name := range programs {
		if text, ok := fromPackages[name]; ok {
			if h.Packages[name] == installed {
				say("program="+name, text)
			}
			continue
		}
		f, ok := h.Files["/usr/local/bin/"+name]
		if !ok {
			continue
		}
		version := "v1.36.3"
		if words := strings.Fields(string(f.Content)); strings.HasPrefix(words[len(words)-1], "v") {
			version = words[len(words)-1]
		}
		say("program="+name, map[string]string{
			"kubelet": "Kubernetes " + version, "kubectl": "Client Version: " + version, "kubeadm": version,
			"containerd": "containerd github.com/containerd/containerd/v2 v2.4.2 ",
		}[name])
	}
	for _, path := range h.under("/etc/kubernetes/manifests") {
		say("manifest="+path, string(h.Files[path].Content))
	}
	return []byte(b.String())
}
