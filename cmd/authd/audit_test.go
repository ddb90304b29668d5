package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authd/api"
	"authd/cluster"
	"authd/cluster/state"
)

// auditLines are the lines of a file with some changes and a gap.
func auditLines(t *testing.T) [][]byte {
	t.Helper()
	m := state.Empty()
	for i := range 6 {
		m, _, _ = m.Apply(m.Index()+1, []state.Entry{{
			At: 1_800_000_000, Actor: "a1", Source: "192.0.2.1", Reason: "<why>",
			Command: state.AddTenant{ID: string(rune('a' + i)), Name: "T"},
		}})
	}
	var lines [][]byte
	for e := range m.Audit(0) {
		line, err := json.Marshal(e)
		if e.Seq == 4 {
			line, err = json.Marshal(cluster.AuditLine{Gap: &cluster.AuditGap{After: 3, Until: 4, Hash: e.Hash, Why: "away"}})
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return lines
}

func verified(t *testing.T, lines [][]byte) (*verifier, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "audit-0001.jsonl")
	if err := os.WriteFile(name, append(bytes.Join(lines, []byte("\n")), '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	v := &verifier{}
	return v, v.files([]string{name})
}

func TestAuditFileIsVerified(t *testing.T) {
	v, err := verified(t, auditLines(t))
	if err != nil || v.count != 5 || v.first != 1 || v.seq != 6 || len(v.gaps) != 1 {
		t.Errorf("%+v: %v", v, err)
	}
	// Archived files are not needed: the chain begins where the files do.
	v, err = verified(t, auditLines(t)[1:])
	if err != nil || v.first != 2 || v.seq != 6 {
		t.Errorf("%+v: %v", v, err)
	}
}

func TestGapsAndEmptyFilesAreFound(t *testing.T) {
	if _, err := verified(t, nil); err == nil {
		t.Error("an empty file is a whole chain")
	}
	if err := (&verifier{}).files(nil); err == nil || !strings.Contains(err.Error(), "no changes") {
		t.Errorf("no files: %v", err)
	}
	lines := auditLines(t)
	if _, err := verified(t, append(lines[:1:1], lines[3:]...)); err == nil || !strings.Contains(err.Error(), "a gap after change 3 follows change 1") {
		t.Errorf("changes in front of a gap were taken away: %v", err)
	}
}

// A node's files are one chain: one that is missing between two others, or is read
// out of turn, shows.
func TestFilesOfANodeAreOneChain(t *testing.T) {
	lines, dir := auditLines(t)[:3], t.TempDir()
	var names []string
	for i, line := range lines {
		name := filepath.Join(dir, "audit-000"+string(rune('1'+i))+".jsonl")
		if err := os.WriteFile(name, append(line, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if v := (&verifier{}); v.files(names) != nil || v.count != 3 || v.seq != 3 {
		t.Errorf("all: %+v", v)
	}
	for says, files := range map[string][]string{
		"audit-0003.jsonl: line 1: change 3 follows change 1": {names[0], names[2]},
		"audit-0001.jsonl: line 1: change 1 follows change 2": {names[1], names[0]},
	} {
		if err := (&verifier{}).files(files); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want …%s…", err, says)
		}
	}
}

// TestWindowThatIsNotWhatTheClusterSaysIsFound: its end, its hash, its beginning, and
// what is between pages.
func TestWindowThatIsNotWhatTheClusterSaysIsFound(t *testing.T) {
	var entries []state.AuditEntry
	m := state.Empty()
	for i := range 6 {
		m, _, _ = m.Apply(m.Index()+1, []state.Entry{{At: 1_800_000_000, Actor: "a1", Command: state.AddTenant{ID: string(rune('a' + i)), Name: "T"}}})
	}
	for e := range m.Audit(0) {
		entries = append(entries, *e)
	}
	for says, alter := range map[string]func(first, second *api.AuditPage){
		"": func(*api.AuditPage, *api.AuditPage) {},
		"the cluster says 6 with " + entries[4].Hash:                         func(_, second *api.AuditPage) { second.Head = entries[4].Hash },
		"the cluster says 7 with":                                            func(_, second *api.AuditPage) { second.Last = 7 },
		"the chain ends at change 5":                                         func(_, second *api.AuditPage) { second.Items = second.Items[:1] },
		"change 5 follows change 3":                                          func(first, _ *api.AuditPage) { first.Items = first.Items[:3] },
		"change 1 is not what it was":                                        func(first, _ *api.AuditPage) { first.Base = entries[0].Hash },
		"change 5 is not what it was: its hash should be " + entries[4].Hash: func(_, second *api.AuditPage) { second.Items[0].Hash = entries[3].Hash },
	} {
		next := uint64(4)
		first := api.AuditPage{Items: entries[:4:4], Next: &next, First: 1, Last: 6, Base: state.AuditHash{}.String(), Head: entries[5].Hash}
		second := api.AuditPage{Items: append([]state.AuditEntry{}, entries[4:]...), First: 1, Last: 6, Base: first.Base, Head: first.Head}
		alter(&first, &second)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			page := &first
			if r.URL.Query().Get("after") == "4" {
				page = &second
			}
			w.Header().Set("Content-Type", "application/json")
			if err := json.NewEncoder(w).Encode(page); err != nil {
				t.Error(err)
			}
		}))
		s, err := newSession(&app{ctx: t.Context(), stdout: io.Discard, stderr: io.Discard}, &clientFlags{Addr: server.URL, Token: "authd_x"})
		if err != nil {
			t.Fatal(err)
		}
		err = (&auditVerifyCmd{}).Run(s)
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want …%s…", err, says)
		}
		server.Close()
	}
}

func TestEveryAlteredOctetOfAnAuditFileIsFound(t *testing.T) {
	lines := auditLines(t)[:3]
	for n, line := range lines {
		for i := range line {
			for _, flip := range []byte{1, 0x20, 0x80} {
				altered := append([][]byte{}, lines...)
				altered[n] = bytes.Clone(line)
				altered[n][i] ^= flip
				if _, err := verified(t, altered); err == nil {
					t.Fatalf("line %d, octet %d: %s", n+1, i, altered[n])
				}
			}
		}
	}
}

func TestAddedRemovedAndSwappedChangesAreFound(t *testing.T) {
	l := auditLines(t)
	for what, lines := range map[string][][]byte{
		"removed":  {l[0], l[2]},
		"twice":    {l[0], l[1], l[1]},
		"swapped":  {l[1], l[0]},
		"a gap":    {l[0], l[3]},
		"no line":  {l[0], {}},
		"nothing":  {},
		"no entry": {[]byte("{}")},
	} {
		if v, err := verified(t, lines); err == nil {
			t.Errorf("%s: %+v", what, v)
		}
	}
}

func TestTimelineIsDrawn(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(days int) *time.Time { d := begin.AddDate(0, 0, days); return &d }
	keys := []api.Key{
		{Selector: "2601-old", Algorithm: "rsa2048", CreatedAt: begin, ActivatedAt: at(15), DrainedAt: at(30), RevokedAt: at(45)},
		{Selector: "2601-new", Algorithm: "rsa2048", CreatedAt: *at(15), ActivatedAt: at(30)},
		{Selector: "2603-next", Algorithm: "rsa2048", CreatedAt: *at(60)},
	}
	want := []string{
		strings.Repeat(".", 14) + strings.Repeat("=", 15) + strings.Repeat("-", 15) + strings.Repeat("x", 16),
		strings.Repeat(" ", 14) + strings.Repeat(".", 15) + strings.Repeat("=", 31),
		strings.Repeat(" ", 59) + ".",
	}
	for i, k := range keys {
		if got := drawKey(k, begin, *at(60)); got != want[i] {
			t.Errorf("%s is drawn as\n|%s|, not\n|%s|", k.Selector, got, want[i])
		}
	}
	var all bytes.Buffer
	printTimeline(&all, api.Timeline{Domain: "send.customer.example", At: *at(60), Keys: keys, Changes: []state.AuditEntry{{At: *at(30), Actor: "rotator", Command: "StepKey", Key: "2601-new", Summary: "activate"}}})
	for _, word := range []string{"send.customer.example", "2601-old", "rotator", "activate", "standby", "older changes"} {
		if !strings.Contains(all.String(), word) {
			t.Errorf("%q is not in\n%s", word, all.String())
		}
	}
	// A domain with keys of this very second.
	if got := drawKey(api.Key{CreatedAt: begin}, begin, begin); got != strings.Repeat(".", timelineWidth) {
		t.Errorf("%q", got)
	}
}
