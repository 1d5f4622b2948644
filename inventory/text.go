package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// maxSize bounds what is parsed; a thousand hosts with labels need a tenth of it.
const maxSize = 1 << 20

// readable reports what makes data no text at all; the YAML reader would say
// so too, but without a place.
func readable(s *source, data []byte) bool {
	if len(data) > maxSize {
		s.at(1, 1, "", fmt.Sprintf("the file has %d bytes", len(data)),
			fmt.Sprintf("an inventory is at most %d bytes: is it the right file?", maxSize))
		return false
	}
	line, column := 1, 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			s.at(line, column, "", fmt.Sprintf("byte 0x%02x is not UTF-8", data[i]), "save the file as UTF-8")
			return false
		case r < ' ' && r != '\n' && r != '\r' && r != '\t', r == 0x7f:
			s.at(line, column, "", fmt.Sprintf("control character U+%04X", r), "remove it")
			return false
		case r == '\n':
			line, column = line+1, 0
		}
		i, column = i+size, column+1
	}
	return true
}

// document returns the root node of the one YAML document in data, or nil
// after having said why there is none.
func document(s *source, data []byte) *yaml.Node {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var root *yaml.Node
	for {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			s.syntax(err, data)
			return nil
		}
		if len(doc.Content) == 0 || doc.Content[0].ShortTag() == "!!null" {
			continue // "---" with nothing after it
		}
		if root != nil {
			s.at(doc.Content[0].Line, doc.Content[0].Column, "", "a second document",
				"one file is one cluster: remove it and the \"---\" before it")
			return root
		}
		root = doc.Content[0]
	}
	if root == nil {
		s.at(1, 1, "", "the file is empty", "write one with: ha-install init")
		return nil
	}
	return root
}

// syntax reports what YAML's reader said, where it said it.
func (s *source) syntax(err error, data []byte) {
	var load *yaml.LoadError
	if !errors.As(err, &load) {
		s.at(1, 1, "", "not YAML: "+err.Error(), "")
		return
	}
	place := load.Mark
	if strings.Contains(load.Message, "end of stream") || strings.Contains(load.Message, "expected ':'") {
		place = load.ContextMark // what has no end is better looked for where it began
	}
	line, column := max(place.Line, 1), max(place.Column, 1)
	message := "not YAML: " + load.Message
	if load.ContextMsg != "" && load.ContextMark.Line != 0 && load.ContextMark.Line != line {
		message += fmt.Sprintf(" %s that began on line %d", load.ContextMsg, load.ContextMark.Line)
	}
	s.at(line, column, "", message, syntaxHint(load.Message, lineOf(data, line)))
}

// syntaxHint guesses the usual slip behind a message of YAML's reader.
func syntaxHint(message, line string) string {
	indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
	text := strings.TrimSpace(line)
	switch {
	case strings.Contains(indent, "\t"):
		return "indent with spaces, not tabs"
	case strings.Contains(message, "unknown anchor"):
		return "define it before its use: &name"
	case strings.Contains(message, "mapping values are not allowed"):
		return "check the indentation, and quote a value that contains \": \""
	case strings.Contains(message, "cannot start any token"):
		return "quote a value that begins with one of @ ` % or a tab"
	case strings.Contains(message, "end of stream"):
		return "close the quotation"
	case strings.Contains(message, "could not find expected ':'"):
		return "write \"key: value\", with a space after the colon"
	case strings.HasPrefix(message, "did not find expected") && text != "":
		return "check the indentation, and that brackets and quotations are closed"
	}
	return ""
}

func lineOf(data []byte, number int) string {
	lines := strings.SplitN(string(data), "\n", number+1)
	if number > len(lines) {
		return ""
	}
	return lines[number-1]
}
