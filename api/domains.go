package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster"
	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

type (
	DomainPath struct {
		Domain string `path:"domain" maxLength:"1024" example:"send.customer.example" doc:"The domain, or the token of the claim."`
	}
	domainReply struct {
		ETag string `header:"ETag" doc:"The domain's serial, for If-Match."`
		Body Domain
	}
	leaveReply struct {
		Status int
		Body   *Domain
	}
	claimReply struct {
		Created
		ETag string `header:"ETag"`
		Body Domain
	}
)

func (h *Handler) registerDomains() {
	tags := []string{"Domains"}
	op := func(id, method, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Tags: tags, Summary: summary}
	}
	create := op("add-domain", http.MethodPost, "/v1/tenants/{tenant}/domains", "Claim a domain for a tenant")
	create.DefaultStatus = http.StatusCreated
	add(h, create, tenant, h.addDomain)
	add(h, op("list-domains", http.MethodGet, "/v1/domains", "List domains, in order of token"), reader|tenant, h.listDomains)
	add(h, op("show-domain", http.MethodGet, "/v1/domains/{domain}", "Show a domain: state, keys, and the records that the customer must add"),
		reader|tenant, func(ctx context.Context, in *DomainPath) (*domainReply, error) {
			req := from(ctx)
			d, err := req.domain(in.Domain)
			if err != nil {
				return nil, err
			}
			out := replyWith(req.machine, d)
			h.waiting(ctx, d, out.Body.Keys)
			out.Body.ProofCheck = h.proofCheck(ctx, d)
			return out, nil
		})
	add(h, op("domain-served", http.MethodGet, "/v1/domains/{domain}/served", "What DNS answers for a domain"),
		reader|tenant, func(ctx context.Context, in *DomainPath) (*servedReply, error) {
			req := from(ctx)
			d, err := req.domain(in.Domain)
			if err != nil {
				return nil, err
			}
			return &servedReply{ServedList{viewServed(req.machine.Served(d))}}, nil
		})
	add(h, op("patch-domain", http.MethodPatch, "/v1/domains/{domain}", "Change a domain's pool, labels, policy or further From: domains"),
		tenant|conditional, h.patchDomain)
	add(h, op("leave-domain", http.MethodDelete, "/v1/domains/{domain}", "Let a domain leave: it stops signing now, and is gone after 14 days"), tenant, h.leaveDomain)
	add(h, op("restore-domain", http.MethodPost, "/v1/domains/{domain}/restore", "Take a leaving domain back, with the same token"), tenant, h.restoreDomain)
	add(h, op("attest-domain", http.MethodPost, "/v1/domains/{domain}/attest", "Count a delegated domain as proven, on an admin's word"), adminOnly, h.attestDomain)
	add(h, op("verify-domain", http.MethodPost, "/v1/domains/{domain}/verify", "Ask the customer's own servers now for the records that they must add"), tenant, h.verifyDomain)
}

// domain finds a claim by its token or name. Claims of others do not exist for
// a tenant; a name with several claims needs a token.
func (r *request) domain(text string) (*state.Domain, error) {
	return findDomain(r.machine, r.who, text)
}

func findDomain(m state.Machine, who identity, text string) (*state.Domain, error) {
	if t, err := state.ParseToken(text); err == nil {
		if d, ok := m.Domain(t); ok && who.sees(d.Tenant) {
			return d, nil
		}
		return nil, notFound("domain", "there is no domain with the token %s", t)
	}
	n, err := host("domain", text)
	if err != nil {
		return nil, err
	}
	var claims []*state.Domain
	for _, d := range m.Claims(n) {
		if who.sees(d.Tenant) {
			claims = append(claims, d)
		}
	}
	switch len(claims) {
	case 0:
		return nil, notFound("domain", "there is no domain %q", n.Host())
	case 1:
		return claims[0], nil
	}
	p := problem(http.StatusConflict, codeAmbiguous, "domain",
		"%s has %d claims; use the token of the one you mean", n.Host(), len(claims))
	for _, d := range claims {
		p.Conflicts = append(p.Conflicts, d.Token.String())
	}
	return nil, p
}

// domainAfter is a claim after a write that ended so.
func (h *Handler) domainAfter(t state.Token, err error) (*domainReply, error) {
	if err != nil {
		return nil, err
	}
	m := h.replica.Machine()
	d, ok := m.Domain(t)
	if !ok {
		return nil, droppedSince(t)
	}
	return replyWith(m, d), nil
}

