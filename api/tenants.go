package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
)

// Tenant is a customer of the platform.
type Tenant struct {
	ID         string    `json:"id" example:"acme"`
	Name       string    `json:"name" example:"Acme"`
	Suspended  bool      `json:"suspended" doc:"DNS is unchanged, signing documents are empty."`
	Domains    int       `json:"domains" doc:"Domains it has, those that wait for their proof and those that leave too."`
	MaxDomains int       `json:"max_domains" doc:"At this number of domains the tenant's own tokens add no more (409, field tenant). An admin's token, and an import, may."`
	Octets     int       `json:"octets" doc:"What its domains take in the memory of each node, past 8192 octets each: records, labels, names they sign for, keys. 0 for most tenants."`
	MaxOctets  int       `json:"max_octets" doc:"At this number of octets the tenant's own tokens fill its domains no further (409, field tenant). An admin's token, and an import, may."`
	CreatedAt  time.Time `json:"created_at"`
}

// TenantList is one page of tenants.
type TenantList struct {
	Items []Tenant `json:"items" nullable:"false"`
	Next  string   `json:"next,omitempty" doc:"Cursor of the next page; absent on the last."`
}

// NewTenant is the body of POST /v1/tenants.
type NewTenant struct {
	ID   string `json:"id" minLength:"1" maxLength:"63" example:"acme"`
	Name string `json:"name,omitempty" maxLength:"200" example:"Acme" doc:"For people; the id where it is left out."`

	MaxDomains uint32 `json:"max_domains,omitempty" maximum:"20000000" doc:"As in PATCH /v1/tenants/{tenant}."`
	MaxOctets  uint32 `json:"max_octets,omitempty" maximum:"1073741824" doc:"As in PATCH /v1/tenants/{tenant}."`
}

// TenantPatch is the body of PATCH /v1/tenants/{tenant}. What is left out stays.
type TenantPatch struct {
	MaxDomains *uint32 `json:"max_domains,omitempty" maximum:"20000000" example:"50000" doc:"At this number of domains the tenant's own tokens add no more; 0: the default, 10000. A bound below what it has takes none away."`
	MaxOctets  *uint32 `json:"max_octets,omitempty" maximum:"1073741824" example:"67108864" doc:"At this number of octets in memory, past 8192 for each domain, the tenant's own tokens fill its domains no further; 0: the default, 16777216."`
}

// Replies with one object or one page.
type (
	tenantReply struct{ Body Tenant }
	tenantsPage struct{ Body TenantList }
	Created     struct {
		Location string `header:"Location"`
	}
	TenantPath struct {
		Tenant string `path:"tenant" maxLength:"63" example:"acme"`
	}
)

func (h *Handler) registerTenants() {
	tags := []string{"Tenants"}
	add(h, huma.Operation{
		OperationID: "list-tenants", Method: http.MethodGet, Path: "/v1/tenants", Tags: tags,
		Summary: "List tenants, in order of id",
	}, reader|tenant, h.listTenants)
	add(h, huma.Operation{
		OperationID: "add-tenant", Method: http.MethodPost, Path: "/v1/tenants", Tags: tags,
		Summary: "Add a tenant", DefaultStatus: http.StatusCreated,
		Description: "Adding a tenant again with the same name changes nothing.",
	}, adminOnly, h.addTenant)
	add(h, huma.Operation{
		OperationID: "show-tenant", Method: http.MethodGet, Path: "/v1/tenants/{tenant}", Tags: tags,
		Summary: "Show a tenant",
	}, reader|tenant, h.showTenant)
	add(h, huma.Operation{
		OperationID: "patch-tenant", Method: http.MethodPatch, Path: "/v1/tenants/{tenant}", Tags: tags,
		Summary: "Change how much a tenant's own tokens may add",
	}, adminOnly, h.patchTenant)
	for _, verb := range []struct {
		name, summary string
		suspended     bool
	}{
		{"suspend", "Suspend: DNS is unchanged, signing documents become empty", true},
		{"resume", "End a suspension", false},
	} {
		add(h, huma.Operation{
			OperationID: verb.name + "-tenant", Method: http.MethodPost, Path: "/v1/tenants/{tenant}/" + verb.name,
			Tags: tags, Summary: verb.summary,
		}, adminOnly, func(ctx context.Context, in *struct {
			TenantPath
			Wait
			Reason
		}) (*tenantReply, error) {
			if _, err := h.write(ctx, in.Wait, in.Reason.Reason, state.SuspendTenant{ID: in.Tenant, Suspended: verb.suspended}); err != nil {
				return nil, err
			}
			return h.tenantNow(in.Tenant)
		})
	}
}

