package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A few faults, so that a change that loses writes is found before the hour's
// run. "make chaos" has the rest.
func TestAClusterSurvivesAFewFaults(t *testing.T) {
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("it takes half a minute: run without -short")
	}
	dir := t.TempDir()
	authd, chaos := filepath.Join(dir, "authd"), filepath.Join(dir, "chaos")
	build(t, authd, "-tags", "lab", "authd/cmd/authd")
	build(t, chaos, "authd/cmd/authd/chaos")
	out, err := exec.Command(chaos, "-plain", "-binary", authd, "-dir", filepath.Join(dir, "run"),
		"-faults", "leader-kill,all-kill,corrupt-mark", "-runs", "1", "-seed", "1", "-rate", "200").CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		if os.Getuid() != 0 && os.Getenv("CI") != "true" && strings.Contains(string(out), "entering namespaces") {
			t.Skip("no namespaces for this user here")
		}
		t.Fatal(err)
	}
}

func build(t *testing.T, out string, args ...string) {
	t.Helper()
	// -buildvcs=false: the tree may seem to be another's.
	text, err := exec.Command("go", append([]string{"build", "-buildvcs=false", "-o", out}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("go build %v: %v\n%s", args, err, text)
	}
}

// Nodes are told where their disks are by a path: one relative to here would be another
// to them, and what is done to the disks would be done to nobody.
func TestTheDisksAreWhereTheNodesLook(t *testing.T) {
	o, err := parse([]string{"-binary", "./authd", "-dir", "run"})
	if err != nil || !filepath.IsAbs(o.dir) || filepath.Base(o.dir) != "run" {
		t.Errorf("-dir run: %q, %v", o.dir, err)
	}
}

// The checker must find what it is there for.
func TestHistories(t *testing.T) {
	const a, b = "v1", "v2"
	op := func(client int, k kind, value string, from, to int, o outcome) operation {
		at := time.Unix(0, 0)
		return operation{
			client: client, key: "x", kind: k, value: value, outcome: o,
			from: at.Add(time.Duration(from) * time.Second), to: at.Add(time.Duration(to) * time.Second),
		}
	}
	for name, c := range map[string]struct {
		ops   []operation
		legal bool
	}{
		"read what was written":           {[]operation{op(1, put, a, 1, 2, done), op(2, get, a, 3, 4, done)}, true},
		"a write is lost":                 {[]operation{op(1, put, a, 1, 2, done), op(2, get, "", 3, 4, done)}, false},
		"an older value comes back":       {[]operation{op(1, put, a, 1, 2, done), op(1, put, b, 3, 4, done), op(2, get, a, 5, 6, done)}, false},
		"overlapping writes, either":      {[]operation{op(1, put, a, 1, 4, done), op(2, put, b, 2, 3, done), op(2, get, a, 5, 6, done)}, true},
		"unknown, and it happened":        {[]operation{op(1, put, a, 1, 2, unknown), op(2, get, a, 9, 10, done)}, true},
		"unknown, and it did not":         {[]operation{op(1, put, a, 1, 2, unknown), op(2, get, "", 9, 10, done)}, true},
		"unknown, happened, and undone":   {[]operation{op(1, put, a, 1, 2, unknown), op(2, get, a, 3, 4, done), op(2, get, "", 5, 6, done)}, false},
		"refused, and it happened":        {[]operation{op(1, put, a, 1, 2, refused), op(2, get, a, 3, 4, done)}, false},
		"claimed twice":                   {[]operation{op(1, add, a, 1, 2, done), op(2, add, b, 3, 4, done)}, false},
		"claimed, dropped, claimed":       {[]operation{op(1, add, a, 1, 2, done), op(1, drop, a, 3, 4, done), op(2, add, b, 5, 6, done)}, true},
		"dropped twice":                   {[]operation{op(1, add, a, 1, 2, done), op(1, drop, a, 3, 4, done), op(2, drop, a, 3, 6, done), op(2, get, "", 7, 8, done)}, true},
		"dropped, and there again":        {[]operation{op(1, add, a, 1, 2, done), op(1, drop, a, 3, 4, done), op(2, get, a, 5, 6, done)}, false},
		"a claim whose token was lost":    {[]operation{op(1, add, "", 1, 2, unknown), op(2, get, a, 3, 4, done), op(2, get, b, 5, 6, done)}, false},
		"a lost claim, seen and dropped":  {[]operation{op(1, add, "", 1, 2, unknown), op(2, drop, a, 3, 4, done), op(2, get, "", 5, 6, done)}, true},
		"an acknowledged claim is nobody": {[]operation{op(1, add, a, 1, 2, done), op(2, get, "", 3, 4, done)}, false},
	} {
		h := &history{start: time.Unix(0, 0), ops: c.ops}
		want := porcupine.Illegal
		if c.legal {
			want = porcupine.Ok
		}
		if got := h.check(); got != want {
			t.Errorf("%s: %s", name, got)
		}
		if found := len(h.culprits()) > 0; found == c.legal {
			t.Errorf("%s: culprits %v", name, h.culprits())
		}
	}
}

func TestRepliesAreRead(t *testing.T) {
	query := question("r1.d1.chaos.test")
	reply := append(append([]byte(nil), query...), 0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0, 3, 2, 'v', '7')
	reply[2], reply[3], reply[7] = 0x84, 0, 1
	if text, err := readTXT(query, reply); text != "v7" || err != nil {
		t.Fatalf("%q, %v", text, err)
	}
	for n := range reply {
		if text, err := readTXT(query, reply[:n]); err == nil {
			t.Errorf("cut to %d octets it reads as %q", n, text)
		}
	}
	refusal := append([]byte(nil), reply...)
	refusal[3] = 5
	if _, err := readTXT(query, refusal); err == nil {
		t.Error("REFUSED reads as an answer")
	}
}

func TestTotalsAddUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "totals.md")
	first := sumUp([]result{
		{Fault: "leader-kill", Ops: 10, Succeeded: 9, WriteGap: 4 * time.Second, Back: 3 * time.Second, Asked: 100, Left: 70},
		{Fault: "leader-kill", Ops: 10, Succeeded: 4, Lost: 1},
		{Fault: "restore", Ops: 10, Succeeded: 10, Illegal: true, Failed: 2},
	}, "abc", 7)
	for range 2 {
		if err := addTotals(path, first); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := readTotals(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(rows, append(first, first...)) {
		t.Errorf("read back %+v", rows)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "| all | 6 | 2 | 2 | 0 | 46 | 2 | 0 | 200 | 140 | 4 | 0 | 4.00 s | 3.00 s | 3.00 s |") {
		t.Errorf("%s", text)
	}
	if err := os.WriteFile(path, []byte("| a table of another |"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := addTotals(path, first); err == nil {
		t.Error("it writes over a file that it cannot read")
	}
}

// A seed stands for the same runs, so that an interrupted campaign goes on where
// it was.
func TestAPlanFollowsFromItsSeed(t *testing.T) {
	take := func(seed uint64) (all []string) {
		for f := range plan(faults(), 0, seed) {
			if all = append(all, f.name); len(all) == 100 {
				return all
			}
		}
		return all
	}
	if !reflect.DeepEqual(take(1), take(1)) {
		t.Error("the same seed gives two plans")
	}
	if reflect.DeepEqual(take(1), take(2)) {
		t.Error("two seeds give one plan")
	}
	count := map[string]int{}
	for f := range plan(faults()[:3], 4, 1) {
		count[f.name]++
	}
	if !reflect.DeepEqual(count, map[string]int{"leader-kill": 4, "follower-kill": 4, "all-kill": 4}) {
		t.Errorf("%v", count)
	}
}
