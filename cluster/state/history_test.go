package state

import (
	"bytes"
	"encoding/binary"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authd/zone"
)

var update = flag.Bool("update", false, "write testdata/history/state-1.image and .log anew; only before the first release that has them")

const history = "../../testdata/history"

// TestOldImagesAndLogsOpen: what a released version wrote is read by this one,
// and a log replayed by this one gives the machine that the old one had. A
// release adds a pair of files; none is ever changed.
func TestOldImagesAndLogsOpen(t *testing.T) {
	if *update {
		writeHistory(t, filepath.Join(history, "state-1"))
	}
	images, err := filepath.Glob(filepath.Join(history, "state-*.image"))
	if err != nil || len(images) == 0 {
		t.Fatalf("no images in %s: %v", history, err)
	}
	for _, path := range images {
		t.Run(filepath.Base(path), func(t *testing.T) {
			old, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			read, err := ReadImage(bytes.NewReader(old))
			if err != nil {
				t.Fatal(err)
			}
			replayed := replay(t, strings.TrimSuffix(path, ".image")+".log")
			if !bytes.Equal(image(t, read), image(t, replayed)) {
				t.Error("the log now gives another machine than the release that wrote it had: nodes of two releases would diverge")
			}
			checkMachine(t, read)
			if d, ok := read.SignerFor(name("brought.test")); ok {
				t.Errorf("claim %s signs, which was never proven", d.Token)
			}
			d, ok := read.Domain(tok(1))
			if !ok || len(read.Served(d)) == 0 || !read.Tombstoned(tok(4)) {
				t.Error("claims are missing")
			}
		})
	}
}

// replay applies a log file: lengths of four octets, each with a batch.
func replay(t *testing.T, path string) Machine {
	t.Helper()
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := Empty()
	for index := uint64(1); len(log) > 0; index++ {
		size := binary.BigEndian.Uint32(log)
		entries, err := DecodeBatch(log[4 : 4+size])
		if err != nil {
			t.Fatalf("entry %d: %v", index, err)
		}
		m, _, _ = m.Apply(index, entries)
		log = log[4+size:]
	}
	return m
}

func writeHistory(t *testing.T, path string) {
	t.Helper()
	w := newWorld(t)
	var log []byte
	w.logged = func(data []byte) {
		log = append(binary.BigEndian.AppendUint32(log, uint32(len(data))), data...)
	}
	w.m, w.index = Empty(), 0
	for _, c := range founding() {
		w.must(c)
	}
	for _, c := range variety() {
		w.who.Reason = "history"
		w.must(c)
	}
	w.later(10 * day)
	w.runDue()
	w.who.Once = MakeOnce("admin-1", "key-1", []byte("request"))
	w.must(PutDomainRecord{Token: tok(1), Set: rrset("sub.send.customer.test", zone.TypeNS, 300, "ns.other.test."), Admin: true})
	for suffix, data := range map[string][]byte{".image": image(t, w.m), ".log": log} {
		if err := os.WriteFile(path+suffix, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
