package state

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"
)

// AuditEntry is one change: who made which, when and why. It never holds a
// secret. The same entries are the change events. Encoded as JSON on one line it
// is what the audit files hold.
type AuditEntry struct {
	Seq     uint64    `json:"seq" doc:"Counts the changes from 1 on, without gaps."`
	Index   uint64    `json:"index" doc:"Index of the log entry that made it."`
	At      time.Time `json:"at" doc:"The cluster's time of the change."`
	Actor   string    `json:"actor" doc:"Id of the access token, local for who used a node's own socket, or rotator, bootstrap."`
	Source  string    `json:"source,omitempty" doc:"Address of the client."`
	Reason  string    `json:"reason,omitempty"`
	Command string    `json:"command" example:"AddDomain" doc:"What was done."`
	Kind    string    `json:"kind,omitempty" example:"domain" doc:"What it was done to: domain, tenant, pool, zone, nameserver, token, cluster."`
	Subject string    `json:"subject,omitempty" doc:"Which one: the token of a domain's claim, the id or name of anything else."`
	Name    string    `json:"name,omitempty" example:"send.customer.example" doc:"The name of a domain."`
	Tenant  string    `json:"tenant,omitempty" doc:"Whose it is; absent: the platform's."`
	Key     string    `json:"key,omitempty" doc:"Selector of the key concerned."`
	Summary string    `json:"summary,omitempty" doc:"What changed, for people."`
	Hash    string    `json:"hash" doc:"SHA-256 of the hash before it and this entry, in hex: authd audit verify."`
}

// AuditHash is the end of a chain of entries.
type AuditHash [sha256.Size]byte

// String is the hash as entries have it.
func (h AuditHash) String() string { return hex.EncodeToString(h[:]) }

// ParseAuditHash reads what String wrote.
func ParseAuditHash(text string) (h AuditHash, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(h) || hex.EncodeToString(b) != text {
		return h, fmt.Errorf("reading hash: %q is not %d lower-case hexadecimal digits", text[:min(len(text), maxQuote)], 2*len(h))
	}
	copy(h[:], b)
	return h, nil
}

// audit is the window of entries that the machine keeps: bounded by MaxAudit and
// maxAuditOctets, whatever happens in a day. An entry is kept as its canonical
// form behind its hash.
type audit struct {
	seq     uint64    // of the last entry ever
	head    AuditHash // its hash
	base    AuditHash // of the last entry that was dropped; zero: none
	octets  int
	entries window
}

func (a *audit) fork(o *owner) audit {
	n := *a
	n.entries = a.entries.fork(o)
	return n
}

// dropped is the sequence number of the last entry before the window.
func (a *audit) dropped() uint64 { return a.seq - uint64(a.entries.Len()) }

// push adds an entry and drops the oldest ones beyond the bounds.
func (a *audit) push(canonical string) {
	a.seq++
	a.head = chain(a.head, canonical)
	stored := string(a.head[:]) + canonical
	a.entries.Push(a.seq, stored)
	a.octets += len(stored)
	for a.entries.Len() > MaxAudit || a.octets > maxAuditOctets && a.entries.Len() > 1 {
		oldest := a.entries.PopMin()
		a.octets -= len(oldest)
		copy(a.base[:], oldest)
	}
}

func chain(before AuditHash, canonical string) AuditHash {
	h := sha256.New()
	h.Write(before[:])
	h.Write([]byte(canonical))
	return AuditHash(h.Sum(nil))
}

// Next is the hash of an entry that follows one with the hash before. The
// canonical form hashed is the entry's fields in the order of AuditEntry, except for
// Hash, each as a netstring: its length in octets, ":", the octets, ",". Numbers
// are decimal, At is seconds since 1970.
func (e *AuditEntry) Next(before AuditHash) AuditHash { return chain(before, e.canonical()) }

