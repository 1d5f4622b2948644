package fidelity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/templates"
)

// scratch is where claims about files are played.
const scratch = "/var/lib/ha-install/fidelity"

// Bare are claims about a host on which nothing was installed.
func Bare() []Claim { return slices.Concat(files(), locks(), steps(), units()) }

func files() []Claim {
	return []Claim{
		{"a file that is not there cannot be read", []string{"read"}, func(ctx context.Context, s *Scene) string {
			return s.read(ctx, scratch+"/none")
		}, "not there"},
		{"an equal file is not uploaded again, another mode is a change", []string{"upload"}, func(ctx context.Context, s *Scene) string {
			path := scratch + "/a"
			return fmt.Sprint(s.put(ctx, path, 0o640, "text"), s.put(ctx, path, 0o640, "text"), s.put(ctx, path, 0o600, "text"), " ", s.read(ctx, path))
		}, "true false true text"},
		{"of many files only what changed is named", []string{"upload"}, func(ctx context.Context, s *Scene) string {
			s.put(ctx, scratch+"/same", 0o600, "same")
			changed, err := s.Host.(interface {
				UploadAll(context.Context, []host.File) ([]string, error)
			}).UploadAll(ctx, []host.File{
				{Path: scratch + "/same", Mode: 0o600, Content: []byte("same")}, {Path: scratch + "/new", Mode: 0o600, Content: []byte("new")},
			})
			return fmt.Sprint(changed, " ", seen(err))
		}, "[" + scratch + "/new] done"},
		{"stat tells files, directories and what is missing", []string{"stat"}, func(ctx context.Context, s *Scene) string {
			s.put(ctx, scratch+"/d/f", 0o640, "text")
			found, err := s.Host.Stat(ctx, scratch+"/d", scratch+"/d/f", scratch+"/none")
			if err != nil {
				return seen(err)
			}
			dir, file := found[scratch+"/d"], found[scratch+"/d/f"]
			return fmt.Sprintf("%d: %v %q, %v %d %.8s", len(found), dir.Mode, dir.Sum, file.Mode, file.Size, file.Sum)
		}, `2: drwxr-xr-x "", -rw-r----- 4 982d9e3e`},
		{"stat of nothing is nothing", []string{"stat"}, func(ctx context.Context, s *Scene) string {
			found, err := s.Host.Stat(ctx)
			return fmt.Sprint(len(found), " ", seen(err))
		}, "0 done"},
		{"what is moved aside is whole under its new name", []string{"move aside"}, func(ctx context.Context, s *Scene) string {
			s.put(ctx, scratch+"/away/f", 0o600, "dear")
			to, err := s.Host.MoveAside(ctx, scratch+"/away")
			return fmt.Sprint(strings.HasPrefix(to, scratch+"/away.ha-install-"), " ", seen(err), " ", s.read(ctx, scratch+"/away/f"), " ", s.read(ctx, to+"/f"))
		}, "true done not there dear"},
		{"what is not there is not moved aside", []string{"move aside"}, func(ctx context.Context, s *Scene) string {
			to, err := s.Host.MoveAside(ctx, scratch+"/none")
			return fmt.Sprintf("%q %s", to, seen(err))
		}, `"" done`},
		{"rm takes directories, and is content without its file", []string{"rm"}, func(ctx context.Context, s *Scene) string {
			s.put(ctx, scratch+"/gone/f", 0o600, "x")
			return s.ends(ctx, []string{"rm", "-f", scratch + "/none"}, []string{"rm", "-rf", scratch + "/gone", scratch + "/none"}) + ", " + s.read(ctx, scratch+"/gone/f")
		}, "done, done, not there"},
	}
}

// holder is an operation of that name.
func holder(name string) host.Holder {
	return host.Holder{Operation: name, Command: "fidelity", Operator: "test@test", PID: 1, Since: time.Now()}
}

// take locks the host over a connection of its own.
func (s *Scene) take(ctx context.Context, name string) (host.Host, host.Lock, error) {
	h := s.Dial(s.Host.Name())
	s.T.Cleanup(func() { h.Close() })
	l, err := h.Lock(ctx, holder(name), host.LockHooks{})
	return h, l, err
}

// raise gives the host the next epoch.
func (s *Scene) raise(ctx context.Context, l host.Lock) {
	number, _, _ := strings.Cut(l.Epoch(), ".")
	n, err := strconv.Atoi(number)
	if err != nil {
		s.T.Fatal(err)
	}
	if err := l.Raise(ctx, strconv.Itoa(n+1)+".fidelity"); err != nil {
		s.T.Fatal(err)
	}
}

