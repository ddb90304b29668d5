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
		if label := d.keyLabel(i); label != "" {
			add(t, label, "_domainkey")
		}
	}
	add(d.Targets.Bounce, d.Prefix+labelBounce)
	add(d.Targets.Click, d.Prefix+labelClick)
	if d.DMARC != "" {
		add(d.Targets.DMARC, "_dmarc")
	}
	return records
}

// keyLabel is the customer-side label of the i-th key target; empty: there is none.
func (d *Domain) keyLabel(i int) string {
	if label := keySlotLabel(d.Algorithms, i); label != "" {
		return d.Prefix + label
	}
	return ""
}

// KeyAliases are the names below the customer's at which the keys of a claim in mode
// cname are asked for, and where the CNAME at each has to lead.
func (d *Domain) KeyAliases() (names, targets []zone.Name) {
	for i, t := range d.Targets.Keys {
		if n, err := d.Name.Child(d.keyLabel(i), "_domainkey"); err == nil { // AddDomain refuses names without room
			names, targets = append(names, n), append(targets, t.Name)
		}
	}
	return names, targets
}