// droppedSince answers a write that was committed to a claim that was removed
// before the reply was put together.
func droppedSince(t state.Token) error {
	return problem(http.StatusGone, codeGone, "domain",
		"this request was carried out, and the domain with the token %s was removed by another one since; nothing is left to show or to do again: authd audit has both", t)
}

func replyWith(m state.Machine, d *state.Domain) *domainReply {
	return &domainReply{ETag: etag(d.Serial), Body: viewDomain(m, d)}
}

func etag(serial uint32) string { return `"` + strconv.FormatUint(uint64(serial), 10) + `"` }

func (h *Handler) addDomain(ctx context.Context, in *struct {
	TenantPath
	Wait
	Reason
	Body NewDomain
}) (*claimReply, error) {
	req := from(ctx)
	_, ok := req.machine.Tenant(in.Tenant)
	if !ok || !req.who.sees(in.Tenant) {
		return nil, noTenant(in.Tenant)
	}
	if first, done, err := h.again(ctx, in.Wait); done {
		return h.claimed(first.Token, err)
	}
	claim, err := readClaim(req.machine, in.Tenant, in.Body, req.who.admin())
	if err != nil {
		return nil, err
	}
	if req.who.tenant != "" {
		if r := req.machine.RoomFor(in.Tenant); r != nil { // before keys are made for nothing
			return nil, refused(r)
		}
	}
	bounded, cancel := context.WithTimeout(ctx, keyTime)
	defer cancel()
	command, err := h.keyed(bounded, claim)
	if err != nil {
		return nil, err
	}
	result, err := h.write(ctx, in.Wait, in.Reason.Reason, command)
	return h.claimed(result.Token, err) // the same request at the same moment may have been first
}

// claimed is the reply to a claim.
func (h *Handler) claimed(t state.Token, err error) (*claimReply, error) {
	d, err := h.domainAfter(t, err)
	if err != nil {
		return nil, err
	}
	return &claimReply{Created{"/v1/domains/" + d.Body.Token}, d.ETag, d.Body}, nil
}

func (h *Handler) listDomains(ctx context.Context, in *struct {
	Page
	Tenant string `query:"tenant" maxLength:"63"`
	Pool   string `query:"pool" maxLength:"63"`
	State  string `query:"state" enum:"pending,live,leaving"`
}) (*struct{ Body DomainList }, error) {
	req := from(ctx)
	after, err := in.after()
	if err != nil {
		return nil, err
	}
	var start state.Token
	if after != "" {
		if start, err = state.ParseToken(after); err != nil {
			return nil, invalid("cursor", "cursor %q is not one of this list", bounded(in.Cursor))
		}
	}
	out := DomainList{Items: []Domain{}}
	var last state.Token
	walked := 0
	for d := range req.machine.Domains(start) {
		if after != "" && d.Token == start {
			continue
		}
		if len(out.Items) == in.Limit || walked == maxWalk {
			out.Next = cursorAfter(last.String())
			break
		}
		last, walked = d.Token, walked+1
		if !req.who.sees(d.Tenant) || in.Tenant != "" && in.Tenant != d.Tenant ||
			in.Pool != "" && in.Pool != d.Pool || in.State != "" && in.State != stateName(d.State) {
			continue
		}
		out.Items = append(out.Items, viewDomain(req.machine, d))
	}
	return &struct{ Body DomainList }{out}, nil
}

func (h *Handler) patchDomain(ctx context.Context, in *struct {
	DomainPath
	Wait
	Reason
	IfMatch string `header:"If-Match" maxLength:"64" doc:"ETag of the domain as the caller saw it."`
	Body    DomainPatch
}) (*domainReply, error) {
	d, err := from(ctx).domain(in.Domain)
	if err != nil {
		return nil, err
	}
	command := state.PatchDomain{Token: d.Token, Pool: in.Body.Pool, Labels: in.Body.Labels, DMARC: in.Body.DMARC}
	if in.Body.SignsFor != nil {
		names, err := hosts("signs_for", *in.Body.SignsFor)
		if err != nil {
			return nil, err
		}
		command.SignsFor = &names
	}
	if command.Serial, err = readETag(in.IfMatch); err != nil {
		return nil, err
	}
	_, err = h.write(ctx, in.Wait, in.Reason.Reason, command)
	return h.domainAfter(d.Token, err)
}

