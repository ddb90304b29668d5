package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// PoolSpec is what domains that send through one pool share.
type PoolSpec struct {
	SPF    []string          `json:"spf" required:"false" maxItems:"1000" nullable:"false" example:"[\"ip4:192.0.2.0/24\"]" doc:"Mechanisms with literal addresses, ip4: and ip6:."`
	SPFAll string            `json:"spf_all" required:"false" example:"~all" doc:"How the SPF record ends; ~all where it is left out."`
	MX     []MX              `json:"mx" required:"false" maxItems:"20" nullable:"false" doc:"Hosts that take bounces."`
	Click  Click             `json:"click" required:"false" doc:"Tracking hosts: addresses, or one CNAME."`
	DMARC  string            `json:"dmarc" required:"false" maxLength:"1000" example:"" doc:"Policy record of the pool's delegated domains; empty: none, so that the parent's is inherited."`
	DKIM   DKIM              `json:"dkim" required:"false" doc:"Rotation policy."`
	Labels map[string]string `json:"labels" required:"false" maxProperties:"32"`
}

// MX is one mail exchanger.
type MX struct {
	Preference uint16 `json:"preference" maximum:"65535" example:"10"`
	Host       string `json:"host" example:"mx1.p-dns.test."`
}

// Click is where tracking hosts point.
type Click struct {
	A     []string `json:"a" required:"false" maxItems:"64" nullable:"false" example:"[\"192.0.2.80\"]"`
	AAAA  []string `json:"aaaa" required:"false" maxItems:"64" nullable:"false"`
	CNAME string   `json:"cname" required:"false" example:"" doc:"Edge name instead of addresses."`
}

// DKIM is how keys rotate. Durations are like 2160h or 90m; what is left out has
// its default.
type DKIM struct {
	Algorithms   []string `json:"algorithms" required:"false" maxItems:"2" nullable:"false" example:"[\"rsa2048\"]" doc:"rsa2048, ed25519"`
	Period       string   `json:"period" required:"false" example:"2160h" doc:"From one activation to the next."`
	Soak         string   `json:"soak" required:"false" doc:"From a ready standby to its scheduled activation."`
	Rollback     string   `json:"rollback" required:"false" doc:"How long the previous key may come back."`
	SignerHold   string   `json:"signer_hold" required:"false" doc:"Longest time a signer may cache a key. A shorter one counts for what signers fetch from then on."`
	DrainFloor   string   `json:"drain_floor" required:"false"`
	Drain        string   `json:"drain" required:"false"`
	DrainCeiling string   `json:"drain_ceiling" required:"false"`
	RevokedFor   string   `json:"revoked_for" required:"false" doc:"How long a revoked minted selector answers with an empty p=."`
	Quiet        string   `json:"quiet" required:"false" doc:"How long no query for a draining key is to be seen before it is revoked; at most drain_ceiling bounds the wait."`
}

// Pool is a pool as it is.
type Pool struct {
	ID     string `json:"id" example:"default"`
	Serial uint32 `json:"serial"`
	PoolSpec

	Warnings []string `json:"warnings,omitempty" doc:"What of it cannot work as the platform zones are now, as an MX host there without an address. Absent where nothing is wrong, and in lists."`
}

// PoolList is one page of pools.
type PoolList struct {
	Items []Pool `json:"items" nullable:"false"`
	Next  string `json:"next,omitempty" doc:"Cursor of the next page; absent on the last."`
}

type (
	poolReply struct{ Body Pool }
	PoolPath  struct {
		Pool string `path:"pool" maxLength:"63" example:"default"`
	}
)

func (h *Handler) registerPools() {
	tags := []string{"Pools"}
	add(h, huma.Operation{
		OperationID: "list-pools", Method: http.MethodGet, Path: "/v1/pools", Tags: tags, Summary: "List pools",
	}, reader, func(ctx context.Context, in *Page) (*struct{ Body PoolList }, error) {
		var out struct{ Body PoolList }
		var err error
		out.Body.Items, out.Body.Next, err = paged(*in, from(ctx).machine.Pools(), func(p *state.Pool) string { return p.ID }, viewPool)
		return &out, err
	})
	add(h, huma.Operation{
		OperationID: "show-pool", Method: http.MethodGet, Path: "/v1/pools/{pool}", Tags: tags, Summary: "Show a pool",
	}, reader, func(ctx context.Context, in *PoolPath) (*poolReply, error) {
		return poolOf(from(ctx).machine, in.Pool)
	})
	add(h, huma.Operation{
		OperationID: "put-pool", Method: http.MethodPut, Path: "/v1/pools/{pool}", Tags: tags,
		Summary:     "Add a pool, or replace what it says for all its domains at once",
		Description: "A field that is left out has its default, not its earlier value.",
	}, adminOnly, h.putPool)
	add(h, huma.Operation{
		OperationID: "drop-pool", Method: http.MethodDelete, Path: "/v1/pools/{pool}", Tags: tags,
		Summary: "Remove a pool that no domain uses",
	}, adminOnly, func(ctx context.Context, in *struct {
		PoolPath
		Wait
		Reason
	}) (*struct{}, error) {
		_, err := h.write(ctx, in.Wait, in.Reason.Reason, state.DropPool{ID: in.Pool})
		return nil, err
	})
}

