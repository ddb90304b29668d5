package cluster

import (
	"errors"
	"testing"
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
