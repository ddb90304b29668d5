package state

import "authd/zone"

// Bounds of everything that is replicated. Each is far above what is useful and
// far below what would hurt a node; a request past one is refused with its value.
const (
	// MaxBatch is the number of commands in one log entry: at 50 µs each an entry
	// is applied within 20 ms.
	MaxBatch = 256
	// maxBatchBytes is the size of one encoded log entry.
	maxBatchBytes = 4 << 20

	maxActor  = 128  // octets of Entry.Actor
	maxSource = 64   // octets of Entry.Source: an address and port
	maxReason = 1000 // octets of Entry.Reason

	// maxPlatforms bounds what has to be rendered again with each name server.
	maxPlatforms = 16
	// maxPlatformRecords and maxPlatformOctets bound the operator's records in
	// one platform zone: all are rendered again with each change of one.
	maxPlatformRecords = 5000
	maxPlatformOctets  = 1 << 20
	// maxNameServers is far above the four names that a customer is given.
	maxNameServers = 16
	// maxServerNames is how many names a customer puts in the NS set.
	maxServerNames = 4
	// maxAddresses bounds the addresses of one name server or click host, so that
	// an answer stays within one datagram.
	maxAddresses = 16

	// maxPools bounds the shared table that every query looks into.
	maxPools = 1000
	// maxSPF is the number of mechanisms in a pool: past it the include records
	// would cost a receiver more than the ten look-ups of RFC 7208 section 4.6.4.
	maxSPF = 200
	maxMX  = 16
	// maxPolicy is the length of a DMARC policy in octets: one answer of 512.
	maxPolicy = zone.SPFLimit

	maxTenants = 10_000_000
	maxDomains = 20_000_000
	// maxTombstones is how many tokens are kept of claims, those that have ended and,
	// since they will, those that have not: some 25 octets each. What a tenant's own
	// tokens end stays among its domains for leavingFor, so one alone adds
	// defaultTenantDomains in that time and needs two centuries.
	maxTombstones   = 50_000_000
	maxAccessTokens = 100_000
	// defaultTenantDomains is how many domains a tenant has, leaving ones too, past which
	// its own tokens add none, where an admin gave it no bound (Tenant.MaxDomains). It
	// does not bind whoever else adds domains for it.
	defaultTenantDomains = 10_000
	// defaultTenantOctets is the same for what its domains take in memory past
	// usualDomain each: as much again as that many usual domains, on each node.
	defaultTenantOctets = 16 << 20
	// maxTenantOctets is the most that an admin gives one tenant: a third of what a node
	// with a million domains has.
	maxTenantOctets = 1 << 30
	// usualDomain is how many octets of a domain count as the domain's own and not as
	// what its tenant put into it: three times the average, so that hardly a step of
	// keys changes a tenant's count.
	usualDomain = 8 << 10
	// maxClaims is the number of claims to one name. A tenant has at most one a
	// mode, so that it takes as many tenants in league to reach it.
	maxClaims = 256
	// maxListers is how many claims of one tenant may list one name in SignsFor; only
	// one of them signs for it.
	maxListers = 16

	maxLabels     = 32  // labels of a domain or pool
	maxLabelKey   = 63  // octets
	maxLabelValue = 255 // octets
	maxTitle      = 255 // octets of a tenant's name, a token's note, a cluster's id
	maxSignsFor   = 100
	maxSubnets    = 64

	// MaxDomainRecords and maxDomainOctets bound the extra records of one domain:
	// all are rendered again with each change of one.
	MaxDomainRecords = 1000
	maxDomainOctets  = 256 << 10
	// MaxRRset is the number of records in one RRset.
	MaxRRset = 100

	// MaxAudit is how many changes the machine remembers, and maxAuditOctets how
	// much of them: entries are about 150 octets, reasons may make them longer.
	// Each node writes all of them to files besides.
	MaxAudit       = 100_000
	maxAuditOctets = 64 << 20

	// MaxRotations is how many rotations of many domains are kept, and under way at
	// most; plain ones leave room for emergencies.
	// A tenant with a token of its own has at most maxTenantRotations of them.
	MaxRotations       = 64
	maxPlainRotations  = 16
	maxTenantRotations = 4
	// maxRotationList bounds a rotation's list of domains: 16 octets each, kept.
	maxRotationList = 5000
	maxStages       = 8
	maxHold         = 30 * 24 * 3600 // seconds

	// onceFor is how long, in seconds, a request with an Idempotency-Key is known
	// again, and maxOnce how many are.
	onceFor = 3600
	maxOnce = 200_000

	// maxPayload is the length of a DKIM record: RSA with 4096 bits needs 750.
	maxPayload = 2048
	// maxSealed is the size of a sealed half: RSA with 4096 bits needs 290.
	maxSealed = 4096
)

// Delays of a claim's life, in seconds.
const (
	// pendingFor is how long a claim waits for its proof.
	pendingFor = 14 * 24 * 3600
	// leavingFor is how long the bounce MX and SPF of a leaving domain are still
	// answered: mail servers try for five days, bounces come back later still.
	leavingFor = 14 * 24 * 3600
)
