package zone

// Every TTL that authd chooses, in seconds. Records that operators and
// customers add bring their own, within MinTTL and MaxTTL.
const (
	TTLSOA      = 3600
	TTLNS       = 86400
	TTLServer   = 3600 // A and AAAA of name servers
	TTLMail     = 3600 // MX and SPF of a pool
	TTLPolicy   = 3600 // DMARC and report authorisation
	TTLClick    = 300
	TTLKey      = 3600 // active and draining keys
	TTLKeyShort = 300  // standby and revoked keys, which may change soon
	TTLNegative = 300  // SOA MINIMUM (RFC 2308 section 4)

	MinTTL = 60
	MaxTTL = 86400
)
