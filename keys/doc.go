// Package keys is the life of DKIM keys (RFC 6376, RFC 8463): pairs and their
// records, the ring of a domain's keys with its stages, the policy that says
// which step is next and when, and the sealing of private halves.
//
// Ring, Policy and Record are pure: time arrives as an argument, in seconds
// since 1970. Only pair.go, pem.go, seal.go and mill.go with frame.go meet the
// outside (entropy, the key-encryption key, a child process), and the replicated
// machine calls nothing of them. go-msgauth lives here alone. Private halves
// redact themselves when printed or logged.
//
// A ring refuses a key whose private half was sealed for another place (Place),
// a signature by a key that some cache may not see yet (NotReady), and a slot's
// refill before every cache has let go of what it answered. It does not ask
// whether nodes answer a record: whoever takes StepConfirm has.
//
// Whoever may write the file of key-encryption keys can make new private halves
// unreadable, but cannot read or replace old ones without the old key; whoever
// may read it can open every private half in a log, snapshot or backup.
//
// # Where things are
//
//   - The ring: ring.go has the keys and their stages, step.go what is due and
//     how it is done, emergency.go a replacement out of turn, bring.go keys that
//     operators bring, leave.go a domain that goes, takeover.go a backup that is
//     restored, reseal.go another key-encryption key. policy.go has the times,
//     evidence.go what a draining key waits for, encode.go the ring's octets.
//   - Keys: pair.go and pem.go are private halves, public.go and record.go public
//     ones, weak.go refuses those that are no good, selector.go mints names.
//   - Sealing: seal.go, seal_file.go.
//   - Making them: mill*.go runs the child process, frame.go is what it says,
//     pace.go how long a key takes. lab.go makes cheap ones in lab builds.
//
// Read cluster/state next: it keeps a ring for every domain.
package keys
