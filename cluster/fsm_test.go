package cluster

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
	"authd/zone"
)

// Who finds an index in the machine may say that it is answered and will stay so: a
// write's reply and a confirmation do.
func TestMachineIsNeverAheadOfItsAnswersOrItsMark(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	n := c.leader()
	seed(t, n)
	token := claim(t, n, "send.customer.test.")
	owner := parseName(t, "n.send.customer.test.")
	value := func(m state.Machine) string {
		d, _ := m.Domain(token)
		if len(d.Records) == 0 {
			return ""
		}
		return string(d.Records[0].Data[0][1:])
	}
	stop := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		dns := zone.NewResponder(n.Tree(), "")
		for {
			select {
			case <-stop:
				return
			default:
			}
			m := n.Machine()
			marked, told := n.mark.get().Index, askText(dns, owner)
			if marked < m.Index() {
				t.Errorf("the machine is at %d, the mark at %d", m.Index(), marked)
				return
			}
			if want := value(m); told.Text < want {
				t.Errorf("the machine at %d has %q, and %+v is answered", m.Index(), want, told)
				return
			}
		}
	})
	defer reading.Wait()
	defer close(stop)
	for i := range 400 {
		text := fmt.Sprintf("%04d", i)
		r := zone.RRset{Owner: owner, Type: zone.TypeTXT, TTL: 60, Data: [][]byte{append([]byte{byte(len(text))}, text...)}}
		results, _, err := n.Propose(within(t, 20*time.Second), Actor{ID: "test"}, state.SetDomainRecords{Token: token, Replace: true, Sets: []zone.RRset{r}})
		must(t, err)
		if results[0].Refusal != nil {
			t.Fatal(results[0].Refusal)
		}
	}
}

// Who follows the machine, as the audit files do, would take one that knows less for one
// that catches up, and look again after the next write. And no restart goes behind what was
// shown.
func TestMachineThatReplacesAnotherIsToldOfAndMarkedBeforeItIsShown(t *testing.T) {
	c := newTestCluster(t, 1)
	n := c.open("node-1")
	var image bytes.Buffer
	must(t, state.Empty().WriteImage(&image))
	told := 0
	n.fsm.replaced = func() {
		told++
		n.mark.mu.Lock()
		defer n.mark.mu.Unlock()
		if at := n.Machine().Index(); at == 10 || n.mark.synced.Index != 10 || n.mark.synced.Base != 10 {
			t.Errorf("the machine is at %d, and on disk is %+v", at, n.mark.synced)
		}
	}
	install(t, n, image.Bytes(), 10)
	if told != 1 || n.Machine().Index() != 10 {
		t.Errorf("told %d times, and the machine is at %d", told, n.Machine().Index())
	}
}

// Where a node's log lacks what it had applied it is sent a snapshot of before that, and
// what follows.
func TestEntriesAfterAnOlderSnapshotAreApplied(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	writeMany(t, c.leader(), "gone", 5)
	c.stop("node-1")
	n := c.open("node-1")
	var image bytes.Buffer
	must(t, state.Empty().WriteImage(&image))
	install(t, n, image.Bytes(), 2)
	data, err := state.EncodeBatch([]state.Entry{{At: 1, Command: state.AddTenant{ID: "after", Name: "x"}}})
	must(t, err)
	n.fsm.Apply(&raft.Log{Index: 3, Term: 1, Type: raft.LogCommand, Data: data})
	wantTenants(t, n, "after")
}
