package zone

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// Type is an RR type (RFC 1035 section 3.2.2).
type Type uint16

// The types that authd writes itself, or whose data it reads. All others come from
// records that operators and customers add, and are octets to it.
const (
	TypeA     Type = 1
	TypeNS    Type = 2
	TypeCNAME Type = 5
	TypeSOA   Type = 6
	TypePTR   Type = 12
	TypeMX    Type = 15
	TypeTXT   Type = 16
	TypeAAAA  Type = 28
	TypeSRV   Type = 33
	TypeDNAME Type = 39
	TypeDS    Type = 43
	TypeANY   Type = 255
)

// ParseType reads a mnemonic or TYPEnnn (RFC 3597 section 5).
func ParseType(text string) (Type, error) {
	upper := strings.ToUpper(text)
	if t, ok := dns.StringToType[upper]; ok && upper != "NONE" && upper != "RESERVED" {
		return Type(t), nil
	}
	if number, ok := strings.CutPrefix(upper, "TYPE"); ok {
		t, err := strconv.ParseUint(number, 10, 16)
		if err == nil && t != 0 && number[0] != '+' {
			return Type(t), nil
		}
	}
	return 0, fmt.Errorf("parsing record type %s: neither a known type nor TYPE1 to TYPE65535", quote(text))
}

// String is the mnemonic, or TYPEnnn.
func (t Type) String() string {
	if s, ok := dns.TypeToString[uint16(t)]; ok && s != "None" && s != "Reserved" {
		return s
	}
	return "TYPE" + strconv.Itoa(int(t))
}

// RRset is one owner's records of one type: data in wire form, uncompressed,
// sorted and without duplicates. It must not be modified once made.
type RRset struct {
	Owner Name     `cbor:"1,keyasint"`
	Type  Type     `cbor:"2,keyasint"`
	TTL   uint32   `cbor:"3,keyasint"` // seconds
	Data  [][]byte `cbor:"4,keyasint"` // RDATA, one element a record
}

// maxRecords bounds the records of one RRset and maxRRset the octets of their
// RDATA, so that an answer over TCP always has room for one.
const (
	maxRecords = 256
	maxRRset   = 32768
)

// ParseRRset reads records from presentation form. Values are RDATA text (RFC
// 1035 section 5.1, RFC 3597 \# form included); a TXT value that is not quoted
// is taken as one text and split into strings of at most 255 octets. It refuses
// meta types, SOA, a TTL outside MinTTL to MaxTTL, no values, and two values for
// CNAME or DNAME. The error names the value. Names in values are absolute, with
// or without the final dot, and folded to lower case.
func ParseRRset(owner Name, t Type, ttl uint32, values []string) (RRset, error) {
	set := RRset{Owner: owner, Type: t, TTL: ttl}
	if owner == "" {
		return RRset{}, fmt.Errorf("reading records: no owner name")
	}
	if err := checkType(t); err != nil {
		return RRset{}, err
	}
	if len(values) > maxRecords {
		return RRset{}, fmt.Errorf("reading %s records: %d values, at most %d", t, len(values), maxRecords)
	}
	for _, v := range values {
		data, err := parseData(t, v)
		if err != nil {
			return RRset{}, fmt.Errorf("reading %s value %s: %w", t, quote(v), err)
		}
		set.Data = append(set.Data, data)
	}
	set.Data = sortData(set.Data)
	if err := checkRRset(set); err != nil {
		return RRset{}, err
	}
	return set, nil
}

// checkType refuses types that cannot be added as records.
func checkType(t Type) error {
	switch {
	case t == TypeSOA:
		return fmt.Errorf("adding SOA records: a zone's SOA is managed")
	case t == 0 || t == typeOPT || t >= firstMeta && t <= TypeANY:
		return fmt.Errorf("adding %s records: a meta type has none (RFC 6895 section 3.1)", t)
	case t == Type(dns.TypeRRSIG) || t == Type(dns.TypeNSEC) || t == Type(dns.TypeNSEC3) || t == Type(dns.TypeNSEC3PARAM):
		return fmt.Errorf("adding %s records: they are made by a zone's signer", t)
	}
	return nil
}

// checkRRset refuses what no RRset may be, wherever it came from.
func checkRRset(s RRset) error {
	size := 0
	for i, d := range s.Data {
		if err := checkData(s.Type, d); err != nil {
			return fmt.Errorf("checking %s %s: %w", s.Owner, s.Type, err)
		}
		if i > 0 && bytes.Compare(s.Data[i-1], d) >= 0 {
			return fmt.Errorf("checking %s %s: data not sorted, or twice the same", s.Owner, s.Type)
		}
		size += len(d)
	}
	single := s.Type == TypeCNAME || s.Type == TypeDNAME
	switch {
	case len(s.Data) == 0:
		return fmt.Errorf("checking %s %s: no values", s.Owner, s.Type)
	case single && len(s.Data) > 1:
		return fmt.Errorf("checking %s %s: a name has at most one (RFC 2181 section 10.1)", s.Owner, s.Type)
	case len(s.Data) > maxRecords || size > maxRRset:
		return fmt.Errorf("checking %s %s: %d records of %d octets, at most %d of %d", s.Owner, s.Type, len(s.Data), size, maxRecords, maxRRset)
	case s.TTL < MinTTL || s.TTL > MaxTTL:
		return fmt.Errorf("checking %s %s: TTL %d, must be %d to %d", s.Owner, s.Type, s.TTL, MinTTL, MaxTTL)
	}
	return nil
}