func (h *Handler) listTenants(ctx context.Context, in *Page) (*tenantsPage, error) {
	req := from(ctx)
	after, err := in.after()
	if err != nil {
		return nil, err
	}
	out := &tenantsPage{Body: TenantList{Items: []Tenant{}}}
	if own := req.who.tenant; own != "" {
		if t, ok := req.machine.Tenant(own); ok {
			out.Body.Items = append(out.Body.Items, viewTenant(t))
		}
		return out, nil
	}
	out.Body.Items, out.Body.Next, err = paged(*in, req.machine.Tenants(after), func(t *state.Tenant) string { return t.ID }, viewTenant)
	return out, err
}

func (h *Handler) addTenant(ctx context.Context, in *struct {
	Wait
	Body NewTenant
}) (*struct {
	Created
	Body Tenant
}, error) {
	name := in.Body.Name
	if name == "" {
		name = in.Body.ID
	}
	if _, err := h.write(ctx, in.Wait, "", state.AddTenant{ID: in.Body.ID, Name: name, MaxDomains: in.Body.MaxDomains, MaxOctets: in.Body.MaxOctets}); err != nil {
		return nil, err
	}
	t, err := h.tenantNow(in.Body.ID)
	if err != nil {
		return nil, err
	}
	return &struct {
		Created
		Body Tenant
	}{Created{"/v1/tenants/" + in.Body.ID}, t.Body}, nil
}

func (h *Handler) showTenant(ctx context.Context, in *TenantPath) (*tenantReply, error) {
	req := from(ctx)
	t, ok := req.machine.Tenant(in.Tenant)
	if !ok || !req.who.sees(in.Tenant) {
		return nil, noTenant(in.Tenant)
	}
	return &tenantReply{viewTenant(t)}, nil
}

func (h *Handler) patchTenant(ctx context.Context, in *struct {
	TenantPath
	Wait
	Reason
	Body TenantPatch
}) (*tenantReply, error) {
	if _, err := h.write(ctx, in.Wait, in.Reason.Reason, state.LimitTenant{ID: in.Tenant, MaxDomains: in.Body.MaxDomains, MaxOctets: in.Body.MaxOctets}); err != nil {
		return nil, err
	}
	return h.tenantNow(in.Tenant)
}

// tenantNow is the tenant after a write.
func (h *Handler) tenantNow(id string) (*tenantReply, error) {
	t, ok := h.replica.Machine().Tenant(id)
	if !ok {
		return nil, noTenant(id)
	}
	return &tenantReply{viewTenant(t)}, nil
}

func noTenant(id string) *Problem {
	return notFound("tenant", "there is no tenant %q", bounded(id))
}

func viewTenant(t *state.Tenant) Tenant {
	return Tenant{
		ID: t.ID, Name: t.Name, Suspended: t.Suspended, CreatedAt: moment(t.CreatedAt),
		Domains: t.Domains, MaxDomains: t.DomainLimit(), Octets: t.Octets, MaxOctets: t.OctetLimit(),
	}
}

// moment is a time of the machine as the API shows it: RFC 3339, UTC.
func moment(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }

// maybe is a moment that need not have come: nil for 0.
func maybe(seconds int64) *time.Time {
	if seconds == 0 {
		return nil
	}
	t := moment(seconds)
	return &t
}
