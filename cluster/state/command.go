package state

import (
	"net/netip"

	"authd/keys"
	"authd/zone"
)

// Code identifies a command in the log. Codes are pinned by command_test.go:
// never renumber, never reuse.
type Code uint16

const (
	CodeSetSettings      Code = 1
	CodePutPlatform      Code = 2
	CodePutRecord        Code = 3
	CodePutNameServer    Code = 4
	CodePutPool          Code = 5
	CodeAddTenant        Code = 6
	CodeSuspendTenant    Code = 7
	CodeAddDomain        Code = 8
	CodePatchDomain      Code = 9
	CodeProveDomain      Code = 10
	CodeLeaveDomain      Code = 11
	CodeRestoreDomain    Code = 12
	CodeExpireDomain     Code = 13
	CodePutDomainRecord  Code = 14
	CodeStepKey          Code = 15
	CodeRevokeKey        Code = 16
	CodeAddAccessToken   Code = 17
	CodeDropAccessToken  Code = 18
	CodeDropPlatform     Code = 19 // refused while a domain or pool uses it
	CodeDropPool         Code = 20
	CodeDropNameServer   Code = 21
	CodeReschedule       Code = 22
	CodeSetCookieSecret  Code = 23
	CodeSetDomainRecords Code = 24
	CodeNote             Code = 25
	CodeReplaceKey       Code = 26
	CodeBringKey         Code = 43
	CodeCheckState       Code = 60
	CodeStartRotation    Code = 35
	CodeAdvanceRotation  Code = 36
	CodeControlRotation  Code = 37
	CodeSetReads         Code = 44
	CodeSetAuthority     Code = 50
	CodeInviteNode       Code = 51
	CodeAdmitNode        Code = 52
	CodeSettleNode       Code = 53
	CodeSetServing       Code = 61
	CodeLimitTenant      Code = 62
	CodeSetWrap          Code = 45
	CodeRewrap           Code = 46
)

// Command is one change. The set is closed: each type below implements it.
type Command interface {
	Code() Code
}

// Entry is a command with what its proposer stamped on it.
type Entry struct {
	At      int64  // proposer's clock, seconds since 1970; machine time only moves forward
	Actor   string // token id, "rotator", "dev", …
	Source  string // client address, where there is one
	Reason  string
	Once    Once // of a caller who may ask again; zero: none
	Command Command

	body []byte // Command encoded; nil: not yet
}

// SetSettings replaces the settings. ClusterID can be set once.
type SetSettings struct {
	Settings Settings `cbor:"1,keyasint"`
}

// PutPlatform adds a platform zone or changes its contact.
type PutPlatform struct {
	Apex    zone.Name `cbor:"1,keyasint"`
	Contact zone.Name `cbor:"2,keyasint"`
}

// DropPlatform removes a platform zone that nothing uses.
type DropPlatform struct {
	Apex zone.Name `cbor:"1,keyasint"`
}

// PutRecord sets (or, with no data, removes) an operator's RRset in a platform zone.
type PutRecord struct {
	Apex zone.Name  `cbor:"1,keyasint"`
	Set  zone.RRset `cbor:"2,keyasint"`
}

// PutNameServer sets a name server's addresses.
type PutNameServer struct {
	Label     string       `cbor:"1,keyasint"`
	Addresses []netip.Addr `cbor:"2,keyasint"`
}

// DropNameServer removes a name server that no delegated domain was given.
type DropNameServer struct {
	Label string `cbor:"1,keyasint"`
}

// PutPool adds a pool or replaces what it says.
type PutPool struct {
	ID   string   `cbor:"1,keyasint"`
	Spec PoolSpec `cbor:"2,keyasint"`
}

// DropPool removes a pool that no domain uses.
type DropPool struct {
	ID string `cbor:"1,keyasint"`
}

// AddTenant adds a tenant. Adding it again with the same name changes nothing.
type AddTenant struct {
	ID         string `cbor:"1,keyasint"`
	Name       string `cbor:"2,keyasint"`
	MaxDomains uint32 `cbor:"3,keyasint,omitempty"` // 0: the default
	MaxOctets  uint32 `cbor:"4,keyasint,omitempty"` // 0: the default
}

// LimitTenant sets bounds of what the tenant's own tokens may add. Nil leaves one as it
// is; 0: the default.
type LimitTenant struct {
	ID         string  `cbor:"1,keyasint"`
	MaxDomains *uint32 `cbor:"2,keyasint,omitempty"`
	MaxOctets  *uint32 `cbor:"3,keyasint,omitempty"`
}

