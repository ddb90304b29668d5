package state

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"authd/keys"
	"authd/zone"
)

// pinned is every command that was ever in a release. Codes are in logs and
// snapshots of running clusters.
var pinned = map[Code]string{
	1: "SetSettings", 2: "PutPlatform", 3: "PutRecord", 4: "PutNameServer", 5: "PutPool",
	6: "AddTenant", 7: "SuspendTenant", 8: "AddDomain", 9: "PatchDomain", 10: "ProveDomain",
	11: "LeaveDomain", 12: "RestoreDomain", 13: "ExpireDomain", 14: "PutDomainRecord", 15: "StepKey",
	16: "RevokeKey", 17: "AddAccessToken", 18: "DropAccessToken", 19: "DropPlatform", 20: "DropPool",
	21: "DropNameServer", 22: "Reschedule", 23: "SetCookieSecret", 24: "SetDomainRecords",
	25: "Note", 26: "ReplaceKey",
	35: "StartRotation", 36: "AdvanceRotation", 37: "ControlRotation",
	43: "BringKey", 44: "SetReads", 45: "SetWrap", 46: "Rewrap",
	50: "SetAuthority", 51: "InviteNode", 52: "AdmitNode", 53: "SettleNode", 60: "CheckState", 61: "SetServing",
	62: "LimitTenant",
}

// examples has one command of each code with every field set.
func examples() []Command {
	text, labels, names := "x", map[string]string{"b": "2", "a": "1"}, []zone.Name{name("customer.test")}
	m := material(1, "2601-aaaaaa", "AAAA")
	m.PublicOnly, m.Imported, m.Maker = true, true, "node-2"
	addresses := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	return []Command{
		SetSettings{Settings{VerificationOff: true, ClusterID: "c"}},
		PutPlatform{name("p-dns.test"), name("hostmaster.p-dns.test")},
		PutRecord{name("p-dns.test"), rrset(`a\200\000b.p-dns.test`, zone.TypeTXT, 300, "x")},
		PutNameServer{"ns1", addresses},
		PutPool{"default", PoolSpec{
			SPF: []string{"ip4:192.0.2.0/24"}, SPFAll: "~all", MX: []zone.MX{{Preference: 10, Host: name("mx1.p-dns.test")}},
			ClickA: addresses, ClickCNAME: name("edge.example"), DMARC: "v=DMARC1; p=none", Labels: labels, Policy: keys.DefaultPolicy().After(keys.Policy{SignerHold: 2 * keys.DefaultPolicy().SignerHold}, start),
		}},
		AddTenant{"acme", "Acmé", 7, 8},
		SuspendTenant{"acme", true},
		LimitTenant{"acme", new(uint32(7)), new(uint32(8))},
		AddDomain{
			Token: tok(1), Name: name("send.customer.test"), Mode: zone.CNAME, Tenant: "acme", Pool: "default", Labels: labels,
			SignsFor: names, DMARC: "v=DMARC1; p=none", Registrable: name("customer.test"), Suffix: true, Override: true,
			Bound:  BoundTargets{Keys: names, Bounce: names[0], Click: names[0], DMARC: names[0]},
			Active: []keys.Material{m}, Standby: []keys.Material{m},
		},
		PatchDomain{tok(1), &text, &labels, &text, &names, 7},
		ProveDomain{tok(1), []Token{tok(1), tok(2)}, []string{"192.0.2.1:53"}, true, []Token{tok(3)}},
		LeaveDomain{tok(1), true},
		RestoreDomain{tok(1), []keys.Material{m}},
		ExpireDomain{tok(1)},
		PutDomainRecord{tok(1), rrset("www.send.customer.test", zone.TypeA, 300, "192.0.2.1"), true},
		Note{"node", "node-4", "added as a voter"},
		SetDomainRecords{tok(1), []zone.RRset{rrset("www.send.customer.test", zone.TypeA, 300, "192.0.2.1")}, true, true},
		StepKey{tok(1), keys.Step{Kind: keys.StepPublish, Algorithm: keys.Ed25519, Key: 3, Evidence: &keys.Evidence{Complete: true, AskedAt: 1, HandedOutAt: 2, Switched: true}, CreatedAt: 4}, &m, "2601-aaaaaa", true},
		RevokeKey{tok(1), "2601-aaaaaa", true},
		ReplaceKey{tok(1), keys.Ed25519, "2601-aaaaaa", keys.FateRevoke, true},
		BringKey{tok(1), m},
		StartRotation{tok(1), RotationSpec{
			Scope: RotationScope{"acme", "default", []Token{tok(1)}, true}, Emergency: true, Drill: true, Store: true,
			Old: keys.FateRevoke, Canary: []uint8{1, 100}, Hold: 60, Total: 7, Expected: 8, Tail: 9, Ready: 5,
		}},
		AdvanceRotation{tok(1)},
		ControlRotation{tok(1), RotationRollback},
		SetWrap{2},
		Rewrap{[]SealedHalf{{tok(1), 1, []byte{0, 1}, []byte{0, 2}}}},
		SetReads{"node-1", 5, AuditHash{1}, 7},
		AddAccessToken{AccessToken{"a1", [32]byte{1}, ScopeAdmin, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, 5, 6, "note"}},
		DropAccessToken{"a1"},
		DropPlatform{name("p-dns.test")},
		DropPool{"default"},
		DropNameServer{"ns1"},
		Reschedule{},
		SetCookieSecret{secretOf(1)},
		CheckState{},
		SetAuthority{Authority{[]byte{1}, []byte{2}}},
		InviteNode{Invitation{"node-4", "192.0.2.14:7301", true, [32]byte{1}, 5, 6}},
		AdmitNode{"node-4", [32]byte{1}},
		SettleNode{"node-4"},
		SetServing{"node-4", true, "it is off"},
	}
}