func locks() []Claim {
	return []Claim{
		{"nobody holds a host that is free", []string{"who holds the lock"}, func(ctx context.Context, s *Scene) string {
			by, err := s.Host.Holder(ctx)
			return fmt.Sprint(by == nil, " ", seen(err))
		}, "true done"},
		{"a host is held by one, who is named, until it is released", []string{"lock", "who holds the lock"}, func(ctx context.Context, s *Scene) string {
			_, l, err := s.take(ctx, "one")
			if err != nil {
				return seen(err)
			}
			by, err := s.Host.Holder(ctx)
			if err != nil || by == nil {
				return fmt.Sprint(by, " ", seen(err))
			}
			_, _, second := s.take(ctx, "two")
			l.Release()
			_, again, third := s.take(ctx, "three")
			if third == nil {
				again.Release()
			}
			return by.Holder.Operation + ", " + seen(second) + ", " + seen(third)
		}, "one, held by one, done"},
		{"who was overtaken can change nothing", []string{"raise"}, func(ctx context.Context, s *Scene) string {
			slept, l, err := s.take(ctx, "slept")
			if err != nil {
				return seen(err)
			}
			s.raise(ctx, l)
			l.Release()
			_, over, err := s.take(ctx, "over")
			if err != nil {
				return seen(err)
			}
			defer over.Release()
			s.raise(ctx, over)
			_, run := slept.Run(ctx, host.Command{Argv: []string{"rm", "-f", scratch + "/none"}})
			_, upload := slept.Upload(ctx, host.File{Path: scratch + "/late", Mode: 0o600, Content: []byte("late")})
			_, step := slept.Step(ctx, host.Step{ID: "fidelity-late-1", Argv: []string{"sh", "-c", StepDone, "sh"}})
			_, aside := slept.MoveAside(ctx, scratch)
			return strings.Join([]string{seen(run), seen(upload), seen(step), seen(aside), s.read(ctx, scratch+"/late")}, ", ")
		}, "fenced by over, fenced by over, fenced by over, fenced by over, not there"},
		{"the journal has what was noted", []string{"read"}, func(ctx context.Context, s *Scene) string {
			h, l, err := s.take(ctx, "noting")
			if err != nil {
				return seen(err)
			}
			defer l.Release()
			s.raise(ctx, l)
			l.Note(1, `{"n":1}`, false)
			l.Note(2, `{"n":2}`, true)
			if err := l.Flush(ctx); err != nil {
				return seen(err)
			}
			data, err := h.ReadFile(ctx, host.JournalDir+"/noting.jsonl")
			return strings.ReplaceAll(string(data), "\n", "; ") + seen(err)
		}, `{"n":1}; {"n":2}; done`},
	}
}

// The steps that claims are played with; a simulated host is taught them.
const (
	StepDone  = "echo done"
	StepFails = "echo it broke; exit 1"
	StepLong  = "sleep 4; echo done"
)

func (s *Scene) step(ctx context.Context, id, script string) string {
	r, err := s.Host.Step(ctx, host.Step{ID: id, Argv: []string{"sh", "-c", script, "sh"}})
	return fmt.Sprintf("%s %d %t %s", seen(err), r.Code, r.Attached, strings.TrimSpace(string(r.Output)))
}

func listSteps(pattern string) []string {
	return []string{"find", "/var/lib/ha-install/steps", "-mindepth", "1", "-maxdepth", "1", "-name", pattern, "-printf", `%f\n`}
}

var runningSteps = []string{"systemctl", "list-units", "--plain", "--no-legend", "--no-pager", "--type", "service",
	"--state", "active,activating,deactivating,reloading", "ha-install-*.service"}

func activeState(unit string) []string {
	return []string{"systemctl", "show", "--property", "ActiveState", "--value", unit}
}

func loadState(unit string) []string {
	return []string{"systemctl", "show", "--property", "LoadState", "--value", unit}
}

func steps() []Claim {
	return []Claim{
		{"steps are listed from the first one on", []string{"find"}, func(ctx context.Context, s *Scene) string {
			return s.answers(ctx, listSteps("fidelity-none-*"))
		}, "exit 1"},
		{"a step that has ended is not run again", []string{"step"}, func(ctx context.Context, s *Scene) string {
			return s.step(ctx, "fidelity-done-1", StepDone) + "; " + s.step(ctx, "fidelity-done-1", StepFails)
		}, "done 0 false done; done 0 true done"},
		{"a step that fails has a code and an output", []string{"step"}, func(ctx context.Context, s *Scene) string {
			return s.step(ctx, "fidelity-fails-1", StepFails)
		}, "exit 1 1 false it broke"},
		{"a step goes on without its operator, is seen, and is attached to", []string{"step", "systemctl list-units", "systemctl show --property ActiveState", "find"}, func(ctx context.Context, s *Scene) string {
			short, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
			defer cancel()
			left := s.step(short, "fidelity-long-1", StepLong)
			list, _ := s.query(ctx, runningSteps...)
			during := s.answers(ctx, activeState("ha-install-fidelity-long-1.service"), listSteps("fidelity-long-*"))
			return strings.Join([]string{left, fmt.Sprint(strings.HasPrefix(list, "ha-install-fidelity-long-1.service ")), during,
				s.step(ctx, "fidelity-long-1", StepDone), s.answers(ctx, runningSteps, listSteps("fidelity-long-*"))}, "; ")
		}, "waited for no longer 0 false ; true; active, fidelity-long-1; done 0 true done; , fidelity-long-1"},
		{"a step without its program fails", []string{"step"}, func(ctx context.Context, s *Scene) string {
			r, err := s.Host.Step(ctx, host.Step{ID: "fidelity-kubeadm-1", Argv: []string{"kubeadm", "init", "--config", scratch + "/init.yaml"}})
			return fmt.Sprint(seen(err), " ", r.Code)
		}, "exit 127 127"},
	}
}

