package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
	"authd/zone"
)

// Zone is a platform zone.
type Zone struct {
	Zone        string     `json:"zone" example:"p-dns.test"`
	Contact     string     `json:"contact" example:"hostmaster@p-dns.test" doc:"Mailbox in charge of the zone (its SOA's RNAME)."`
	Serial      uint32     `json:"serial"`
	NameServers []string   `json:"nameservers" nullable:"false" example:"[\"ns1.p-dns.test.\"]"`
	Records     []RecordRR `json:"records" nullable:"false" doc:"The operator's own records."`
}

// ZoneSpec is the body of PUT /v1/zones/{zone}.
type ZoneSpec struct {
	Contact string `json:"contact,omitempty" maxLength:"320" example:"hostmaster@p-dns.test" doc:"Mailbox in charge; hostmaster@ the zone where it is left out."`
}

// ZoneList is one page of platform zones.
type ZoneList struct {
	Items []Zone `json:"items" nullable:"false"`
	Next  string `json:"next,omitempty" doc:"Cursor of the next page; absent on the last."`
}

// Parent is what the registrar of a platform zone must be given.
type Parent struct {
	Zone    string     `json:"zone" example:"p-dns.test"`
	NS      []ParentNS `json:"ns" nullable:"false"`
	Records []Served   `json:"records" nullable:"false" doc:"The same as records of the parent zone."`
}

// ParentNS is one name server with its glue.
type ParentNS struct {
	Name      string   `json:"name" example:"ns1.p-dns.test."`
	Addresses []string `json:"addresses" nullable:"false" example:"[\"192.0.2.53\"]"`
}

// NameServer is a name in every platform zone with public addresses.
type NameServer struct {
	Label     string   `json:"label" example:"ns1"`
	Addresses []string `json:"addresses" nullable:"false" example:"[\"192.0.2.53\"]"`
	Names     []string `json:"names" nullable:"false" example:"[\"ns1.p-dns.test.\"]" doc:"Its names, one a platform zone."`
}

// NameServerSpec is the body of PUT /v1/nameservers/{nameserver}.
type NameServerSpec struct {
	Addresses []string `json:"addresses" minItems:"1" maxItems:"64" nullable:"false" example:"[\"192.0.2.53\",\"2001:db8::53\"]"`
}

// NameServerList is one page of name servers.
type NameServerList struct {
	Items []NameServer `json:"items" nullable:"false"`
	Next  string       `json:"next,omitempty" doc:"Cursor of the next page; absent on the last."`
}

// Served is one RRset as DNS answers it.
type Served struct {
	Name   string   `json:"name" example:"_dmarc.send.customer.example." doc:"Absolute."`
	Type   string   `json:"type" example:"TXT"`
	TTL    uint32   `json:"ttl" example:"3600"`
	Values []string `json:"values" nullable:"false"`
}

// ServedList is what DNS answers.
type ServedList struct {
	Records []Served `json:"records" nullable:"false"`
}

type (
	zoneReply   struct{ Body Zone }
	servedReply struct{ Body ServedList }
	ZonePath    struct {
		Zone string `path:"zone" maxLength:"1024" example:"p-dns.test"`
	}
	serverReply struct{ Body NameServer }
	ServerPath  struct {
		Label string `path:"nameserver" maxLength:"63" example:"ns1"`
	}
)

