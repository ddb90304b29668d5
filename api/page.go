package api

import (
	"encoding/base64"
	"iter"
	"strings"
)

// Page is the query of a list: how many, and from where on.
type Page struct {
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"At most so many items."`
	Cursor string `query:"cursor" maxLength:"400" doc:"next of the page before; opaque."`
}

// maxWalk bounds how many objects one page looks at, so that a filter that
// matches little cannot hold a core: the page is then short and has a next.
const maxWalk = 100_000

// cursorMark makes a cursor recognisable, and one of another format refusable.
const cursorMark = "1:"

func cursorAfter(id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(cursorMark + id))
}

// after is the id that the page before ended with; empty on the first page.
func (p Page) after() (string, error) {
	if p.Cursor == "" {
		return "", nil
	}
	plain, err := base64.RawURLEncoding.DecodeString(p.Cursor)
	id, ok := strings.CutPrefix(string(plain), cursorMark)
	if err != nil || !ok {
		return "", invalid("cursor", "cursor %q is not one of ours; pass on what next held, or leave it out", bounded(p.Cursor))
	}
	return id, nil
}

// paged takes one page of a walk. key gives each object's place: the walk is in
// order of keys.
func paged[S, T any](p Page, walk iter.Seq[*S], key func(*S) string, view func(*S) T) (items []T, next string, err error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	items = []T{}
	last := ""
	for s := range walk {
		place := key(s)
		if p.Cursor != "" && place <= after {
			continue
		}
		if len(items) == p.Limit {
			return items, cursorAfter(last), nil
		}
		items, last = append(items, view(s)), place
	}
	return items, "", nil
}
