package cluster

import (
	"errors"
	"strings"
	"testing"

	"authd/cluster/state"
)

func TestChecksNameWhatIsWrong(t *testing.T) {
	c, d := withDisks(t, 1)
	c.startAll()
	n := c.leader()
	write(t, n, "x")
	wrong := func() map[string]bool {
		blocks := make(map[string]bool)
		for _, k := range n.Checks() {
			if k.OK != (k.Detail == "") {
				t.Errorf("%+v", k)
			}
			if !k.OK {
				blocks[k.Name] = k.Blocks
			}
		}
		return blocks
	}
	if w := wrong(); len(w) != 0 {
		t.Errorf("wrong: %v", w)
	}
	if f := n.Figures(); f.State != "Leader" || f.Term == 0 || f.CommitIndex < n.Machine().Index() || f.Fenced || f.Disk.Total == 0 {
		t.Errorf("%+v", f)
	}
	d.set(n.c.DataDir, 1)
	eventually(t, "the disk", func() bool { blocks, bad := wrong()["disk"]; return bad && !blocks })
	n.fence.trip(errors.New("a test"))
	if w := wrong(); !w["fence"] {
		t.Errorf("wrong: %v", w)
	}
	if !n.Figures().Fenced {
		t.Error("the figures do not know")
	}
}

func TestLeaderNamesTheNodeItDoesNotReach(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	write(t, leader, "x")
	var gone, other *Node
	for _, n := range c.nodes {
		if n != leader {
			gone, other = n, gone
		}
	}
	if k := checkOf(leader, "peers"); !k.OK {
		t.Errorf("%+v", k)
	}
	if err := gone.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "silence", func() bool {
		leader.silent.mu.Lock()
		defer leader.silent.mu.Unlock()
		return !leader.silent.since[gone.c.ID].IsZero()
	})
	if k := checkOf(leader, "peers"); !k.OK {
		t.Errorf("before %s: %+v", silentFor, k)
	}
	leader.silent.mu.Lock()
	leader.silent.since[gone.c.ID] = leader.c.Now().Add(-silentFor)
	leader.silent.mu.Unlock()
	if k := checkOf(leader, "peers"); k.OK || k.Blocks || k.API || !strings.Contains(k.Detail, gone.c.ID) || strings.Contains(k.Detail, other.c.ID) {
		t.Errorf("%+v", k)
	}
	if k := checkOf(other, "peers"); !k.OK {
		t.Errorf("a follower says %+v", k)
	}
	for _, s := range other.Members(t.Context()) {
		if said := len(s.Problems) == 1 && strings.HasPrefix(s.Problems[0], "peers: "); said != (s.ID == leader.c.ID) {
			t.Errorf("%s: %q", s.ID, s.Problems)
		}
	}
	set := state.SetServing{Node: gone.c.ID, Statement: "off for a test"}
	if r, _, err := leader.Propose(t.Context(), Actor{ID: "test"}, set); err != nil || r[0].Refusal != nil {
		t.Fatal(r, err)
	}
	if k := checkOf(leader, "peers"); !k.OK {
		t.Errorf("stated to be off: %+v", k)
	}
}