func (h *Handler) putPool(ctx context.Context, in *struct {
	PoolPath
	Wait
	Reason
	Body PoolSpec
}) (*poolReply, error) {
	spec, err := readPool(in.Body)
	if err != nil {
		return nil, err
	}
	if _, err := h.write(ctx, in.Wait, in.Reason.Reason, state.PutPool{ID: in.Pool, Spec: spec}); err != nil {
		return nil, err
	}
	return poolOf(h.replica.Machine(), in.Pool)
}

func poolOf(m state.Machine, id string) (*poolReply, error) {
	p, ok := m.Pool(id)
	if !ok {
		return nil, notFound("pool", "there is no pool %q", bounded(id))
	}
	out := viewPool(p)
	out.Warnings = poolWarnings(m, p)
	return &poolReply{out}, nil
}

// readPool turns names, addresses and durations into types. What a pool may say
// is decided by the machine.
func readPool(in PoolSpec) (state.PoolSpec, error) {
	out := state.PoolSpec{SPF: in.SPF, SPFAll: in.SPFAll, DMARC: in.DMARC, Labels: in.Labels}
	if out.SPFAll == "" {
		out.SPFAll = "~all"
	}
	for i, mx := range in.MX {
		n, err := host(indexed("mx", i)+".host", mx.Host)
		if err != nil {
			return out, err
		}
		out.MX = append(out.MX, zone.MX{Preference: mx.Preference, Host: n})
	}
	a, err := addresses("click.a", in.Click.A)
	if err != nil {
		return out, err
	}
	for i, one := range a {
		if !one.Is4() {
			return out, invalid(indexed("click.a", i), "%s is not an IPv4 address; put it into click.aaaa", one)
		}
	}
	aaaa, err := addresses("click.aaaa", in.Click.AAAA)
	if err != nil {
		return out, err
	}
	for i, one := range aaaa {
		if !one.Is6() {
			return out, invalid(indexed("click.aaaa", i), "%s is not an IPv6 address; put it into click.a", one)
		}
	}
	out.ClickA = append(a, aaaa...)
	if in.Click.CNAME != "" {
		if out.ClickCNAME, err = host("click.cname", in.Click.CNAME); err != nil {
			return out, err
		}
	}
	out.Policy, err = readPolicy(in.DKIM)
	return out, err
}

func readPolicy(in DKIM) (keys.Policy, error) {
	p := keys.DefaultPolicy()
	for _, d := range []struct {
		field, text string
		to          *time.Duration
	}{
		{"period", in.Period, &p.Period}, {"soak", in.Soak, &p.Soak}, {"rollback", in.Rollback, &p.Rollback},
		{"signer_hold", in.SignerHold, &p.SignerHold}, {"drain_floor", in.DrainFloor, &p.DrainFloor},
		{"drain", in.Drain, &p.Drain}, {"drain_ceiling", in.DrainCeiling, &p.DrainCeiling},
		{"revoked_for", in.RevokedFor, &p.RevokedFor}, {"quiet", in.Quiet, &p.Quiet},
	} {
		if d.text == "" {
			continue
		}
		v, err := time.ParseDuration(d.text)
		if err != nil || v < 0 || v%time.Second != 0 {
			return p, invalid("dkim."+d.field, "%q is not a duration of whole seconds, such as 2160h", bounded(d.text))
		}
		*d.to = v
	}
	if len(in.Algorithms) == 0 {
		return p, nil
	}
	p.Algorithms = nil
	for i, text := range in.Algorithms {
		a, err := keys.ParseAlgorithm(text)
		if err != nil {
			return p, invalid(indexed("dkim.algorithms", i), "%s", err)
		}
		p.Algorithms = append(p.Algorithms, a)
	}
	return p, nil
}

func viewPool(p *state.Pool) Pool {
	out := Pool{ID: p.ID, Serial: p.Serial, PoolSpec: PoolSpec{
		SPF: append([]string{}, p.SPF...), SPFAll: p.SPFAll, MX: []MX{}, Click: Click{A: []string{}, AAAA: []string{}},
		DMARC: p.DMARC, DKIM: viewPolicy(p.Policy), Labels: labelsOf(p.Labels),
	}}
	for _, mx := range p.MX {
		out.MX = append(out.MX, MX{mx.Preference, mx.Host.String()})
	}
	for _, a := range p.ClickA {
		if a.Is4() {
			out.Click.A = append(out.Click.A, a.String())
		} else {
			out.Click.AAAA = append(out.Click.AAAA, a.String())
		}
	}
	if p.ClickCNAME != "" {
		out.Click.CNAME = p.ClickCNAME.String()
	}
	return out
}

func viewPolicy(p keys.Policy) DKIM {
	return DKIM{
		Algorithms: algorithmNames(p.Algorithms),
		Period:     span(p.Period), Soak: span(p.Soak), Rollback: span(p.Rollback), SignerHold: span(p.SignerHold),
		DrainFloor: span(p.DrainFloor), Drain: span(p.Drain), DrainCeiling: span(p.DrainCeiling),
		RevokedFor: span(p.RevokedFor), Quiet: span(p.Quiet),
	}
}

func algorithmNames(all []keys.Algorithm) []string {
	names := []string{}
	for _, a := range all {
		names = append(names, a.String())
	}
	return names
}

// span writes a duration without its zero tail: 2160h, not 2160h0m0s.
func span(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// labelsOf shows no labels as {}, never null.
func labelsOf(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// indexed names an element of a list: mx[0].
func indexed(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }
