package state

import (
	"bytes"
	"testing"

	"authd/zone"
)

func TestCookieSecretsRollOver(t *testing.T) {
	w := newWorld(t)
	if got := w.m.CookieSecrets(); got != (CookieSecrets{}) || got.DueAt() != 0 {
		t.Fatalf("a new cluster has %v, due at %d", got, got.DueAt())
	}
	w.must(SetCookieSecret{secretOf(1)})
	first := w.at
	if r := w.do(SetCookieSecret{secretOf(1)}); r.Changed || r.Refusal != nil {
		t.Errorf("the same secret again: %+v", r)
	}
	if r := w.do(SetCookieSecret{secretOf(2)}); r.Refusal == nil || r.Refusal.Kind != TooEarly || r.Refusal.At != first+cookieFloor {
		t.Errorf("another at once: %+v", r.Refusal)
	}
	if r := w.do(SetCookieSecret{}); r.Refusal == nil || r.Refusal.Kind != Invalid {
		t.Errorf("a secret of zeroes: %+v", r.Refusal)
	}
	w.at = first + day
	if due := w.m.CookieSecrets().DueAt(); due != w.at {
		t.Errorf("due at %d, want %d", due, w.at)
	}
	w.must(SetCookieSecret{secretOf(2)})
	want := CookieSecrets{Current: secretOf(2), CurrentAt: w.at, Previous: secretOf(1)}
	if got := w.m.CookieSecrets(); got != want || got.Served() != (zone.CookieSecrets{Current: secretOf(2), Previous: secretOf(1)}) {
		t.Errorf("got %v, want %v", got, want)
	}
	w.at += day
	if r := w.do(SetCookieSecret{secretOf(1)}); r.Refusal == nil {
		t.Error("the previous secret became the current one again")
	}
	again, err := ReadImage(bytes.NewReader(image(t, w.m)))
	if err != nil || again.CookieSecrets() != want {
		t.Errorf("the image holds %v, error %v; want %v", again.CookieSecrets(), err, want)
	}
}

func TestNextCookieSecretIsTakenOnceTheLastCookieIsOld(t *testing.T) {
	w := newWorld(t)
	w.must(SetCookieSecret{secretOf(1)})
	w.later(cookieFloor - 1)
	w.refuse(SetCookieSecret{secretOf(2)}, TooEarly, "secret")
	w.later(1)
	w.must(SetCookieSecret{secretOf(2)})
}
