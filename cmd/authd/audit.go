package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"strconv"

	"authd/api"
	"authd/cluster"
	"authd/cluster/state"
)

// auditCmd is `authd audit`.
type auditCmd struct {
	clientFlags

	List   auditListCmd   `cmd:"" help:"List who changed what, newest last."`
	Verify auditVerifyCmd `cmd:"" help:"Check that no change was altered, added or taken away."`
}

type auditListCmd struct {
	After int64 `default:"-1" placeholder:"N" help:"Only changes after this one (default: the last ones)."`
	Limit int   `default:"50" help:"At most so many (default ${default})."`
}

func (auditListCmd) Help() string {
	return `The cluster remembers the last 100,000 changes; every node writes all of them to files in the
directory audit of its data directory. A tenant's token shows the changes of the tenant's own things.

    authd audit list
    authd audit list --after 0 --limit 1000 -o json
`
}

func (c *auditListCmd) Run(s *session) error {
	if c.Limit < 1 {
		return usagef("--limit: %d is not a number of changes", c.Limit)
	}
	items, err := c.items(s)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(items)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) { printChanges(w, items) })
}

// items are the changes after the one that was given, or the last ones.
func (c *auditListCmd) items(s *session) ([]state.AuditEntry, error) {
	if c.After >= 0 {
		return auditAfter(s, c.After, c.Limit, c.Limit)
	}
	page, err := auditPage(s, -1, 1)
	if err != nil {
		return nil, err
	}
	first := int64(page.First) - 1
	near := max(first, int64(page.Last)-int64(c.Limit))
	items, err := auditAfter(s, near, c.Limit, c.Limit)
	if err == nil && len(items) < c.Limit && near > first {
		// A tenant's token: the last ones of its own lie further back.
		return auditAfter(s, first, math.MaxInt, c.Limit)
	}
	return items, err
}

// auditAfter reads up to most changes after one, and keeps the last of them.
func auditAfter(s *session, after int64, most, keep int) ([]state.AuditEntry, error) {
	items := []state.AuditEntry{}
	for read := 0; read < most; {
		page, err := auditPage(s, after, most-read)
		if err != nil {
			return nil, err
		}
		read += len(page.Items)
		items = append(items, page.Items...)
		items = items[max(0, len(items)-keep):]
		if page.Next == nil {
			break
		}
		after = int64(*page.Next)
	}
	return items, nil
}

// auditPage gets one page; after is -1 for the first there is.
func auditPage(s *session, after int64, limit int) (page api.AuditPage, err error) {
	const most = 1000
	query := url.Values{"limit": {strconv.Itoa(min(limit, most))}}
	if after >= 0 {
		query.Set("after", strconv.FormatInt(after, 10))
	}
	_, err = s.get(s.ctx, v1("audit"), query, &page)
	return page, err
}

func printChanges(w io.Writer, items []state.AuditEntry) {
	row(w, "CHANGE", "AT", "ACTOR", "COMMAND", "SUBJECT", "WHAT", "REASON")
	for _, e := range items {
		row(w, e.Seq, when(&e.At), e.Actor, e.Command, subject(e), what(e), e.Reason)
	}
}

// subject is what a change was done to, as people know it.
func subject(e state.AuditEntry) string {
	if e.Name != "" {
		return e.Name
	}
	return e.Subject
}

func what(e state.AuditEntry) string {
	if e.Key != "" {
		return e.Key + " " + e.Summary
	}
	return e.Summary
}

type auditVerifyCmd struct {
	Files []string `arg:"" optional:"" type:"existingfile" help:"Audit files of one node, or its journal of key reads, in order (default: ask the API for what the cluster remembers)."`
	Gaps  bool     `help:"Accept places where a file says that changes are missing."`
	Node  string   `help:"With a journal of key reads: the node it is of. The API is asked where it ended."`
}

func (auditVerifyCmd) Help() string {
	return `Each change carries the SHA-256 of the one before it and itself, so a change that was altered, added
or taken away breaks the chain at that place. What was cut off at the end shows in the last hash
only: compare it with that of another node, or of the cluster.

Which keys left a node is in the directory reads beside it: the first release of a key to a token is
written there before the key leaves. The cluster knows where each node's journal ended, --node compares.

    authd audit verify
    authd audit verify --node node-1 /var/lib/authd/reads/reads-*.jsonl
    authd audit verify /var/lib/authd/audit/audit-*.jsonl
`
}

