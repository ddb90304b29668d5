package zone

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// TextLimits bounds what ParseZone takes.
type TextLimits struct {
	Octets  int // of the text
	Records int // in it
}

// Note is what ParseZone left out or changed of a text, without refusing it.
type Note struct {
	Line int
	Text string
}

// LineError is what is wrong in one line of zone text.
type LineError struct {
	Line int
	Text string
}

// maxLineErrors is how many bad lines an error lists.
const maxLineErrors = 50

// TextError is why a zone text is refused: every bad line, in order, the first
// maxLineErrors of them.
type TextError struct {
	Lines []LineError
	More  int // bad lines that are not listed
}

// Error is one line for each bad line.
func (e *TextError) Error() string {
	var b strings.Builder
	b.WriteString("reading zone text:")
	for _, l := range e.Lines {
		fmt.Fprintf(&b, "\nline %d: %s", l.Line, l.Text)
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\nand %d more", e.More)
	}
	return b.String()
}

// ParseZone reads the extra records of a delegated domain from zone text (RFC
// 1035 section 5.1; RFC 2308 section 4 for $TTL; RFC 3597 section 5). The zone's
// own SOA and the NS at its apex are left out with a note, because a delegated
// domain has ours. Refused, each with its line: $INCLUDE and $GENERATE, other
// classes, data outside the zone, at managed names, or hidden by a delegation or
// DNAME, CNAME beside other data, two CNAMEs or DNAMEs at a name, TTLs that
// differ in an RRset or are out of bounds. A record that is there twice is stored
// once. The RRsets are what Render takes, in canonical order.
//
// An error is a *TextError, or what reading from r returned.
func ParseZone(apex Name, r io.Reader, limits TextLimits) ([]RRset, []Note, error) {
	if apex.Labels() < 2 {
		return nil, nil, fmt.Errorf("reading zone text: the zone %q needs at least two labels", apex)
	}
	text, err := io.ReadAll(io.LimitReader(r, int64(limits.Octets)+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading zone text: %w", err)
	}
	if len(text) > limits.Octets {
		return nil, nil, fmt.Errorf("reading zone text: more than %d octets", limits.Octets)
	}
	p := textParser{apex: apex, origin: apex, sets: make(map[setKey]*textSet), owners: make(map[Name][]*textSet)}
	s := entryScanner{rest: string(text)}
	for p.records <= limits.Records {
		e, ok := s.next()
		if !ok {
			break
		}
		p.entry(e)
	}
	if p.records > limits.Records {
		p.fault(s.line, "more than %d records", limits.Records)
	}
	sets := p.finish()
	if len(p.faults) > 0 {
		return nil, nil, p.refusal()
	}
	return sets, p.notes, nil
}

// textParser collects the records of a text.
type textParser struct {
	apex   Name
	origin Name
	owner  Name   // of the last record
	ttl    uint32 // $TTL, or the last TTL
	hasTTL bool   // whether there was either
	fixed  bool   // whether it is $TTL

	records int
	sets    map[setKey]*textSet
	order   []*textSet
	owners  map[Name][]*textSet
	notes   []Note
	faults  []LineError
}

type setKey struct {
	owner Name
	t     Type
}

// textSet is an RRset with the line of its first record.
type textSet struct {
	RRset
	line int
}

func (p *textParser) fault(line int, format string, args ...any) {
	p.faults = append(p.faults, LineError{line, fmt.Sprintf(format, args...)})
}

func (p *textParser) note(line int, format string, args ...any) {
	p.notes = append(p.notes, Note{line, fmt.Sprintf(format, args...)})
}

func (p *textParser) refusal() error {
	slices.SortStableFunc(p.faults, func(a, b LineError) int { return a.Line - b.Line })
	e := &TextError{Lines: p.faults}
	if len(e.Lines) > maxLineErrors {
		e.Lines, e.More = e.Lines[:maxLineErrors], len(e.Lines)-maxLineErrors
	}
	return e
}

func (p *textParser) entry(e entry) {
	var err error
	switch {
	case e.fault != "":
		err = errors.New(e.fault)
	case strings.HasPrefix(e.text, "$"):
		err = p.directive(e)
	default:
		p.records++
		err = p.record(e)
	}
	if err != nil {
		p.fault(e.line, "%s", err)
	}
}

func (p *textParser) directive(e entry) error {
	words := strings.Fields(e.text)
	switch name := strings.ToUpper(words[0]); name {
	case "$ORIGIN":
		if len(words) != 2 {
			return errors.New("$ORIGIN: give one name")
		}
		origin, err := p.absolute(words[1])
		if err != nil {
			return fmt.Errorf("$ORIGIN: %w", err)
		}
		p.origin = origin
		return nil
	case "$TTL":
		if len(words) != 2 {
			return errors.New("$TTL: give one time")
		}
		rr, err := dns.NewRR(". " + words[1] + " IN A 192.0.2.1")
		if err != nil || rr == nil || !digit(words[1][0]) {
			return fmt.Errorf("$TTL: %s is no time", quote(words[1]))
		}
		p.ttl, p.hasTTL, p.fixed = rr.Header().Ttl, true, true
		return nil
	case "$INCLUDE":
		return errors.New("$INCLUDE is not taken: put the records of the other file here")
	case "$GENERATE":
		return errors.New("$GENERATE is not taken: write the records it would make")
	default:
		return fmt.Errorf("%s is no directive: $ORIGIN and $TTL are", quote(words[0]))
	}
}

// absolute reads a name relative to the origin.
func (p *textParser) absolute(text string) (Name, error) {
	if text == "@" {
		return p.origin, nil
	}
	if !dns.IsFqdn(text) {
		text += "." + strings.TrimPrefix(p.origin.String(), ".")
	}
	return ParseName(text)
}

// record reads one record and files it.
func (p *textParser) record(e entry) error {
	text := e.text
	if e.blank {
		if p.owner == "" {
			return errors.New("no owner name, and no record before to take it from")
		}
		text = p.owner.String() + " " + text
	} else { // kept even where the rest is wrong: following lines may rely on it
		owner, err := p.absolute(firstWord(text))
		if err != nil {
			return err
		}
		p.owner = owner
	}
	z := dns.NewZoneParser(strings.NewReader(text+"\n"), p.origin.String(), "")
	if p.hasTTL {
		z.SetDefaultTTL(p.ttl)
	}
	rr, ok := z.Next()
	if !ok {
		return textFault(z.Err(), e.text)
	}
	h := rr.Header()
	owner, err := ParseName(h.Name)
	if err != nil {
		return err
	}
	p.owner = owner
	if !p.fixed {
		p.ttl, p.hasTTL = h.Ttl, true
	}
	if h.Class != dns.ClassINET {
		return fmt.Errorf("class %s: only IN is served", dns.Class(h.Class))
	}
	t := Type(h.Rrtype)
	rest := strings.Fields(text[len(firstWord(text)):])
	switch at := slices.IndexFunc(rest, func(word string) bool { return namesType(word, t) }); {
	case at < 0 || at > 2: // TTL and class are all there is in front
	case at == len(rest)-1:
		return fmt.Errorf("%s %s: no data", owner, t) // the library makes up some
	case rest[at+1] == `\#`:
		return p.file(owner, t, h.Ttl, func() ([]byte, error) { return genericData(t, rest[at+2:]) }, e.line)
	}
	h.Name = "." // as packData wants it
	return p.file(owner, t, h.Ttl, func() ([]byte, error) { return packData(t, rr) }, e.line)
}

func namesType(word string, t Type) bool {
	got, err := ParseType(word)
	return err == nil && got == t
}

// firstWord is a text up to its first blank that is not escaped.
func firstWord(text string) string {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case ' ', '\t':
			return text[:i]
		}
	}
	return text
}

