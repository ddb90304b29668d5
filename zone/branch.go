package zone

// Branch is one domain's answers in wire form, with its attachment: an
// immutable, pointer-free value in one allocation. Branches are comparable: the
// same plan always renders to the same bytes. The zero value holds nothing.
type Branch string

// Anchors are the names under which a tree finds the branch: the zone of a
// proven delegated domain, the server names, the targets.
func (b Branch) Anchors() []Name { panic("todo") }

// Attachment is the Plan's Attachment, aliasing the branch's memory.
func (b Branch) Attachment() string { panic("todo") }

// Text is the joined text of the first TXT record that the branch itself (not
// its pool) holds at owner, and whether there is one.
func (b Branch) Text(owner Name) (string, bool) { panic("todo") }

// Render checks a plan and makes its branch. It refuses records outside the
// zone, at managed names, beside a CNAME (RFC 1034 section 3.6.2), and RRsets
// whose TTL differs from a managed record's they join. It depends on the plan
// alone.
func Render(p Plan) (Branch, error) { panic("todo") }

// Pool is what RenderPool makes of a PoolPlan. Immutable.
type Pool struct{ poolAnswers }

type poolAnswers struct{}

// RenderPool checks a pool's plan and makes the answers its domains share.
func RenderPool(p PoolPlan) (*Pool, error) { panic("todo") }

// Includes are the RRsets that the pool needs in the platform zone of its
// IncludeBase: parts of an SPF record too long for one.
func (p *Pool) Includes() []RRset { panic("todo") }

// Platform is what RenderPlatform makes of a PlatformPlan. Immutable.
type Platform struct{ platformAnswers }

type platformAnswers struct{}

// RenderPlatform checks a platform zone's plan and makes its answers. It refuses
// operator's records at reserved names (the apex SOA and NS, ns1…, dkim, bounce,
// click, dmarc, spf and what lies below them).
func RenderPlatform(p PlatformPlan) (*Platform, error) { panic("todo") }

// Served lists every RRset a branch answers with the given pool and platform
// zones, as a query would see it, in canonical order: for the API, tests and
// exports, never on the query path.
func Served(b Branch, pool *Pool, platforms []*Platform) []RRset { panic("todo") }
