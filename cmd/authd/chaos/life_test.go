package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A few rotations in fast time, so that a change by which mail fails is found
// before the long run. "LIFE=10000 make chaos" has ten thousand.
func TestMailVerifiesWhileKeysTurnFast(t *testing.T) {
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("it takes half a minute: run without -short")
	}
	dir := t.TempDir()
	authd, chaos := filepath.Join(dir, "authd"), filepath.Join(dir, "chaos")
	build(t, authd, "-tags", "lab", "authd/cmd/authd")
	build(t, chaos, "authd/cmd/authd/chaos")
	out, err := exec.Command(chaos, "-binary", authd, "-dir", filepath.Join(dir, "run"),
		"-life", "60", "-domains", "60", "-watched", "30", "-scale", "50000", "-seed", "1", "-limit", "2m").CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		if os.Getuid() != 0 && os.Getenv("CI") != "true" && strings.Contains(string(out), "entering namespaces") {
			t.Skip("no namespaces for this user here")
		}
		t.Fatal(err)
	}
}

// The cache must be as bad as it may be, and no worse.
func TestACacheRepliesWithTheOldestAnswerThatIsValid(t *testing.T) {
	clock := startTime(1000)
	c := &cache{clock: clock, held: map[string][]held{}}
	start := clock.now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	keep := func(seconds int, text string, ttl int) {
		c.keep("x.", answer{text, time.Duration(ttl) * time.Second}, at(seconds))
	}
	keep(0, "", 300)
	keep(100, "", 300) // still absent
	keep(200, "a", 3600)
	keep(500, "b", 300)
	keep(450, "a", 3600) // under way for longer than the one before
	keep(600, "b", 300)
	for _, want := range []struct {
		seconds int
		text    string
		ok      bool
	}{
		{-1, "", false},
		{0, "", true},
		{250, "", true},
		{399, "", true},
		{400, "a", true},
		{700, "a", true},
		{3799, "a", true},
		{3800, "a", true}, // asked again at 450
		{4049, "a", true},
		{4050, "", false}, // b was over long before
	} {
		if text, ok := c.reply("x.", at(want.seconds)); text != want.text || ok != want.ok {
			t.Errorf("after %d s: %q, %t, want %q, %t", want.seconds, text, ok, want.text, want.ok)
		}
	}
	if text := c.describe("x."); strings.Count(text, " to ") != 4 {
		t.Errorf("it holds %s", text)
	}
}

func TestAnswersAndTheirTTLs(t *testing.T) {
	soa := &dns.SOA{Hdr: dns.RR_Header{Name: "x.", Rrtype: dns.TypeSOA, Ttl: 3600}, Minttl: 300}
	txt := &dns.TXT{Hdr: dns.RR_Header{Name: "x.", Rrtype: dns.TypeTXT, Ttl: 60}, Txt: []string{"v=DKIM1; ", "p=abc"}}
	for name, c := range map[string]struct {
		reply dns.Msg
		want  answer
		fails bool
	}{
		"strings are joined":     {reply: dns.Msg{Answer: []dns.RR{txt}}, want: answer{"v=DKIM1; p=abc", time.Minute}},
		"no data":                {reply: dns.Msg{Ns: []dns.RR{soa}}, want: answer{"", 5 * time.Minute}},
		"no name":                {reply: dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeNameError}, Ns: []dns.RR{soa}}, want: answer{"", 5 * time.Minute}},
		"refused":                {reply: dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeRefused}}, fails: true},
		"truncated":              {reply: dns.Msg{MsgHdr: dns.MsgHdr{Truncated: true}, Answer: []dns.RR{txt}}, fails: true},
		"a negative with no SOA": {reply: dns.Msg{}, fails: true},
	} {
		if got, err := readAnswer(&c.reply); got != c.want || (err != nil) != c.fails {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestTimeGoesFaster(t *testing.T) {
	s := &scaled{epoch: 1_000_000, began: time.Unix(50, 0), factor: 8000}
	if got := s.at(time.Unix(51, 0)); !got.Equal(time.Unix(1_008_000, 0)) {
		t.Errorf("a second later it is %d", got.Unix())
	}
	if got := s.real(8 * time.Hour); got != 3600*time.Millisecond {
		t.Errorf("eight hours take %s", got)
	}
	if s.env() != "AUTHD_LAB_TIME=1000000,50000000000,8000" {
		t.Error(s.env())
	}
}

// A key that activates before its caches forgot that it was not there, or without
// a confirmation, is early.
func TestEarlyActivationsAreFound(t *testing.T) {
	for name, c := range map[string]struct {
		changes []change
		early   int
		kind    string
		rotated int
	}{
		"in time":                     {[]change{{Summary: "publish"}, {Summary: "confirm"}, {Summary: "activate", At: time.Unix(1300, 0)}}, 0, activated, 1},
		"before the caches forgot":    {[]change{{Summary: "publish"}, {Summary: "confirm"}, {Summary: "activate by hand", At: time.Unix(1299, 0)}}, 1, byHand, 1},
		"not confirmed":               {[]change{{Summary: "publish"}, {Summary: "activate", At: time.Unix(9000, 0)}}, 1, activated, 1},
		"a standby of the claim":      {[]change{{Summary: "confirm"}, {Summary: "activate", At: time.Unix(1000, 0)}}, 0, activated, 1},
		"a slot that was used before": {[]change{{Key: "k2", Summary: "publish"}, {Key: "k2", Summary: "confirm"}, {Key: "k2", Summary: "activate", At: time.Unix(4599, 0)}}, 1, activated, 1},
		"back again":                  {[]change{{Summary: "confirm"}, {Summary: "activate", At: time.Unix(1000, 0)}, {Summary: "activate by hand", At: time.Unix(1001, 0)}}, 0, rolledBack, 1},
	} {
		l := &life{out: io.Discard, table: map[string]*counts{}, standbys: map[string]standby{}, signed: map[string]bool{}}
		kind := ""
		for i, x := range c.changes {
			x.Seq, x.Subject, x.Command = uint64(i+1), "t", "StepKey"
			if x.Key == "" {
				x.Key = "2601-abc"
			}
			if x.At.IsZero() {
				x.At = time.Unix(1000, 0)
			}
			kind = l.take(&x)
		}
		early := 0
		for _, n := range l.table {
			early += n.early
		}
		if early != c.early || kind != c.kind || l.rotations != c.rotated {
			t.Errorf("%s: %d early, %q, %d rotations", name, early, kind, l.rotations)
		}
	}
}

func TestRunsAndFaultsShareTheirFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "totals.md")
	rows := sumUp([]result{{Fault: "leader-kill", Ops: 10, Succeeded: 9}}, "abc", 7)
	for _, add := range []func() error{
		func() error { return addTotals(path, rows) },
		func() error { return addLife(path, "### first\n\nrow\n\n") },
		func() error { return addTotals(path, rows) },
		func() error { return addLife(path, "### second\n\nrow\n\n") },
	} {
		if err := add(); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := readTotals(path); err != nil || len(all) != 2 {
		t.Errorf("%d rows, %v", len(all), err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, once := range []string{"### first", "### second", livesHead, lives, additions} {
		if strings.Count(string(text), once) != 1 {
			t.Errorf("%q is not in it once:\n%s", once, text)
		}
	}
}
