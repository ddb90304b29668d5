package state

import (
	"bytes"
	"encoding/binary"
	"flag"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authd/keys"
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
			if d, ok := read.SignerFor(name("brought.test"), ""); ok {
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
	m := Empty()
	for i, entries := range logged(t, path) {
		m, _, _ = m.Apply(uint64(i)+1, entries)
	}
	return m
}

func logged(t *testing.T, path string) (batches [][]Entry) {
	t.Helper()
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for len(log) > 0 {
		size := binary.BigEndian.Uint32(log)
		entries, err := DecodeBatch(log[4 : 4+size])
		if err != nil {
			t.Fatalf("entry %d: %v", len(batches)+1, err)
		}
		batches, log = append(batches, entries), log[4+size:]
	}
	return batches
}

// rarer is one of each command that neither founding nor variety has.
func rarer(w *world) []Command {
	half := w.domain(tok(1)).Ring().Keys[0]
	brought := material(3, "k2", "BBBB")
	brought.Imported = true
	invited := func(id string, n byte) Command { return InviteNode{invitation(id, n, w.at+3600)} }
	return []Command{
		PatchDomain{Token: tok(1), Labels: &map[string]string{"plan": "gold"}},
		Reschedule{},
		BringKey{tok(2), brought},
		LeaveDomain{Token: tok(2)},
		RestoreDomain{Token: tok(2)},
		ProveDomain{Token: tok(3), Seen: []Token{tok(3)}, Servers: []string{"ns.bound.test./192.0.2.7"}},
		ProveDomain{Token: tok(2), Seen: []Token{tok(2)}, Gone: []Token{tok(3)}},
		SetDomainRecords{Token: tok(1), Sets: []zone.RRset{rrset("www.send.customer.test", zone.TypeA, 300, "192.0.2.3")}},
		Note{"node", "node-3", "added as a voter"},
		SetCookieSecret{secretOf(1)},
		SetReads{"node-1", 5, AuditHash{5}, 9},
		SetWrap{2},
		Rewrap{[]SealedHalf{{tok(1), half.ID, half.Sealed[:14], under(2, half.Sealed)}}},
		RevokeKey{Token: tok(3), Selector: "k2", Force: true},
		ReplaceKey{Token: tok(1), Algorithm: keys.RSA2048, Old: keys.FateSwitch, Store: true},
		StartRotation{tok(90), RotationSpec{Scope: RotationScope{Tenant: "acme"}, Emergency: true, Old: keys.FateRevoke, Canary: []uint8{50, 100}, Total: 3}},
		AdvanceRotation{tok(90)},
		ControlRotation{tok(90), RotationPause},
		SetAuthority{Authority{[]byte("certificate"), []byte("sealed")}},
		invited("node-4", 1), invited("node-5", 2),
		AdmitNode{"node-4", [32]byte{1}},
		SettleNode{"node-4"},
		SetServing{Node: "node-3", Statement: "it is off"},
		LimitTenant{"acme", new(uint32(500)), new(uint32(1 << 20))},
		DropAccessToken{"a1"},
		PutNameServer{Label: "ns3", Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.53")}},
		DropNameServer{"ns3"},
		PutPool{"third", spec()},
		DropPool{"third"},
		PutPlatform{Apex: name("third.example"), Contact: name("hostmaster.p-dns.test")},
		DropPlatform{name("third.example")},
		CheckState{},
	}
}

// TestHistoryHasEveryCommand: the log of the newest release, so that no kind of
// entry is ever read for the first time by a cluster.
func TestHistoryHasEveryCommand(t *testing.T) {
	logs, err := filepath.Glob(filepath.Join(history, "state-*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no logs in %s: %v", history, err)
	}
	missing := maps.Clone(pinned)
	for _, entries := range logged(t, logs[len(logs)-1]) {
		for _, e := range entries {
			delete(missing, e.Command.Code())
		}
	}
	if len(missing) > 0 {
		t.Errorf("no entry of %v: add them to rarer, and write the files anew (go test ./cluster/state -run OldImages -update) before the release", missing)
	}
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
	for _, c := range rarer(w) {
		w.must(c)
	}
	w.later(20 * day)
	w.must(ExpireDomain{tok(6)})
	w.who.Once = MakeOnce("admin-1", "key-1", []byte("request"))
	w.must(PutDomainRecord{Token: tok(1), Set: rrset("sub.send.customer.test", zone.TypeNS, 300, "ns.other.test."), Admin: true})
	for suffix, data := range map[string][]byte{".image": image(t, w.m), ".log": log} {
		if err := os.WriteFile(path+suffix, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
