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
// A write walks handler.go, auth.go, the file of its theme (domains.go, …),
// write.go, and problem.go where it is refused. Read cluster next.
package api
