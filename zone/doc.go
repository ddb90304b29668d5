// Package zone is the authoritative DNS server: names, what a domain should
// have in DNS (Plan), its answers in wire form (Branch), the index a query
// reads (Tree), the look-up, the reply and the sockets.
//
// It knows nothing of keys, tenants' accounts, Raft or HTTP: a DKIM key reaches
// it as an owner name and a TXT payload. It never recurses, never transfers
// zones and never writes to disk. Nothing on the query path takes a lock,
// allocates or reads a clock of its own.
//
// A query walks server.go, tree.go, lookup.go, reply.go and back to server.go.
// miekg/dns lives in this package and below it alone: zone text, odd types and
// tests go through it, queries do not.
//
// Read cluster/state next: it decides what the plans are.
package zone
