package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"authd/api"
	"authd/cluster/state"
)

// tokenCmd is `authd token`.
type tokenCmd struct {
	clientFlags

	Create tokenCreateCmd `cmd:"" help:"Create an API token; its text is shown once."`
	List   tokenListCmd   `cmd:"" help:"List API tokens."`
	Revoke tokenRevokeCmd `cmd:"" help:"Revoke an API token."`
}

type tokenCreateCmd struct {
	Scope   string         `required:"" help:"admin, tenant:<id>, signer or read."`
	Subnet  []string       `placeholder:"PREFIX" help:"Only from these networks."`
	Expires *time.Duration `placeholder:"DURATION" help:"How long it is valid, such as 720h (default: for ever)."`
	Note    string         `help:"What it is for."`
}

func (tokenCreateCmd) Help() string {
	return `Only a hash of the token is stored: keep what is printed.

Examples:

    authd token create --scope signer --subnet 192.0.2.0/24 --note "mail servers"
    authd token create --scope tenant:acme --expires 720h
`
}

func (c *tokenCreateCmd) Run(s *session) error {
	body := api.NewToken{Scope: c.Scope, Subnets: c.Subnet, Note: c.Note}
	if c.Expires != nil {
		if *c.Expires <= 0 {
			return usagef("--expires: %s is not a time to come, such as 720h; leave it out for a token that is valid for ever", *c.Expires)
		}
		until := time.Now().Add(*c.Expires).UTC().Truncate(time.Second)
		body.ExpiresAt = &until
	}
	var t api.MadeToken
	raw, err := s.post(s.ctx, v1("tokens"), nil, body, &t)
	if err != nil {
		return err
	}
	return s.say(raw, "%s", string(t.Token))
}

type tokenListCmd struct{}

func (tokenListCmd) Help() string { return "    authd token list\n" }

func (c *tokenListCmd) Run(s *session) error {
	items, raw, err := pages[api.Token](s.ctx, s.client, v1("tokens"), nil)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		row(w, "ID", "SCOPE", "SUBNETS", "CREATED", "EXPIRES", "NOTE")
		for _, t := range items {
			row(w, t.ID, t.Scope, strings.Join(t.Subnets, " "), when(&t.CreatedAt), when(t.ExpiresAt), t.Note)
		}
	})
}

type tokenRevokeCmd struct {
	ID string `arg:"" help:"Id of the token, as list shows it."`
}

func (tokenRevokeCmd) Help() string { return "    authd token revoke 3f9a0c12\n" }

func (c *tokenRevokeCmd) Run(s *session) error {
	raw, err := s.remove(s.ctx, v1("tokens", c.ID), nil)
	if err != nil {
		return err
	}
	return s.say(raw, "token %s revoked", c.ID)
}

// newTokenText draws the text of an access token.
func newTokenText() (string, error) { return api.MintSecret(rand.Reader, new(state.AccessToken)) }

// tokenHash is what the cluster keeps of a token: SHA-256 of its whole text.
func tokenHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// tokenLine reads a token file's only line.
func tokenLine(content []byte) (string, error) {
	text := strings.TrimSpace(string(content))
	if !strings.HasPrefix(text, "authd_") || strings.ContainsAny(text, " \n\t") {
		return "", fmt.Errorf("not one access token")
	}
	return text, nil
}