// secretOf has no zero octet, as an example must.
func secretOf(n byte) (s zone.CookieSecret) {
	for i := range s {
		s[i] = n
	}
	return s
}

func TestCommandCodesArePinned(t *testing.T) {
	found := make(map[Code]string)
	for _, c := range examples() {
		typ := reflect.TypeOf(c)
		if had, ok := found[c.Code()]; ok {
			t.Errorf("code %d is %s and %s: codes are never reused", c.Code(), had, typ.Name())
		}
		found[c.Code()] = typ.Name()
	}
	if !reflect.DeepEqual(found, pinned) {
		t.Errorf("the commands are\n%v\nbut the log's codes are pinned as\n%v\n"+
			"A new command also needs: a case in decodeCommand (encode.go) and in writer.apply (apply.go); an example here; "+
			"a generator in generator_test.go; a line in ARCHITECTURE.md and CHANGELOG.md; and a release in which every node can "+
			"apply it before any node proposes it. Existing codes stay as they are for ever.", found, pinned)
	}
}

func TestEveryCommandSurvivesTheLog(t *testing.T) {
	for _, c := range examples() {
		t.Run(reflect.TypeOf(c).Name(), func(t *testing.T) {
			requireEveryFieldSet(t, reflect.ValueOf(c), reflect.TypeOf(c).Name())
			want := Entry{At: start, Actor: "admin-1", Source: "192.0.2.9:1234", Reason: "é", Once: MakeOnce("admin-1", "key", []byte("x")), Command: c}
			data, err := EncodeBatch([]Entry{want, want})
			if err != nil {
				t.Fatal(err)
			}
			again, err := EncodeBatch([]Entry{want, want})
			if err != nil || !bytes.Equal(data, again) {
				t.Fatalf("equal entries encode differently: %v", err)
			}
			got, err := DecodeBatch(data)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, []Entry{want, want}) {
				t.Errorf("got\n%+v\nwant\n%+v", got[0], want)
			}
		})
	}
}