func (h *Handler) registerZones() {
	h.registerNameServers()
	tags := []string{"Platform zones"}
	add(h, huma.Operation{
		OperationID: "list-zones", Method: http.MethodGet, Path: "/v1/zones", Tags: tags, Summary: "List platform zones",
	}, reader, func(ctx context.Context, in *Page) (*struct{ Body ZoneList }, error) {
		m := from(ctx).machine
		var out struct{ Body ZoneList }
		var err error
		out.Body.Items, out.Body.Next, err = paged(*in, m.Platforms(),
			func(p *state.Platform) string { return fmt.Sprintf("%010d", p.Number) },
			func(p *state.Platform) Zone { return viewZone(m, p) })
		return &out, err
	})
	add(h, huma.Operation{
		OperationID: "show-zone", Method: http.MethodGet, Path: "/v1/zones/{zone}", Tags: tags,
		Summary: "Show a platform zone with its operator's records",
	}, reader, func(ctx context.Context, in *ZonePath) (*zoneReply, error) {
		return zoneOf(from(ctx).machine, in.Zone)
	})
	add(h, huma.Operation{
		OperationID: "put-zone", Method: http.MethodPut, Path: "/v1/zones/{zone}", Tags: tags,
		Summary: "Add a platform zone, or change its contact",
	}, adminOnly, h.putZone)
	add(h, huma.Operation{
		OperationID: "drop-zone", Method: http.MethodDelete, Path: "/v1/zones/{zone}", Tags: tags,
		Summary: "Remove a platform zone that nothing uses",
	}, adminOnly, func(ctx context.Context, in *struct {
		ZonePath
		Wait
		Reason
	}) (*struct{}, error) {
		if _, done, err := h.again(ctx, in.Wait); done {
			return nil, err
		}
		p, err := platform(from(ctx).machine, in.Zone)
		if err != nil {
			return nil, err
		}
		_, err = h.write(ctx, in.Wait, in.Reason.Reason, state.DropPlatform{Apex: p.Apex})
		return nil, err
	})
	add(h, huma.Operation{
		OperationID: "zone-parent", Method: http.MethodGet, Path: "/v1/zones/{zone}/parent", Tags: tags,
		Summary: "NS and glue to give to the registrar of a platform zone",
	}, reader, h.parentOf)
	add(h, huma.Operation{
		OperationID: "zone-served", Method: http.MethodGet, Path: "/v1/zones/{zone}/served", Tags: tags,
		Summary: "What DNS answers in a platform zone, the names of domains left out",
	}, reader, func(ctx context.Context, in *ZonePath) (*servedReply, error) {
		m := from(ctx).machine
		p, err := platform(m, in.Zone)
		if err != nil {
			return nil, err
		}
		return &servedReply{ServedList{viewServed(m.PlatformServed(p))}}, nil
	})
}

func (h *Handler) registerNameServers() {
	tags := []string{"Name servers"}
	add(h, huma.Operation{
		OperationID: "list-nameservers", Method: http.MethodGet, Path: "/v1/nameservers", Tags: tags, Summary: "List name servers",
	}, reader, func(ctx context.Context, in *Page) (*struct{ Body NameServerList }, error) {
		m := from(ctx).machine
		var out struct{ Body NameServerList }
		var err error
		out.Body.Items, out.Body.Next, err = paged(*in, m.NameServers(),
			func(s *state.NameServer) string { return fmt.Sprintf("%03d%s", len(s.Label), s.Label) }, // ns2 before ns10
			func(s *state.NameServer) NameServer { return viewServer(m, s) })
		return &out, err
	})
	add(h, huma.Operation{
		OperationID: "show-nameserver", Method: http.MethodGet, Path: "/v1/nameservers/{nameserver}", Tags: tags, Summary: "Show a name server",
	}, reader, func(ctx context.Context, in *ServerPath) (*serverReply, error) {
		return serverOf(from(ctx).machine, in.Label)
	})
	add(h, huma.Operation{
		OperationID: "put-nameserver", Method: http.MethodPut, Path: "/v1/nameservers/{nameserver}", Tags: tags,
		Summary:     "Add a name server, or replace its public addresses",
		Description: "A name server is a name, not a node: nodes come, go and move behind it, and customers' NS records never change.",
	}, adminOnly, func(ctx context.Context, in *struct {
		ServerPath
		Wait
		Reason
		Body NameServerSpec
	}) (*serverReply, error) {
		all, err := addresses("addresses", in.Body.Addresses)
		if err != nil {
			return nil, err
		}
		if _, err := h.write(ctx, in.Wait, in.Reason.Reason, state.PutNameServer{Label: in.Label, Addresses: all}); err != nil {
			return nil, err
		}
		return serverOf(h.replica.Machine(), in.Label)
	})
	add(h, huma.Operation{
		OperationID: "drop-nameserver", Method: http.MethodDelete, Path: "/v1/nameservers/{nameserver}", Tags: tags,
		Summary: "Remove a name server that no domain was given",
	}, adminOnly, func(ctx context.Context, in *struct {
		ServerPath
		Wait
		Reason
	}) (*struct{}, error) {
		_, err := h.write(ctx, in.Wait, in.Reason.Reason, state.DropNameServer{Label: in.Label})
		return nil, err
	})
}

