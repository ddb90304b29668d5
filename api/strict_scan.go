package api

import (
	"reflect"
	"strconv"
)

// scanner reads a document in one pass, with the rules of walker, where nothing of
// it is unusual: it is on the path of every write, and the tokens of encoding/json
// cost ten times as much. Whatever it does not take is left to walker, which also
// has the words for what is wrong.
type scanner struct {
	strict *strict
	data   []byte
	at     int
	depth  int
	build  bool // make the value, as encoding/json would for an any
}

// maxSeen bounds the members of one object that are compared one by one.
const maxSeen = 16

// document reads a whole document that is meant for a type.
func (s *scanner) document(t reflect.Type) (v any, ok bool) {
	if v, ok = s.value(t); !ok {
		return nil, false
	}
	s.space()
	return v, s.at == len(s.data)
}

// space skips what may be between tokens.
func (s *scanner) space() {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// next takes the next octet that is no space where it is the one wanted.
func (s *scanner) next(want byte) bool {
	s.space()
	if s.at < len(s.data) && s.data[s.at] == want {
		s.at++
		return true
	}
	return false
}

func (s *scanner) value(t reflect.Type) (any, bool) {
	s.space()
	if s.depth > maxDepth || s.at == len(s.data) {
		return nil, false
	}
	c := s.data[s.at]
	if !takes(t, c) {
		return nil, false
	}
	switch {
	case c == '"':
		return s.text()
	case c == '{' || c == '[':
		for t != nil && t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		s.at++
		s.depth++
		defer func() { s.depth-- }()
		if c == '{' {
			return s.object(t)
		}
		return s.array(t)
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	}
	for _, word := range [...]struct {
		text  string
		value any
	}{{"true", true}, {"false", false}, {"null", nil}} {
		if end := s.at + len(word.text); end <= len(s.data) && string(s.data[s.at:end]) == word.text {
			s.at = end
			return word.value, true
		}
	}
	return nil, false
}

// plain takes the characters of a string up to the first that does not stand for
// itself.
func (s *scanner) plain() []byte {
	from := s.at
	for s.at < len(s.data) && s.data[s.at] >= ' ' && s.data[s.at] != '"' && s.data[s.at] != '\\' {
		s.at++
	}
	return s.data[from:s.at]
}

// text reads a string; not one with \u, whose surrogates have rules of their own.
func (s *scanner) text() (any, bool) {
	s.at++
	begin := s.plain()
	if s.follows('"') {
		if !s.build {
			return nil, true
		}
		return string(begin), true
	}
	var out []byte
	if s.build {
		out = append(make([]byte, 0, len(begin)+64), begin...)
	}
	for s.follows('\\') {
		if s.at == len(s.data) {
			return nil, false
		}
		c, ok := unescaped(s.data[s.at])
		if !ok {
			return nil, false
		}
		s.at++
		rest := s.plain()
		if s.build {
			out = append(append(out, c), rest...)
		}
	}
	if !s.follows('"') {
		return nil, false
	}
	if !s.build {
		return nil, true
	}
	return string(out), true
}

// follows is next within a string, where a space is a character.
func (s *scanner) follows(want byte) bool {
	if s.at < len(s.data) && s.data[s.at] == want {
		s.at++
		return true
	}
	return false
}

func unescaped(c byte) (byte, bool) {
	switch c {
	case '"', '\\', '/':
		return c, true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	}
	return 0, false
}

// number reads a whole number of few digits; any other is left to walker.
func (s *scanner) number() (any, bool) {
	from := s.at
	if s.data[s.at] == '-' {
		s.at++
	}
	digits := s.at
	for s.at < len(s.data) && s.data[s.at] >= '0' && s.data[s.at] <= '9' {
		s.at++
	}
	count := s.at - digits
	if count == 0 || count > 15 || count > 1 && s.data[digits] == '0' {
		return nil, false
	}
	if s.at < len(s.data) {
		switch s.data[s.at] {
		case '.', 'e', 'E':
			return nil, false
		}
	}
	if !s.build {
		return nil, true
	}
	v, err := strconv.ParseFloat(string(s.data[from:s.at]), 64)
	return v, err == nil
}

func (s *scanner) object(t reflect.Type) (any, bool) {
	var made map[string]any
	if s.build {
		made = make(map[string]any)
	}
	if s.next('}') {
		return made, true
	}
	var room [maxSeen][]byte
	for seen := room[:0]; len(seen) < maxSeen; {
		if !s.next('"') {
			return nil, false
		}
		name := s.plain()
		if !s.follows('"') {
			return nil, false
		}
		for _, before := range seen {
			if string(before) == string(name) {
				return nil, false
			}
		}
		seen = append(seen, name)
		member, known := s.strict.member(t, name)
		if !known || !s.next(':') {
			return nil, false
		}
		v, ok := s.value(member)
		if !ok {
			return nil, false
		}
		if s.build {
			made[string(name)] = v
		}
		if s.next('}') {
			return made, true
		}
		if !s.next(',') {
			return nil, false
		}
	}
	return nil, false
}

func (s *scanner) array(t reflect.Type) (any, bool) {
	var element reflect.Type
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		element = t.Elem()
	}
	var made []any
	if s.build {
		made = []any{}
	}
	if s.next(']') {
		return made, true
	}
	for range maxElements {
		v, ok := s.value(element)
		if !ok {
			return nil, false
		}
		if s.build {
			made = append(made, v)
		}
		if s.next(']') {
			return made, true
		}
		if !s.next(',') {
			return nil, false
		}
	}
	return nil, false
}
