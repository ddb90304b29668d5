package state

import (
	"net/netip"
	"slices"
	"sort"
	"strings"

	"authd/zone"
)

// wellFormed says whether octets from a command are a name in canonical wire
// form, so that the methods of zone.Name may be called.
func wellFormed(n zone.Name) bool {
	if len(n) == 0 || len(n) > 255 {
		return false
	}
	for i := 0; i < len(n); {
		size := int(n[i])
		if size == 0 {
			return i == len(n)-1
		}
		if size > 63 || i+1+size >= len(n) {
			return false
		}
		for _, c := range []byte(n[i+1 : i+1+size]) {
			if 'A' <= c && c <= 'Z' {
				return false
			}
		}
		i += 1 + size
	}
	return false
}

// checkHost refuses what zone.ParseHost would refuse as text.
func checkHost(field string, n zone.Name) *Refusal {
	if !wellFormed(n) {
		return invalid(field, "%s is not a domain name", quote(string(n)))
	}
	parsed, err := zone.ParseHost(n.Host())
	if err != nil {
		return invalid(field, "%v", err)
	}
	if parsed != n {
		return invalid(field, "%s is not a host name", quoteName(n))
	}
	return nil
}

// checkLabels bounds an object's labels.
func checkLabels(labels map[string]string) *Refusal {
	if len(labels) > maxLabels {
		return invalid("labels", "%d labels: at most %d", len(labels), maxLabels)
	}
	names := make([]string, 0, len(labels))
	for k := range labels {
		names = append(names, k)
	}
	sort.Strings(names) // so that every node names the same one
	for _, k := range names {
		if k == "" || len(k) > maxLabelKey || !printable(k) {
			return invalid("labels", "label name %s: want 1 to %d printable ASCII characters", quote(k), maxLabelKey)
		}
		if len(labels[k]) > maxLabelValue || hasControl(labels[k]) {
			return invalid("labels", "label %s: the value is longer than %d octets or holds control characters", quote(k), maxLabelValue)
		}
	}
	return nil
}

// printable says whether a text is ASCII without controls.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// checkTitle checks a text that people read.
func checkTitle(field, s string) *Refusal {
	if len(s) > maxTitle || hasControl(s) {
		return invalid(field, "%s: at most %d octets and no control characters", quote(s), maxTitle)
	}
	return nil
}

// checkID refuses ids that do not fit into a DNS label: [a-z0-9]([a-z0-9-]*[a-z0-9])?
func checkID(field, id string) *Refusal {
	ok := len(id) > 0 && len(id) <= 63 && id[0] != '-' && id[len(id)-1] != '-'
	for i := range len(id) {
		c := id[i]
		ok = ok && ('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-')
	}
	if !ok {
		return invalid(field, "%s: want 1 to 63 of a-z, 0-9 and hyphens, no hyphen at the ends", quote(id))
	}
	return nil
}

// isServerLabel says whether a label is ns1, ns2, … ns99.
func isServerLabel(label string) bool {
	digits, ok := strings.CutPrefix(label, "ns")
	if !ok || len(digits) == 0 || len(digits) > 2 || digits[0] == '0' {
		return false
	}
	return strings.Trim(digits, "0123456789") == ""
}

// serverBefore orders ns2 before ns10.
func serverBefore(a, b string) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return a < b
}

// reserved says whether a name in a platform zone is one that authd answers
// itself or may generate: the apex's own labels nsN, dkim, bounce, click, dmarc
// and spf with all below them, and report authorisation.
func reserved(n, apex zone.Name) bool {
	top := n
	for top != apex {
		if top.Label() == "_report" && top.Parent().Label() == "_dmarc" {
			return true
		}
		if top.Parent() == apex {
			break
		}
		top = top.Parent()
	}
	switch label := top.Label(); label {
	case labelDKIM, labelBounce, labelClick, labelDMARC, labelSPF:
		return true
	default:
		return isServerLabel(label)
	}
}

// checkAddresses checks a list of addresses that answers are made of and gives
// it in order. path names the list.
func checkAddresses(path string, in []netip.Addr) ([]netip.Addr, *Refusal) {
	if len(in) > maxAddresses {
		return nil, invalid(path, "%d addresses: at most %d", len(in), maxAddresses)
	}
	for i, a := range in {
		field := element(path, i)
		switch {
		case !a.IsValid():
			return nil, invalid(field, "not an address")
		case a.Zone() != "" || a.Is4In6():
			return nil, invalid(field, "%s: give a plain IPv4 or IPv6 address", quote(a.String()))
		case a.IsUnspecified() || a.IsMulticast():
			return nil, invalid(field, "%s cannot be reached by anyone", a)
		}
	}
	out := slices.Clone(in)
	slices.SortFunc(out, netip.Addr.Compare)
	for i := 1; i < len(out); i++ {
		if out[i] == out[i-1] {
			return nil, invalid(path, "%s is there twice", out[i])
		}
	}
	return out, nil
}

// element names one element of a list field, as the API does: spf[1].
func element(field string, i int) string {
	return field + "[" + itoa(i) + "]"
}

func itoa(i int) string {
	if i >= 10 {
		return itoa(i/10) + string(rune('0'+i%10))
	}
	return string(rune('0' + i))
}