// textFault is the library's complaint about a line, bounded and without its line
// number, which counts within a part of the text.
func textFault(err error, text string) error {
	if err == nil {
		return fmt.Errorf("no record in %s", quote(text))
	}
	said := strings.TrimPrefix(err.Error(), "dns: ")
	if at := strings.LastIndex(said, " at line: "); at >= 0 {
		said = said[:at]
	}
	if len(said) > 2*quoteLimit {
		said = said[:2*quoteLimit] + "…"
	}
	return fmt.Errorf("%s in %s", said, quote(text))
}

// file adds a record to its RRset. Checks that need the other records are finish's.
func (p *textParser) file(owner Name, t Type, ttl uint32, read func() ([]byte, error), line int) error {
	if !owner.In(p.apex) {
		return fmt.Errorf("%s %s lies outside %s", owner, t, p.apex)
	}
	if owner == p.apex && (t == TypeSOA || t == TypeNS) {
		p.note(line, "%s %s left out: a delegated domain has authd's own", owner, t)
		return nil
	}
	if err := checkType(t); err != nil {
		return err
	}
	if ttl < MinTTL || ttl > MaxTTL {
		return fmt.Errorf("%s %s: TTL %d, must be %d to %d", owner, t, ttl, MinTTL, MaxTTL)
	}
	data, err := read()
	if err != nil {
		return fmt.Errorf("%s %s: %w", owner, t, err)
	}
	s := p.sets[setKey{owner, t}]
	if s == nil {
		s = &textSet{RRset: RRset{Owner: owner, Type: t, TTL: ttl}, line: line}
		for _, other := range p.owners[owner] {
			if t == TypeCNAME || other.Type == TypeCNAME {
				return fmt.Errorf("%s %s: line %d has %s there, and a CNAME stands alone (RFC 1034 section 3.6.2)", owner, t, other.line, other.Type)
			}
		}
		p.sets[setKey{owner, t}] = s
		p.order = append(p.order, s)
		p.owners[owner] = append(p.owners[owner], s)
	}
	switch {
	case s.TTL != ttl:
		return fmt.Errorf("%s %s: TTL %d, but line %d has %d for the same records (RFC 2181 section 5.2)", owner, t, ttl, s.line, s.TTL)
	case slices.ContainsFunc(s.Data, func(have []byte) bool { return bytes.Equal(have, data) }):
		p.note(line, "%s %s: the same record again, stored once", owner, t)
		return nil
	case (t == TypeCNAME || t == TypeDNAME) && len(s.Data) > 0:
		return fmt.Errorf("%s %s: line %d has another; a name has at most one (RFC 2181 section 10.1)", owner, t, s.line)
	case len(s.Data) >= maxRecords:
		return fmt.Errorf("%s %s: more than %d records", owner, t, maxRecords)
	}
	s.Data = append(s.Data, data)
	return nil
}

