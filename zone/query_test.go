package zone

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzQuery compares our parser with miekg/dns on arbitrary octets. The corpus
// is in testdata/fuzz/FuzzQuery.
func FuzzQuery(f *testing.F) {
	for _, seed := range seedQueries(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		if complaint := compare(message); complaint != "" {
			t.Errorf("%s\n%s", complaint, hex.Dump(message))
		}
	})
}

// A hundred thousand mutations with a fixed seed in every test run: the fuzzer
// explores, this one guards.
func TestParserAgreesOnMutatedQueries(t *testing.T) { testMutations(t, 100_000, 6891) }

func testMutations(t *testing.T, mutations int, seed uint64) {
	random := rand.New(rand.NewPCG(1035, seed))
	seeds := seedQueries(t)
	verdicts := map[verdict]int{}
	var q query
	for range mutations {
		message := mutate(random, seeds)
		if complaint := compare(message); complaint != "" {
			t.Fatalf("%s\n%s", complaint, hex.Dump(message))
		}
		verdicts[q.parse(message)]++
	}
	for v := genuine; v <= cookieOnly; v++ {
		if verdicts[v] < 100 {
			t.Errorf("verdict %d reached %d times: the mutations no longer test it", v, verdicts[v])
		}
	}
}

// compare parses a message with both parsers and says what differs beyond the
// written list of differences; empty when nothing does.
func compare(message []byte) string {
	var q query
	got := q.parse(message)
	want, m := judge(message)
	if got != want {
		return fmt.Sprintf("verdict %d, want %d", got, want)
	}
	if got == silent || m == nil {
		return ""
	}
	if q.id != m.Id || q.rd != m.RecursionDesired || int(q.opcode) != m.Opcode {
		return fmt.Sprintf("header id %d rd %t opcode %d, want %s", q.id, q.rd, q.opcode, m.MsgHdr.String())
	}
	if got == notImplemented && q.opcode != opcodeQuery || got == malformed {
		return ""
	}
	if len(m.Question) == 0 {
		if q.asked != nil {
			return fmt.Sprintf("name %q, want none", q.asked)
		}
		return compareEDNS(&q, m)
	}
	name := make([]byte, maxName+1)
	length, err := dns.PackDomainName(m.Question[0].Name, name, 0, nil, false)
	if err != nil || !bytes.Equal(q.asked, name[:length]) {
		return fmt.Sprintf("name %q, want %q", q.asked, name[:length])
	}
	var p path
	if p.setAsked(q.asked); !isFolded(p.suffix(p.count), name[:length]) {
		return fmt.Sprintf("folded name %q of %q", p.suffix(p.count), name[:length])
	}
	if uint16(q.qtype) != m.Question[0].Qtype || q.class != m.Question[0].Qclass {
		return fmt.Sprintf("type %d class %d, want %v", q.qtype, q.class, m.Question[0])
	}
	return compareEDNS(&q, m)
}

// compareEDNS is the part of compare about the OPT record.
func compareEDNS(q *query, m *dns.Msg) string {
	opt := m.IsEdns0()
	if q.edns != (opt != nil) {
		return fmt.Sprintf("EDNS %t, want %t", q.edns, opt != nil)
	}
	if opt == nil {
		return ""
	}
	has := func(code uint16) bool {
		return slices.ContainsFunc(opt.Option, func(o dns.EDNS0) bool { return o.Option() == code })
	}
	if cookie := firstCookie(opt); hex.EncodeToString(q.cookie) != cookie || q.keepalive != has(dns.EDNS0TCPKEEPALIVE) {
		return fmt.Sprintf("cookie %x keepalive %t, want %s", q.cookie, q.keepalive, opt)
	}
	nsid := has(dns.EDNS0NSID)
	if q.version != opt.Version() || q.do != opt.Do() || q.size != max(MinUDP, opt.UDPSize()) || q.nsid != nsid {
		return fmt.Sprintf("EDNS version %d DO %t size %d NSID %t, want %s", q.version, q.do, q.size, q.nsid, opt)
	}
	return ""
}

// isFolded says whether folded is name with A to Z, and nothing else, in lower
// case.
func isFolded(folded, name []byte) bool {
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if folded[i] != c {
			return false
		}
	}
	return true
}