// SuspendTenant suspends or resumes.
type SuspendTenant struct {
	ID        string `cbor:"1,keyasint"`
	Suspended bool   `cbor:"2,keyasint"`
}

// AddDomain claims a name for a tenant.
type AddDomain struct {
	Token       Token             `cbor:"1,keyasint"`
	Name        zone.Name         `cbor:"2,keyasint"`
	Mode        zone.Mode         `cbor:"3,keyasint"`
	Tenant      string            `cbor:"4,keyasint"`
	Pool        string            `cbor:"5,keyasint"`
	Labels      map[string]string `cbor:"6,keyasint"`
	SignsFor    []zone.Name       `cbor:"7,keyasint"`
	DMARC       string            `cbor:"8,keyasint"`
	Registrable zone.Name         `cbor:"9,keyasint"` // by the proposer's public suffix list
	// Suffix: the name is itself a public suffix; refused without Override.
	Suffix   bool `cbor:"10,keyasint"`
	Override bool `cbor:"11,keyasint"` // admin: allow the registrable domain itself
	// Bound are existing owner names of platform zones to use as targets instead
	// of generated ones (CNAME mode, admin); empty fields are generated.
	Bound BoundTargets `cbor:"12,keyasint"`
	// Active has one key an algorithm; Standby at most one an algorithm.
	Active  []keys.Material `cbor:"13,keyasint"`
	Standby []keys.Material `cbor:"14,keyasint"`
}

// BoundTargets are owner names chosen by an admin. Keys has three names an
// algorithm, in slot order, or none.
type BoundTargets struct {
	Keys   []zone.Name `cbor:"1,keyasint"`
	Bounce zone.Name   `cbor:"2,keyasint"`
	Click  zone.Name   `cbor:"3,keyasint"`
	DMARC  zone.Name   `cbor:"4,keyasint"`
}

// PatchDomain changes what is not nil.
type PatchDomain struct {
	Token    Token              `cbor:"1,keyasint"`
	Pool     *string            `cbor:"2,keyasint"`
	Labels   *map[string]string `cbor:"3,keyasint"`
	DMARC    *string            `cbor:"4,keyasint"`
	SignsFor *[]zone.Name       `cbor:"5,keyasint"`
	// Serial, where not 0, is the domain serial that the caller saw (If-Match).
	Serial uint32 `cbor:"6,keyasint"`
}

// ProveDomain makes a pending claim the owner of its subtree. Seen are the
// tokens found in the parent's NS set; it must hold this claim's token alone of
// all live claims to the name. Where another claim owned the name, ownership
// moves. With Attested (admin) the parent was not asked. In mode cname Seen are the
// claims to whose keys the customer's CNAMEs lead, and Gone others that were proven so
// and to whose keys none leads any more.
type ProveDomain struct {
	Token    Token    `cbor:"1,keyasint"`
	Seen     []Token  `cbor:"2,keyasint"`
	Servers  []string `cbor:"3,keyasint"` // who was asked, for the audit
	Attested bool     `cbor:"4,keyasint"`
	Gone     []Token  `cbor:"5,keyasint"`
}

// LeaveDomain starts a claim's end; with Now (admin, reason) it ends at once.
type LeaveDomain struct {
	Token Token `cbor:"1,keyasint"`
	Now   bool  `cbor:"2,keyasint"`
}

// RestoreDomain revives a leaving claim. Active has a fresh key for each
// algorithm whose active key left the ring meanwhile.
type RestoreDomain struct {
	Token  Token           `cbor:"1,keyasint"`
	Active []keys.Material `cbor:"2,keyasint"`
}

// ExpireDomain ends a pending or leaving claim whose time has come.
type ExpireDomain struct {
	Token Token `cbor:"1,keyasint"`
}

// PutDomainRecord sets (or, with no data, removes) an extra RRset of a delegated
// domain. Admin says that NS and DNAME are allowed.
type PutDomainRecord struct {
	Token Token      `cbor:"1,keyasint"`
	Set   zone.RRset `cbor:"2,keyasint"`
	Admin bool       `cbor:"3,keyasint"`
}

