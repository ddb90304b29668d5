package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sync/errgroup"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// Import is the body of POST /v1/import.
type Import struct {
	Items  []ImportItem `json:"items" nullable:"false"`
	DryRun bool         `json:"dry_run,omitempty" doc:"Say what would happen, and change nothing."`
}

// ImportItem is one domain to claim. Tenants that are missing are added.
type ImportItem struct {
	Line   int    `json:"line,omitempty" doc:"Where it stands in the caller's file; comes back with the result."`
	Tenant string `json:"tenant"`
	NewDomain
}

// Imported is what became of an import.
type Imported struct {
	Results []ImportResult `json:"results" nullable:"false" doc:"One an item, in the same order."`
	Added   int            `json:"added"`
	Exists  int            `json:"exists"`
	Refused int            `json:"refused"`
	DryRun  bool           `json:"dry_run"`
}

// ImportResult is what became of one item.
type ImportResult struct {
	Line    int      `json:"line"`
	Tenant  string   `json:"tenant"`
	Domain  string   `json:"domain"`
	Status  string   `json:"status" enum:"added,exists,refused" doc:"exists: the tenant has this domain in this mode already."`
	Token   string   `json:"token,omitempty"`
	Problem *Problem `json:"problem,omitempty"`
}

// importBatch is how many items are proposed together: few enough that applying
// them does not hold up other writes.
const importBatch = 64

// keyHands is how many items of a batch wait for keys at once.
const keyHands = 4

func (h *Handler) registerImport() {
	add(h, huma.Operation{
		OperationID: "import", Method: http.MethodPost, Path: "/v1/import", Tags: []string{"Domains"},
		Summary: "Claim many domains",
		Description: "Each item succeeds or is refused by itself. Sending the same import again changes nothing: " +
			"what is there already is exists. After a 503 send it again.",
		MaxBodyBytes: maxImportBody,
		// Items are checked one by one, so that one bad line is not all lines; the
		// strict decoder still refuses what is not an import.
		SkipValidateBody: true,
	}, adminOnly, h.importDomains)
}

func (h *Handler) importDomains(ctx context.Context, in *struct {
	Wait
	Reason
	Body Import
}) (*struct{ Body Imported }, error) {
	if len(in.Body.Items) == 0 {
		return nil, invalid("items", "there are no items to import")
	}
	run := importRun{h: h, wait: in.Wait, reason: in.Reason.Reason, out: Imported{DryRun: in.Body.DryRun, Results: make([]ImportResult, len(in.Body.Items))}}
	if in.Body.DryRun {
		machine := from(ctx).machine
		run.dry = &machine
	}
	for start := 0; start < len(in.Body.Items); start += importBatch {
		end := min(start+importBatch, len(in.Body.Items))
		if err := run.batch(ctx, start, in.Body.Items[start:end]); err != nil {
			return nil, err
		}
	}
	if in.Body.DryRun {
		return &struct{ Body Imported }{run.out}, nil
	}
	// What was there already may have been added by a request whose reply was lost:
	// that it is served is waited for as well.
	index := max(run.index, h.replica.Machine().Index())
	return &struct{ Body Imported }{run.out}, h.served(ctx, in.Wait, index, run.shown...)
}

// importRun is one import under way.
type importRun struct {
	h      *Handler
	dry    *state.Machine // a dry run's own, thrown away; nil: it is none
	wait   Wait
	shown  []zone.Question
	reason string
	index  uint64 // of the last batch
	out    Imported
}

// planned is an item that a command was made for.
type planned struct {
	at      int // in the results
	item    ImportItem
	claim   claim
	command state.AddDomain
	problem error
}

// machine is the one that items are checked against.
func (r *importRun) machine() state.Machine {
	if r.dry != nil {
		return *r.dry
	}
	return r.h.replica.Machine()
}

// batch proposes some items together.
func (r *importRun) batch(ctx context.Context, start int, items []ImportItem) error {
	m := r.machine()
	var plan []*planned
	claimed := map[string]bool{}
	for i, item := range items {
		c, problem := readItem(m, item)
		if problem != nil {
			r.refuse(start+i, item, problem)
			continue
		}
		if d, ok := existing(m, c.AddDomain); ok {
			r.exists(start+i, item, c.AddDomain, d.Token)
			continue
		}
		key := fmt.Sprint(item.Tenant, " ", c.Mode, " ", c.Name)
		if claimed[key] {
			r.refuse(start+i, item, problemTwice(item))
			continue
		}
		claimed[key] = true
		plan = append(plan, &planned{at: start + i, item: item, claim: c})
	}
	if r.dry != nil {
		for _, p := range plan {
			p.command, p.problem = r.h.sketched(p.claim)
		}
	} else {
		r.makeKeys(ctx, plan)
	}
	if err := ctx.Err(); err != nil {
		return unwritten(err)
	}
	return r.propose(ctx, m, plan)
}

// exists says that an item is there already; in a dry run that may be from an
// earlier line.
func (r *importRun) exists(at int, item ImportItem, c state.AddDomain, t state.Token) {
	if r.dry != nil {
		if _, before := existing(r.h.replica.Machine(), c); !before {
			r.refuse(at, item, problemTwice(item))
			return
		}
	}
	r.done(at, item, "exists", t)
}

func problemTwice(item ImportItem) *Problem {
	return problem(http.StatusConflict, codeConflict, "domain", "%s is there twice for tenant %s in this import", bounded(item.Domain), bounded(item.Tenant))
}

// makeKeys draws tokens and makes keys for the planned items.
func (r *importRun) makeKeys(ctx context.Context, plan []*planned) {
	var hands errgroup.Group
	hands.SetLimit(keyHands)
	for _, p := range plan {
		hands.Go(func() error {
			p.command, p.problem = r.h.keyed(ctx, p.claim)
			return nil // kept with the item
		})
	}
	_ = hands.Wait() // no hand returns an error
}

