package state

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"authd/zone"
)

// checkIndexes compares what the machine keeps with what follows from its image,
// and the index of queries with one filled anew.
func (w *world) checkIndexes() {
	w.t.Helper()
	checkMachine(w.t, w.m)
}

func checkMachine(t failer, m Machine) {
	t.Helper()
	written := image(t, m)
	again, err := ReadImage(bytes.NewReader(written))
	if err != nil {
		t.Fatalf("its image does not read: %v", err)
	}
	if !bytes.Equal(image(t, again), written) {
		t.Fatal("the image of the image differs")
	}
	loaded, err := LoadImage(bytes.NewReader(written), Machine{})
	if err != nil {
		t.Fatalf("its image does not load: %v", err)
	}
	near, err := LoadImage(bytes.NewReader(written), m)
	if err != nil {
		t.Fatalf("its image does not load beside it: %v", err)
	}
	for _, other := range []Machine{again, loaded, near} {
		compareMachines(t, m, other)
	}
	checkOwners(t, m)
	checkRotations(t, m)
	checkSigners(t, m)
}

// checkSigners looks at each name that any claim has or lists: nobody signs for it while
// another's live claim vouches better, and what several claims share is found.
func checkSigners(t failer, m Machine) {
	t.Helper()
	by := make(map[zone.Name][]*Domain)
	for d := range m.Domains(Token{}) {
		for _, n := range append([]zone.Name{d.Name}, d.SignsFor...) {
			by[n] = append(by[n], d)
		}
	}
	want := 0
	for n, all := range by {
		if len(all) > 1 {
			want++
		}
		signer, ok := m.SignerFor(n, "")
		best, own := vouchNone, vouchNone
		for _, d := range all {
			if d.State != Live {
				continue
			}
			if best = max(best, d.vouches(n)); !ok {
				t.Fatalf("nobody signs for %s, and %s might", n, d.Token)
			}
			if d.Tenant == signer.Tenant {
				own = max(own, d.vouches(n))
			}
		}
		if ok && (signer.State != Live || own < best) {
			t.Fatalf("%s of %s signs for %s, for which another vouches better", signer.Token, signer.Tenant, n)
		}
		for _, w := range m.Contest(n) {
			if d, _ := m.Domain(w.Token); best == vouchZone || d.Mode != zone.CNAME || !m.Contested(d) || w.Contested != n {
				t.Fatalf("%s: looked at are %+v, where the best vouches with %d", n, w, best)
			}
		}
	}
	found := 0
	for at := ""; ; {
		names, next := m.Shared(at, 20)
		for _, n := range names {
			if found++; len(by[n]) < 2 {
				t.Fatalf("%s is nobody's, or one's alone", n)
			}
		}
		if at = next; next == "" {
			break
		}
	}
	if found != want {
		t.Fatalf("%d names are shared, %d are found", want, found)
	}
}

// compareMachines holds all that the second keeps to what the first does.
func compareMachines(t failer, m, again Machine) {
	t.Helper()
	a, b := m.tables(), again.tables()
	for _, c := range []struct{ what, kept, follows string }{
		{"names", dumpNames(a), dumpNames(b)},
		{"due", dump(&a.due), dump(&b.due)},
		{"pending", dump(&a.pending), dump(&b.pending)},
		{"keys", a.keys.dump(), b.keys.dump()},
		{"sealed", fmt.Sprint(a.sealed), fmt.Sprint(b.sealed)},
		{"pool ids", dump(&a.poolIDs), dump(&b.poolIDs)},
		{"access hashes", dump(&a.accessHash), dump(&b.accessHash)},
		{"domains", dump(&a.domains), dump(&b.domains)},
		{"counts", counts(a), counts(b)},
	} {
		if c.kept != c.follows {
			t.Fatalf("index %s is\n%s\nbut what follows from the objects is\n%s", c.what, c.kept, c.follows)
		}
	}
	if diff := filled(m).Diff(filled(again)); diff != nil {
		t.Fatalf("answers differ after reading the image: %s", strings.Join(diff[:min(len(diff), 5)], "\n"))
	}
}

