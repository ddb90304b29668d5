package state

import (
	"strings"
	"testing"
)

func invitation(id string, secret byte, expires int64) Invitation {
	return Invitation{ID: id, Address: "192.0.2.14:7301", Voter: true, Hash: [32]byte{secret}, ExpiresAt: expires}
}

func TestJoinTokenIsGoodOnceForOneNodeAndNotForLong(t *testing.T) {
	w := newWorld(t)
	w.refuse(InviteNode{invitation("node-4", 1, w.at+60)}, Invalid, "", "no CA")
	w.must(SetAuthority{Authority{[]byte("certificate"), []byte("sealed")}})
	w.must(InviteNode{invitation("node-4", 1, w.at+60)})
	w.must(InviteNode{invitation("node-5", 2, w.at+60)})

	w.refuse(AdmitNode{"node-4", [32]byte{2}}, NotFound, "token", "not the join token")
	w.refuse(AdmitNode{"node-6", [32]byte{1}}, NotFound, "id", "not invited")
	w.must(AdmitNode{"node-4", [32]byte{1}})
	w.refuse(AdmitNode{"node-4", [32]byte{1}}, Conflict, "token", "used before")
	if i, ok := w.m.Invited("node-4"); !ok || i.AdmittedAt == 0 || !i.Voter || i.Good([32]byte{1}, w.at) {
		t.Errorf("%+v", i)
	}

	w.later(60)
	w.refuse(AdmitNode{"node-5", [32]byte{2}}, Conflict, "token", "expired")
	w.must(InviteNode{invitation("node-5", 3, w.at+60)})
	w.refuse(AdmitNode{"node-5", [32]byte{2}}, NotFound, "token")
	w.must(AdmitNode{"node-5", [32]byte{3}})

	w.must(SettleNode{"node-4"})
	if r := w.do(SettleNode{"node-4"}); r.Changed || r.Refusal != nil {
		t.Errorf("again: %+v", r)
	}
	if _, ok := w.m.Invited("node-4"); ok {
		t.Error("still invited")
	}
}

func TestInvitationsAreCheckedAndBounded(t *testing.T) {
	w := newWorld(t)
	w.must(SetAuthority{Authority{[]byte("certificate"), []byte("sealed")}})
	for _, bad := range []struct {
		field  string
		change func(*Invitation)
	}{
		{"id", func(i *Invitation) { i.ID = "" }},
		{"id", func(i *Invitation) { i.ID = "Node 4" }},
		{"id", func(i *Invitation) { i.ID = strings.Repeat("n", 64) }},
		{"address", func(i *Invitation) { i.Address = "" }},
		{"address", func(i *Invitation) { i.Address = "a b" }},
		{"hash", func(i *Invitation) { i.Hash = [32]byte{} }},
		{"admitted_at", func(i *Invitation) { i.AdmittedAt = 1 }},
		{"expires_at", func(i *Invitation) { i.ExpiresAt = w.at }},
		{"expires_at", func(i *Invitation) { i.ExpiresAt = w.at + MaxInvitationLife + 1 }},
	} {
		i := invitation("node-4", 1, w.at+60)
		bad.change(&i)
		w.refuse(InviteNode{i}, Invalid, bad.field)
	}
	w.refuse(SetAuthority{}, Invalid, "certificate")
	w.refuse(SetAuthority{Authority{[]byte("c"), make([]byte, maxAuthority+1)}}, Invalid, "sealed")
	for n := range maxInvitations {
		w.must(InviteNode{invitation("n"+strings.Repeat("x", n%60)+string(rune('a'+n/60)), byte(n+1), w.at+60)})
	}
	w.refuse(InviteNode{invitation("more", 1, w.at+60)}, Invalid, "id", "at most 64")
	w.later(60)
	w.must(InviteNode{invitation("more", 1, w.at+60)}) // those before have expired
	if n := len(w.m.Invitations()); n != 1 {
		t.Errorf("%d invitations are left", n)
	}
}

func TestRestoredBackupKeepsTheClustersOwnAuthority(t *testing.T) {
	here, backup := newWorld(t), newWorld(t)
	here.must(SetAuthority{Authority{[]byte("ours"), []byte("sealed")}})
	backup.must(SetAuthority{Authority{[]byte("theirs"), []byte("sealed")}})
	if got := string(succeed(t, backup.m, here.m, here.m).Authority().Certificate); got != "ours" {
		t.Errorf("authority %q", got)
	}
}

func TestInvitationIsGoodForItsSecretUntilItEnds(t *testing.T) {
	i := invitation("node-4", 1, start+60)
	if !i.Good([32]byte{1}, start+59) || i.Good([32]byte{1}, start+60) || i.Good([32]byte{2}, start) {
		t.Error("an invitation is good for another secret, or past its end, or not before")
	}
	w := newWorld(t)
	w.must(SetAuthority{Authority{[]byte("certificate"), []byte("sealed")}})
	w.must(InviteNode{invitation("node-4", 1, w.at+60)})
	w.must(InviteNode{invitation("node-4", 2, w.at+60)})
	if all := w.m.Invitations(); len(all) != 1 || all[0].Hash != [32]byte{2} {
		t.Errorf("the invitation before is not void: %+v", all)
	}
	w.must(AdmitNode{"node-4", [32]byte{2}})
	w.later(3600)
	w.must(InviteNode{invitation("node-5", 3, w.at+60)})
	if _, ok := w.m.Invited("node-4"); !ok {
		t.Error("a node that was let in and does not vote yet is forgotten")
	}
}