// SetDomainRecords sets the extra RRsets of a delegated domain: all of them, or
// with Replace unset those of the same owners and types. All or none. Sets are in
// canonical order of owners, then types. Admin says that NS and DNAME may be
// added, changed and removed.
type SetDomainRecords struct {
	Token   Token        `cbor:"1,keyasint"`
	Sets    []zone.RRset `cbor:"2,keyasint"`
	Replace bool         `cbor:"3,keyasint"`
	Admin   bool         `cbor:"4,keyasint"`
}

// StepKey takes one step of a domain's ring.
type StepKey struct {
	Token    Token          `cbor:"1,keyasint"`
	Step     keys.Step      `cbor:"2,keyasint"`
	Material *keys.Material `cbor:"3,keyasint"`
	// From, where not empty, is the active selector that the caller saw: the
	// step is done already when another is active.
	From string `cbor:"4,keyasint"`
	// Manual: a person asked, so the due time does not matter; ready time does.
	Manual bool `cbor:"5,keyasint"`
}

// RevokeKey answers a key with an empty p= at once. The active key is revoked
// only where another of its algorithm can sign, unless Force.
type RevokeKey struct {
	Token    Token  `cbor:"1,keyasint"`
	Selector string `cbor:"2,keyasint"`
	Force    bool   `cbor:"3,keyasint"`
}

// ReplaceKey is an emergency: the standby signs at once where it is ready, and by
// itself when it is. Refused only to a domain that leaves, and for a key that
// never signed.
type ReplaceKey struct {
	Token     Token          `cbor:"1,keyasint"`
	Algorithm keys.Algorithm `cbor:"2,keyasint"`
	// From, where not empty, is the active selector that the caller saw: where
	// another is active by now there is no second rotation.
	From string    `cbor:"3,keyasint"`
	Old  keys.Fate `cbor:"4,keyasint"`
	// Store: the sealed store leaked, so the standby is burned too and the next key
	// is made anew. Asked again for the same active key it burns nothing more.
	Store bool `cbor:"5,keyasint"`
}

// BringKey puts a key that the operator brought into a domain's ring; see
// keys.Ring.Bring.
type BringKey struct {
	Token    Token         `cbor:"1,keyasint"`
	Material keys.Material `cbor:"2,keyasint"`
}

// StartRotation begins a rotation of many domains.
type StartRotation struct {
	ID           Token `cbor:"1,keyasint"`
	RotationSpec `cbor:"2,keyasint"`
}

// AdvanceRotation rotates the next domains of a rotation; propose it while
// Machine.RotationsDue names it.
type AdvanceRotation struct {
	ID Token `cbor:"1,keyasint"`
}

// ControlRotation pauses a rotation, lets it go on, ends it, or takes it back.
type ControlRotation struct {
	ID   Token `cbor:"1,keyasint"`
	Verb uint8 `cbor:"2,keyasint"` // RotationPause and the others
}

// SetWrap chooses the version of the key-encryption key that private halves are
// sealed under; the leader then seals those under others anew, by Rewrap.
type SetWrap struct {
	Version uint16 `cbor:"1,keyasint"`
}

// Rewrap replaces private halves by the same under the chosen version.
type Rewrap struct {
	Halves []SealedHalf `cbor:"1,keyasint"`
}

// SealedHalf is a private half sealed anew. It takes the place of the one that
// begins with Old: a version and a nonce, which no other has. The zero token stands
// for the cluster's CA.
type SealedHalf struct {
	Token  Token  `cbor:"1,keyasint"`
	Key    uint32 `cbor:"2,keyasint"`
	Old    []byte `cbor:"3,keyasint"`
	Sealed []byte `cbor:"4,keyasint"`
}

// SetReads keeps where a node's journal of key reads ends, so that what was cut
// off it shows. It leaves no audit entry: the journal is one.
type SetReads struct {
	Node    string    `cbor:"1,keyasint"`
	Seq     uint64    `cbor:"2,keyasint"`
	Head    AuditHash `cbor:"3,keyasint"`
	Repeats uint64    `cbor:"4,keyasint"`
}

// AddAccessToken adds an API credential.
type AddAccessToken struct {
	Access AccessToken `cbor:"1,keyasint"`
}

// DropAccessToken revokes an API credential.
type DropAccessToken struct {
	ID string `cbor:"1,keyasint"`
}

// Reschedule computes when keys are due again for the next domains of pools
// whose policy changed; propose it while Machine.Rescheduling.
type Reschedule struct{}

