package state

import (
	"fmt"

	"authd/keys"
)

// Apply gives the machine after the entries of one log entry, with a result
// each, and what changed. It depends on nothing but its arguments. An entry
// that cannot be applied at all (a defect or a divergence) panics.
func (m Machine) Apply(index uint64, entries []Entry) (Machine, []Result, Delta) {
	a := m.Applier()
	results := a.Apply(index, entries)
	next, delta := a.Machine()
	return next, results, delta
}

// Applier applies several log entries one after the other, as Apply would, and
// makes one machine of them: they share the paths of the tables that they copy.
type Applier struct{ w *writer }

// Applier begins after a machine, which stays as it is.
func (m Machine) Applier() *Applier {
	return &Applier{&writer{tables: m.tables().fork()}}
}

// Apply applies the entries of one log entry.
func (a *Applier) Apply(index uint64, entries []Entry) []Result {
	w := a.w
	w.index, w.rotated = index, 0
	results := make([]Result, len(entries))
	for i, e := range entries {
		results[i] = w.apply(e)
	}
	return results
}

// Machine ends the applier: it gives the machine after all entries, and what they
// changed together.
func (a *Applier) Machine() (Machine, Delta) {
	w := a.w
	a.w = nil
	return Machine{t: w.tables}, w.delta
}

// Index is that of the last entry.
func (a *Applier) Index() uint64 { return a.w.index }

// Checks says whether nodes compare their machines after the last entry.
func (a *Applier) Checks() bool { return a.w.delta.check }

// writer is a fork of the machine's tables while one batch is applied. Each
// method named for a command checks everything first and then writes, so that a
// refused command leaves no trace.
type writer struct {
	*tables
	delta Delta
	entry Entry
	about about // the command applied now, for its audit entry
	// rotated is how many domains of rotations this log entry has dealt with.
	rotated int
	imaged  *imageAudit // of an image that is read
}

// done and same are the results of commands that concern no claim.
var (
	done = Result{Changed: true}
	same = Result{}
)

func refused(r *Refusal) Result { return Result{Refusal: r} }

// apply decides one command, unless the same request was done already, and keeps what
// came of it: the audit entry of a change, and the result for a repeated request.
func (w *writer) apply(e Entry) Result {
	if e.At > w.time {
		w.time = e.At
	}
	if first, ok := w.once(e.Once); ok {
		return first
	}
	w.entry, w.about = e, about{}
	result := w.decide(e.Command)
	if result.Refusal != nil {
		return result
	}
	w.remember(e.Once, result)
	if result.Changed && !w.about.told {
		w.record(e, result)
	}
	return result
}

// decide branches by command; the work is in apply_*.go, by theme.
func (w *writer) decide(c Command) Result {
	switch c := c.(type) {
	case SetSettings:
		return w.setSettings(c)
	case PutPlatform:
		return w.putPlatform(c)
	case DropPlatform:
		return w.dropPlatform(c)
	case PutRecord:
		return w.putRecord(c)
	case PutNameServer:
		return w.putNameServer(c)
	case DropNameServer:
		return w.dropNameServer(c)
	case PutPool:
		return w.putPool(c)
	case DropPool:
		return w.dropPool(c)
	case AddTenant:
		return w.addTenant(c)
	case SuspendTenant:
		return w.suspendTenant(c)
	case LimitTenant:
		return w.limitTenant(c)
	case AddDomain:
		return w.addDomain(c)
	case PatchDomain:
		return w.patchDomain(c)
	case ProveDomain:
		return w.proveDomain(c)
	case LeaveDomain:
		return w.leaveDomain(c)
	case RestoreDomain:
		return w.restoreDomain(c)
	case ExpireDomain:
		return w.expireDomain(c)
	case PutDomainRecord:
		return w.putDomainRecord(c)
	case StepKey:
		return w.stepKey(c)
	case RevokeKey:
		return w.revokeKey(c)
	case ReplaceKey:
		return w.replaceKey(c)
	case SetWrap:
		return w.setWrap(c)
	case Rewrap:
		return w.rewrap(c)
	case SetReads:
		return w.setReads(c)
	case BringKey:
		return w.bringKey(c)
	case StartRotation:
		return w.startRotation(c)
	case AdvanceRotation:
		return w.advanceRotation(c)
	case ControlRotation:
		return w.controlRotation(c)
	case AddAccessToken:
		return w.addAccessToken(c)
	case DropAccessToken:
		return w.dropAccessToken(c)
	case Reschedule:
		return w.reschedule()
	case Note:
		return w.note(c)
	case SetDomainRecords:
		return w.setDomainRecords(c)
	case SetCookieSecret:
		return w.setCookieSecret(c)
	case CheckState:
		w.delta.check = true
		return same
	case SetAuthority:
		return w.setAuthority(c)
	case InviteNode:
		return w.inviteNode(c)
	case AdmitNode:
		return w.admitNode(c)
	case SettleNode:
		return w.settleNode(c)
	case SetServing:
		return w.setServing(c)
	}
	panic(fmt.Sprintf("log index %d holds a command of type %T that this release cannot apply: upgrade this node", w.index, c))
}