// requireEveryFieldSet keeps the examples honest: a field left out would not be
// seen to be lost.
func requireEveryFieldSet(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	switch v.Kind() {
	case reflect.Struct:
		if v.Type().PkgPath() == "net/netip" {
			return
		}
		for i := range v.NumField() {
			requireEveryFieldSet(t, v.Field(i), path+"."+v.Type().Field(i).Name)
		}
	case reflect.Slice, reflect.Map, reflect.String:
		if v.Len() == 0 {
			t.Errorf("%s is empty in the example", path)
		}
	case reflect.Pointer:
		if v.IsNil() {
			t.Errorf("%s is nil in the example", path)
		}
	default:
		if v.IsZero() {
			t.Errorf("%s is zero in the example", path)
		}
	}
}

func TestLogRefusesWhatThisReleaseDoesNotKnow(t *testing.T) {
	good, err := EncodeBatch([]Entry{{At: 1, Command: ExpireDomain{tok(1)}}})
	if err != nil {
		t.Fatal(err)
	}
	raw := func(body any) []byte {
		b, err := encoding.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		return append([]byte{batchVersion}, b...)
	}
	for what, data := range map[string][]byte{
		"no data":                 {},
		"another version":         append([]byte{batchVersion + 1}, good[1:]...),
		"cut short":               good[:len(good)-1],
		"octets behind":           append(bytes.Clone(good), 0),
		"no entries":              raw([]any{}),
		"not an array":            raw(map[int]int{}),
		"an envelope too short":   raw([]any{[]any{13, 1, "", ""}}),
		"an unknown code":         raw([]any{[]any{9999, 1, "", "", "", map[int]any{}}}),
		"an unknown field":        raw([]any{[]any{13, 1, "", "", "", map[int]any{1: make([]byte, 16), 2: 1}}}),
		"a short token":           raw([]any{[]any{13, 1, "", "", "", map[int]any{1: make([]byte, 15)}}}),
		"a long token":            raw([]any{[]any{13, 1, "", "", "", map[int]any{1: make([]byte, 17)}}}),
		"a number for a text":     raw([]any{[]any{6, 1, "", "", "", map[int]any{1: 5}}}),
		"a time before 1970":      raw([]any{[]any{22, -1, "", "", "", map[int]any{}}}),
		"a reason without bounds": raw([]any{[]any{22, 1, "", "", strings.Repeat("x", maxReason+1), map[int]any{}}}),
	} {
		if entries, err := DecodeBatch(data); err == nil {
			t.Errorf("%s: decoded as %+v", what, entries)
		}
	}
	if _, err := DecodeBatch(raw([]any{[]any{9999, 1, "", "", "", map[int]any{}}})); err == nil || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("an unknown code is refused with %v, which does not say what to do", err)
	}
}

func TestBatchIsBounded(t *testing.T) {
	e := Entry{At: 1, Command: Reschedule{}}
	many := make([]Entry, MaxBatch+1)
	for i := range many {
		many[i] = e
	}
	if _, err := EncodeBatch(many); err == nil {
		t.Error("a batch of too many commands was encoded")
	}
	if _, err := EncodeBatch(nil); err == nil {
		t.Error("an empty batch was encoded")
	}
	if _, err := EncodeBatch([]Entry{{At: 1}}); err == nil {
		t.Error("an entry without a command was encoded")
	}
	big := Entry{At: 1, Command: AddTenant{ID: "a", Name: strings.Repeat("x", maxBatchBytes)}}
	if _, err := EncodeBatch([]Entry{big}); err == nil {
		t.Error("a batch of too many octets was encoded")
	}
	if _, err := DecodeBatch(append([]byte{batchVersion}, make([]byte, maxBatchBytes)...)); err == nil {
		t.Error("a batch of too many octets was decoded")
	}
}

// alien is a command of no release.
type alien struct{}

func (alien) Code() Code { return 9999 }

func TestApplyStopsTheNodeAtACommandItDoesNotKnow(t *testing.T) {
	defer func() {
		said := fmt.Sprint(recover())
		if !strings.Contains(said, "upgrade this node") {
			t.Errorf("it said %q, which is no word for an operator", said)
		}
	}()
	Empty().Apply(1, []Entry{{At: 1, Command: alien{}}})
	t.Error("it went on")
}
