package state

import (
	"authd/zone"
)

// Record is one record the customer must add to their own DNS.
type Record struct {
	Name  string // without the final dot
	Type  string
	Value string // as in a zone file: names with the final dot
	TTL   uint32
}

// TTLs proposed to customers, in seconds. Their own matters little: what changes
// lies behind it.
const (
	customerNS    = zone.TTLNS
	customerCNAME = 3600
)

// CustomerRecords is what the customer of a domain must add, once.
func (d *Domain) CustomerRecords() []Record {
	if d.Mode == zone.Delegated {
		records := make([]Record, 0, len(d.Servers))
		for _, s := range d.Servers {
			records = append(records, Record{Name: d.Name.Host(), Type: "NS", Value: s.Name.String(), TTL: customerNS})
		}
		return records
	}
	var records []Record
	add := func(t zone.Target, labels ...string) {
		if t.Name == "" {
			return
		}
		if n, err := d.Name.Child(labels...); err == nil { // AddDomain refuses names without room
			records = append(records, Record{Name: n.Host(), Type: "CNAME", Value: t.Name.String(), TTL: customerCNAME})
		}
	}
	for i, t := range d.Targets.Keys {
		if label := keySlotLabel(d.Algorithms, i); label != "" {
			add(t, d.Prefix+label, "_domainkey")
		}
	}
	add(d.Targets.Bounce, d.Prefix+labelBounce)
	add(d.Targets.Click, d.Prefix+labelClick)
	if d.DMARC != "" {
		add(d.Targets.DMARC, "_dmarc")
	}
	return records
}
