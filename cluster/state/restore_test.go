package state

import (
	"bytes"
	"testing"

	"authd/zone"
)

// What was given up after a backup was made is not anybody's when it is restored,
// but what the backup has belongs to whom it belonged.
func TestWhatWasGivenUpSinceABackupStaysBurned(t *testing.T) {
	w := newWorld(t)
	bound := func(n uint64, domain, label string) AddDomain {
		c := claimOf(tok(n), domain, zone.CNAME, "acme")
		c.Name, c.Registrable = name(domain), name(domain)
		c.Bound = BoundTargets{Bounce: name(label + ".p-dns.test")}
		return c
	}
	w.must(bound(1, "first.test", "one"))
	backup := w.m
	w.must(bound(2, "second.test", "two"))
	w.who.Reason = "test"
	for n := range uint64(2) {
		w.must(LeaveDomain{Token: tok(n + 1), Now: true})
	}
	if !w.m.Tombstoned(tok(1)) || !w.m.Tombstoned(tok(2)) {
		t.Fatal("nothing was given up")
	}
	// As it is restored: by its image.
	again, err := ReadImage(bytes.NewReader(image(t, backup.Succeed(w.m))))
	if err != nil {
		t.Fatal(err)
	}
	w.m = again
	if _, ok := w.m.Domain(tok(1)); !ok || w.m.Tombstoned(tok(1)) {
		t.Error("the claim of the backup did not come back")
	}
	w.checkIndexes()
	w.refuse(bound(2, "third.test", "three"), Conflict, "token")
	w.refuse(bound(3, "third.test", "two"), Conflict, "targets.bounce", "ended")
	w.refuse(bound(3, "third.test", "one"), Conflict, "targets.bounce", tok(1).String())
	w.must(bound(3, "third.test", "three"))
	if w.m.Sum() != w.m.Recount(nil) {
		t.Error("the sum does not follow")
	}
}
