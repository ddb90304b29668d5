// Package cluster replicates the machine of cluster/state with Raft, serves
// reads from local state, and moves time forward: the leader's rotator is the
// one place where a clock causes a write.
//
// hashicorp/raft and raft-boltdb live here alone. At start a node builds its
// machine from its own snapshot and log, before Raft exists, so that DNS answers
// without a quorum. See ARCHITECTURE.md, "The index contract".
package cluster