// judge is the verdict that follows from what miekg/dns reads. Its policy part
// repeats the decisions of parse from the other parser's fields; where reading
// itself differs, the difference is one of these, each on purpose:
//
//  1. A compression pointer in the QNAME: miekg follows, we refuse, since the
//     first name of a message has nothing before it to point at.
//  2. Octets behind the last record: miekg passes over them, we refuse a message
//     that we do not understand to its end.
//  3. Counts that promise records past the end: miekg stops there, we refuse.
//  4. The owner and data of records that mean nothing to us (all but OPT and
//     TSIG): miekg parses them, we pass over them by their length.
//  5. The data of EDNS options that mean nothing to us, likewise.
//  6. An OPT whose owner points at a root label: the owner must be the root
//     itself (RFC 6891 section 6.1.2), we do not follow.
//  7. The options of another EDNS version: miekg parses them as those of version 0.
//  8. TSIG: miekg allows a compressed algorithm name (RFC 8945 section 4.2
//     forbids it), and data that ends before its last field.
//
// The message is nil where miekg could not read it.
func judge(message []byte) (verdict, *dns.Msg) {
	if len(message) < headerSize || message[2]&0x80 != 0 {
		return silent, nil
	}
	header := new(dns.Msg)
	header.Unpack(message) // whatever follows, the header is read
	if header.Opcode != dns.OpcodeQuery {
		return notImplemented, header
	}
	count := func(at int) int { return int(binary.BigEndian.Uint16(message[at:])) }
	if count(4) > 1 {
		return malformed, header
	}
	readable, cleaned := walk(message)
	if !readable {
		return malformed, header
	}
	m := new(dns.Msg)
	if err := m.Unpack(cleaned); err != nil {
		return malformed, header
	}
	question := dns.Question{Qtype: dns.TypeNone}
	if len(m.Question) == 1 {
		question = m.Question[0]
	}
	if count(6) != 0 || count(8) > 1 || count(8) == 1 && question.Qtype != dns.TypeIXFR || count(10) > 2 {
		return malformed, m
	}
	if slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return isType(rr, dns.TypeOPT) || isType(rr, dns.TypeTSIG) }) {
		return malformed, m
	}
	var opts, signatures int
	for i, rr := range m.Extra {
		h := rr.Header()
		switch {
		case isType(rr, dns.TypeOPT):
			if opts++; h.Name != "." || opts > 1 {
				return malformed, m
			}
			if cookie := firstCookie(rr.(*dns.OPT)); cookie != "" && !cookieFits(len(cookie)/2) || cookie == "" && hasCookie(rr.(*dns.OPT)) {
				return malformed, m
			}
		case isType(rr, dns.TypeTSIG):
			if signatures++; i != len(m.Extra)-1 || h.Class != dns.ClassANY || h.Ttl != 0 {
				return malformed, m
			}
		}
	}
	if len(m.Question) == 0 && (signatures > 0 || opts == 0 || m.IsEdns0().Version() == 0 && !hasCookie(m.IsEdns0())) {
		return malformed, m
	}
	return judgeQuestion(question, m, signatures > 0), m
}

func hasCookie(opt *dns.OPT) bool {
	return slices.ContainsFunc(opt.Option, func(o dns.EDNS0) bool { return o.Option() == dns.EDNS0COOKIE })
}

// firstCookie is the cookie that counts, in hex.
func firstCookie(opt *dns.OPT) string {
	for _, o := range opt.Option {
		if c, ok := o.(*dns.EDNS0_COOKIE); ok {
			return c.Cookie
		}
	}
	return ""
}

func isType(rr dns.RR, t uint16) bool { return rr.Header().Rrtype == t }

func judgeQuestion(question dns.Question, m *dns.Msg, signed bool) verdict {
	opt := m.IsEdns0()
	switch t := question.Qtype; {
	case signed:
		return unknownKey
	case opt != nil && opt.Version() != 0:
		return badVersion
	case len(m.Question) == 0:
		return cookieOnly
	case question.Qclass != dns.ClassINET:
		return refused
	case t == dns.TypeANY:
		return genuine
	case t == dns.TypeAXFR, t == dns.TypeIXFR:
		return refused
	case t == dns.TypeOPT, t == dns.TypeTSIG, t == dns.TypeNXNAME:
		return malformed
	case t >= 128 && t <= 255:
		return notImplemented
	}
	return genuine
}

