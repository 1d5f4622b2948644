package cmd

import (
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// signs are the characters that a terminal can show.
type signs struct {
	spinner          []string
	full, empty, cut string
}

var (
	utf8Signs  = signs{spinner: strings.Split("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", ""), full: "━", empty: "─", cut: "…"}
	asciiSigns = signs{spinner: strings.Split(`-\|/`, ""), full: "#", empty: ".", cut: "~"}
)

// utf8Locale says whether the locale is one of UTF-8, as POSIX looks it up.
func utf8Locale() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(os.Getenv(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

// Colours by their ANSI number: what they look like is the terminal's choice.
const (
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

func paint(on bool, colour, text string) string {
	if !on || colour == "" || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// Values of --progress.
const (
	progressAuto  = "auto"
	progressLive  = "live"
	progressPlain = "plain"
)

// terminal is the file behind out that the live view may draw on; nil when the
// run is to be shown as plain lines.
func (f *runFlags) terminal(out io.Writer) (*os.File, error) {
	file, _ := out.(*os.File)
	able := file != nil && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "" && os.Getenv("TERM") != "dumb"
	switch {
	case f.progress == progressLive && f.output == "json":
		return nil, &usageError{errors.New("--progress live and -o json exclude each other")}
	case f.progress == progressLive && f.debug:
		return nil, &usageError{errors.New("--progress live and --debug exclude each other")}
	case f.progress == progressLive && !able:
		return nil, &usageError{errors.New("--progress live: standard output is no terminal that can move its cursor; use --progress plain")}
	case f.progress == progressPlain || f.debug || f.output == "json" || !able:
		return nil, nil
	}
	return file, nil
}

// colourful follows https://no-color.org.
func colourful() bool { return os.Getenv("NO_COLOR") == "" }