func (c *auditVerifyCmd) Run(s *session) error {
	reads, err := areReads(c.Files)
	if err != nil {
		return err
	}
	if reads {
		return c.verifyReads(s)
	}
	if c.Node != "" {
		return usagef("--node goes with the files of a journal of key reads")
	}
	v := &verifier{}
	if len(c.Files) == 0 {
		err = v.window(s)
	} else {
		err = v.files(c.Files)
	}
	if err != nil {
		return err
	}
	for _, g := range v.gaps {
		fmt.Fprintf(s.stderr, "changes %d to %d are missing: %s\n", g.After+1, g.Until, g.Why)
	}
	raw, err := json.Marshal(map[string]any{"changes": v.count, "first": v.first, "last": v.seq, "hash": v.hash.String(), "gaps": len(v.gaps)})
	if err != nil {
		return err
	}
	if err := s.say(raw, "%s, %d to %d: the chain is whole; it ends with %s", plural(v.count, "change"), v.first, v.seq, v.hash); err != nil {
		return err
	}
	if len(v.gaps) > 0 && !c.Gaps {
		return fmt.Errorf("%s in the files: --gaps accepts them", plural(len(v.gaps), "gap"))
	}
	return nil
}

// verifier follows a chain.
type verifier struct {
	count      int
	first, seq uint64
	hash       state.AuditHash
	gaps       []cluster.AuditGap
}

// window checks what the cluster remembers.
func (v *verifier) window(s *session) error {
	page, err := auditPage(s, -1, 1000)
	if err != nil {
		return err
	}
	if v.hash, err = state.ParseAuditHash(page.Base); err != nil {
		return err
	}
	v.seq = page.First - 1
	for {
		for i := range page.Items {
			if err := v.add(&page.Items[i]); err != nil {
				return err
			}
		}
		if page.Next == nil {
			break
		}
		if page, err = auditPage(s, int64(*page.Next), 1000); err != nil {
			return err
		}
	}
	if v.seq != page.Last || v.hash.String() != page.Head {
		return fmt.Errorf("the chain ends at change %d with %s, the cluster says %d with %s", v.seq, v.hash, page.Last, page.Head)
	}
	return nil
}

// add checks that a change follows.
func (v *verifier) add(e *state.AuditEntry) error {
	if e.Seq != v.seq+1 {
		return fmt.Errorf("change %d follows change %d: changes were added or taken away (a tenant's token sees only a part: use an admin's)", e.Seq, v.seq)
	}
	if v.hash = e.Next(v.hash); v.hash.String() != e.Hash {
		return fmt.Errorf("change %d is not what it was: its hash should be %s", e.Seq, v.hash)
	}
	if v.count == 0 {
		v.first = e.Seq
	}
	v.count, v.seq = v.count+1, e.Seq
	return nil
}

func (v *verifier) files(names []string) error {
	for _, name := range names {
		if err := v.file(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if v.count == 0 {
		return errors.New("no changes in the files given")
	}
	return nil
}

func (v *verifier) file(name string) error { return eachLine(name, v.line) }

// line checks one line, to the octet: it is as authd would write it.
func (v *verifier) line(line []byte) error {
	var l cluster.AuditLine
	if err := json.Unmarshal(line, &l); err != nil {
		return fmt.Errorf("not an audit line: %w", err)
	}
	again, err := json.Marshal(l)
	if err != nil || !bytes.Equal(again, line) || (l.Gap == nil) == (l.AuditEntry == nil) {
		return errors.New("not a line that authd wrote")
	}
	if l.Gap != nil {
		if v.count > 0 && l.Gap.After != v.seq {
			return fmt.Errorf("a gap after change %d follows change %d", l.Gap.After, v.seq)
		}
		v.gaps = append(v.gaps, *l.Gap)
		v.seq = l.Gap.Until
		v.hash, err = state.ParseAuditHash(l.Gap.Hash)
		return err
	}
	if v.count == 0 && len(v.gaps) == 0 && l.Seq != 1 {
		// The files before are not given: this change is where the chain begins.
		v.count, v.first, v.seq = 1, l.Seq, l.Seq
		v.hash, err = state.ParseAuditHash(l.AuditEntry.Hash)
		return err
	}
	return v.add(l.AuditEntry)
}
