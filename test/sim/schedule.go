package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/templates"
)

// checkTurn is the program that makes scheduled backups, asked whether it could.
func (h *Host) checkTurn(argv []string) error {
	program, there := h.Files[argv[0]]
	switch _, configured := h.Files[templates.BackupConfigPath]; {
	case !there:
		return h.failure(argv, 127, "not found")
	case !slices.Equal(argv[1:], []string{"backup", "turn", "--check", "--config", templates.BackupConfigPath}):
		return h.unknown(argv)
	case program.Mode.Perm() != 0o755:
		return h.failure(argv, 126, "Permission denied")
	case !configured:
		return h.failure(argv, 1, "no such file or directory")
	}
	return nil
}

// Schedule is what a host says of scheduled backups.
func (h *Host) Schedule() []byte {
	config, there := h.Files[templates.BackupConfigPath]
	if !there {
		return nil
	}
	timer := "inactive"
	if h.active(templates.BackupTimer) {
		timer = "active"
	}
	text := fmt.Sprintf("config=%s\ntimer=%s\nresult=success\n", strings.ReplaceAll(string(config.Content), "\n", ""), timer)
	if state, there := h.Files[templates.BackupStatePath]; there {
		text += "state=" + string(state.Content) + "\n"
	}
	return []byte(text)
}
