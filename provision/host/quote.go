package host

import "strings"

// Quote joins argv into one line that a POSIX shell splits into argv again,
// whatever bytes are in it except NUL (which no argv can hold). It is the only
// place that makes text for a remote shell.
func Quote(argv []string) string {
	var b strings.Builder
	for i, arg := range argv {
		if i > 0 {
			b.WriteByte(' ')
		}
		if plain(arg) && !(i == 0 && reserved[arg]) {
			b.WriteString(arg)
			continue
		}
		quoteTo(&b, arg)
	}
	return b.String()
}

// quoteTo keeps backslashes out of the single quotes: fish, unlike POSIX,
// gives them a meaning there, and the login shell may be fish.
func quoteTo(b *strings.Builder, arg string) {
	b.WriteByte('\'')
	for i := 0; i < len(arg); i++ {
		switch c := arg[i]; c {
		case '\'', '\\':
			b.WriteString(`'\`)
			b.WriteByte(c)
			b.WriteByte('\'')
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('\'')
}

// plain says that every shell takes the word as it stands.
func plain(arg string) bool {
	if arg == "" {
		return false
	}
	for i := 0; i < len(arg); i++ {
		c := arg[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			strings.IndexByte("_-./:,@+", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// reserved are the plain words that mean something to a shell in first place.
var reserved = map[string]bool{
	"if": true, "then": true, "else": true, "elif": true, "fi": true, "for": true, "in": true,
	"do": true, "done": true, "case": true, "esac": true, "while": true, "until": true,
	"function": true, "time": true, "select": true, "coproc": true, "switch": true, "begin": true,
	"end": true, "and": true, "or": true, "not": true, "repeat": true, "foreach": true, "nocorrect": true,
	"noglob": true, ".": true, ":": true,
}