// finish checks the RRsets as Render will, one by one, so that every fault is found
// with its line.
func (p *textParser) finish() []RRset {
	b := builder{form: Form}
	b.anchorAt(anchorZone, 0, p.apex)
	managed := managedNamesOf(p.apex)
	var good []*textSet
	for _, s := range p.order {
		s.Data = sortData(s.Data)
		err := managed.check(p.apex, s.RRset)
		if err == nil {
			err = b.extra(0, s.RRset)
		}
		if err != nil {
			p.fault(s.line, "%s", err)
			continue
		}
		good = append(good, s)
	}
	sets := make([]RRset, 0, len(good))
	for _, s := range good {
		err := b.checkCut(s.RRset)
		if err == nil {
			err = b.checkHidden(b.nodes.at(s.Owner))
		}
		if err != nil {
			p.fault(s.line, "%s", err)
			continue
		}
		sets = append(sets, s.RRset)
	}
	sortSets(sets)
	return sets
}

// entry is one line of zone text, or several within parentheses: without
// comments and parentheses.
type entry struct {
	line  int // where it begins, from 1
	text  string
	blank bool   // it began with a blank: the owner is that of the record before
	fault string // why it cannot be read
}

// entryScanner cuts zone text into entries.
type entryScanner struct {
	rest string
	line int // lines read
}

func (s *entryScanner) next() (entry, bool) {
	for s.rest != "" {
		var b strings.Builder
		e := entry{line: s.line + 1}
		depth := 0
		for first := true; first || depth > 0 && s.rest != ""; first = false {
			var line string
			line, s.rest, _ = strings.Cut(s.rest, "\n")
			s.line++
			if first {
				e.blank = line != "" && (line[0] == ' ' || line[0] == '\t')
			}
			var fault string
			if depth, fault = strip(&b, strings.TrimSuffix(line, "\r"), depth); fault != "" && e.fault == "" {
				e.fault = fault
			}
			b.WriteByte(' ')
		}
		if depth > 0 && e.fault == "" {
			e.fault = "a ( is not closed"
		}
		if e.text = strings.Trim(b.String(), " \t"); e.text != "" || e.fault != "" {
			return e, true
		}
	}
	return entry{}, false
}

// strip appends a line without its comment and parentheses, of which depth are
// open before and the result after it.
func strip(b *strings.Builder, line string, depth int) (int, string) {
	quoted := false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\' && i+1 < len(line):
			b.WriteByte(c)
			i++
			c = line[i]
		case c == '\\':
			return depth, `a \ at the end of the line`
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == ';':
			return depth, ""
		case c == '(' && depth > 0:
			return depth, "a ( inside another"
		case c == '(':
			depth++
			c = ' '
		case c == ')' && depth == 0:
			return depth, "a ) without its ("
		case c == ')':
			depth--
			c = ' '
		}
		b.WriteByte(c)
	}
	if quoted {
		return depth, "a quote is not closed in its line"
	}
	return depth, ""
}