func (r *importRun) propose(ctx context.Context, m state.Machine, plan []*planned) error {
	var commands []state.Command
	var owners []*planned // by command; nil for an AddTenant
	tenants := map[string]bool{}
	for _, p := range plan {
		if p.problem != nil {
			if asProblem(p.problem) == nil {
				return p.problem
			}
			r.refuse(p.at, p.item, p.problem)
			continue
		}
		if _, ok := m.Tenant(p.item.Tenant); !ok && !tenants[p.item.Tenant] {
			tenants[p.item.Tenant] = true
			commands, owners = append(commands, state.AddTenant{ID: p.item.Tenant, Name: p.item.Tenant}), append(owners, nil)
		}
		commands, owners = append(commands, p.command), append(owners, p)
	}
	if len(commands) == 0 {
		return nil
	}
	if r.dry != nil {
		r.settleAll(owners, commands, r.try(commands))
		return nil
	}
	results, index, err := r.h.propose(ctx, r.reason, commands...)
	if err != nil {
		return err
	}
	r.index = index
	// One claim stands for the others of a batch, which are in the same log entry.
	r.shown = append(r.shown, r.h.shown(ctx, r.wait, commands[len(commands)-1:], results[len(results)-1:])...)
	r.settleAll(owners, commands, results)
	return nil
}

// settleAll says what became of the items of a batch. Where the tenant of one could not
// be added, that is the reason.
func (r *importRun) settleAll(owners []*planned, commands []state.Command, results []state.Result) {
	tenantless := map[string]*state.Refusal{}
	for i, result := range results {
		p := owners[i]
		if p == nil {
			if c, ok := commands[i].(state.AddTenant); ok && result.Refusal != nil {
				why := *result.Refusal
				why.Field = "tenant"
				tenantless[c.ID] = &why
			}
			continue
		}
		if why := tenantless[p.item.Tenant]; why != nil {
			r.refuse(p.at, p.item, refused(why))
			continue
		}
		r.settle(p, result)
	}
}

// settle notes what became of an item that was proposed.
func (r *importRun) settle(p *planned, result state.Result) {
	switch {
	case result.Refusal == nil && r.dry != nil:
		r.done(p.at, p.item, "added", state.Token{}) // a dry run's token means nothing
		return
	case result.Refusal == nil:
		r.done(p.at, p.item, "added", p.command.Token)
		return
	}
	// Somebody may have added it meanwhile.
	if d, ok := existing(r.machine(), p.command); ok {
		r.done(p.at, p.item, "exists", d.Token)
		return
	}
	r.refuse(p.at, p.item, refused(result.Refusal))
}

// try applies commands to the run's own machine.
func (r *importRun) try(commands []state.Command) []state.Result {
	entries := make([]state.Entry, len(commands))
	for i, c := range commands {
		entries[i] = state.Entry{At: r.dry.Time(), Command: c}
	}
	next, results, _ := r.dry.Apply(r.dry.Index()+1, entries)
	*r.dry = next
	return results
}

// sketched is keyed for a dry run: a token is drawn, and texts that follow from it
// stand in for keys. They go nowhere.
func (h *Handler) sketched(c claim) (state.AddDomain, error) {
	command := c.AddDomain
	var err error
	if command.Token, err = h.replica.NewToken(); err != nil {
		return command, fmt.Errorf("drawing a token: %w", err)
	}
	if len(c.brought) > 0 {
		return h.keyed(context.Background(), c)
	}
	for _, a := range c.algorithms {
		payload := fmt.Sprintf("%sdry%d%s", keys.RevokedPayload(a), a, command.Token)
		m := keys.Material{Algorithm: a, Payload: payload, PublicOnly: true}
		if c.Mode == zone.Delegated {
			m.Selector = fmt.Sprintf("dry-run%d", a)
		}
		command.Active = append(command.Active, m)
	}
	return command, nil
}

// readItem checks an item as the body of a single claim would be.
func readItem(m state.Machine, item ImportItem) (claim, error) {
	if item.Tenant == "" {
		return claim{}, invalid("tenant", "a tenant is missing")
	}
	for i, k := range item.Keys {
		if len(k.PrivateKey) > 16<<10 {
			return claim{}, invalid(indexed("keys", i)+".private_key", "longer than 16 KiB")
		}
	}
	return readClaim(m, item.Tenant, item.NewDomain, true)
}

// existing is the claim that a command asks for, where it is there already.
func existing(m state.Machine, c state.AddDomain) (*state.Domain, bool) {
	for _, d := range m.Claims(c.Name) {
		if d.Tenant == c.Tenant && d.Mode == c.Mode && d.State != state.Leaving {
			return d, true
		}
	}
	return nil, false
}

func (r *importRun) done(at int, item ImportItem, status string, t state.Token) {
	result := ImportResult{Line: item.Line, Tenant: item.Tenant, Domain: item.Domain, Status: status}
	if t != (state.Token{}) {
		result.Token = t.String()
	}
	if status == "added" {
		r.out.Added++
	} else {
		r.out.Exists++
	}
	r.out.Results[at] = result
}

func (r *importRun) refuse(at int, item ImportItem, err error) {
	p := asProblem(err)
	if p == nil {
		r.h.logger.Error("an item was not imported", "domain", bounded(item.Domain), "error", err)
		p = internal()
	}
	r.out.Refused++
	r.out.Results[at] = ImportResult{
		Line: item.Line, Tenant: item.Tenant, Domain: item.Domain, Status: "refused", Problem: p,
	}
}