// Note puts into the audit log what an operator changed outside the machine: the
// members of the cluster, its leader, its whole state by a backup. It changes
// nothing else.
type Note struct {
	Kind    string `cbor:"1,keyasint"` // "node", "cluster"
	Subject string `cbor:"2,keyasint"`
	Text    string `cbor:"3,keyasint"`
}

// CheckState changes nothing. Its index is a place at which all nodes compare
// their machines, as they are after the log entry that it is in.
type CheckState struct{}

// SetCookieSecret gives the name servers a new secret for DNS cookies (RFC 9018).
// The one before stays good for the cookies made with it. It is random, and in
// the log as it is: it guards rate limits, not data.
type SetCookieSecret struct {
	Secret zone.CookieSecret `cbor:"1,keyasint"`
}

// SetAuthority sets the CA that issues certificates of nodes, or its key sealed
// anew.
type SetAuthority struct {
	Authority Authority `cbor:"1,keyasint"`
}

// InviteNode lets a node join once with a token.
type InviteNode struct {
	Invitation Invitation `cbor:"1,keyasint"`
}

// AdmitNode uses an invitation up; the node that proposes it issues the
// certificate. Of two that show one token, one is admitted.
type AdmitNode struct {
	ID   string   `cbor:"1,keyasint"`
	Hash [32]byte `cbor:"2,keyasint"`
}

// SettleNode forgets an invitation.
type SettleNode struct {
	ID string `cbor:"1,keyasint"`
}

// SetServing takes a node out of the serving set, by an operator's statement that
// nobody asks it for answers, or back in.
type SetServing struct {
	Node      string `cbor:"1,keyasint"`
	Serving   bool   `cbor:"2,keyasint"`
	Statement string `cbor:"3,keyasint"`
}

func (SetServing) Code() Code       { return CodeSetServing }
func (SetAuthority) Code() Code     { return CodeSetAuthority }
func (InviteNode) Code() Code       { return CodeInviteNode }
func (AdmitNode) Code() Code        { return CodeAdmitNode }
func (SettleNode) Code() Code       { return CodeSettleNode }
func (SetSettings) Code() Code      { return CodeSetSettings }
func (PutPlatform) Code() Code      { return CodePutPlatform }
func (PutRecord) Code() Code        { return CodePutRecord }
func (PutNameServer) Code() Code    { return CodePutNameServer }
func (PutPool) Code() Code          { return CodePutPool }
func (AddTenant) Code() Code        { return CodeAddTenant }
func (SuspendTenant) Code() Code    { return CodeSuspendTenant }
func (LimitTenant) Code() Code      { return CodeLimitTenant }
func (AddDomain) Code() Code        { return CodeAddDomain }
func (PatchDomain) Code() Code      { return CodePatchDomain }
func (ProveDomain) Code() Code      { return CodeProveDomain }
func (LeaveDomain) Code() Code      { return CodeLeaveDomain }
func (RestoreDomain) Code() Code    { return CodeRestoreDomain }
func (ExpireDomain) Code() Code     { return CodeExpireDomain }
func (PutDomainRecord) Code() Code  { return CodePutDomainRecord }
func (StepKey) Code() Code          { return CodeStepKey }
func (RevokeKey) Code() Code        { return CodeRevokeKey }
func (ReplaceKey) Code() Code       { return CodeReplaceKey }
func (BringKey) Code() Code         { return CodeBringKey }
func (StartRotation) Code() Code    { return CodeStartRotation }
func (AdvanceRotation) Code() Code  { return CodeAdvanceRotation }
func (ControlRotation) Code() Code  { return CodeControlRotation }
func (SetWrap) Code() Code          { return CodeSetWrap }
func (Rewrap) Code() Code           { return CodeRewrap }
func (SetReads) Code() Code         { return CodeSetReads }
func (AddAccessToken) Code() Code   { return CodeAddAccessToken }
func (DropAccessToken) Code() Code  { return CodeDropAccessToken }
func (DropPlatform) Code() Code     { return CodeDropPlatform }
func (DropPool) Code() Code         { return CodeDropPool }
func (DropNameServer) Code() Code   { return CodeDropNameServer }
func (Reschedule) Code() Code       { return CodeReschedule }
func (SetCookieSecret) Code() Code  { return CodeSetCookieSecret }
func (CheckState) Code() Code       { return CodeCheckState }
func (SetDomainRecords) Code() Code { return CodeSetDomainRecords }
func (Note) Code() Code             { return CodeNote }
