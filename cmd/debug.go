package cmd

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/units"
)

// debugTo has every remote command of the verb c shown on standard error.
func debugTo(c *cobra.Command, out io.Writer) {
	var mu sync.Mutex
	c.SetContext(host.WithTracer(c.Context(), func(t host.Trace) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(out, debugLine(t))
	}))
}

// debugLine is a remote command with its host, its time, how it ended and how
// many bytes went in and out. What they were is never shown.
func debugLine(t host.Trace) string {
	end := fmt.Sprintf("exit %d", t.Code)
	if t.Err != nil {
		end = "no end"
	}
	line := fmt.Sprintf("%s  debug    %-8s %8s  %-7s  in %-7s out %-7s  %s", t.Began.Local().Format("15:04:05.000"), t.Host,
		t.Took.Round(time.Millisecond), end, units.Bytes(t.In), units.Bytes(t.Out), brief(t.Argv))
	if t.Err != nil {
		line += ": " + firstLine(t.Err.Error())
	}
	return line
}

// sums are long, and those of a secret are nobody's business.
var sums = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

const debugWidth = 300

// brief is an argv on one line. A script goes by its name.
func brief(argv []string) string {
	if len(argv) > 3 && argv[0] == "sh" && argv[1] == "-c" && strings.Contains(argv[2], "\n") {
		argv = append([]string{"script:"}, argv[3:]...)
	}
	line := host.Quote(argv)
	line = sums.ReplaceAllString(strings.ReplaceAll(line, "\n", " "), "<sha256>")
	if len(line) > debugWidth {
		line = line[:debugWidth] + "..."
	}
	return line
}
