package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"authd/cluster/state"
)

// Days of restores in every run, and images that the operator keeps.
const (
	restoreDays = 8
	keptImages  = 4
	// A leader whose disk would hang so long is cut off in the middle instead, or as well,
	// for as long as others may take to elect another.
	cutOff     = 15 * time.Minute
	cutAndHung = 25 * time.Minute
	away       = 3 * time.Hour
)

// operator saves images and restores them, one at a time.
type operator struct {
	images  []savedImage
	foreign savedImage // of another cluster
	busy    bool
	tries   int
	open    *tried // what is said of it has not been held against the state
	last    tried  // the last that came to be
}

type savedImage struct {
	data    []byte
	tenants map[string]bool
}

// tried is a restore. What was acknowledged before its index is gone but for what the
// image has; whether one of unknown outcome came to be shows in a tenant that was
// acknowledged just before, and that no image has.
type tried struct {
	index   uint64
	tenants map[string]bool
	witness string
	err     error
}

// Longer: AUTHD_VIRTUAL_DAYS=365 AUTHD_VIRTUAL_SEED=7 go test ./cluster -run
// RestoresAmidFaults -v -timeout 1h.
func TestRestoresAmidFaultsForAWeek(t *testing.T) {
	whole := time.Duration(fromEnvironment(t, "AUTHD_VIRTUAL_DAYS", restoreDays)) * day
	chance := fromEnvironment(t, "AUTHD_VIRTUAL_SEED", virtualSeed)
	foreign := imageOfAnother(t)
	forMonths(t, func(t *testing.T, v *virtual) {
		v.rotates()
		v.operator.foreign = foreign
		v.live(whole, withRestores(faultsOver(whole, chance, 3), whole, chance))
		v.settle()
		if c := v.total(); c.restores < int(whole/(4*day)) {
			t.Errorf("only %d restores in %s", c.restores, whole)
		}
	})
}

// imageOfAnother is an image of another cluster that serves the same names.
func imageOfAnother(t *testing.T) (image savedImage) {
	if testing.Short() {
		return image // see forMonths
	}
	inVirtualTimeOf(t, 1, calm(), func(t *testing.T, v *virtual) {
		v.rotates()
		must(t, v.write(v.waitLeader(), "foreign", time.Minute))
		image = v.image(v.waitLeader())
	})
	return image
}

// withRestores adds an operator's acts to a schedule: three of them a day.
func withRestores(schedule []fault, whole time.Duration, seed uint64) []fault {
	r := rand.New(rand.NewPCG(seed, 1))
	for at := 2 * time.Hour; at < whole; at += time.Duration(r.Int64N(int64(16 * time.Hour))) {
		f := fault{at: at, until: at, kind: "save", node: r.IntN(keptImages + 1)}
		if r.IntN(2) == 0 {
			f.kind = "restore"
		}
		if r.IntN(2) == 0 {
			f.wrong = time.Duration(r.Int64N(int64(40 * time.Minute))) // how long the disk hangs
		}
		schedule = append(schedule, f)
	}
	slices.SortStableFunc(schedule, func(a, b fault) int { return cmp.Compare(a.at, b.at) })
	return schedule
}

func withoutRestores(schedule []fault, _ time.Duration, _ uint64) []fault { return schedule }

// image saves one and reads it back.
func (v *virtual) image(n *Node) savedImage {
	var b bytes.Buffer
	index, err := n.SaveSnapshot(within(v.t, time.Minute), &b)
	must(v.t, err)
	m, err := state.ReadImage(bytes.NewReader(b.Bytes()))
	must(v.t, err)
	v.mu.Lock()
	defer v.mu.Unlock()
	if sum, ok := v.sums[index][n.c.ID]; m.Index() != index || ok && sum != m.Sum() {
		v.t.Errorf("%s: the image of %s at %d is of %d, or differs", v.now(), n.c.ID, index, m.Index())
	}
	image := savedImage{b.Bytes(), make(map[string]bool)}
	for tenant := range m.Tenants("") {
		image.tenants[tenant.ID] = true
	}
	return image
}

// save keeps one more image, of whoever runs.
func (v *virtual) save(h *happening) {
	n := v.nodes[h.id]
	if n == nil {
		return
	}
	o := &v.operator
	o.images = append(o.images, v.image(n))
	o.images = o.images[max(0, len(o.images)-keptImages):]
}

// restore begins one on whoever leads, amid writes.
func (v *virtual) restore(h *happening) {
	o, n := &v.operator, v.leaderAmong(h.id)
	if n == nil {
		n = v.leaderOfMost()
	}
	v.mu.Lock()
	busy := o.busy
	o.busy = busy || n != nil
	v.mu.Unlock()
	if busy || n == nil {
		return
	}
	image := o.foreign
	if h.node < len(o.images) {
		image = o.images[h.node]
	}
	o.tries++
	t := tried{tenants: image.tenants, witness: fmt.Sprintf("witness-%d", o.tries)}
	v.writes.Go(func() {
		t.err = v.restoreOn(n, image, &t, h.wrong)
		v.mu.Lock()
		defer v.mu.Unlock()
		o.busy = false
	})
}

