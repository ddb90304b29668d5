package api

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// maxDepth bounds how deep JSON may be nested; no request needs more than six.
const maxDepth = 16

// maxElements bounds the elements of one array, an import's above all, and the members
// of one object: two octets of a body can become an element of hundreds.
const maxElements = 100_000

// largeBody takes some milliseconds to decode.
const largeBody = 64 << 10

// decodeInTurn is decode, of large bodies one a processor: a megabyte may take a tenth of
// a second, and behind hundreds of such all others would wait for a processor, Raft's
// elections among them. Small bodies wait for nobody.
func (h *Handler) decodeInTurn(data []byte, v any) error {
	if len(data) > largeBody {
		h.turns <- struct{}{}
		defer func() { <-h.turns }()
	}
	return h.strict.decode(data, v)
}

// strict decodes the bodies of requests. It keeps the members of the types that it
// met. Safe for concurrent use.
type strict struct {
	known sync.Map // reflect.Type of a struct: map[string]reflect.Type
}

// decode reads one JSON document strictly: valid UTF-8 without a byte order
// mark, one value and nothing behind it, no member twice, no member that the
// target does not have in exactly that spelling, no more than maxDepth levels.
// encoding/json alone takes the last of two members, any case of a name, and
// replaces broken UTF-8. Its errors begin with a quoted field where one is
// concerned; cutField takes it off again.
func (s *strict) decode(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errors.New("the body is not valid UTF-8")
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return errors.New("the body begins with a byte order mark; send JSON without it")
	}
	t := reflect.TypeOf(v).Elem()
	free, build := v.(*any)
	scan := scanner{strict: s, data: data, build: build}
	switch made, ok := scan.document(t); {
	case ok && build:
		*free = made
		return nil
	case !ok:
		if err := s.walk(data, t); err != nil {
			return err
		}
	}
	err := json.Unmarshal(data, v)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		if wrong.Field == "" {
			return fmt.Errorf("the body holds what cannot be taken: %s", bounded(wrong.Value))
		}
		return fieldFault(bounded(wrong.Field), "cannot be a %s", bounded(wrong.Value))
	}
	return err
}

// walk checks a document token by token.
func (s *strict) walk(data []byte, t reflect.Type) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	w := &walker{Decoder: d, strict: s}
	if err := w.value(t); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("the body has data behind the JSON value; send one value only")
	}
	return nil
}

// walker goes over the tokens of a document beside the type they are meant for.
type walker struct {
	*json.Decoder
	strict *strict
	path   []place // where the walk is; written out only for an error
}

// place is a member, or an element of an array.
type place struct {
	name  string
	index int // -1: a member
}

// here is the path as a caller would write it: mx[0].host.
func (w *walker) here() string {
	var b strings.Builder
	for _, p := range w.path {
		switch {
		case p.index >= 0:
			fmt.Fprintf(&b, "[%d]", p.index)
		case b.Len() > 0:
			b.WriteString("." + bounded(p.name))
		default:
			b.WriteString(bounded(p.name))
		}
	}
	return b.String()
}

