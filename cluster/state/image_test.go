package state

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"authd/keys"
	"authd/zone"
)

// variedWorld has one of everything that an image holds.
func variedWorld(t testing.TB) *world {
	w := newWorld(t)
	w.who.Reason = "test"
	for _, c := range variety() {
		w.must(c)
	}
	return w
}

// variety is commands after founding that leave one of everything behind.
func variety() []Command {
	apex := name("p-dns.test")
	long := spec()
	long.DMARC, long.Labels = "v=DMARC1; p=none; rua=mailto:x@in.p-dns.example", map[string]string{"b": "2", "a": "1"}
	for i := range 60 {
		long.SPF = append(long.SPF, fmt.Sprintf("ip4:198.51.%d.0/24", 100+i))
	}
	bound := claimOf(tok(3), "bound.test", zone.CNAME, "acme")
	bound.Bound = BoundTargets{Bounce: name("rp.old.p-dns.test")}
	bound.DMARC, bound.Labels = "v=DMARC1; p=none; rua=mailto:x@in.p-dns.test", map[string]string{"z": "1", "y": "2"}
	gone := claimOf(tok(4), "gone.test", zone.CNAME, "acme")
	gone.Bound = BoundTargets{Click: name("ct.old.p-dns.test")}
	brought := claimOf(tok(5), "send.brought.test", zone.Delegated, "zeta")
	brought.Active[0].Imported, brought.SignsFor = true, []zone.Name{name("brought.test"), name("b.test")}
	fast := spec()
	fast.Policy.Period /= 2
	return []Command{
		PutRecord{apex, rrset(`odd\200\000.p-dns.test`, zone.TypeTXT, 300, "x")},
		PutPool{"second", long},
		claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"),
		ProveDomain{Token: tok(1), Attested: true},
		PutDomainRecord{Token: tok(1), Set: rrset("www.send.customer.test", zone.TypeA, 300, "192.0.2.1", "192.0.2.2")},
		claimOf(tok(2), "customer.test", zone.CNAME, "acme"),
		StepKey{Token: tok(2), Step: keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: 2}},
		bound, gone, brought,
		LeaveDomain{Token: tok(4), Now: true},
		claimOf(tok(6), "customer.test", zone.CNAME, "zeta"),
		LeaveDomain{Token: tok(6)},
		SuspendTenant{"zeta", true},
		AddAccessToken{AccessToken{ID: "a1", Hash: [32]byte{1}, Scope: ScopeRead, Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}},
		PutPool{"default", fast}, // leaves a sweep behind
	}
}

func TestImageHoldsTheWholeMachine(t *testing.T) {
	w := variedWorld(t)
	w.checkIndexes()
	again, err := ReadImage(bytes.NewReader(image(t, w.m)))
	if err != nil {
		t.Fatal(err)
	}
	if again.Index() != w.m.Index() || again.Time() != w.m.Time() || again.Settings() != w.m.Settings() || !again.Rescheduling() {
		t.Error("index, time, settings or sweeps differ")
	}
	// It goes on as the other does.
	entries := []Entry{{At: w.at + day, Command: claimOf(tok(9), "next.test", zone.CNAME, "acme")}, {At: w.at + day, Command: Reschedule{}}}
	a, _, _ := w.m.Apply(99, entries)
	b, _, _ := again.Apply(99, entries)
	if !bytes.Equal(image(t, a), image(t, b)) {
		t.Error("after one more batch they differ")
	}
}

func TestImageOfNothing(t *testing.T) {
	for _, m := range []Machine{{}, Empty()} {
		again, err := ReadImage(bytes.NewReader(image(t, m)))
		if err != nil || again.DomainCount() != 0 {
			t.Errorf("%d domains, %v", again.DomainCount(), err)
		}
		if diff := filled(m).Diff(filled(again)); diff != nil {
			t.Error(diff)
		}
	}
}