func (h *Handler) putZone(ctx context.Context, in *struct {
	ZonePath
	Wait
	Reason
	Body *ZoneSpec
}) (*zoneReply, error) {
	var body ZoneSpec
	if in.Body != nil {
		body = *in.Body
	}
	apex, err := host("zone", in.Zone)
	if err != nil {
		return nil, err
	}
	rname, err := contact(body.Contact, apex)
	if err != nil {
		return nil, err
	}
	if _, err := h.write(ctx, in.Wait, in.Reason.Reason, state.PutPlatform{Apex: apex, Contact: rname}); err != nil {
		return nil, err
	}
	return zoneOf(h.replica.Machine(), in.Zone)
}

func (h *Handler) parentOf(ctx context.Context, in *ZonePath) (*struct{ Body Parent }, error) {
	m := from(ctx).machine
	p, err := platform(m, in.Zone)
	if err != nil {
		return nil, err
	}
	out := Parent{Zone: p.Apex.Host(), NS: []ParentNS{}, Records: []Served{}}
	ns := Served{Name: p.Apex.String(), Type: zone.TypeNS.String(), TTL: zone.TTLNS, Values: []string{}}
	var glue []Served
	for s := range m.NameServers() {
		name := s.Label + "." + p.Apex.String()
		ns.Values = append(ns.Values, name)
		out.NS = append(out.NS, ParentNS{name, addressTexts(s.Addresses)})
		for _, a := range s.Addresses {
			kind := zone.TypeAAAA
			if a.Is4() {
				kind = zone.TypeA
			}
			glue = append(glue, Served{Name: name, Type: kind.String(), TTL: zone.TTLServer, Values: []string{a.String()}})
		}
	}
	if len(ns.Values) > 0 {
		out.Records = append(append(out.Records, ns), glue...)
	}
	return &struct{ Body Parent }{out}, nil
}

// platform finds a platform zone by the text of a path.
func platform(m state.Machine, text string) (*state.Platform, error) {
	apex, err := host("zone", text)
	if err != nil {
		return nil, err
	}
	p, ok := m.Platform(apex)
	if !ok {
		return nil, notFound("zone", "there is no platform zone %q", bounded(text))
	}
	return p, nil
}

func zoneOf(m state.Machine, text string) (*zoneReply, error) {
	p, err := platform(m, text)
	if err != nil {
		return nil, err
	}
	return &zoneReply{viewZone(m, p)}, nil
}

func viewZone(m state.Machine, p *state.Platform) Zone {
	out := Zone{
		Zone: p.Apex.Host(), Contact: mailbox(p.Contact), Serial: p.Serial,
		NameServers: []string{}, Records: viewRecords(p.Records, p.Apex),
	}
	for s := range m.NameServers() {
		out.NameServers = append(out.NameServers, s.Label+"."+p.Apex.String())
	}
	return out
}

func serverOf(m state.Machine, label string) (*serverReply, error) {
	s, ok := m.NameServer(label)
	if !ok {
		return nil, notFound("nameserver", "there is no name server %q", bounded(label))
	}
	return &serverReply{viewServer(m, s)}, nil
}

func viewServer(m state.Machine, s *state.NameServer) NameServer {
	out := NameServer{Label: s.Label, Addresses: addressTexts(s.Addresses), Names: []string{}}
	for p := range m.Platforms() {
		out.Names = append(out.Names, s.Label+"."+p.Apex.String())
	}
	return out
}

func addressTexts(all []netip.Addr) []string {
	texts := []string{}
	for _, a := range all {
		texts = append(texts, a.String())
	}
	return texts
}

func viewServed(sets []zone.RRset) []Served {
	out := []Served{}
	for _, s := range sets {
		out = append(out, Served{Name: s.Owner.String(), Type: s.Type.String(), TTL: s.TTL, Values: s.Values()})
	}
	return out
}
