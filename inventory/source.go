package inventory

import "strings"

// mark is where a value was written.
type mark struct {
	line, column int
	null         bool // written, but with nothing in it
}

// source remembers where each value of a Cluster was written, and gathers
// issues; it outlives decoding so that later checks report lines too.
type source struct {
	file   string
	marks  map[string]mark
	broken map[string]bool // paths that could not be decoded: nothing can be said about them or what is in them
	told   map[string]bool // paths that already have an error: no second one follows from it
	issues []Issue
}

func newSource(file string) *source {
	return &source{file: file, marks: map[string]mark{}, broken: map[string]bool{}, told: map[string]bool{}}
}

// at adds an error at a place, and says that path could not be decoded.
func (s *source) at(line, column int, path, message, hint string) {
	s.broken[path] = true
	s.add(line, column, path, message, hint)
}

// add adds an error at a place.
func (s *source) add(line, column int, path, message, hint string) {
	s.issues = append(s.issues, Issue{
		File: s.file, Line: line, Column: column, Path: path, Message: message, Hint: hint,
	})
}

// issue makes an Issue at the place where path was written, or where the
// nearest thing around it was.
func (s *source) issue(path, message, hint string) Issue {
	m := s.locate(path)
	return Issue{
		File: s.file, Line: m.line, Column: m.column, Path: path, Message: message, Hint: hint,
	}
}

func (s *source) locate(path string) mark {
	for p := path; ; p = parent(p) {
		if m, ok := s.marks[p]; ok {
			return m
		}
		if p == "" {
			return mark{line: 1, column: 1}
		}
	}
}

// spoilt says that there is an error at path, or that what it is in could not
// be decoded.
func (s *source) spoilt(path string) bool {
	if s.told[path] {
		return true
	}
	for ; path != ""; path = parent(path) {
		if s.broken[path] {
			return true
		}
	}
	return false
}

// given says whether the user wrote something at path.
func (s *source) given(path string) bool {
	m, ok := s.marks[path]
	return ok && !m.null
}

// parent cuts the last step from a path: "a.b[2]" is in "a.b", which is in "a".
func parent(path string) string {
	cut := strings.LastIndexByte(path, '.')
	if strings.HasSuffix(path, "]") {
		cut = strings.LastIndexByte(path, '[')
	}
	if cut < 0 {
		return ""
	}
	return path[:cut]
}

// child adds a key to a path. Keys that would make it ambiguous are quoted.
func child(path, key string) string {
	if strings.ContainsAny(key, ".[]\" \t\n/:") || key == "" {
		return path + "[" + quote(key) + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// Issue makes an error about the value at path ("spec.kubeadm.clusterConfiguration"),
// at the place in the file where it was written; of a value that was not
// written, at the nearest thing around it. Gather them and give them to Join.
func (c *Cluster) Issue(path, message, hint string) Issue {
	if c.source == nil {
		return Issue{Path: path, Message: message, Hint: hint}
	}
	return c.source.issue(path, message, hint)
}
