package host

import (
	"bytes"
	"context"
	_ "embed" // for the scripts
	"errors"
	"fmt"
	"strings"
)

var (
	//go:embed scripts/boot.sh
	bootScript string // defines boot, for the others
	//go:embed scripts/probe.sh
	probeScript string
)

const probeMark = "ha-install-probe"

// probe makes sure of root and learns the facts, in one round trip.
func (h *SSH) probe(ctx context.Context, l *link) (Facts, error) {
	out, err := h.exec(ctx, l, execution{argv: script(bootScript+probeScript, "probe")})
	var sudo *SudoError
	if errors.As(err, &sudo) {
		return Facts{}, sudo
	}
	var run *RunError
	if errors.As(err, &run) {
		if e := h.probeSudoError(run); e != nil {
			return Facts{}, e
		}
	}
	if err != nil {
		return Facts{}, fmt.Errorf("%s: first command: %w", h.cfg.Name, err)
	}
	before, rest, found := bytes.Cut(out, []byte(probeMark+"\n"))
	if !found {
		return Facts{}, fmt.Errorf("%s: first command: cannot understand the answer %.80q", h.cfg.Name, out)
	}
	if len(bytes.TrimSpace(before)) > 0 {
		return Facts{}, fmt.Errorf("%s: the login shell of %s prints %.80q before every command; make its start-up files silent",
			h.cfg.Name, h.cfg.User, bytes.TrimSpace(before))
	}
	facts := map[string]string{}
	for _, line := range strings.Split(string(rest), "\n") {
		if k, v, ok := strings.Cut(line, "="); ok {
			facts[k] = v
		}
	}
	if facts["uid"] != "0" {
		e := &SudoError{Host: h.cfg.Name, User: h.cfg.User, Reason: SudoOther, Detail: "commands run with user ID " + facts["uid"]}
		if !h.cfg.sudo() {
			e.Reason = SudoOff
		}
		return Facts{}, e
	}
	return Facts{BootID: facts["boot"], Kernel: facts["kernel"], Arch: facts["arch"], SFTPServer: facts["sftp"]}, nil
}

// probeSudoError reads the probe's failure as sudo's, which the script itself
// cannot cause: it ends with 0 or is not run at all.
func (h *SSH) probeSudoError(run *RunError) *SudoError {
	if !h.cfg.sudo() {
		return nil
	}
	if e := sudoError(h.cfg.Name, h.cfg.User, run.Stderr); e != nil {
		return e
	}
	e := &SudoError{Host: h.cfg.Name, User: h.cfg.User, Reason: SudoOther, Detail: strings.TrimSpace(run.Stderr)}
	if run.Code == 127 {
		e.Reason = SudoMissing
	}
	return e
}
