package zone

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// What Served lists is what a query sees, no more and no less.
func TestServedIsWhatQueriesSee(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		p := w.plan(0, map[Name]bool{})
		b := must(Render(*p))
		tree := w.tree()
		e := tree.Edit()
		e.Put("", b)
		e.Commit()
		var pool *Pool
		if p.Pool <= 2 {
			pool = must(RenderPool(*w.pools[p.Pool-1]))
		}
		var platforms []*Platform
		var own [][]RRset
		for _, z := range w.platforms {
			platforms = append(platforms, must(RenderPlatform(*z)))
			own = append(own, platforms[len(platforms)-1].Served())
		}
		mine := Served(b, pool, platforms)
		if p.Mode == Delegated && !p.Proven {
			for _, s := range mine {
				if s.Owner.In(p.Zone) {
					t.Fatalf("%s %s of a zone that is not proven", s.Owner, s.Type)
				}
			}
		}
		m := newModel(w.platforms, w.pools, []*Plan{p})
		served := map[string]bool{}
		r := NewResponder(tree, "")
		for i, list := range append(own, mine) {
			for at, s := range list {
				served[fmt.Sprint(s.Owner, s.Type)] = true
				if at > 0 && list[at-1].Owner.Reverse() > s.Owner.Reverse() {
					t.Fatalf("%s after %s", s.Owner, list[at-1].Owner)
				}
				want := print("answer", s.Owner, s)
				slices.Sort(want)
				got := sections(t, r, s.Owner, s.Type)
				hidden := strings.Contains(strings.Join(m.ask(s.Owner, s.Type).authority, " "), " NS ") || i < len(own) && m.closest(s.Owner, false).cover[s.Owner]
				if !hidden && !slices.Equal(answers(got), want) {
					t.Fatalf("served %v, answered %v", want, got)
				}
			}
		}
		for _, z := range m.zones {
			for n, sets := range z.sets {
				for _, s := range sets {
					if !served[fmt.Sprint(n, s.Type)] {
						t.Fatalf("%s %s is answered and not listed", n, s.Type)
					}
				}
			}
		}
	})
}

// answers are the lines of the answer section.
func answers(lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !strings.HasPrefix(l, "answer ") })
}

func TestServedOfNothing(t *testing.T) {
	if s := Served("", nil, nil); s != nil {
		t.Errorf("an empty branch serves %v", s)
	}
	// Without the pool and the platform zones only the zone's own records remain.
	p := delegatedPlan(t, "send.customer.test", testToken)
	var got []string
	for _, s := range Served(mustRender(t, p), nil, nil) {
		got = append(got, s.Owner.String()+" "+s.Type.String())
	}
	want := []string{"send.customer.test. NS", "send.customer.test. SOA", "2511-abcdef._domainkey.send.customer.test. TXT"}
	if !slices.Equal(got, want) {
		t.Errorf("served %q, want %q", got, want)
	}
}