// checkData refuses RDATA that the look-up could not read: it follows names and
// relies on the length of addresses. Other types are octets to us.
func checkData(t Type, data []byte) error {
	if len(data) > maxRRset {
		return fmt.Errorf("%d octets of data, at most %d", len(data), maxRRset)
	}
	switch t {
	case TypeA, TypeAAAA:
		if want := map[Type]int{TypeA: 4, TypeAAAA: 16}[t]; len(data) != want {
			return fmt.Errorf("an address of %d octets, not %d", len(data), want)
		}
	case TypeTXT:
		at := 0
		for at < len(data) {
			at += int(data[at]) + 1
		}
		if at != len(data) || at == 0 {
			return fmt.Errorf("data are not strings")
		}
	default:
		at, ok := targetOffset(t)
		if !ok {
			return nil
		}
		if at > len(data) {
			return fmt.Errorf("data too short")
		}
		n, ok := nameIn(data[at:])
		if !ok || len(n) != len(data)-at || string(n) != string(data[at:]) {
			return fmt.Errorf("data do not end in one name in lower case")
		}
	}
	return nil
}

// targetOffset says where in the RDATA of a type the name is that it ends with.
func targetOffset(t Type) (int, bool) {
	switch t {
	case TypeNS, TypeCNAME, TypeDNAME, TypePTR:
		return 0, true
	case TypeMX:
		return 2, true
	case TypeSRV:
		return 6, true
	}
	return 0, false
}

// parseData reads one value of a record in presentation form.
func parseData(t Type, value string) ([]byte, error) {
	text := strings.TrimSpace(value)
	if t == TypeTXT && !strings.HasPrefix(text, `"`) && !strings.HasPrefix(text, `\#`) {
		if value == "" {
			return nil, fmt.Errorf(`empty: write "" for an empty text`)
		}
		if len(value) > maxRRset/2 {
			return nil, fmt.Errorf("%d octets, at most %d", len(value), maxRRset/2)
		}
		return textData(value), nil
	}
	if text == "" {
		return nil, fmt.Errorf("empty")
	}
	if data, ok := plainStrings(text); ok && t == TypeTXT {
		if err := checkData(t, data); err != nil {
			return nil, err
		}
		return data, nil
	}
	if err := checkLine(text); err != nil {
		return nil, err
	}
	if fields := strings.Fields(text); fields[0] == `\#` {
		return genericData(t, fields[1:])
	}
	return libraryData(t, text)
}

// libraryData reads RDATA as the library does.
func libraryData(t Type, text string) ([]byte, error) {
	// A type the library does not know is read in the generic form only.
	rr, err := dns.NewRR(". 60 IN " + t.String() + " " + text)
	if err != nil {
		return nil, fmt.Errorf("not %s data: %s", t, strings.TrimPrefix(err.Error(), "dns: "))
	}
	if rr == nil || rr.Header().Rrtype != uint16(t) {
		return nil, fmt.Errorf("not %s data", t)
	}
	return packData(t, rr)
}

// plainStrings reads quoted strings of printable characters without escapes, which
// is what nearly all TXT values are: the library takes fifty times as long, and it
// is on the path of each change of a record. Anything else is left to it.
func plainStrings(text string) ([]byte, bool) {
	data := make([]byte, 0, len(text))
	for {
		if text == "" || text[0] != '"' {
			return nil, false
		}
		end := 1
		for end < len(text) && plainCharacter(text[end]) {
			end++
		}
		if end == len(text) || text[end] != '"' || end == 1 || end > 256 {
			return nil, false
		}
		data = append(append(data, byte(end-1)), text[1:end]...)
		if end+1 == len(text) {
			return data, true
		}
		if text = text[end+1:]; text[0] != ' ' {
			return nil, false
		}
		text = strings.TrimLeft(text, " ")
	}
}

// plainText is the inverse of plainStrings.
func plainText(data []byte) (string, bool) {
	text := make([]byte, 0, len(data)+8)
	for len(data) > 0 {
		end := int(data[0]) + 1
		if end == 1 || end > len(data) {
			return "", false
		}
		for _, c := range data[1:end] {
			if !plainCharacter(c) {
				return "", false
			}
		}
		if len(text) > 0 {
			text = append(text, ' ')
		}
		text = append(append(append(text, '"'), data[1:end]...), '"')
		data = data[end:]
	}
	return string(text), len(text) > 0
}

// plainCharacter is one that stands for itself within quotes.
func plainCharacter(c byte) bool { return c >= ' ' && c <= '~' && c != '"' && c != '\\' }