func (w *walker) value(t reflect.Type) error {
	if len(w.path) > maxDepth {
		return fmt.Errorf("the body is nested deeper than %d levels", maxDepth)
	}
	token, err := w.Token()
	if err != nil {
		return malformed(err)
	}
	if begins, what := kindOf(token); !takes(t, begins) {
		if len(w.path) == 0 {
			return fmt.Errorf("the body cannot be %s", what)
		}
		return fieldFault(w.here(), "cannot be %s", what)
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	w.path = append(w.path, place{index: -1})
	if delim == '{' {
		err = w.object(t)
	} else {
		err = w.array(t)
	}
	if err != nil {
		return err
	}
	w.path = w.path[:len(w.path)-1]
	if _, err = w.Token(); err != nil { // the closing bracket
		return malformed(err)
	}
	return nil
}

// object and array set the last place of the path as they go.
func (w *walker) object(t reflect.Type) error {
	seen := map[string]bool{}
	for w.More() {
		token, err := w.Token()
		if err != nil {
			return malformed(err)
		}
		name := token.(string) // the decoder lets nothing else be a member's name
		w.path[len(w.path)-1].name = name
		if len(seen) == maxElements {
			return w.tooMany()
		}
		if seen[name] {
			return fieldFault(w.here(), "is there twice")
		}
		seen[name] = true
		member, known := w.strict.member(t, []byte(name))
		if !known {
			return fieldFault(w.here(), "is not a field of this request")
		}
		if err := w.value(member); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) array(t reflect.Type) error {
	var element reflect.Type
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		element = t.Elem()
	}
	for i := 0; w.More(); i++ {
		w.path[len(w.path)-1].index = i
		if i == maxElements {
			return w.tooMany()
		}
		if err := w.value(element); err != nil {
			return err
		}
	}
	return nil
}

// tooMany is about the array or object that the walk is in.
func (w *walker) tooMany() error {
	w.path = w.path[:len(w.path)-1]
	const says = "has too many elements: at most %d are taken at once"
	if len(w.path) == 0 {
		return fmt.Errorf("the body "+says, maxElements)
	}
	return fieldFault(w.here(), says, maxElements)
}

// takes says whether a value that begins with an octet may be for a type, so that what
// is not ends at its first mistake: encoding/json goes on to the end, and notes each.
func takes(t reflect.Type, begins byte) bool {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || begins == 'n' {
		return true
	}
	ok := true
	switch k := t.Kind(); {
	case k == reflect.Struct || k == reflect.Map:
		ok = begins == '{'
	case k == reflect.Slice || k == reflect.Array:
		ok = begins == '[' || begins == '"' && t.Elem().Kind() == reflect.Uint8
	case k == reflect.String:
		ok = begins == '"'
	case k == reflect.Bool:
		ok = begins == 't' || begins == 'f'
	case k >= reflect.Int && k <= reflect.Float64:
		ok = begins == '-' || begins >= '0' && begins <= '9'
	}
	return ok || readsItself(t)
}

// readsItself says whether a type decodes its own text.
func readsItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// kindOf is how a token's text begins, and what to call it.
func kindOf(token json.Token) (begins byte, what string) {
	switch token := token.(type) {
	case json.Delim:
		if token == '{' {
			return '{', "an object"
		}
		return '[', "an array"
	case string:
		return '"', "a string"
	case bool:
		return 't', "true or false"
	case nil:
		return 'n', "null"
	}
	return '0', "a number"
}

// member is the type of a member of t, and whether t has it. Where t is no
// struct or map, anything goes: a type mismatch is found later.
func (s *strict) member(t reflect.Type, name []byte) (reflect.Type, bool) {
	if t == nil {
		return nil, true
	}
	switch t.Kind() {
	case reflect.Map:
		return t.Elem(), true
	case reflect.Struct:
		known, ok := s.known.Load(t)
		if !ok {
			known, _ = s.known.LoadOrStore(t, members(t))
		}
		member, ok := known.(map[string]reflect.Type)[string(name)]
		return member, ok
	}
	return nil, true
}

func members(t reflect.Type) map[string]reflect.Type {
	m := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.IsExported() && !f.Anonymous && tag != "" && tag != "-" {
			m[tag] = f.Type
		}
	}
	return m
}

func malformed(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("the body ends in the middle of a JSON value")
	}
	return fmt.Errorf("the body is not JSON: %s", err.Error())
}

// fieldMark begins an error of decode that concerns one field. huma passes on
// the text of an error alone, so the field travels in it.
const fieldMark = "\x00field "

func fieldFault(field, format string, args ...any) error {
	return errors.New(fieldMark + strconv.Quote(bounded(field)) + " " + fmt.Sprintf(format, args...))
}

// cutField takes the field off the text of such an error.
func cutField(text string) (field, rest string, ok bool) {
	text, ok = strings.CutPrefix(text, fieldMark)
	if !ok {
		return "", text, false
	}
	quoted, err := strconv.QuotedPrefix(text)
	if err != nil {
		return "", text, false
	}
	field, err = strconv.Unquote(quoted)
	return field, strings.TrimPrefix(text[len(quoted):], " "), err == nil
}
