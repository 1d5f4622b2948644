package drill

import (
	_ "embed" // for the scripts
	"strconv"
	"time"
)

var (
	//go:embed scripts/start.sh
	startScript string
	//go:embed scripts/inject.sh
	injectScript string
	//go:embed scripts/undo.sh
	undoScript string
	//go:embed scripts/end.sh
	endScript string
)

// Unit is the transient unit that holds an injection on its host. Its name is
// apart from those of steps, which a later run waits for.
const Unit = "ha-drill.service"

// MostTime is how long an injection can last, whatever becomes of everybody.
const MostTime = 3 * time.Minute

// StartCommand begins an injection on a host: it returns when the failure is
// there. lock is the directory of the host's lock, whose holder's end ends the
// injection, too. No argument has a blank in it.
func StartCommand(lock string, arguments ...string) []string {
	seconds := strconv.Itoa(int(MostTime.Seconds()))
	return append([]string{"sh", "-c", startScript, "sh", Unit, seconds, lock, injectScript, undoScript}, arguments...)
}

// EndCommand ends the injection on a host: it returns when all is undone. Its
// output is Held, unless the injection had ended before.
func EndCommand() []string { return []string{"sh", "-c", endScript, "sh", Unit} }

// Held is what EndCommand prints of an injection that has lasted until then.
const Held = "held"
