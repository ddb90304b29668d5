package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"
)

type sample struct {
	Name  string            `json:"name"`
	Count uint16            `json:"count"`
	Tags  map[string]string `json:"tags"`
	Inner []struct {
		Deep string `json:"deep"`
	} `json:"inner"`
	Embedded
}

type Embedded struct {
	More string `json:"more"`
}

func TestDecodeTakesWhatFits(t *testing.T) {
	var s sample
	text := `{"name":"a","count":65535,"tags":{"A":"1","a":"2"},"inner":[{"deep":"x"}],"more":"m"}`
	if err := new(strict).decode([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	if s.Name != "a" || s.Count != 65535 || len(s.Tags) != 2 || s.Inner[0].Deep != "x" || s.More != "m" {
		t.Errorf("decoded %+v", s)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, field, says string }{
		"nothing":                      {``, "", "ends in the middle"},
		"half a value":                 {`{"name":`, "", "ends in the middle"},
		"not JSON":                     {`name=a`, "", "not JSON"},
		"a second value":               {`{} {}`, "", "behind the JSON value"},
		"trailing garbage":             {`{}]`, "", "behind the JSON value"},
		"a byte order mark":            {"\xef\xbb\xbf{}", "", "byte order mark"},
		"broken UTF-8":                 {"{\"name\":\"\xff\"}", "", "UTF-8"},
		"an unknown member":            {`{"nam":"a"}`, "nam", "not a field"},
		"an unknown member inside":     {`{"inner":[{},{"dep":""}]}`, "inner[1].dep", "not a field"},
		"another case of a member":     {`{"Name":"a"}`, "Name", "not a field"},
		"a member twice":               {`{"name":"a","name":"b"}`, "name", "twice"},
		"a member twice in a map":      {`{"tags":{"a":"1","a":"2"}}`, "tags.a", "twice"},
		"a member twice, once escaped": {`{"name":"a","\u006eame":"b"}`, "name", "twice"},
		"a wrong type":                 {`{"name":1}`, "name", "cannot be"},
		"a number that does not fit":   {`{"count":65536}`, "count", "cannot be"},
		"a negative number":            {`{"count":-1}`, "count", "cannot be"},
		"a fraction":                   {`{"count":1.5}`, "count", "cannot be"},
		"NaN":                          {`{"count":NaN}`, "", "not JSON"},
		"a list for an object":         {`[]`, "", "cannot be an array"},
		"a list of what is no object":  {`{"inner":[{},0,1]}`, "inner[1]", "cannot be a number"},
		"an object for a text":         {`{"tags":{"a":{}}}`, "tags.a", "cannot be an object"},
		"a truth for a number":         {`{"count":true}`, "count", "cannot be true or false"},
		"a long list":                  {`{"inner":[` + strings.Repeat("{},", maxElements) + `{}]}`, "inner", "at most 100000"},
		"a wide object":                {`{"tags":{` + members100k() + `}}`, "tags", "at most 100000"},
	} {
		t.Run(name, func(t *testing.T) {
			err := new(strict).decode([]byte(c.text), new(sample))
			if err == nil {
				t.Fatal("taken")
			}
			field, rest, _ := cutField(err.Error())
			if field != c.field || !strings.Contains(rest, c.says) {
				t.Errorf("field %q, %q; want %q, …%s…", field, rest, c.field, c.says)
			}
		})
	}
}

// members100k are one more members of an object than are taken.
func members100k() string {
	var b strings.Builder
	for i := range maxElements {
		fmt.Fprintf(&b, `"%d":"",`, i)
	}
	return b.String() + `"last":""`
}

func TestDecodeRefusesDepthInWhatMayBeAnything(t *testing.T) {
	for name, text := range map[string]string{
		"arrays":  strings.Repeat("[", 10000) + strings.Repeat("]", 10000),
		"objects": strings.Repeat(`{"a":`, 40) + `1` + strings.Repeat("}", 40),
	} {
		var v any
		if err := new(strict).decode([]byte(text), &v); err == nil || !strings.Contains(err.Error(), "deeper") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is wrong everywhere ends at its first mistake, whatever is behind it, and what
// is small in a body does not become large in memory.
func TestBodyOfMistakesCostsLittle(t *testing.T) {
	for name, text := range map[string]string{
		"a list of numbers":           "[" + strings.Repeat("0,", 8<<20-2) + "0]",
		"items that are numbers":      `{"items":[` + strings.Repeat("0,", 8<<20-8) + "0]}",
		"items of nothing":            `{"items":[` + strings.Repeat("{},", 5<<20) + "{}]}",
		"numbers for texts in a item": `{"items":[` + strings.Repeat(`{"signs_for":[`+strings.Repeat("0,", 80)+`0]},`, 90_000) + `{}]}`,
	} {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		before := m.TotalAlloc
		if err := new(strict).decode([]byte(text), new(Import)); err == nil {
			t.Errorf("%s: taken", name)
		}
		runtime.ReadMemStats(&m)
		if spent := m.TotalAlloc - before; spent > 32<<20 {
			t.Errorf("%s: %d octets allocated for a body of %d", name, spent, len(text))
		}
	}
}

// A refusal quotes what it refuses, and never much of it.
func TestRefusalsOfLargeValuesAreShort(t *testing.T) {
	digits := strings.Repeat("9", 900_000)
	for name, c := range map[string]struct {
		text string
		into any
	}{
		"a number":         {`{"count":` + digits + `}`, new(sample)},
		"one of anything":  {`{"count":` + digits + `}`, new(any)},
		"in place of text": {`{"name":` + digits + `}`, new(sample)},
		"an exponent":      {`{"count":1e` + digits + `}`, new(sample)},
		"a field":          {`{"tags":{"` + digits + `":1}}`, new(sample)},
	} {
		if err := new(strict).decode([]byte(c.text), c.into); err == nil || len(err.Error()) > 500 {
			t.Errorf("%s: an error of %d octets", name, len(fmt.Sprint(err)))
		}
	}
}

// A long name above a long list costs once, not once an element.
func TestDecodeIsLinear(t *testing.T) {
	text := `{"tags":{"` + strings.Repeat("a", 1<<19) + `":[` + strings.Repeat("0,", 1<<16) + `0]}}`
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before := m.TotalAlloc
	var v any
	if err := new(strict).decode([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&m)
	if spent := m.TotalAlloc - before; spent > 64<<20 {
		t.Errorf("%d octets allocated for a body of %d", spent, len(text))
	}
}

// What decode takes, encoding/json takes as well and understands alike; and
// nothing makes it panic.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{}`, `[]`, `null`, `{"name":"a","count":1}`, `{"inner":[{"deep":"\u0000"}]}`, `{"tags":{"":""}}`,
		`{"name":"a","name":"b"}`, `{"a":{"b":[1,2,{"c":null}]}}`, "{\"name\":\"\xff\"}", `1e400`, `"\ud800"`, `{"more":"x"} `,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, target := range []reflect.Type{reflect.TypeFor[any](), reflect.TypeFor[sample]()} {
			s := scanner{strict: new(strict), data: data, build: true}
			made, ok := s.document(target)
			if !ok || !utf8.Valid(data) {
				continue
			}
			if err := new(strict).walk(data, target); err != nil {
				t.Errorf("%s is taken in one pass, token by token: %v", target, err)
			}
			var want any
			if err := json.Unmarshal(data, &want); err != nil || !reflect.DeepEqual(made, want) {
				t.Errorf("read in one pass as %#v, by encoding/json as %#v (%v)", made, want, err)
			}
		}
		var loose, free any
		err := new(strict).decode(data, &free)
		if plain := json.Unmarshal(data, &loose); plain != nil && err == nil {
			t.Errorf("taken, and encoding/json says %v", plain)
		}
		var s sample
		if new(strict).decode(data, &s) == nil {
			var again sample
			if err := json.Unmarshal(data, &again); err != nil || again.Name != s.Name {
				t.Errorf("%+v, and encoding/json has %+v (%v)", s, again, err)
			}
		}
	})
}