func (e *AuditEntry) canonical() string {
	b := make([]byte, 0, 224)
	for _, field := range [...]string{
		strconv.FormatUint(e.Seq, 10), strconv.FormatUint(e.Index, 10), strconv.FormatInt(e.At.Unix(), 10),
		e.Actor, e.Source, e.Reason, e.Command, e.Kind, e.Subject, e.Name, e.Tenant, e.Key, e.Summary,
	} {
		b = strconv.AppendInt(b, int64(len(field)), 10)
		b = append(append(append(b, ':'), field...), ',')
	}
	return string(b)
}

var errAudit = errors.New("not an audit entry")

// readAudit is the inverse of canonical, for what came from elsewhere.
func readAudit(canonical string) (*AuditEntry, error) {
	e, err := parseAudit(canonical)
	if err != nil || e.canonical() != canonical {
		return nil, errAudit
	}
	return e, nil
}

// parseAudit is readAudit of what canonical wrote.
func parseAudit(canonical string) (*AuditEntry, error) {
	var e AuditEntry
	var seq, index, at string
	rest := canonical
	for _, to := range [...]*string{
		&seq, &index, &at, &e.Actor, &e.Source, &e.Reason, &e.Command, &e.Kind, &e.Subject, &e.Name, &e.Tenant, &e.Key, &e.Summary,
	} {
		digits, more, ok := strings.Cut(rest, ":")
		size, err := strconv.Atoi(digits)
		if !ok || err != nil || size < 0 || size >= len(more) || more[size] != ',' {
			return nil, errAudit
		}
		*to, rest = more[:size], more[size+1:]
	}
	var err error
	var seconds int64
	if e.Seq, err = strconv.ParseUint(seq, 10, 64); err == nil {
		if e.Index, err = strconv.ParseUint(index, 10, 64); err == nil {
			seconds, err = strconv.ParseInt(at, 10, 64)
		}
	}
	e.At = time.Unix(seconds, 0).UTC()
	if err != nil || rest != "" {
		return nil, errAudit
	}
	return &e, nil
}

// open makes an entry of what is stored.
func openAudit(stored string) *AuditEntry {
	e, err := parseAudit(stored[sha256.Size:])
	if err != nil {
		panic("the machine's own memory does not decode: " + err.Error() + ": stop this node and restore it from a snapshot")
	}
	e.Hash = hex.EncodeToString([]byte(stored[:sha256.Size]))
	return e
}

// AuditHead is the last change: its sequence number, 0 where there is none, and
// its hash.
func (m Machine) AuditHead() (uint64, AuditHash) { a := &m.tables().audit; return a.seq, a.head }

// AuditBase is the last change that the machine does not keep any more.
func (m Machine) AuditBase() (uint64, AuditHash) { a := &m.tables().audit; return a.dropped(), a.base }

// Audit walks the changes after a sequence number, as far as they are kept.
func (m Machine) Audit(after uint64) iter.Seq[*AuditEntry] {
	return func(yield func(*AuditEntry) bool) {
		if after == ^uint64(0) {
			return
		}
		m.tables().audit.entries.Ascend(after+1, func(_ uint64, stored string) bool { return yield(openAudit(stored)) })
	}
}

// AuditOf walks the changes of one subject, as far as they are kept.
func (m Machine) AuditOf(kind, subject string) iter.Seq[*AuditEntry] {
	return func(yield func(*AuditEntry) bool) {
		m.tables().audit.entries.Scan(func(_ uint64, stored string) bool {
			if !strings.Contains(stored, subject) {
				return true
			}
			e := openAudit(stored)
			return e.Kind != kind || e.Subject != subject || yield(e)
		})
	}
}

// AuditAt finds the hash of one change; false where it is not kept.
func (m Machine) AuditAt(seq uint64) (h AuditHash, ok bool) {
	a := &m.tables().audit
	if seq == a.dropped() {
		return a.base, true
	}
	stored, ok := a.entries.Get(seq)
	if ok {
		copy(h[:], stored)
	}
	return h, ok
}
