package keys

import (
	"fmt"
)

// StepKind is a transition. Values are kept in the log: never renumber.
type StepKind uint8

const (
	StepPublish  StepKind = 1 // add a standby (needs Material)
	StepConfirm  StepKind = 2 // every serving node answers the standby's record
	StepActivate StepKind = 3 // the standby signs, the active one drains
	StepRevoke   StepKind = 4 // a draining key is answered with an empty p=
	StepRemove   StepKind = 5 // a revoked key leaves the ring
)

// String is the step's name in the API and in scenarios.
func (k StepKind) String() string {
	switch k {
	case StepPublish:
		return "publish"
	case StepConfirm:
		return "confirm"
	case StepActivate:
		return "activate"
	case StepRevoke:
		return "revoke"
	case StepRemove:
		return "remove"
	}
	return fmt.Sprintf("step %d", uint8(k))
}

// Step is one transition of one key, or (StepPublish) of one algorithm.
type Step struct {
	Kind      StepKind  `cbor:"1,keyasint"`
	Algorithm Algorithm `cbor:"2,keyasint"`
	Key       uint32    `cbor:"3,keyasint"` // ID; 0 for StepPublish
}

// Next says which step is due next and when, and whether there is any. It
// decides nothing about barriers: StepConfirm is due at once, and whoever
// proposes it has asked the nodes.
func (r Ring) Next(p Policy) (step Step, due int64, ok bool) { panic("todo") }

// Take carries out a step at a time. It refuses a step that does not fit the
// ring (the error says why), whatever Next said: a manual rotation takes
// StepActivate before its due time. m is nil but for StepPublish.
func (r Ring) Take(s Step, at int64, p Policy, m *Material) (Ring, error) { panic("todo") }