func units() []Claim {
	const absent = "haproxy.service"
	return []Claim{
		{"a program that was not sent cannot be asked", []string{templates.BackupProgram}, func(ctx context.Context, s *Scene) string {
			_, err := s.Host.Query(ctx, templates.BackupProgram, "backup", "turn", "--check", "--config", templates.BackupConfigPath)
			var failed *host.RunError
			return fmt.Sprint(errors.As(err, &failed))
		}, "true"},
		{"a unit that is not there can be asked for", []string{"systemctl show --property LoadState", "systemctl show --property ActiveState"}, func(ctx context.Context, s *Scene) string {
			return s.answers(ctx, loadState(absent), activeState(absent), activeState("haproxy"))
		}, "not-found, inactive, inactive"},
		{"a unit that is not there cannot be started, stopped, enabled or disabled", []string{"systemctl start", "systemctl stop", "systemctl restart", "systemctl reload-or-restart", "systemctl enable", "systemctl disable"}, func(ctx context.Context, s *Scene) string {
			return s.ends(ctx, []string{"systemctl", "start", absent}, []string{"systemctl", "stop", absent}, []string{"systemctl", "restart", absent},
				[]string{"systemctl", "reload-or-restart", absent}, []string{"systemctl", "enable", absent}, []string{"systemctl", "disable", "--now", absent})
		}, "exit 5, exit 5, exit 5, exit 5, exit 1, exit 1"},
		{"kernel modules, settings and units are read anew", []string{"systemctl daemon-reload", "systemctl restart", "sysctl --system"}, func(ctx context.Context, s *Scene) string {
			return s.ends(ctx, []string{"systemctl", "daemon-reload"}, []string{"systemctl", "restart", "systemd-modules-load.service"}, []string{"sysctl", "--system"})
		}, "done, done, done"},
		{"a host says what it calls itself", []string{"uname"}, func(ctx context.Context, s *Scene) string {
			out, end := s.query(ctx, "uname", "-n")
			return fmt.Sprint(out == s.Host.Name(), " ", end)
		}, "true done"},
		{"packages are listed with their state", []string{"dpkg-query"}, func(ctx context.Context, s *Scene) string {
			out, end := s.query(ctx, "dpkg-query", "-W", "-f", `${Package} ${db:Status-Status}\n`)
			return fmt.Sprint(slices.Contains(strings.Split(out, "\n"), "dpkg installed"), " ", strings.Contains(out, "haproxy"), " ", end)
		}, "true false done"},
		{"a package that is none is not installed", []string{"dpkg --install"}, func(ctx context.Context, s *Scene) string {
			s.put(ctx, scratch+"/none.deb", 0o644, "no package")
			return s.ends(ctx, []string{"dpkg", "--install", "--force-confold", scratch + "/missing.deb"}, []string{"dpkg", "--install", "--force-confold", scratch + "/none.deb"})
		}, "exit 2, exit 1"},
		{"programs that are not there are not found", []string{"ctr", "containerd", "haproxy", "keepalived"}, func(ctx context.Context, s *Scene) string {
			return s.answers(ctx, []string{"ctr", "-n", "k8s.io", "images", "ls"}) + ", " + s.ends(ctx, []string{"ctr", "-n", "k8s.io", "images", "import", "-"},
				[]string{"containerd", "--config", scratch + "/a", "config", "dump"}, []string{"haproxy", "-c", "-f", scratch + "/a"}, []string{"keepalived", "--config-test", "--use-file", scratch + "/a"})
		}, "exit 127, exit 127, exit 127, exit 127, exit 127"},
		{"an address is shown by the host that has it", []string{"ip"}, func(ctx context.Context, s *Scene) string {
			ih, _ := s.Cluster.HostByName(s.Host.Name())
			own, end := s.query(ctx, "ip", "-oneline", "address", "show", "to", ih.IP().String())
			return fmt.Sprint(strings.Contains(own, " inet "+ih.IP().String()+"/"), " ", end, " ", s.answers(ctx, []string{"ip", "-oneline", "address", "show", "to", s.Cluster.Spec.Endpoint.Host}), ".")
		}, "true done ."},
		{"nothing listens on a port that nobody opened", nil, func(ctx context.Context, s *Scene) string {
			ih, _ := s.Cluster.HostByName(s.Host.Name())
			_, err := s.Host.DialContext(ctx, "tcp", ih.IP().String()+":6443")
			return fmt.Sprint(err != nil, " ", ctx.Err() == nil)
		}, "true true"},
	}
}