// put stores a claim whose branch is made, and when the rotator has to look at
// it. old is the claim as it was, nil for a new one; ring is its keys.
func (w *writer) put(old, d *Domain, ring keys.Ring) {
	d.DueAt = w.dueAt(d, ring)
	w.store(old, d)
}

// store is put where the keys stay as they are, and with them DueAt.
func (w *writer) store(old, d *Domain) {
	w.sawDomain(d)
	r := recordOf(d)
	w.countTenant(d.Tenant, 0, r.unusual()-w.setDomain(r).unusual())
	if old == nil || old.wakeAt() != d.wakeAt() {
		if old != nil && old.wakeAt() != 0 {
			w.due.Delete(dueKey(old.wakeAt(), d.Token))
		}
		if at := d.wakeAt(); at != 0 {
			w.due.Set(dueKey(at, d.Token), struct{}{})
		}
	}
	if was, is := old.waitsUntil(), d.waitsUntil(); was != is {
		w.waits(d.Token, was, is)
	}
	if old == nil || old.Branch != d.Branch {
		w.delta.domain(d.Token)
	}
}

// wakeAt is when the rotator has to look at a claim: the earlier of its ring's
// next step and its own end; 0: never.
func (d *Domain) wakeAt() int64 {
	if d.GoneAt != 0 && (d.DueAt == 0 || d.GoneAt < d.DueAt) {
		return d.GoneAt
	}
	return d.DueAt
}

// touched advances a claim's own counter, for a visible change. Those of the
// platform zones with names of it keepBranch advances, once nothing is refused any more.
func touched(d *Domain) { d.Serial++ }

// bumpPlatforms advances the counters of the platform zones that hold names of a
// claim.
func (w *writer) bumpPlatforms(d *Domain) {
	for _, number := range d.platformNumbers() {
		w.bumpPlatform(number)
	}
}

// bumpPlatform advances one platform zone's counter.
func (w *writer) bumpPlatform(number uint32) {
	p, ok := w.platforms.Get(number)
	if !ok {
		panic(fmt.Sprintf("log index %d: a claim's platform zone %d is not there: stop this node and restore it from a snapshot", w.index, number))
	}
	next := *p
	next.Serial++
	w.platforms.Set(number, &next)
	w.delta.serial(number)
}

// platformNumbers lists the platform zones that hold names of a claim, each once.
func (d *Domain) platformNumbers() (numbers []uint32) {
	add := func(number uint32) {
		if number == 0 {
			return
		}
		for _, have := range numbers {
			if have == number {
				return
			}
		}
		numbers = append(numbers, number)
	}
	for _, s := range d.Servers {
		add(s.Platform)
	}
	for _, t := range d.Targets.Keys {
		add(t.Platform)
	}
	add(d.Targets.Bounce.Platform)
	add(d.Targets.Click.Platform)
	add(d.Targets.DMARC.Platform)
	for _, t := range d.Reports {
		add(t.Platform)
	}
	return numbers
}

// firstSerial is where a counter begins: at the time, so that an object that
// comes after another of the same name begins past where that one ended.
func (w *writer) firstSerial() uint32 { return uint32(w.time) }
