package state

import (
	"strings"

	"authd/zone"
)

// checkPolicy refuses a DMARC policy that receivers would not read (RFC 9989
// section 4.7; formerly RFC 7489 section 6.3): v=DMARC1 first, then tags, p=
// among them. psd= is never ours to say: it would change what receivers take for
// the organisational domain.
func checkPolicy(field, text string) *Refusal {
	if text == "" {
		return nil
	}
	if len(text) > maxPolicy || !printable(text) {
		return invalid(field, "%s: at most %d printable ASCII characters", quote(text), maxPolicy)
	}
	tags := policyTags(text)
	if len(tags) == 0 || tags[0] != [2]string{"v", "DMARC1"} {
		return invalid(field, "%s: want v=DMARC1 first", quote(text))
	}
	seen := make(map[string]bool, len(tags))
	for _, tag := range tags {
		name, value := tag[0], tag[1]
		if name == "" || value == "" || strings.Contains(value, "=") && name != "rua" && name != "ruf" {
			return invalid(field, "%s: want tags as name=value, apart by semicolons", quote(text))
		}
		if seen[name] {
			return invalid(field, "%s: tag %s is there twice", quote(text), quote(name))
		}
		seen[name] = true
		switch {
		case name == "psd":
			return invalid(field, "%s: psd= is for public suffixes: leave it out", quote(text))
		case name == "p" || name == "sp" || name == "np":
			if value != "none" && value != "quarantine" && value != "reject" {
				return invalid(field, "%s: %s= is none, quarantine or reject", quote(text), name)
			}
		}
	}
	if !seen["p"] {
		return invalid(field, "%s: want a p= tag: none, quarantine or reject", quote(text))
	}
	return nil
}

// policyTags splits a tag list (RFC 6376 section 3.2), names and values trimmed.
func policyTags(text string) (tags [][2]string) {
	for part := range strings.SplitSeq(text, ";") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		tags = append(tags, [2]string{strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)})
	}
	return tags
}

// maxReportHosts bounds the report authorisations of one policy; receivers are
// only obliged to send to two.
const maxReportHosts = 8

// reportHosts are the hosts that a policy wants aggregate or failure reports
// sent to by mail, without duplicates, in the order of the text.
func reportHosts(policy string) (hosts []zone.Name) {
	for _, tag := range policyTags(policy) {
		if tag[0] != "rua" && tag[0] != "ruf" {
			continue
		}
		for uri := range strings.SplitSeq(tag[1], ",") {
			scheme, address, _ := strings.Cut(strings.TrimSpace(uri), ":")
			if !strings.EqualFold(scheme, "mailto") {
				continue
			}
			host := address[strings.LastIndexByte(address, '@')+1:]
			host, _, _ = strings.Cut(host, "!")
			n, err := zone.ParseHost(host)
			if err != nil || len(hosts) == maxReportHosts || hasName(hosts, n) {
				continue
			}
			hosts = append(hosts, n)
		}
	}
	return hosts
}

func hasName(names []zone.Name, n zone.Name) bool {
	for _, have := range names {
		if have == n {
			return true
		}
	}
	return false
}
