// Package keys is the life of DKIM keys (RFC 6376, RFC 8463): pairs and their
// records, the ring of a domain's keys with its stages, the policy that says
// which step is next and when, and the sealing of private halves.
//
// Ring, Policy and Record are pure: time arrives as an argument, in seconds
// since 1970. Only pair.go, seal.go and mill.go meet the outside (entropy, the
// key-encryption key, a child process), and the replicated machine calls
// nothing of them. go-msgauth lives here alone. Private halves redact
// themselves when printed or logged.
//
// Read cluster/state next: it keeps a ring for every domain.
package keys
