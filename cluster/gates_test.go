package cluster

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A node that lost entries it may have acknowledged neither votes nor stands,
// whichever way it is asked.
func TestNodeThatAbstainsTakesNoPartInElections(t *testing.T) {
	abstains := &transport{abstains: func() bool { return true }, roomFor: func(int64) string { return "" }}
	for _, ask := range []any{&raft.RequestVoteRequest{}, &raft.RequestPreVoteRequest{}, &raft.TimeoutNowRequest{}} {
		if err := abstains.refuses(raft.RPC{Command: ask}); !errors.Is(err, errAbstains) {
			t.Errorf("asked with a %T: %v", ask, err)
		}
	}
	if err := abstains.refuses(raft.RPC{Command: &raft.AppendEntriesRequest{}}); err != nil {
		t.Errorf("entries, which it needs: %v", err)
	}
	if err := abstains.RequestVote("node-2", "x", nil, nil); !errors.Is(err, errAbstains) {
		t.Errorf("it stands: %v", err)
	}
	if err := abstains.RequestPreVote("node-2", "x", nil, nil); !errors.Is(err, errAbstains) {
		t.Errorf("it wishes to stand: %v", err)
	}
}

func TestSnapshotsBeyondTheBoundAreNotReceived(t *testing.T) {
	roomy := newTransport(nil, nil)
	for size, ok := range map[int64]bool{-1: false, 0: false, 1: true, maxInstall: true, maxInstall + 1: false} {
		if err := roomy.refuses(raft.RPC{Command: &raft.InstallSnapshotRequest{Size: size}}); (err == nil) != ok {
			t.Errorf("%d octets: %v", size, err)
		}
	}
}

// Before its count was whole a node may have missed a query: the key counts as
// asked for until then. Who signs with a key is known where all said it, and for
// as long as a signer may hold it.
func TestEvidenceIsNoBetterThanWhatItRestsOn(t *testing.T) {
	const hold, now = 50, 1000
	for name, c := range map[string]struct {
		use      KeyUse
		complete bool
		asked    int64
		switched bool
		on       []string
	}{
		"counted since after the last query": {use: KeyUse{Since: 100, LastAsked: 40}, complete: true, asked: 100, switched: true},
		"asked for since":                    {use: KeyUse{Since: 100, LastAsked: 140}, complete: true, asked: 140, switched: true},
		"a node that said nothing":           {use: KeyUse{Missing: []string{"node-3"}}},
		"signers that may be missing":        {use: KeyUse{Unsure: true}, complete: true},
		"one who may hold it still":          {use: KeyUse{Signers: []SignerSeen{{ID: "s", At: now - hold}}}, complete: true, on: []string{"s"}},
		"one who may not any more":           {use: KeyUse{Signers: []SignerSeen{{ID: "s", At: now - hold - 1}}}, complete: true, switched: true},
		"one who fetched a later one":        {use: KeyUse{Signers: []SignerSeen{{ID: "s", At: now, Later: now}}}, complete: true, switched: true},
		"one who went back to it":            {use: KeyUse{Signers: []SignerSeen{{ID: "s", At: now, Later: now - 1}}}, complete: true, on: []string{"s"}},
		"one who fetched only a later one":   {use: KeyUse{Signers: []SignerSeen{{ID: "s", Later: now}}}, complete: true, switched: true},
	} {
		e := c.use.Evidence(hold, now)
		if e.Complete != c.complete || e.AskedAt != c.asked || e.Switched != c.switched || !slices.Equal(c.use.OnOld(hold, now), c.on) {
			t.Errorf("%s: %+v, on it %v", name, e, c.use.OnOld(hold, now))
		}
	}
	var u KeyUse
	u.add(keyTold{Since: 7, Last: 5, HandedOut: 3, Unsure: true, Signers: []SignerSeen{{ID: "s", At: 2}}})
	u.add(keyTold{Since: 6, Last: 8, HandedOut: 1, Signers: []SignerSeen{{ID: "s", Later: 4}}})
	if u.Since != 7 || u.LastAsked != 8 || u.HandedOut != 3 || !u.Unsure || !slices.Equal(u.Signers, []SignerSeen{{ID: "s", At: 2, Later: 4}}) {
		t.Errorf("two nodes together: %+v", u)
	}
}

// An alarm of two clusters goes when the other one has not been met for a while.
func TestAlarmOfARivalEnds(t *testing.T) {
	var r rival
	if why := r.problem(); why != "" {
		t.Errorf("never met: %q", why)
	}
	if r.met(errors.New("two clusters")); r.problem() != "two clusters" {
		t.Errorf("met now: %q", r.problem())
	}
	r.at = r.at.Add(-rivalTime - time.Second)
	if why := r.problem(); why != "" {
		t.Errorf("met a while ago: %q", why)
	}
}

// A node that is no member ends no cluster, whatever it says of itself.
func TestStrangerOfALaterIncarnationEndsNothing(t *testing.T) {
	ca := newAuthority(t)
	end := func(id string, of incarnation, superseded *atomic.Int32) *link {
		return linkWith(t, ca.tls(id), func(l *link) {
			l.own = func() incarnation { return of }
			l.outdated, l.superseded = func(error) {}, func(error) { superseded.Add(1) }
		}, "node-1", "node-2")
	}
	var ours, theirs atomic.Int32
	if _, err := ask(t, end("node-9", incarnation{epoch: 2, state: true}, &theirs), end("node-1", incarnation{epoch: 1, state: true}, &ours), "node-1"); err == nil || ours.Load() > 0 {
		t.Errorf("%v, superseded %d times", err, ours.Load())
	}
}