// walk steps through a message by miekg's own reading of names and applies the
// list of differences: it says whether the message can be read by our rules, and
// gives it without what we pass over, for miekg to read the rest.
func walk(message []byte) (readable bool, cleaned []byte) {
	at := headerSize
	if binary.BigEndian.Uint16(message[4:]) == 1 {
		name, end, err := dns.UnpackDomainName(message, headerSize)
		if err != nil || end+4 > len(message) {
			return false, nil
		}
		plain := make([]byte, maxName+1)
		if n, err := dns.PackDomainName(name, plain, 0, nil, false); err != nil || n != end-headerSize {
			return false, nil // difference 1
		}
		at = end + 4
	}
	cleaned = slices.Clone(message[:at])
	records := 0
	for _, count := range []int{6, 8, 10} {
		records += int(binary.BigEndian.Uint16(message[count:]))
	}
	for range min(records, 8) { // more are refused from the counts
		length, plain := skipOwner(message[at:])
		fixed := at + length
		if length == 0 || fixed+10 > len(message) {
			return false, nil // difference 3, or cut off
		}
		owner := message[at:fixed]
		end := fixed + 10 + int(binary.BigEndian.Uint16(message[fixed+8:]))
		if end > len(message) {
			return false, nil
		}
		data := message[fixed+10 : end]
		t := binary.BigEndian.Uint16(message[fixed:])
		switch {
		case t == dns.TypeOPT && len(owner) > 1:
			return false, nil // difference 6; longer owners are wrong anyhow
		case t == dns.TypeOPT && message[fixed+5] != 0:
			data = nil // difference 7
		case t == dns.TypeOPT:
			options, ok := knownOptions(data)
			if !ok {
				return false, nil
			}
			data = options // difference 5
		case t == dns.TypeTSIG:
			if n, plain := skipOwner(data); !plain || !wholeTSIG(data[n:]) {
				return false, nil // difference 8
			}
			if !plain {
				owner = []byte{0} // difference 4: a pointer is not followed
			}
		default:
			owner, data, t = []byte{0}, nil, dns.TypeNULL // difference 4
		}
		cleaned = append(cleaned, owner...)
		cleaned = binary.BigEndian.AppendUint16(cleaned, t)
		cleaned = append(cleaned, message[fixed+2:fixed+8]...)
		cleaned = binary.BigEndian.AppendUint16(cleaned, uint16(len(data)))
		cleaned = append(cleaned, data...)
		at = end
	}
	return at == len(message), cleaned // difference 2
}

// skipOwner is the length of a name that may end in a pointer; 0: none.
func skipOwner(b []byte) (length int, plain bool) {
	for at := 0; at < len(b) && at < 255; at += 1 + int(b[at]) {
		switch {
		case b[at] == 0:
			return at + 1, true
		case b[at] >= 0xc0 && at+1 < len(b):
			return at + 2, false
		case b[at] >= 0x40:
			return 0, false
		}
	}
	return 0, false
}

// wholeTSIG says whether TSIG data, from the time on, is as long as its two
// length fields say.
func wholeTSIG(data []byte) bool {
	if len(data) < 16 {
		return false
	}
	mac := int(binary.BigEndian.Uint16(data[8:]))
	if len(data) < 16+mac {
		return false
	}
	return len(data) == 16+mac+int(binary.BigEndian.Uint16(data[14+mac:]))
}

// knownOptions keeps the options of an OPT record's data that mean something to
// us, without what a keepalive says.
func knownOptions(data []byte) (kept []byte, ok bool) {
	for len(data) > 0 {
		if len(data) < 4 {
			return nil, false
		}
		end := 4 + int(binary.BigEndian.Uint16(data[2:]))
		if end > len(data) {
			return nil, false
		}
		switch binary.BigEndian.Uint16(data) {
		case dns.EDNS0NSID, dns.EDNS0COOKIE:
			kept = append(kept, data[:end]...)
		case dns.EDNS0TCPKEEPALIVE:
			kept = append(kept, 0, dns.EDNS0TCPKEEPALIVE, 0, 0)
		}
		data = data[end:]
	}
	return kept, true
}

