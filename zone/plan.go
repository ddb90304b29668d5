package zone

import "net/netip"

// Form is the version of the rules that turn a Plan into answers. A change of
// the rules gets a new form, so that nodes of two releases answer alike until a
// committed command says otherwise.
const Form = 1

// Mode is how a domain reaches us.
type Mode uint8

const (
	Delegated Mode = 1 // the customer delegates a zone: we serve it
	CNAME     Mode = 2 // the customer's CNAMEs point at target names we serve
)

// ServerName is one of the name-server names given to a customer:
// T.ns1.P1, answered with the addresses of name server ns1.
type ServerName struct {
	Name     Name
	Platform uint32 // number of the platform zone it lies in
	Server   string // "ns1": the label in every platform zone
}

// Target is an owner name in a platform zone that a customer's CNAME points at.
// The zero value means that there is none.
type Target struct {
	Name     Name
	Platform uint32 // number of the platform zone it lies in
}

// Targets are the names of a domain in CNAME mode.
type Targets struct {
	Keys   []Target // one a slot; the owner of a KeyRecord is one of these
	Bounce Target
	Click  Target
	DMARC  Target
}

// KeyRecord is a DKIM key record (RFC 6376 section 3.6.1) as keys hands it over.
type KeyRecord struct {
	Owner   Name   // delegated: <selector>._domainkey.<zone>; CNAME: a target
	TTL     uint32 // seconds
	Payload string // "v=DKIM1; …", any length
	Watched bool   // queries are counted: see Watch
}

// Plan is what one domain should have in DNS. Render turns it into answers.
type Plan struct {
	Form   uint8
	Mode   Mode
	Tenant uint32 // number of the tenant: the bound of chasing and additional data
	Pool   uint32 // number of the pool whose mail, click and policy answers it shares
	Serial uint32 // the domain's own counter

	Zone    Name         // delegated: the zone's apex
	Servers []ServerName // delegated: the NS set given to the customer
	Proven  bool         // delegated: false leaves only the server names answered

	Targets Targets // CNAME

	Keys    []KeyRecord
	DMARC   string   // the domain's own policy; empty: delegated inherits the pool's, CNAME has none
	Reports []Target // <domain>._report._dmarc.<rua host in a platform zone>
	Records []RRset  // extra records; owners within Zone, or (CNAME) none

	// Attachment travels with the branch in the same allocation and is never
	// served: the sealed halves and stage records of the domain's keys.
	Attachment []byte

	// Held is a branch of the same delegated domain, whose keys and attachment are
	// taken in place of Keys and Attachment: what changes is something else.
	Held Branch
}

// PoolPlan is what the domains of one pool share.
type PoolPlan struct {
	Form       uint8
	Number     uint32
	ID         string
	Serial     uint32
	SPF        []string // mechanisms: "ip4:192.0.2.0/24"
	SPFAll     string   // "~all" or "-all"
	MX         []MX
	ClickA     []netip.Addr // both families
	ClickCNAME Name         // instead of addresses
	DMARC      string
	// IncludeBase is the name in a platform zone below which the parts of an SPF
	// record past SPFLimit are published: 1.<IncludeBase>, 2.<IncludeBase>, …
	IncludeBase Name
}

// SPFLimit is the longest SPF text published in one record, in octets, so that
// the answer stays within 512 (RFC 7208 section 3.4).
const SPFLimit = 450

// MX is one mail exchanger (RFC 1035 section 3.3.9).
type MX struct {
	Preference uint16 `cbor:"1,keyasint"`
	Host       Name   `cbor:"2,keyasint"`
}

// NameServer is a name server: a label in every platform zone with addresses.
type NameServer struct {
	Label     string // "ns1"
	Addresses []netip.Addr
}

// PlatformPlan is what a platform zone holds besides the targets of domains.
type PlatformPlan struct {
	Form     uint8
	Number   uint32
	Apex     Name
	Contact  Name // RNAME of the SOA (RFC 1035 section 3.3.13)
	Serial   uint32
	NS       []Name // the zone's own NS RRset
	Servers  []NameServer
	Records  []RRset // operator's records
	Includes []RRset // parts of pools' SPF records, from Pool.Includes
	// Reports maps a rua host in this zone to the pools whose DMARC policy names
	// it: <domain>._report._dmarc.<host> exists for the delegated domains of those
	// pools (RFC 9990 section 4; formerly RFC 7489 section 7.1).
	Reports map[Name][]uint32
}
