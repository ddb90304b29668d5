package cluster

import (
	"context"
	"fmt"
	"slices"

	"authd/cluster/state"
	"authd/zone"
)

// AskCNAMEs asks a customer's own servers where the CNAMEs at names of one zone lead:
// nil where no server gave an answer that counts, empty where there is no CNAME. An
// error: nobody could be asked.
type AskCNAMEs func(ctx context.Context, names []zone.Name) (leads [][]zone.Name, servers []string, err error)

// LookAtCNAMEs looks whether a customer's CNAMEs lead to the keys of a claim in mode
// cname. Where they do it looks at those of the claim's rivals too, and the proof says
// whose are gone: a provider that the customer has left. What cannot be asked changes
// nothing. proof is nil where there is nothing to propose.
func LookAtCNAMEs(ctx context.Context, m state.Machine, d *state.Domain, ask AskCNAMEs) (found bool, proof *state.ProveDomain, err error) {
	found, servers, err := leadTo(ctx, d, ask)
	if err != nil || !found {
		return false, nil, err
	}
	proof = &state.ProveDomain{Token: d.Token, Seen: []state.Token{d.Token}, Servers: servers}
	for _, rival := range m.Rivals(d) {
		if there, _, err := leadTo(ctx, rival, ask); err == nil && !there {
			proof.Gone = append(proof.Gone, rival.Token)
		}
	}
	if d.ProvenAt != 0 && len(proof.Gone) == 0 {
		proof = nil
	}
	return true, proof, nil
}

// leadTo says whether any key of a claim is at the end of a CNAME of its customer's. That
// none is, is only said where each was asked for.
func leadTo(ctx context.Context, d *state.Domain, ask AskCNAMEs) (found bool, servers []string, err error) {
	names, targets := d.KeyAliases()
	leads, servers, err := ask(ctx, names)
	if err != nil {
		return false, nil, err
	}
	for i, target := range targets {
		if slices.Contains(leads[i], target) {
			return true, servers, nil
		}
	}
	for i, n := range names {
		if leads[i] == nil {
			return false, nil, fmt.Errorf("asking for the CNAME at %s: no server of its zone answers", n.Host())
		}
	}
	return false, servers, nil
}