// readETag is the serial of an If-Match; 0 where any will do. Weak tags never
// match (RFC 9110 section 13.1.1).
func readETag(text string) (uint32, error) {
	if text == "" || text == "*" {
		return 0, nil
	}
	serial, err := strconv.ParseUint(strings.Trim(text, `"`), 10, 32)
	if err != nil || text != etag(uint32(serial)) {
		return 0, problem(http.StatusPreconditionFailed, codeStale, "If-Match",
			"%s is no ETag of this domain; send the one that GET gave", bounded(text))
	}
	return uint32(serial), nil
}

func (h *Handler) leaveDomain(ctx context.Context, in *struct {
	DomainPath
	Wait
	Reason
	Now bool `query:"now" doc:"Gone at once, without the 14 days. Needs scope admin and a reason."`
}) (*leaveReply, error) {
	req := from(ctx)
	if first, done, err := h.again(ctx, in.Wait); done {
		return h.left(first.Token, err)
	}
	d, err := req.domain(in.Domain)
	if err != nil {
		return nil, err
	}
	if in.Now && !req.who.admin() {
		return nil, forbidden("now", "only an admin ends a domain at once; leave now out")
	}
	if in.Now && in.Reason.Reason == "" {
		return nil, invalid("reason", "ending a domain at once needs a reason")
	}
	_, err = h.write(ctx, in.Wait, in.Reason.Reason, state.LeaveDomain{Token: d.Token, Now: in.Now})
	return h.left(d.Token, err)
}

// left is the reply to a domain's removal: without a body where it is gone at once.
func (h *Handler) left(t state.Token, err error) (*leaveReply, error) {
	if err != nil {
		return nil, err
	}
	out := &leaveReply{Status: http.StatusNoContent}
	if left, err := h.domainAfter(t, nil); err == nil {
		out.Status, out.Body = http.StatusOK, &left.Body
	}
	return out, nil
}

func (h *Handler) restoreDomain(ctx context.Context, in *struct {
	DomainPath
	Wait
	Reason
}) (*domainReply, error) {
	d, err := from(ctx).domain(in.Domain)
	if err != nil {
		return nil, err
	}
	if _, done, err := h.again(ctx, in.Wait); done {
		return h.domainAfter(d.Token, err)
	}
	command := state.RestoreDomain{Token: d.Token}
	if d.State == state.Leaving {
		bounded, cancel := context.WithTimeout(ctx, keyTime)
		defer cancel()
		command.Active, err = h.replica.Materials(bounded, d.Token, d.Ring().ReviveNeeds(d.Algorithms))
		if err != nil {
			return nil, keyless(d.Name, err)
		}
	}
	_, err = h.write(ctx, in.Wait, in.Reason.Reason, command)
	return h.domainAfter(d.Token, err)
}

func (h *Handler) attestDomain(ctx context.Context, in *struct {
	DomainPath
	Wait
	Body Attestation
}) (*domainReply, error) {
	d, err := from(ctx).domain(in.Domain)
	if err != nil {
		return nil, err
	}
	_, err = h.write(ctx, in.Wait, in.Body.Reason, state.ProveDomain{Token: d.Token, Attested: true})
	return h.domainAfter(d.Token, err)
}

func (h *Handler) verifyDomain(ctx context.Context, in *struct {
	DomainPath
	Wait
	Reason
}) (*struct{ Body Verification }, error) {
	req := from(ctx)
	d, err := req.domain(in.Domain)
	if err != nil {
		return nil, err
	}
	if first, done, err := h.again(ctx, in.Wait); done {
		return h.provenBefore(first.Token, err)
	}
	if h.prober == nil {
		return nil, notYet("", "this node has no resolver to ask customers' DNS with; ask another node")
	}
	if d.Mode == zone.CNAME {
		return h.lookOver(ctx, in.Wait, in.Reason.Reason, d)
	}
	bounded, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	found, err := h.prober.Ask(bounded, d.Name)
	if err != nil {
		return nil, unasked(d, err)
	}
	out := Verification{Parent: found.Parent.String(), Servers: append([]string{}, found.Servers...), NS: []string{}, Seen: []string{}}
	for _, n := range found.NS {
		out.NS = append(out.NS, n.String())
	}
	seen := req.machine.Delegated(found.NS)
	for _, t := range seen {
		out.Seen = append(out.Seen, t.String())
	}
	// Beside the proof: what keeps it from coming, or from being of use.
	if c, _, err := h.checkDomain(bounded, d); err == nil {
		out.take(c)
	} else {
		out.Records, out.Notes = unknownRecords(d), []string{}
		h.logger.Info("a customer's records could not be looked at", "domain", d.Name.Host(), "error", err)
	}
	if slices.Contains(seen, d.Token) {
		out.Detail = fmt.Sprintf("the servers of %s delegate %s to this claim", out.Parent, d.Name.Host())
		err = h.prove(ctx, in.Wait, in.Reason.Reason, state.ProveDomain{Token: d.Token, Seen: seen, Servers: out.Servers}, &out)
	} else {
		out.Detail = fmt.Sprintf("the servers of %s do not delegate %s to names with the token %s; nothing was changed",
			out.Parent, d.Name.Host(), d.Token)
	}
	now, err := h.domainAfter(d.Token, err)
	if err != nil {
		return nil, err
	}
	out.Domain = now.Body
	return &struct{ Body Verification }{out}, nil
}