// checkRotations counts again what rotations say of their domains.
func checkRotations(t failer, m Machine) {
	t.Helper()
	waiting, refilling := map[uint32]uint32{}, map[uint32]uint32{}
	for d := range m.Domains(Token{}) {
		switch ring := d.Ring(); partOf(ring) {
		case partWaits:
			waiting[ring.Rotation]++
		case partRefills:
			refilling[ring.Rotation]++
		}
	}
	for r := range m.Rotations() {
		if r.Waiting != waiting[r.Number] || r.Refilling != refilling[r.Number] {
			t.Fatalf("rotation %d says %d wait and %d lack a standby, but it is %d and %d", r.Number, r.Waiting, r.Refilling, waiting[r.Number], refilling[r.Number])
		}
		if r.Begun != r.Waiting+r.Switched+r.Skipped+r.Dropped {
			t.Fatalf("rotation %d began with %d domains, but %d wait, %d switched, %d were skipped, %d dropped", r.Number, r.Begun, r.Waiting, r.Switched, r.Skipped, r.Dropped)
		}
		if r.State == RotationDone && r.Waiting > 0 && !r.Back {
			t.Fatalf("rotation %d is done, but %d domains wait", r.Number, r.Waiting)
		}
	}
}

func dump[K ~string | ~uint32, V any](m *table[K, V]) string {
	var b strings.Builder
	m.Scan(func(k K, v V) bool {
		fmt.Fprintf(&b, "%q %q\n", fmt.Sprint(k), fmt.Sprint(v))
		return true
	})
	return b.String()
}

// dump lists the pairs of hash and claim.
func (x *keyIndex) dump() string {
	var list []string
	x.shards.Scan(func(number uint32, shard string) bool {
		for ; shard != ""; shard = shard[keyEntrySize:] {
			list = append(list, fmt.Sprintf("%04x%x", number/(fanSize>>16), shard[:keyEntrySize]))
		}
		return true
	})
	x.shared.Scan(func(key string, _ struct{}) bool {
		list = append(list, fmt.Sprintf("%x", key))
		return true
	})
	slices.Sort(list)
	return strings.Join(list, "\n")
}

func dumpNames(t *tables) string {
	var b strings.Builder
	for i, x := range t.kinds() {
		fmt.Fprintln(&b, "kind", i, dump(&x.pairs))
	}
	return b.String()
}

func counts(t *tables) string {
	var b strings.Builder
	t.pools.Scan(func(k string, e *poolEntry) bool { fmt.Fprintln(&b, "pool", k, e.domains, e.slots); return true })
	t.servers.Scan(func(k string, e *serverEntry) bool { fmt.Fprintln(&b, "server", k, e.domains); return true })
	t.tenants.Scan(func(k string, e *Tenant) bool { fmt.Fprintln(&b, "tenant", k, e.Domains, e.Octets); return true })
	t.platforms.Scan(func(k uint32, e *platformEntry) bool {
		fmt.Fprintln(&b, "platform", k, e.domains, e.octets)
		return true
	})
	return b.String()
}

func filled(m Machine) *zone.Tree { return m.Tree() }

// checkOwners holds the namespace to its rule: every subtree has one owner.
func checkOwners(t failer, m Machine) {
	t.Helper()
	type owned struct {
		name   zone.Name
		tenant string
	}
	var all []owned
	for d := range m.Domains(Token{}) {
		if d.Mode == zone.CNAME && d.State == Pending {
			t.Fatalf("CNAME claim %s is pending", d.Token)
		}
		if (d.State == Pending) != (d.Mode == zone.Delegated && d.ProvenAt == 0 && d.LeavingAt == 0) {
			t.Fatalf("claim %s: state %d, proven at %d, leaving at %d", d.Token, d.State, d.ProvenAt, d.LeavingAt)
		}
		if (d.GoneAt != 0) != (d.State != Live) {
			t.Fatalf("claim %s: state %d, gone at %d", d.Token, d.State, d.GoneAt)
		}
		if d.owns() {
			all = append(all, owned{d.Name, d.Tenant})
		}
	}
	slices.SortFunc(all, func(a, b owned) int { return strings.Compare(a.name.Reverse(), b.name.Reverse()) })
	for i, a := range all {
		for _, b := range all[i+1:] {
			if !b.name.In(a.name) {
				break
			}
			if a.name == b.name || a.tenant != b.tenant {
				t.Fatalf("%s of %s and %s of %s are both proven", a.name, a.tenant, b.name, b.tenant)
			}
		}
	}
}
