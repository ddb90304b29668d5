// Package zone is the authoritative DNS server: names, what a domain should
// have in DNS (Plan), its answers in wire form (Branch), the index a query
// reads (Tree), the look-up, the reply and the sockets.
//
// It knows nothing of keys, tenants' accounts, Raft or HTTP: a DKIM key reaches
// it as an owner name and a TXT payload. It never recurses, never transfers
// zones and never writes to disk. Nothing on the query path takes a lock,
// allocates or reads a clock of its own. Queries do not touch miekg/dns: zone
// text, odd types and tests do.
//
// # Where things are
//
// A query walks server.go, respond.go, tree.go, lookup.go, reply.go and back.
//
//   - Sockets: server.go starts and stops; udp_*.go and tcp*.go read and write;
//     server_inherit.go hands sockets to a successor; server_overflow_*.go asks
//     the kernel for what it dropped.
//   - A message: query.go parses it, respond.go vets it and assembles the reply,
//     reply.go writes the sections; cookie.go (RFC 9018), source.go and
//     server_limit.go say who asks and what he gets in full.
//   - The look-up: hash.go takes a name apart, tree.go finds its branch,
//     lookup.go the outcome, additional.go the addresses that go with it;
//     answer.go holds what was found and its bounds. expect.go and prefetch*.go
//     warm the caches for a batch.
//   - Making answers: plan.go says what is wanted; render.go, pool.go and
//     platform.go check it and make it; build.go and checks.go collect nodes;
//     block.go is their layout and inspect.go checks it; branch.go is the result.
//     name.go, rrset.go, ttl.go and text.go (zone files) are what plans are of.
//   - Changing the index: editor.go, fill.go (all at once).
//   - Counting: stats.go for all, watch.go for keys that no longer sign,
//     census.go for single domains.
//   - Asking: ask.go and sight.go ask other nodes' listeners, served.go lists
//     what a branch answers.
//
// Read cluster/state next: it decides what the plans are.
package zone
