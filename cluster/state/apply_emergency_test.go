package state

import (
	"testing"

	"authd/keys"
	"authd/zone"
)

// stageOf is the stage of a key of a claim, 0 where it is gone.
func (w *world) stageOf(t Token, id uint32) keys.Stage {
	k, _ := w.domain(t).Ring().ByID(id)
	return k.Stage
}

func TestEmergencyActivatesAtOnceOrAtTheReadyTime(t *testing.T) {
	for _, mode := range []zone.Mode{zone.Delegated, zone.CNAME} {
		w := newWorld(t)
		w.must(claimOf(tok(1), "send.customer.test", mode, "acme"))
		if mode == zone.Delegated {
			w.prove(tok(1))
		}
		active, _ := w.domain(tok(1)).Ring().Active(keys.RSA2048)
		from := w.domain(tok(1)).Selector(active)
		replace := ReplaceKey{Token: tok(1), Algorithm: keys.RSA2048, From: from, Old: keys.FateRevoke}
		serial := w.domain(tok(1)).Serial
		if r := w.must(replace); !r.Changed || w.stageOf(tok(1), 1) != keys.Active {
			t.Fatalf("mode %d: an unconfirmed standby: %+v, the old key is %s", mode, r, w.stageOf(tok(1), 1))
		}
		if w.domain(tok(1)).Serial != serial {
			t.Errorf("mode %d: a wish that no query sees moved the serial", mode)
		}
		if r := w.must(replace); r.Changed {
			t.Errorf("mode %d: the same wish again changed something", mode)
		}
		w.runDue() // confirmation, and with it the switch: no period, no soak
		if w.stageOf(tok(1), 1) != keys.Revoked || w.stageOf(tok(1), 2) != keys.Active || w.domain(tok(1)).Serial == serial {
			t.Fatalf("mode %d: the keys are %s and %s", mode, w.stageOf(tok(1), 1), w.stageOf(tok(1), 2))
		}
		if r := w.must(replace); r.Changed {
			t.Errorf("mode %d: a repetition after the switch rotated again", mode)
		}
		second, _ := w.domain(tok(1)).Ring().Active(keys.RSA2048)
		w.must(ReplaceKey{Token: tok(1), Algorithm: keys.RSA2048, From: w.domain(tok(1)).Selector(second), Old: keys.FateDrain})
		w.later(3 * 3600) // in slots: past the hour of stretched caches
		w.runDue()
		w.later(3 * 3600)
		w.runDue()
		if w.stageOf(tok(1), 2) != keys.Draining || w.stageOf(tok(1), 3) != keys.Active {
			t.Errorf("mode %d: without a standby: %s and %s", mode, w.stageOf(tok(1), 2), w.stageOf(tok(1), 3))
		}
		w.checkIndexes()
	}
}

func TestEmergencyOfASuspendedTenantIsCarriedOut(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "customer.test", zone.CNAME, "acme"))
	w.runDue()
	w.must(SuspendTenant{"acme", true})
	w.must(ReplaceKey{Token: tok(1), Algorithm: keys.RSA2048, Old: keys.FateRevoke})
	if w.stageOf(tok(1), 1) != keys.Revoked || w.stageOf(tok(1), 2) != keys.Active {
		t.Errorf("the keys are %s and %s", w.stageOf(tok(1), 1), w.stageOf(tok(1), 2))
	}
}

func TestEmergencyRefusalsNameTheInput(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "customer.test", zone.CNAME, "acme"))
	replace := func(from string, old keys.Fate) ReplaceKey {
		return ReplaceKey{Token: tok(1), Algorithm: keys.RSA2048, From: from, Old: old}
	}
	w.refuse(replace("nope", keys.FateDrain), Stale, "from", "no rsa2048 key")
	w.refuse(replace("k2", keys.FateDrain), Stale, "from", "signed nothing")
	w.refuse(replace("", 7), Invalid, "key", "fate 7")
	w.refuse(ReplaceKey{Token: tok(9), Algorithm: keys.RSA2048, Old: keys.FateDrain}, NotFound, "domain")
	w.must(LeaveDomain{Token: tok(1)})
	w.refuse(replace("", keys.FateDrain), Conflict, "domain", "leaving")
}
