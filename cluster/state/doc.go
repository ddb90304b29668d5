// Package state is the replicated state machine: platform zones, name servers,
// pools, tenants, domains and their keys, API tokens and settings. It knows no
// Raft, no clock, no randomness and no disk; cmd/authd/rules_test.go keeps it so.
// Only reading images and taking over their keys starts goroutines, to use all cores, and
// waits for them.
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
// # Where things are
//
//   - The machine: machine.go is what readers ask, model.go and record.go what it
//     is of, tables.go how it lies in memory (table.go, fan.go and window.go are
//     the persistent structures), limits.go its bounds.
//   - Commands: command.go pins their codes, encode.go is their form in the log.
//   - Apply: apply.go begins and ends each command; apply_*.go have the rules by
//     theme; refusal.go the words of a no; once.go what was done before;
//     names.go, token.go and dmarc.go what texts may be. signer.go says whose keys sign.
//   - Rendering: plan.go turns a domain into a zone.Plan, publish.go takes the
//     branches to the tree, customer.go is what a customer must add, shown.go what
//     a change can be seen by.
//   - Indexes: nameindex.go, keyindex.go, due.go (what is due when),
//     pending.go, sealed.go, tally.go.
//   - Rotations of many domains: rotation.go, rotation_eta.go.
//   - History: audit.go, audit_record.go.
//   - Images: image.go and image_*.go; succession.go is how a backup takes a machine's
//     place; sum.go is what nodes compare.
//
// Read cluster next: it stamps, proposes and publishes.
package state
