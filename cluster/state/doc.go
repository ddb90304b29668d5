// Package state is the replicated state machine: platform zones, name servers,
// pools, tenants, domains and their keys, API tokens and settings. It knows no
// Raft, no clock, no randomness and no disk; cmd/authd/rules_test.go keeps it so.
// Only reading images starts goroutines, to decode on all cores, and waits for them.
//
// Four laws hold. Apply depends on the machine and the command, nothing else.
// What needs the outside (time, keys, tokens, nonces, public-suffix knowledge)
// is chosen before the proposal and travels in the command. A no is a result,
// equal on all nodes. Command codes are never renumbered nor reused.
//
// Machine is an immutable value with structural sharing; anything obtained from
// one is READ-ONLY. Publish carries what changed to the zone.Tree that queries
// read; the tree can be built again from the machine at any time.
//
// Read cluster next: it stamps, proposes and publishes.
package state
