package keys

import (
	"errors"
	"strings"
	"testing"
)

func TestKeysThatOperatorsBringAreRefusedWhereThereIsNoPlace(t *testing.T) {
	late := int64(someTime + 10_000)
	brought := testMaterial(3, RSA2048, "s9")
	brought.Imported = true
	public := func(selector string) *Material {
		return &Material{Algorithm: RSA2048, Selector: selector, Payload: "v=DKIM1; k=rsa; p=public" + selector, PublicOnly: true, Imported: true}
	}
	r := readyPair(t, Minted)
	if _, err := r.Retire(late).Bring(&brought, late); err == nil || !strings.Contains(err.Error(), "leaving") {
		t.Errorf("while leaving: %v", err)
	}
	same := testMaterial(3, RSA2048, "s9")
	same.Payload = r.Keys[0].Payload
	var used *InUse
	if _, err := r.Bring(&same, late); !errors.As(err, &used) || used.Selector != "s1" {
		t.Errorf("the same key: %v", err)
	}
	wish, err := r.Emergency(RSA2048, 1, FateDrain, someTime) // its standby is not ready
	if err != nil || len(wish.Urgent) != 1 {
		t.Fatalf("%+v, %v", wish.Urgent, err)
	}
	if _, err := wish.Bring(&brought, someTime); err == nil || !strings.Contains(err.Error(), "emergency") {
		t.Errorf("in place of the standby that an emergency waits for: %v", err)
	}
	for mode, most := range map[RingMode]int{Minted: maxPublicOnly, Slots: 1} {
		full, err := Start(mode, 0, someTime, []Material{testMaterial(1, RSA2048, map[RingMode]string{Minted: "s1"}[mode])}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range most + 1 {
			m := public("")
			if m.Payload += string(rune('a' + i)); mode == Minted {
				m.Selector = "p" + string(rune('a'+i))
			}
			next, err := full.Bring(m, late)
			if (err == nil) != (i < most) {
				t.Fatalf("%s: public-only key %d: %v", mode, i+1, err)
			}
			if err == nil {
				full = next
			}
		}
	}
}

func TestPublicOnlyKeyIsNeverReplacedOnSchedule(t *testing.T) {
	public := Material{Algorithm: RSA2048, Selector: "elsewhere", Payload: "v=DKIM1; k=rsa; p=key1", PublicOnly: true, Imported: true}
	r, err := Start(Minted, 0, someTime, []Material{public}, []Material{testMaterial(2, RSA2048, "s2")})
	if err != nil {
		t.Fatal(err)
	}
	p := DefaultPolicy()
	r, err = r.Take(Step{Kind: StepConfirm, Algorithm: RSA2048, Key: 2}, someTime, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	if step, due, ok := r.Next(p); ok {
		t.Errorf("%s is planned at %d", step.Kind, due)
	}
	r, err = r.Take(Step{Kind: StepActivate, Algorithm: RSA2048, Key: 2}, someTime, p, nil)
	if err != nil {
		t.Fatalf("a person may move it: %v", err)
	}
	if k, _ := r.ByID(1); k.Stage != Draining || !k.PublicOnly || !k.Imported {
		t.Errorf("%+v", k)
	}
}
