package main

import (
	"fmt"
	"io"
	"strings"

	"authd/api"
)

type keyShowCmd struct {
	Domain   string `arg:"" help:"Domain or token."`
	Selector string `arg:"" help:"Selector of the key."`
}

func (keyShowCmd) Help() string {
	return `Asks every serving node what it saw: queries for the key while it drains and after, and which access
tokens fetched it. A node that does not answer is named; what it saw is unknown, and a key is revoked
on schedule only once all have answered.

    authd key show send.customer.example 2611-ab3de7
`
}

func (c *keyShowCmd) Run(s *session) error {
	var k api.KeyPage
	raw, err := s.get(s.ctx, v1("domains", c.Domain, "keys", c.Selector), nil, &k)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) { printKey(w, &k) })
}

func printKey(w io.Writer, k *api.KeyPage) {
	safe := "no"
	if k.SafeToRevoke {
		safe = "yes"
	}
	row(w, "selector:", k.Selector)
	row(w, "domain:", k.Domain)
	row(w, "algorithm:", k.Algorithm)
	row(w, "stage:", k.Stage)
	row(w, "next:", strings.TrimSpace(k.Next+" "+when(k.DueAt)))
	if len(k.Waiting) > 0 {
		row(w, "waiting for:", waitingFor(&k.Key)+": "+k.Waiting[0].Why)
	}
	row(w, "safe to revoke:", safe+": "+k.Why)
	if len(k.Use.Unheard) > 0 {
		row(w, "not heard:", strings.Join(k.Use.Unheard, ", "))
	}
	row(w, "counted since:", when(k.Use.CountedSince))
	row(w, "last asked:", orNever(when(k.Use.LastAsked)))
	for _, d := range k.Use.Asked {
		row(w, "", fmt.Sprintf("%s  %d queries", d.Day, d.Queries))
	}
	row(w, "last handed out:", orNever(when(k.Use.LastHandedOut)))
	for _, signer := range k.Use.Signers {
		later := "no later key"
		if signer.LaterAt != nil {
			later = "a later key " + when(signer.LaterAt)
		}
		row(w, "", fmt.Sprintf("%s  %s, %s", signer.Token, when(signer.At), later))
	}
}

func orNever(s string) string {
	if s == "" {
		return "never"
	}
	return s
}