// leaderOfMost is a node that leads, as it believes.
func (v *virtual) leaderOfMost() *Node {
	for _, id := range slices.Sorted(maps.Keys(v.nodes)) {
		if n := v.nodes[id]; n.leads() {
			return n
		}
	}
	return nil
}

func (v *virtual) restoreOn(n *Node, image savedImage, t *tried, slow time.Duration) error {
	if err := v.write(n, t.witness, time.Minute); err != nil {
		return err
	}
	v.resolve(n)
	v.excuse(image)
	// In which of its first appends, some of which hold several pieces.
	when := int64(slow/time.Second) % 6
	var appends atomic.Int64
	fault := func() error {
		if slow == 0 || !calledBy("StoreLogs") || appends.Add(1) != when+1 {
			return nil
		}
		if slow > cutOff {
			v.isolate(n.c.ID)
			v.writes.Go(func() {
				time.Sleep(away)
				v.heal()
			})
		}
		if slow < cutOff || slow > cutAndHung {
			select {
			case <-time.After(slow):
			case <-n.ctx.Done():
			}
		}
		return nil
	}
	n.store.fault.Store(&fault)
	defer n.store.fault.Store(nil)
	for i := range 3 {
		v.writes.Go(func() { v.write(n, fmt.Sprintf("beside-%s-%d", t.witness, i), time.Hour) })
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	t.index, t.err = n.RestoreSnapshot(ctx, Actor{ID: "test"}, bytes.NewReader(image.data), false)
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case t.err == nil:
		v.count.restores++
		v.operator.last = *t
	case errors.Is(t.err, ErrUnknown):
		v.count.restoresUnknown++
		v.operator.open = t
	case errors.Is(t.err, ErrNotCommitted), errors.Is(t.err, ErrNoLeader):
		v.operator.open = t
	default:
		v.t.Errorf("%s: restoring: an error of no kind: %v", v.now(), t.err)
	}
	return t.err
}

// resolve finds out, by a node that has just acknowledged a write, what became of the
// restore before.
func (v *virtual) resolve(n *Node) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.operator.open
	v.operator.open = nil
	if t == nil || has(n, t.witness) {
		return
	}
	if !errors.Is(t.err, ErrUnknown) {
		v.t.Errorf("%s: a restore came to be of which was said: %v", v.now(), t.err)
	}
	for e := range n.Machine().Audit(0) {
		if e.Actor == "test" && e.Command == "Note" {
			t.index = e.Index
		}
	}
	v.operator.last = *t
}

// excuse takes the keys of an image for what they are in it: how long they were
// answered before is none of this run's. And of one that drained, and signs or signed
// once more by a restore, what was handed out is evidence; here it never is.
func (v *virtual) excuse(image savedImage) {
	m, err := state.ReadImage(bytes.NewReader(image.data))
	must(v.t, err)
	v.mu.Lock()
	defer v.mu.Unlock()
	for d := range m.Domains(state.Token{}) {
		for _, k := range d.Ring().Keys {
			ref := keyRef{d.Token, k.ID, k.CreatedAt}
			if v.keys[ref] == nil {
				v.keys[ref] = newKeyLife()
			}
			v.keys[ref].excused = true
		}
	}
}

// wantTold holds a node against what was said of writes, by restores and without.
// mu is held.
func (v *virtual) wantTold(id string, n *Node) {
	v.t.Helper()
	last := v.operator.last
	for tenant := range last.tenants {
		if !has(n, tenant) {
			v.t.Errorf("%s: %s has not %s, which was in the image that was restored at %d", v.now(), id, tenant, last.index)
		}
	}
	for tenant, index := range v.acked {
		switch want := index > last.index || last.tenants[tenant]; {
		case want && !has(n, tenant):
			v.t.Errorf("%s: %s has lost the acknowledged %s", v.now(), id, tenant)
		case !want && has(n, tenant):
			v.t.Errorf("%s: %s has %s of %d, and an image without it was restored at %d", v.now(), id, tenant, index, last.index)
		}
	}
	for tenant := range v.refused {
		if has(n, tenant) {
			v.t.Errorf("%s: %s has %s, whose write was said not to have happened", v.now(), id, tenant)
		}
	}
}

// wantNoneFenced: nothing that these runs do fences a node off.
func (v *virtual) wantNoneFenced() {
	v.t.Helper()
	for _, id := range slices.Sorted(maps.Keys(v.nodes)) {
		if err := v.nodes[id].fence.err(); err != nil {
			v.t.Fatalf("%s: %s is fenced off: %v", v.now(), id, err)
		}
	}
}

// forget forgets what a node had shown. mu is held.
func (v *virtual) forget(id string) {
	delete(v.at, id)
	for of := range v.serials {
		if of.node == id {
			delete(v.serials, of)
		}
	}
}