func TestImageCutAnywhereIsRefused(t *testing.T) {
	whole := image(t, variedWorld(t).m)
	for n := range whole {
		if n > 200 && n < len(whole)-200 && n%13 != 0 {
			continue
		}
		if _, err := ReadImage(bytes.NewReader(whole[:n])); err == nil || !strings.Contains(err.Error(), "cut short") {
			t.Fatalf("cut to %d of %d octets it says: %v", n, len(whole), err)
		}
	}
	if _, err := ReadImage(bytes.NewReader(append(bytes.Clone(whole), 0))); err == nil {
		t.Error("an octet behind the end is accepted")
	}
	if _, err := ReadImage(iotest.OneByteReader(bytes.NewReader(whole))); err != nil {
		t.Errorf("read one octet at a time: %v", err)
	}
	broken := errors.New("disk is broken")
	if _, err := ReadImage(io.MultiReader(bytes.NewReader(whole[:len(whole)/2]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("a broken disk is reported as %v", err)
	}
}

func TestImageWithAnyOctetChangedIsRefused(t *testing.T) {
	whole := image(t, variedWorld(t).m)
	for i := range whole {
		if i > 400 && i%11 != 0 {
			continue
		}
		damaged := bytes.Clone(whole)
		damaged[i] ^= 1 << (i % 8)
		if _, err := ReadImage(bytes.NewReader(damaged)); err == nil {
			t.Fatalf("octet %d of %d was changed and nobody noticed", i, len(whole))
		}
	}
}

func TestImageSaysWhatIsWrong(t *testing.T) {
	whole := image(t, variedWorld(t).m)
	newer := bytes.Clone(whole)
	newer[len(imageMagic)+1]++
	other := append([]byte("something else\n"), whole...)
	for what, c := range map[string]struct {
		image []byte
		word  string
	}{
		"a newer version": {newer, "upgrade this node"},
		"another file":    {other, "no image"},
		"nothing":         {nil, "cut short"},
		"a newer section": {sealFrames(whole[:imageHeader], []frame{{200, []byte("\x01x")}}), "upgrade this node"},
		"no order":        {sealFrames(whole[:imageHeader], []frame{{sectionTenants, nil}, {sectionMachine, nil}}), "section 1 behind section 5"},
	} {
		if _, err := ReadImage(bytes.NewReader(c.image)); err == nil || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestImageLengthsAreNotBelieved(t *testing.T) {
	var head bytes.Buffer
	head.WriteString(imageMagic + "\x00\x01\x01")
	head.WriteByte(sectionDomains)
	_ = binary.Write(&head, binary.BigEndian, [2]uint32{frameLimit, 0})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := ReadImage(&head); err == nil {
		t.Error("a frame without its octets was accepted")
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > frameLimit/2 {
		t.Errorf("it allocated %d octets for what a length claimed", grown)
	}
}

func TestWritingAnImageReportsAFullDisk(t *testing.T) {
	m := variedWorld(t).m
	size := len(image(t, m))
	for _, room := range []int{0, 10, size / 2, size - 1} {
		if err := m.WriteImage(&fullDisk{room}); !errors.Is(err, errFull) {
			t.Errorf("with room for %d of %d octets: %v", room, size, err)
		}
	}
}

var errFull = errors.New("no space left")

type fullDisk struct{ room int }

func (d *fullDisk) Write(b []byte) (int, error) {
	if len(b) > d.room {
		n := d.room
		d.room = 0
		return n, errFull
	}
	d.room -= len(b)
	return len(b), nil
}

// sealFrames makes an image of frames with checksums that fit.
func sealFrames(head []byte, frames []frame) []byte {
	out := bytes.Clone(head)
	total := crc32.Checksum(head, castagnoli)
	emit := func(section byte, body []byte) {
		h := make([]byte, frameHeader)
		h[0] = section
		binary.BigEndian.PutUint32(h[1:], uint32(len(body)))
		binary.BigEndian.PutUint32(h[5:], crc32.Update(crc32.Checksum(h[:5], castagnoli), castagnoli, body))
		total = crc32.Update(total, castagnoli, h)
		out = append(append(out, h...), body...)
	}
	for _, f := range frames {
		emit(f.section, f.body)
	}
	var end [12]byte
	binary.BigEndian.PutUint64(end[:], uint64(len(frames)))
	binary.BigEndian.PutUint32(end[8:], total)
	emit(sectionEnd, end[:])
	return out
}

// framesOf takes an image apart.
func framesOf(t testing.TB, image []byte) (frames []frame) {
	r := &imageReader{r: bufio.NewReader(bytes.NewReader(image[imageHeader:])), total: crc32.Checksum(image[:imageHeader], castagnoli)}
	for {
		f, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		if f.section == sectionEnd {
			return frames
		}
		frames = append(frames, f)
	}
}

// TestOldMachinesAreReadWhileNewOnesAreMade is for the race detector: readers of
// a published machine, dry runs on it and the writer share its structure.
func TestOldMachinesAreReadWhileNewOnesAreMade(t *testing.T) {
	w := variedWorld(t)
	want := image(t, w.m)
	old := w.m
	var all sync.WaitGroup
	for n := range uint64(3) {
		all.Go(func() {
			for i := range 30 {
				next := old
				for k := range 3 {
					next, _, _ = next.Apply(uint64(100+k), []Entry{{At: w.at, Command: claimOf(tok(10_000+1000*n+uint64(10*i+k)), fmt.Sprintf("c%d-%d.test", i, k), zone.CNAME, "acme")}})
				}
				if next.DomainCount() != old.DomainCount()+3 {
					t.Errorf("%d domains", next.DomainCount())
				}
			}
		})
		all.Go(func() {
			for range 30 {
				var b bytes.Buffer
				if err := old.WriteImage(&b); err != nil || !bytes.Equal(b.Bytes(), want) {
					t.Errorf("the old machine changed: %v", err)
				}
				for d := range old.Domains(Token{}) {
					old.Served(d)
				}
				old.Due(10, w.at+1000*day)
			}
		})
	}
	all.Wait()
}
