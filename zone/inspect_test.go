package zone

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestInspectorAcceptsWhatRenderMakes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		have := claims{}
		w.change(w.tree(), have, 6)
		var i Inspector
		for _, p := range have {
			b := must(Render(*p))
			if err := i.Check(b); err != nil {
				t.Fatalf("%s of %+v", err, p)
			}
			if b.Tenant() != p.Tenant || b.Pool() != p.Pool || b.Serial() != p.Serial {
				t.Fatalf("tenant %d, pool %d, serial %d of %+v", b.Tenant(), b.Pool(), b.Serial(), p)
			}
		}
	})
}

// Whatever octets of a branch change, either the inspector says so or every
// question gets a reply.
func TestInspectedBranchesAnswerWhateverTheyHold(t *testing.T) {
	refused, asked := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		have := claims{}
		w.change(w.tree(), have, 4)
		var i Inspector
		for _, p := range have {
			octets := []byte(must(Render(*p)))
			for range rapid.IntRange(1, 3).Draw(t, "changes") {
				octets[rapid.IntRange(0, len(octets)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "octet")
			}
			if rapid.IntRange(0, 7).Draw(t, "cut") == 0 {
				octets = octets[:rapid.IntRange(0, len(octets)).Draw(t, "length")]
			}
			b := Branch(octets)
			if err := i.Check(b); err != nil {
				if !errors.Is(err, errShape) {
					t.Fatal(err)
				}
				refused++
				continue
			}
			asked++
			w.askAll(t, b)
		}
	})
	if refused == 0 || asked == 0 {
		t.Errorf("%d refused, %d asked: want some of both", refused, asked)
	}
}

// askAll puts a branch into a tree and asks for everything around it.
func (w *world) askAll(t *rapid.T, b Branch) {
	tree := w.tree()
	e := tree.Edit()
	e.fillOn(1, []Branch{b})
	e.Commit()
	r := NewResponder(tree, "")
	buffer := make([]byte, 0, 4096)
	for _, n := range append(b.Anchors(), w.names...) {
		for _, typ := range []Type{TypeA, TypeTXT, TypeMX, TypeNS, TypeSOA, TypeCNAME, TypeDS, TypeDNAME, TypeANY} {
			q := append([]byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, n...)
			if reply := r.Reply(buffer, append(q, byte(typ>>8), byte(typ), 0, 1), false); len(reply) > 0 && !bytes.Equal(reply[:2], q[:2]) {
				t.Fatalf("%s %s: a reply to another question", n, typ)
			}
		}
	}
	for _, n := range w.names {
		b.Text(n)
	}
	Served(b, nil, nil)
}
