// Package cluster replicates the machine of cluster/state with Raft, serves
// reads from local state, and moves time forward: the leader's rotator is the
// one place where a clock causes a write.
//
// hashicorp/raft and raft-boltdb live here alone. At start a node builds its
// machine from its own snapshot and log, before Raft exists, so that DNS answers
// without a quorum. See ARCHITECTURE.md, "The index contract".
//
// It decides nothing about what may exist: that is cluster/state. It speaks
// neither HTTP nor DNS, except to ask other nodes' listeners, through zone.
//
// # Where things are
//
// A write walks propose.go, the library, fsm.go.
//
//   - A node: config.go has its configuration and timers, node.go is its parts and how
//     it is, start.go starts and closes it, build.go makes the machine from disk, applier.go
//     takes it along the log.
//   - On disk: store.go and store_sum.go are the log, mark.go how far it was applied,
//     snapshots.go the images, keep.go and pace*.go when and how gently they are
//     written. disk.go watches the room, hang.go how long a write takes, fence.go stops a
//     node that can no longer write.
//   - Backups: restore.go saves and restores, restore_entries.go is a restore in the log.
//   - Raft's messages: transport.go, sender.go (nobody speaks for another),
//     reach.go, suspicion.go and abdicate.go (elections without delay).
//   - Between nodes: link.go and link_conns.go accept and dial, call.go and
//     peers.go are the questions, identity.go and certificate.go who is who.
//   - Members: members.go, join.go, incarnation.go (epochs), recover*.go (one
//     node that is left).
//   - What the leader does by itself: rotator*.go (steps of keys), fleet*.go
//     (rotations of many domains), proofs*.go (pending and contested claims), clock.go (the
//     machine's time), cookies.go, wrap.go (another key-encryption key).
//   - Key material: material.go, mills.go (keys that other nodes made), seals.go
//     (whether this node can open what it holds).
//   - Proof of what nodes answer and gave out: barrier.go, served.go, evidence*.go
//     and testimony.go.
//   - Files beside the log: audit.go (changes), reads*.go (who was given a key).
//   - Agreement: check.go and recount.go compare machines, diverged.go gives up one that
//     is wrong; figures.go has what health and metrics say.
//   - Small things: tcp.go (the network under link and library), hclog.go and seldom.go
//     (what goes to the log, and how often).
//
// Read cluster/state for what is replicated, api for its caller.
package cluster
