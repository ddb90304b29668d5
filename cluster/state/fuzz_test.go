package state

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
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
		f.Add(uint8(i), []byte(frame.body))
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		list := append([]frame(nil), frames...)
		list[int(which)%len(list)].body = string(body)
		readWrite(t, sealFrames(whole[:len(imageMagic)+2], list))
	})
}

// readWrite: what reads is a machine that writes itself, answers and reads back.
func readWrite(t *testing.T, data []byte) {
	m, err := ReadImage(bytes.NewReader(data))
	if err != nil {
		if m != (Machine{}) {
			t.Fatal("something of a damaged image was returned")
		}
		return
	}
	written := image(t, m)
	again, err := ReadImage(bytes.NewReader(written))
	if err != nil {
		t.Fatalf("its own image does not read: %v", err)
	}
	if !bytes.Equal(image(t, again), written) {
		t.Fatal("its image is not stable")
	}
	filled(m)
	for d := range m.Domains(Token{}) {
		_ = fmt.Sprint(d.CustomerRecords(), m.Served(d))
	}
	m.Due(100, start+1000*day)
}
