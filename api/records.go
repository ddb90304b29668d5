package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
	"authd/zone"
)

// RecordRR is an RRset that somebody added.
type RecordRR struct {
	Name   string   `json:"name" example:"default._bimi" doc:"Relative to the zone; @ is the zone itself."`
	Type   string   `json:"type" example:"TXT"`
	TTL    uint32   `json:"ttl" example:"300"`
	Values []string `json:"values" nullable:"false"`
}

// RecordSpec is the body of a PUT of records.
type RecordSpec struct {
	TTL    uint32   `json:"ttl" minimum:"60" maximum:"86400" example:"300" doc:"Seconds."`
	Values []string `json:"values" minItems:"1" maxItems:"100" nullable:"false" doc:"RDATA in presentation form (RFC 1035 section 5.1; RFC 3597 for unknown types), names in it absolute. A TXT value may be bare text of any length."`
}

// RecordList is the records that somebody added.
type RecordList struct {
	Items []RecordRR `json:"items" nullable:"false"`
}

type (
	recordReply  struct{ Body RecordRR }
	recordsReply struct{ Body RecordList }
	RecordPath   struct {
		Name string `path:"name" maxLength:"1024" example:"default._bimi" doc:"Relative to the zone, @ for the zone itself, or absolute with a final dot."`
		Type string `path:"type" maxLength:"20" example:"TXT"`
	}
)

func (h *Handler) registerRecords() {
	const zones, domains = "/v1/zones/{zone}/records", "/v1/domains/{domain}/records"
	const one = "/{name}/{type}"
	add(h, huma.Operation{
		OperationID: "list-zone-records", Method: http.MethodGet, Path: zones, Tags: []string{"Platform zones"},
		Summary: "List the operator's records of a platform zone",
	}, reader, func(ctx context.Context, in *ZonePath) (*recordsReply, error) {
		p, err := platform(from(ctx).machine, in.Zone)
		if err != nil {
			return nil, err
		}
		return &recordsReply{RecordList{viewRecords(p.Records, p.Apex)}}, nil
	})
	add(h, huma.Operation{
		OperationID: "put-zone-record", Method: http.MethodPut, Path: zones + one, Tags: []string{"Platform zones"},
		Summary: "Set an RRset of a platform zone",
	}, adminOnly, h.putZoneRecord)
	add(h, huma.Operation{
		OperationID: "drop-zone-record", Method: http.MethodDelete, Path: zones + one, Tags: []string{"Platform zones"},
		Summary: "Remove an RRset of a platform zone",
	}, adminOnly, h.dropZoneRecord)
	add(h, huma.Operation{
		OperationID: "list-domain-records", Method: http.MethodGet, Path: domains, Tags: []string{"Domains"},
		Summary: "List the extra records of a domain",
	}, reader|tenant, func(ctx context.Context, in *DomainPath) (*recordsReply, error) {
		d, err := from(ctx).domain(in.Domain)
		if err != nil {
			return nil, err
		}
		return &recordsReply{RecordList{viewRecords(d.Records, d.Name)}}, nil
	})
	add(h, huma.Operation{
		OperationID: "put-domain-record", Method: http.MethodPut, Path: domains + one, Tags: []string{"Domains"},
		Summary:     "Set an extra RRset of a delegated domain",
		Description: "Names that authd manages are reserved; NS and DNAME need scope admin.",
	}, tenant, h.putDomainRecord)
	add(h, huma.Operation{
		OperationID: "drop-domain-record", Method: http.MethodDelete, Path: domains + one, Tags: []string{"Domains"},
		Summary: "Remove an extra RRset of a domain",
	}, tenant, h.dropDomainRecord)
}

func (h *Handler) putZoneRecord(ctx context.Context, in *struct {
	ZonePath
	RecordPath
	Wait
	Reason
	Body RecordSpec
}) (*recordReply, error) {
	p, err := platform(from(ctx).machine, in.Zone)
	if err != nil {
		return nil, err
	}
	set, err := in.read(p.Apex, &in.Body)
	if err != nil {
		return nil, err
	}
	if _, err := h.write(ctx, in.Wait, in.Reason.Reason, state.PutRecord{Apex: p.Apex, Set: set}); err != nil {
		return nil, err
	}
	return &recordReply{viewRecord(set, p.Apex)}, nil
}

func (h *Handler) dropZoneRecord(ctx context.Context, in *struct {
	ZonePath
	RecordPath
	Wait
	Reason
}) (*struct{}, error) {
	p, err := platform(from(ctx).machine, in.Zone)
	if err != nil {
		return nil, err
	}
	set, err := in.read(p.Apex, nil)
	if err != nil {
		return nil, err
	}
	if _, done, err := h.again(ctx, in.Wait); done {
		return nil, err
	}
	if !holds(p.Records, set) {
		return nil, noRecord(set, p.Apex)
	}
	_, err = h.write(ctx, in.Wait, in.Reason.Reason, state.PutRecord{Apex: p.Apex, Set: set})
	return nil, err
}

