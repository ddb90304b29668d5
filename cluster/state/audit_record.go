package state

import (
	"fmt"
	"strings"
	"time"

	"authd/keys"
	"authd/zone"
)

// Bounds of one entry: it is small, so that the window is.
const (
	maxAuditSummary = 200 // octets
	maxAuditList    = 4   // elements of a list that a summary names
)

// about collects, while a command is applied, what its audit entry will say.
type about struct {
	domains []*Domain // that it stored or removed
	key     string    // selector
	step    string
	tenant  string // of an access token that is gone
	told    bool   // it made its own entries, or needs none
}

// sawDomain notes a claim that was stored or removed. Commands that touch many
// concern none of them.
func (w *writer) sawDomain(d *Domain) {
	if len(w.about.domains) < maxAuditList {
		w.about.domains = append(w.about.domains, d)
	}
}

// sawStep notes which key of a ring a step was for; before is the ring without it.
func (w *writer) sawStep(d *Domain, before, after keys.Ring, step keys.Step) {
	w.about.step = step.Kind.String()
	k, ok := before.ByID(step.Key)
	if step.Kind == keys.StepPublish {
		k, ok = after.Standby(step.Algorithm)
	}
	if ok {
		w.about.key = d.Selector(k)
	}
	if now, _ := after.ByID(step.Key); step.Kind == keys.StepRevoke && now.Stage == keys.Draining {
		w.about.step = "revoke put off until " + time.Unix(now.HeldUntil, 0).UTC().Format(time.RFC3339) + ": still in use"
	}
}

// record adds the entry of a command that changed something.
func (w *writer) record(e Entry, r Result) {
	a := AuditEntry{
		Seq: w.audit.seq + 1, Index: w.index, At: time.Unix(w.time, 0).UTC(),
		Actor: plain(e.Actor, maxActor), Source: plain(e.Source, maxSource), Reason: plain(e.Reason, maxReason),
		Command: strings.TrimPrefix(fmt.Sprintf("%T", e.Command), "state."), Key: w.about.key,
	}
	if r.Token != (Token{}) {
		a.Kind, a.Subject = "domain", r.Token.String()
		for _, d := range w.about.domains {
			if d.Token == r.Token {
				a.Name, a.Tenant = d.Name.Host(), d.Tenant
			}
		}
	}
	w.describe(&a, e.Command)
	a.Summary = plain(a.Summary, maxAuditSummary)
	w.audit.push(a.canonical())
}

// note makes the entry of a Note: a change that happened outside the machine.
func (w *writer) note(c Note) Result {
	for _, text := range []string{c.Kind, c.Subject, c.Text} {
		if r := checkTitle("note", text); r != nil {
			return refused(r)
		}
	}
	return done
}

// plain bounds a text and makes it one that JSON carries unchanged.
func plain(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "?")
}

// describe says what a command was done to and what it said. Secrets, sealed
// halves and hashes of tokens are never part of it.
func (w *writer) describe(a *AuditEntry, c Command) {
	on := func(kind, subject, format string, args ...any) {
		a.Kind, a.Subject, a.Summary = kind, plain(subject, maxAuditSummary), fmt.Sprintf(format, args...)
	}
	switch c := c.(type) {
	case SetSettings:
		on("cluster", c.Settings.ClusterID, "verification off: %t", c.Settings.VerificationOff)
	case PutPlatform:
		on("zone", c.Apex.Host(), "contact %s", c.Contact.Host())
	case DropPlatform:
		on("zone", c.Apex.Host(), "removed")
	case PutRecord:
		on("zone", c.Apex.Host(), "%s", describeSet(c.Set))
	case PutNameServer:
		on("nameserver", c.Label, "addresses %s", listOf(c.Addresses))
	case DropNameServer:
		on("nameserver", c.Label, "removed")
	case PutPool:
		on("pool", c.ID, "%s", describePool(c.Spec))
	case DropPool:
		on("pool", c.ID, "removed")
	case AddTenant:
		text := "added as " + quote(c.Name)
		if c.MaxDomains != 0 || c.MaxOctets != 0 {
			text += ", " + describeBounds(Tenant{MaxDomains: c.MaxDomains, MaxOctets: c.MaxOctets})
		}
		on("tenant", c.ID, "%s", text)
		a.Tenant = c.ID
	case SuspendTenant:
		on("tenant", c.ID, "%s", either(c.Suspended, "suspended", "resumed"))
		a.Tenant = c.ID
	case LimitTenant:
		of, _ := w.tenants.Get(c.ID)
		on("tenant", c.ID, "%s", describeBounds(*of))
		a.Tenant = c.ID
	case StartRotation:
		on("rotation", c.ID.String(), "%s", describeRotation(c))
		a.Tenant = w.tenantOfRotation(c.ID)
	case ControlRotation:
		on("rotation", c.ID.String(), "%s", rotationVerb(c.Verb))
		a.Tenant = w.tenantOfRotation(c.ID)
	case AddAccessToken:
		on("token", c.Access.ID, "scope %s, note %s", c.Access.Scope, quote(c.Access.Note))
		a.Tenant = c.Access.Scope.tenant()
	case DropAccessToken:
		on("token", c.ID, "revoked")
		a.Tenant = w.about.tenant
	case Reschedule:
		on("cluster", w.settings.ClusterID, "due times follow changed policies")
	case Note:
		on(c.Kind, c.Subject, "%s", c.Text)
	case SetWrap:
		on("cluster", w.settings.ClusterID, "private halves are sealed under key-encryption key version %d", c.Version)
	case SetCookieSecret:
		on("cluster", w.settings.ClusterID, "a new secret of DNS cookies")
	case SetAuthority:
		on("cluster", w.settings.ClusterID, "certificates of nodes: the CA, or how its key is sealed")
	case InviteNode:
		on("node", c.Invitation.ID, "invited at %s%s", quote(c.Invitation.Address), either(c.Invitation.Voter, " as a voter", ""))
	case AdmitNode:
		on("node", c.ID, "its join token was used")
	case SettleNode:
		on("node", c.ID, "its invitation ended")
	case SetServing:
		on("node", c.Node, "%s", either(c.Serving, "in the serving set again", "out of the serving set: "+quote(c.Statement)))
	default:
		a.Summary = w.describeClaim(c)
	}
}

// describeClaim is describe for commands to a claim.
func (w *writer) describeClaim(c Command) string {
	switch c := c.(type) {
	case AddDomain:
		return fmt.Sprintf("%s, pool %s, %d keys", either(c.Mode == zone.CNAME, "cname", "delegated"), c.Pool, len(c.Active)+len(c.Standby))
	case PatchDomain:
		return describePatch(c)
	case ProveDomain:
		if c.Attested {
			return "attested"
		}
		if len(c.Gone) > 0 {
			return "proven by " + listOf(c.Servers) + ", and no longer " + tokenList(c.Gone)
		}
		return "proven by " + listOf(c.Servers)
	case LeaveDomain:
		return either(c.Now, "ended at once", "leaving")
	case RestoreDomain:
		return "restored"
	case ExpireDomain:
		return "ended"
	case PutDomainRecord:
		return describeSet(c.Set)
	case SetDomainRecords:
		return fmt.Sprintf("%s %d record sets", either(c.Replace, "replaced all records by", "set"), len(c.Sets))
	case StepKey:
		return w.about.step + either(c.Manual, " by hand", "")
	case ReplaceKey:
		return "emergency" + either(c.Store, ", sealed store leaked", "") + ", old key: " + c.Old.String() + w.about.step
	case BringKey:
		return fmt.Sprintf("brought a key of %s%s", c.Material.Algorithm, either(c.Material.PublicOnly, ", its public half alone", ""))
	case RevokeKey:
		return "revoke by hand" + either(c.Force, ", forced", "")
	}
	return ""
}

func describeRotation(c StartRotation) string {
	scope := fmt.Sprintf("%d domains", len(c.Scope.Tokens))
	switch {
	case c.Scope.Tenant != "":
		scope = "tenant " + c.Scope.Tenant
	case c.Scope.Pool != "":
		scope = "pool " + c.Scope.Pool
	case c.Scope.All:
		scope = "all domains"
	}
	kind := either(c.Emergency, "emergency of ", "rotation of ")
	if c.Drill {
		kind = "drill of "
	}
	return kind + scope + either(c.Store, ", sealed store leaked", "") + ", old keys: " + c.Old.String()
}

func describeBounds(of Tenant) string {
	return fmt.Sprintf("by its own tokens at most %d domains and %d octets past %d each", of.DomainLimit(), of.OctetLimit(), usualDomain)
}

func (w *writer) tenantOfRotation(id Token) string {
	if r, ok := w.rotation(id); ok {
		return r.Tenant
	}
	return ""
}

func rotationVerb(verb uint8) string {
	switch verb {
	case RotationPause:
		return "paused"
	case RotationResume:
		return "resumed"
	case RotationAbort:
		return "aborted"
	}
	return "rolled back"
}

func describeSet(s zone.RRset) string {
	if len(s.Data) == 0 {
		return fmt.Sprintf("removed %s %s", s.Owner.Host(), s.Type)
	}
	return fmt.Sprintf("set %s %s, %d values, TTL %d", s.Owner.Host(), s.Type, len(s.Data), s.TTL)
}

func describePool(s PoolSpec) string {
	return fmt.Sprintf("spf %s %s, %d mx, period %s, algorithms %s, dmarc %s",
		listOf(s.SPF), s.SPFAll, len(s.MX), s.Policy.Period, listOf(s.Policy.Algorithms), quote(s.DMARC))
}

func describePatch(c PatchDomain) string {
	var said []string
	if c.Pool != nil {
		said = append(said, "pool "+*c.Pool)
	}
	if c.DMARC != nil {
		said = append(said, "dmarc "+quote(*c.DMARC))
	}
	if c.Labels != nil {
		said = append(said, fmt.Sprintf("%d labels", len(*c.Labels)))
	}
	if c.SignsFor != nil {
		said = append(said, fmt.Sprintf("signs for %d names", len(*c.SignsFor)))
	}
	return strings.Join(said, ", ")
}

// listOf names the first elements of a list.
func listOf[T any](list []T) string {
	var said []string
	for _, v := range list[:min(len(list), maxAuditList)] {
		said = append(said, fmt.Sprint(v))
	}
	if more := len(list) - len(said); more > 0 {
		said = append(said, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(said, " ")
}

func either(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}
