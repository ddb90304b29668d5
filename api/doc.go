// Package api is the HTTP API: JSON under /v1 with an OpenAPI 3.1 description at
// /openapi.json, problem documents (RFC 9457) for everything that goes wrong,
// bearer tokens with scopes, health and metrics.
//
// It authorises, parses strictly, turns names and keys into types, and hands
// commands to a Replica; every rule about what may exist is decided in
// cluster/state, so that two racing requests cannot both pass. Reads come from
// this node's own state; any node takes any request. It keeps no sessions,
// follows no redirects, trusts no forwarding headers, answers no cross-origin
// preflight and takes no compressed bodies.
//
// # Where things are
//
// A write walks handler.go, auth.go, the file of its theme, write.go, and
// problem.go where it is refused.
//
//   - Every request: listen*.go and connections.go accept, admission.go bounds,
//     handler.go routes, auth.go says who it is, request.go and strict*.go read
//     it, once.go knows it again, page.go turns pages, openapi.go describes it;
//     name.go reads names, private.go keeps secrets out of logs.
//   - Domains: claim.go and domains.go, domain.go (how one is shown), checkup.go
//     (what the customer's DNS says), importer.go, records.go, zonetext.go,
//     queries.go.
//   - Keys: keys.go, key_page.go, timeline.go, emergency.go, rollback.go,
//     bring.go, rotations*.go (many domains).
//   - Signers: dkim.go and vault.go.
//   - What domains share: zones.go, pools.go with pool_warnings.go, tenants.go.
//   - The cluster: members.go, serving.go, wrap.go, tokens.go, audit.go,
//     events.go, health.go, metrics*.go.
//
// Read cluster next.
package api