func (h *Handler) putDomainRecord(ctx context.Context, in *struct {
	DomainPath
	RecordPath
	Wait
	Reason
	Body RecordSpec
}) (*recordReply, error) {
	req := from(ctx)
	d, err := req.domain(in.Domain)
	if err != nil {
		return nil, err
	}
	set, err := in.read(d.Name, &in.Body)
	if err != nil {
		return nil, err
	}
	if (set.Type == zone.TypeNS || set.Type == zone.TypeDNAME) && !req.who.admin() {
		return nil, forbidden("type", "%s records need scope admin", set.Type)
	}
	command := state.PutDomainRecord{Token: d.Token, Set: set, Admin: req.who.admin()}
	if _, err := h.write(ctx, in.Wait, in.Reason.Reason, command); err != nil {
		return nil, err
	}
	return &recordReply{viewRecord(set, d.Name)}, nil
}

func (h *Handler) dropDomainRecord(ctx context.Context, in *struct {
	DomainPath
	RecordPath
	Wait
	Reason
}) (*struct{}, error) {
	req := from(ctx)
	d, err := req.domain(in.Domain)
	if err != nil {
		return nil, err
	}
	set, err := in.read(d.Name, nil)
	if err != nil {
		return nil, err
	}
	if _, done, err := h.again(ctx, in.Wait); done {
		return nil, err
	}
	if !holds(d.Records, set) {
		return nil, noRecord(set, d.Name)
	}
	if (set.Type == zone.TypeNS || set.Type == zone.TypeDNAME) && !req.who.admin() {
		return nil, forbidden("type", "%s records need scope admin", set.Type)
	}
	_, err = h.write(ctx, in.Wait, in.Reason.Reason, state.PutDomainRecord{Token: d.Token, Set: set, Admin: req.who.admin()})
	return nil, err
}

// read makes the RRset of a path and a body; without a body an empty one, which
// removes.
func (in RecordPath) read(apex zone.Name, spec *RecordSpec) (zone.RRset, error) {
	name, err := owner("name", in.Name, apex)
	if err != nil {
		return zone.RRset{}, err
	}
	kind, err := zone.ParseType(in.Type)
	if err != nil {
		return zone.RRset{}, invalid("type", "%s", err)
	}
	if kind == zone.TypeSOA || kind == typeOPT || kind >= firstMeta && kind <= zone.TypeANY {
		return zone.RRset{}, invalid("type", "%s records cannot be set", kind)
	}
	if spec == nil {
		return zone.RRset{Owner: name, Type: kind}, nil
	}
	for i, v := range spec.Values {
		if target := relativeTarget(kind, v); target != "" {
			return zone.RRset{}, invalid(indexed("values", i), "%q: names in values are absolute; write %s, or a final dot where the name has one label",
				bounded(v), inside(target, apex))
		}
	}
	set, err := zone.ParseRRset(name, kind, spec.TTL, spec.Values)
	if err != nil {
		return set, invalid("values", "%s", err)
	}
	return set, nil
}

// relativeTarget is the name that a value ends with, where it can only be meant
// relative to the zone: a label alone, or @ as in zone files.
func relativeTarget(t zone.Type, value string) string {
	switch t {
	case zone.TypeCNAME, zone.TypeDNAME, zone.TypeNS, zone.TypeMX, zone.TypePTR, zone.TypeSRV:
	default:
		return ""
	}
	fields := strings.Fields(value)
	if len(fields) == 0 || strings.Contains(fields[len(fields)-1], ".") {
		return ""
	}
	return fields[len(fields)-1]
}

func inside(label string, apex zone.Name) string {
	if label == "@" {
		return apex.String()
	}
	return bounded(label) + "." + apex.String()
}

// Types that are no data: OPT, and the range of meta types and query types
// (RFC 6895 section 3.1).
const (
	typeOPT   zone.Type = 41
	firstMeta zone.Type = 128
)

func holds(sets []zone.RRset, like zone.RRset) bool {
	for _, s := range sets {
		if s.Owner == like.Owner && s.Type == like.Type {
			return true
		}
	}
	return false
}

func noRecord(set zone.RRset, apex zone.Name) *Problem {
	return notFound("name", "%s has no extra %s records at %q", apex.Host(), set.Type, relative(set.Owner, apex))
}

func viewRecords(sets []zone.RRset, apex zone.Name) []RecordRR {
	out := []RecordRR{}
	for _, s := range sets {
		out = append(out, viewRecord(s, apex))
	}
	return out
}

func viewRecord(s zone.RRset, apex zone.Name) RecordRR {
	return RecordRR{Name: relative(s.Owner, apex), Type: s.Type.String(), TTL: s.TTL, Values: s.Values()}
}