// seedQueries are the shapes from which mutations start.
func seedQueries(t testing.TB) [][]byte {
	t.Helper()
	var seeds [][]byte
	add := func(m *dns.Msg) {
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, b)
	}
	longest := strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 61) + "."
	names := []string{".", "test.", "Big.P-dns.TEST.", "k1.token.dkim.p-dns.test.", `\000\032\200Z.p-dns.test.`, longest, strings.Repeat("x.", 127)}
	for i, name := range names {
		m := new(dns.Msg)
		m.SetQuestion(name, []uint16{dns.TypeTXT, dns.TypeA, dns.TypeANY, dns.TypeMX}[i%4])
		add(m)
		m.SetEdns0(uint16(100*i*i), i%2 == 0)
		add(m)
	}
	for _, question := range []uint16{0, dns.TypeOPT, 128, dns.TypeTKEY, dns.TypeTSIG, dns.TypeAXFR, dns.TypeIXFR, dns.TypeMAILB, 65535} {
		m := new(dns.Msg)
		m.SetQuestion("p-dns.test.", question)
		m.SetEdns0(1232, true)
		m.Extra[0].(*dns.OPT).Option = []dns.EDNS0{&dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"}}
		add(m)
	}
	for _, cookie := range []string{"0123456789abcdef", "0123456789abcdef010000005cf79f111f8130c3eee29480"} {
		m := new(dns.Msg)
		m.SetEdns0(1232, false)
		m.Extra[0].(*dns.OPT).Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: cookie}, &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}}
		add(m)
		m.SetQuestion("p-dns.test.", dns.TypeTXT)
		add(m)
	}
	ixfr := new(dns.Msg)
	ixfr.SetIxfr("p-dns.test.", 1, "ns1.p-dns.test.", "mail.p-dns.test.")
	add(ixfr)
	version := new(dns.Msg)
	version.SetQuestion("p-dns.test.", dns.TypeSOA)
	version.SetEdns0(4096, true)
	version.Extra[0].(*dns.OPT).SetVersion(1)
	add(version)
	chaos := new(dns.Msg)
	chaos.SetQuestion("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	add(chaos)
	for _, opcode := range []int{dns.OpcodeNotify, dns.OpcodeUpdate, 15} {
		m := new(dns.Msg)
		m.SetQuestion("p-dns.test.", dns.TypeSOA)
		m.Opcode = opcode
		add(m)
	}
	response := new(dns.Msg)
	response.SetReply(version)
	add(response)
	return append(seeds, signedQuery(t))
}

func signedQuery(t testing.TB) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion("p-dns.test.", dns.TypeSOA)
	m.SetEdns0(1232, false)
	m.SetTsig("key.test.", dns.HmacSHA256, 300, 1_800_000_000)
	b, _, err := dns.TsigGenerate(m, "c2VjcmV0", "", false)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mutate changes one of the seeds in up to three places.
func mutate(random *rand.Rand, seeds [][]byte) []byte {
	message := slices.Clone(seeds[random.IntN(len(seeds))])
	for range random.IntN(4) {
		if len(message) == 0 {
			break
		}
		at := random.IntN(len(message))
		switch random.IntN(6) {
		case 0:
			message[at] = byte(random.Uint32())
		case 1:
			message[at] ^= 1 << random.IntN(8)
		case 2:
			message[at] = []byte{0, 1, 63, 64, 0x80, 0xc0, 0xff, 41, 250}[random.IntN(9)]
		case 3:
			message = message[:at]
		case 4:
			message = slices.Insert(message, at, byte(random.Uint32()))
		case 5:
			other := seeds[random.IntN(len(seeds))]
			message = append(message, other[random.IntN(len(other)):]...)
			if len(message) > headerSize {
				message[11]++ // so that what was appended may be a record
			}
		}
	}
	return message
}

func TestFoldChangesLettersAlone(t *testing.T) {
	name := make([]byte, 255)
	for i := range name {
		name[i] = byte(i)
	}
	for shift := range 256 {
		for i := range name {
			name[i] = byte(i + shift)
		}
		var folded [256]byte
		fold(&folded, name)
		if !isFolded(folded[:255], name) {
			t.Fatalf("fold(%q) = %q", name, folded[:255])
		}
	}
}
