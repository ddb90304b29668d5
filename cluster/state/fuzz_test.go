package state

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"authd/zone"
)

// FuzzDecodeBatch: whatever decodes encodes to the same entries again, and
// applies without a panic; a machine that refuses is as it was.
func FuzzDecodeBatch(f *testing.F) {
	for i, c := range examples() {
		data, err := EncodeBatch([]Entry{{At: start, Actor: "a", Reason: "r", Command: c}, {At: start + int64(i), Command: Reschedule{}}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	w := variedWorld(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := DecodeBatch(data)
		if err != nil {
			return
		}
		again, err := EncodeBatch(entries)
		if err != nil {
			t.Fatalf("what was decoded does not encode: %v", err)
		}
		back, err := DecodeBatch(again)
		if err != nil {
			t.Fatalf("what was encoded does not decode: %v", err)
		}
		if third, err := EncodeBatch(back); err != nil || !bytes.Equal(third, again) {
			t.Fatalf("encoding is not stable: %v", err)
		}
		next, results, _ := w.m.Apply(99, entries)
		other, others, _ := w.m.Apply(99, back)
		if !reflect.DeepEqual(results, others) || !bytes.Equal(image(t, next), image(t, other)) {
			t.Fatal("the same entries gave two machines")
		}
		checkMachine(t, next)
	})
}

// FuzzReadImage gives the reader octets as they are.
func FuzzReadImage(f *testing.F) {
	f.Add(image(f, Empty()))
	f.Add(image(f, newWorld(f).m))
	f.Fuzz(func(t *testing.T, data []byte) { readWrite(t, data) })
}

// FuzzImageSections gives the reader sections of the fuzzer's making, with
// checksums that fit, so that it gets behind them.
func FuzzImageSections(f *testing.F) {
	whole := image(f, variedWorld(f).m)
	frames := framesOf(f, whole)
	for i, frame := range frames {
		f.Add(uint8(i), frame.body)
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		list := append([]frame(nil), frames...)
		list[int(which)%len(list)].body = body
		readWrite(t, sealFrames(whole[:imageHeader], list))
	})
}

// readWrite: what reads is a machine that writes itself, answers and reads back.
func readWrite(t *testing.T, data []byte) {
	m, err := ReadImage(bytes.NewReader(data))
	loaded, failed := LoadImage(bytes.NewReader(data), Machine{})
	if err != nil && m != (Machine{}) || failed != nil && loaded != (Machine{}) {
		t.Fatal("something of a damaged image was returned")
	}
	if err == nil {
		useRead(t, m)
	}
	if failed == nil {
		useRead(t, loaded)
	}
}

// useRead asks a machine that was read for all it can say.
func useRead(t *testing.T, m Machine) {
	written := image(t, m)
	again, err := LoadImage(bytes.NewReader(written), m)
	if err != nil {
		t.Fatalf("its own image does not read: %v", err)
	}
	if !bytes.Equal(image(t, again), written) {
		t.Fatal("its image is not stable")
	}
	r := zone.NewResponder(filled(m), "")
	buffer := make([]byte, 0, 4096)
	for d := range m.Domains(Token{}) {
		_ = fmt.Sprint(d.CustomerRecords())
		for _, s := range m.Served(d) {
			r.Reply(buffer, questionFor(s.Owner, s.Type), false)
		}
		for _, n := range d.Branch.Anchors() {
			for _, typ := range []zone.Type{zone.TypeTXT, zone.TypeA, zone.TypeSOA, zone.TypeNS, zone.TypeANY} {
				r.Reply(buffer, questionFor(n, typ), false)
				r.Reply(buffer, questionFor("\x01x"+n, typ), false)
			}
		}
	}
	m.Due(100, start+1000*day)
}

// questionFor is a query message; the name need not be one.
func questionFor(owner zone.Name, typ zone.Type) []byte {
	b := append([]byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, owner...)
	return append(b, byte(typ>>8), byte(typ), 0, 1)
}
