package keys

import (
	"bytes"
	"testing"
)

// FuzzDecodeRing: what is read encodes to the same bytes, and nothing panics.
func FuzzDecodeRing(f *testing.F) {
	answers := func(selector string) string { return "v=DKIM1; k=rsa; p=key" + selector }
	f.Fuzz(func(t *testing.T, encoded string) {
		r, err := DecodeRing(encoded, answers)
		if err != nil {
			return
		}
		if again := r.Append(nil); string(again) != encoded {
			t.Fatalf("%x is read and encodes to %x", encoded, again)
		}
		if len(r.Keys) > 2*MaxKeys || len(r.Freed) > maxFreed {
			t.Fatalf("%d keys, %d freed names", len(r.Keys), len(r.Freed))
		}
		// Whatever was read can be used.
		policy := DefaultPolicy()
		r.Records([]Algorithm{RSA2048, Ed25519})
		for _, planned := range r.Plan(policy) {
			m := testMaterial(r.NextID, planned.Algorithm, "s1")
			material := &m
			if planned.Kind != StepPublish {
				material = nil
			}
			_, _ = r.Take(planned.Step, planned.Due, policy, material)
		}
		r.Retire(someTime)
	})
}

// FuzzParsePayload: what is read has a plain form that reads as itself.
func FuzzParsePayload(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		public, err := parsePayload(text)
		if err != nil {
			return
		}
		again, err := parsePayload(public.Payload())
		if err != nil {
			t.Fatalf("%q has the plain form %q: %v", text, public.Payload(), err)
		}
		if again.Payload() != public.Payload() || again.Algorithm != public.Algorithm {
			t.Fatalf("%q has the plain form %q, which has %q", text, public.Payload(), again.Payload())
		}
	})
}

// FuzzParsePEM: a key that is read signs, and comes back from its compact form.
func FuzzParsePEM(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePEM(text)
		if err != nil {
			return
		}
		if err := p.Check(); err != nil {
			t.Fatal(err)
		}
		again, err := Restore(p.Payload(), p.Compact())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.PKCS8(), p.PKCS8()) {
			t.Fatal("the restored key is another")
		}
	})
}

// FuzzReadPair: the parent of a mill survives whatever comes out of the pipe.
func FuzzReadPair(f *testing.F) {
	f.Fuzz(func(t *testing.T, frames []byte) {
		in := bytes.NewReader(frames)
		for {
			p, _, err := readPair(in)
			if err != nil {
				return
			}
			if p.Payload() == "" {
				t.Fatal("a pair without a public half")
			}
		}
	})
}

// FuzzParsePublic: whatever form a public half comes in, its payload reads as it.
func FuzzParsePublic(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		public, err := ParsePublic(text)
		if err != nil {
			return
		}
		again, err := parsePayload(public.Payload())
		if err != nil || again.Payload() != public.Payload() {
			t.Fatalf("%q is read as %q, which reads as another: %v", text, public.Payload(), err)
		}
	})
}