// lookOver checks the records of a claim in CNAME mode, and proves it by those of its
// keys.
func (h *Handler) lookOver(ctx context.Context, w Wait, reason string, d *state.Domain) (*struct{ Body Verification }, error) {
	bounded, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	c, sight, err := h.checkDomain(bounded, d)
	if err != nil {
		return nil, unasked(d, err)
	}
	out := Verification{Parent: sight.Zone.String(), Servers: append([]string{}, sight.Servers...), NS: []string{}, Seen: []string{}}
	out.take(c)
	right := 0
	for _, r := range c.records {
		if r.Status == "found" {
			right++
		}
	}
	count := fmt.Sprintf("%d of %d records are in the zone %s", right, len(c.records), c.zone.Host())
	found, proof, unknown := cluster.LookAtCNAMEs(bounded, from(ctx).machine, d, h.prober.CNAMEs)
	switch {
	case unknown != nil:
		out.Detail = fmt.Sprintf("%s; nothing is proven: %s", count, unknown)
	case !found:
		out.Detail = count + "; no CNAME leads to its keys, so nothing is proven"
	default:
		out.Detail = count + "; CNAMEs lead to the keys of this claim, which proves it"
		out.Seen, out.Proven = []string{d.Token.String()}, proof == nil
	}
	if proof != nil {
		err = h.prove(ctx, w, reason, *proof, &out)
	}
	now, err := h.domainAfter(d.Token, err)
	if err != nil {
		return nil, err
	}
	out.Domain = now.Body
	return &struct{ Body Verification }{out}, nil
}

func (v *Verification) take(c *checkup) {
	v.Records, v.Notes, v.Complete = c.records, append([]string{}, c.notes...), c.complete()
}

func unknownRecords(d *state.Domain) []CheckedRecord {
	list := []CheckedRecord{}
	for _, r := range d.CustomerRecords() {
		list = append(list, CheckedRecord{Name: r.Name, Type: r.Type, Value: r.Value, Status: "unknown", Found: []string{}})
	}
	return list
}

func unasked(d *state.Domain, err error) *Problem {
	return problem(http.StatusBadGateway, codeUnasked, "", "nobody could be asked about %s, so nothing was changed: %s", d.Name.Host(), err)
}

// provenBefore is the reply to a verification that the same request committed.
func (h *Handler) provenBefore(t state.Token, err error) (*struct{ Body Verification }, error) {
	now, err := h.domainAfter(t, err)
	if err != nil {
		return nil, err
	}
	return &struct{ Body Verification }{Verification{
		Proven: true, Detail: "the same request proved this claim before; the servers were not asked again",
		Servers: []string{}, NS: []string{}, Seen: []string{t.String()}, Domain: now.Body,
		Records: []CheckedRecord{}, Notes: []string{},
	}}, nil
}

// prove commits what the customer's servers said. That it is refused is an answer, not
// an error.
func (h *Handler) prove(ctx context.Context, w Wait, reason string, proof state.ProveDomain, out *Verification) error {
	results, index, err := h.propose(ctx, reason, proof)
	if err != nil {
		return err
	}
	switch r := results[0].Refusal; {
	case r == nil:
		out.Proven = true
		return h.served(ctx, w, index, h.shown(ctx, w, []state.Command{proof}, results)...)
	case r.Kind == state.Invalid || r.Kind == state.Conflict:
		out.Detail = r.Message
		return nil
	default:
		return refused(r)
	}
}

func ringMode(m zone.Mode) keys.RingMode {
	if m == zone.CNAME {
		return keys.Slots
	}
	return keys.Minted
}