// genericData reads the generic form (RFC 3597 section 5): a length and the octets
// in hexadecimal. The library would parse and rewrite data of a type it knows, which
// loses octets that its form of them cannot show.
func genericData(t Type, fields []string) ([]byte, error) {
	if len(fields) == 0 {
		return nil, fmt.Errorf(`\# needs a length`)
	}
	length, err := strconv.ParseUint(fields[0], 10, 16)
	if err != nil {
		return nil, fmt.Errorf(`\# needs a length, not %s`, quote(fields[0]))
	}
	data, err := hex.DecodeString(strings.Join(fields[1:], ""))
	if err != nil {
		return nil, fmt.Errorf(`\# needs octets in hexadecimal: %w`, err)
	}
	if uint64(len(data)) != length {
		return nil, fmt.Errorf(`\# says %d octets, there are %d`, length, len(data))
	}
	h := dns.RR_Header{Name: ".", Rrtype: uint16(t), Class: dns.ClassINET, Rdlength: uint16(len(data))}
	if _, end, err := dns.UnpackRRWithHeader(h, data, 0); err != nil || end != len(data) {
		return nil, fmt.Errorf("not %s data", t)
	}
	foldTarget(t, data)
	if err := checkData(t, data); err != nil {
		return nil, err
	}
	return data, nil
}

// foldTarget folds the name at the end of the data of some types to lower case.
func foldTarget(t Type, data []byte) {
	if at, ok := targetOffset(t); ok {
		for i := at; i < len(data); i++ {
			data[i] = lower(data[i])
		}
	}
}

// checkLine refuses what would make the zone parser read more or less than one
// record's data: line ends, comments and the origin outside quotes.
func checkLine(text string) error {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\n' || c == '\r':
			return fmt.Errorf("a line end inside")
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == ';':
			return fmt.Errorf("a ; outside quotes begins a comment")
		case c == '(' || c == ')':
			return fmt.Errorf("parentheses outside quotes")
		case c == '@' && (i == 0 || text[i-1] == ' ') && (i+1 == len(text) || text[i+1] == ' '):
			return fmt.Errorf("@ has no meaning here, write the name")
		}
	}
	if quoted {
		return fmt.Errorf("a quote is not closed")
	}
	return nil
}

// packData is the RDATA of a parsed record, uncompressed, its target folded.
func packData(t Type, rr dns.RR) ([]byte, error) {
	buf := make([]byte, 512) // enough for nearly all, and cleared in no time
	end, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		buf = make([]byte, maxRRset+64)
		end, err = dns.PackRR(rr, buf, 0, nil, false)
	}
	if err != nil {
		return nil, fmt.Errorf("not %s data: %s", t, strings.TrimPrefix(err.Error(), "dns: "))
	}
	const head = 1 + 10 // the root as owner, type, class, TTL, length
	data := slices.Clone(buf[head:end])
	foldTarget(t, data)
	if err := checkData(t, data); err != nil {
		return nil, err
	}
	return data, nil
}

// sortData sorts RDATA in canonical order (RFC 4034 section 6.3) and drops
// duplicates.
func sortData(data [][]byte) [][]byte {
	slices.SortFunc(data, bytes.Compare)
	return slices.CompactFunc(data, bytes.Equal)
}

// Values is the presentation form of the data, in the order kept. ParseRRset
// reads every value back to the same octets.
func (s RRset) Values() []string {
	values := make([]string, len(s.Data))
	for i, d := range s.Data {
		values[i] = dataText(s.Type, d)
	}
	return values
}

// dataText is RDATA in the type's own form or, where that would not be read
// back as the same octets, in the generic one (RFC 3597 section 5).
func dataText(t Type, data []byte) string {
	if t == TypeTXT {
		if text, ok := plainText(data); ok {
			return text
		}
	}
	h := dns.RR_Header{Name: ".", Rrtype: uint16(t), Class: dns.ClassINET, Rdlength: uint16(len(data))}
	if rr, end, err := dns.UnpackRRWithHeader(h, data, 0); err == nil && end == len(data) && rr != nil {
		text := strings.TrimPrefix(rr.String(), rr.Header().String())
		if back, err := parseData(t, text); err == nil && bytes.Equal(back, data) {
			return text
		}
	}
	return fmt.Sprintf(`\# %d %s`, len(data), hex.EncodeToString(data))
}

// TextRRset is a TXT RRset of one record whose text is cut into strings of at
// most 255 octets (RFC 7208 section 3.3, RFC 6376 section 3.6.2.2).
func TextRRset(owner Name, ttl uint32, text string) RRset {
	return RRset{Owner: owner, Type: TypeTXT, TTL: ttl, Data: [][]byte{textData(text)}}
}

// textData cuts a text into strings; an empty text is one empty string.
func textData(text string) []byte {
	data := make([]byte, 0, len(text)+len(text)/255+1)
	for {
		n := min(len(text), 255)
		data = append(data, byte(n))
		data = append(data, text[:n]...)
		if text = text[n:]; text == "" {
			return data
		}
	}
}

// joinText joins the strings of one TXT record.
func joinText(data string) string {
	var b strings.Builder
	for len(data) > 0 {
		n := min(int(data[0])+1, len(data))
		b.WriteString(data[1:n])
		data = data[n:]
	}
	return b.String()
}
