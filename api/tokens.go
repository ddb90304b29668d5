package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
)

// Token is an API credential. Its secret is shown once, when it is made.
type Token struct {
	ID        string     `json:"id" example:"4be0643f1d98573b"`
	Scope     string     `json:"scope" example:"tenant:acme"`
	Subnets   []string   `json:"subnets" nullable:"false" example:"[\"192.0.2.0/24\"]" doc:"Where it may be used from; empty: anywhere."`
	ExpiresAt *time.Time `json:"expires_at"`
	CreatedAt time.Time  `json:"created_at"`
	Note      string     `json:"note"`
}

// NewToken is the body of POST /v1/tokens.
type NewToken struct {
	Scope     string     `json:"scope" maxLength:"80" example:"signer" doc:"admin, read, signer or tenant:<id>"`
	Subnets   []string   `json:"subnets,omitempty" maxItems:"32" nullable:"false" example:"[\"192.0.2.0/24\"]"`
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"Left out: never."`
	Note      string     `json:"note,omitempty" maxLength:"200"`
}

// MadeToken is a token with its secret.
type MadeToken struct {
	Token  PrivateText `json:"token" example:"authd_…" doc:"The secret. It is kept nowhere: only its hash is."`
	Access Token       `json:"access"`
}

// TokenList is one page of tokens.
type TokenList struct {
	Items []Token `json:"items" nullable:"false"`
	Next  string  `json:"next,omitempty" doc:"Cursor of the next page; absent on the last."`
}

// lastYear is the last one that RFC 3339 can write.
const lastYear = 9999

// secretMark begins every token, so that scanners for leaked secrets know it.
const secretMark = "authd_"

func (h *Handler) registerTokens() {
	tags := []string{"Tokens"}
	add(h, huma.Operation{
		OperationID: "list-tokens", Method: http.MethodGet, Path: "/v1/tokens", Tags: tags, Summary: "List access tokens",
	}, adminOnly, func(ctx context.Context, in *Page) (*struct{ Body TokenList }, error) {
		var out struct{ Body TokenList }
		var err error
		out.Body.Items, out.Body.Next, err = paged(*in, from(ctx).machine.AccessTokens(), func(t *state.AccessToken) string { return t.ID }, viewToken)
		return &out, err
	})
	add(h, huma.Operation{
		OperationID: "add-token", Method: http.MethodPost, Path: "/v1/tokens", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Make an access token; the reply is the only place that shows it",
	}, adminOnly, h.addToken)
	add(h, huma.Operation{
		OperationID: "drop-token", Method: http.MethodDelete, Path: "/v1/tokens/{id}", Tags: tags, Summary: "Revoke an access token",
	}, adminOnly, func(ctx context.Context, in *struct {
		ID string `path:"id" maxLength:"64"`
		Wait
		Reason
	}) (*struct{}, error) {
		_, err := h.write(ctx, in.Wait, in.Reason.Reason, state.DropAccessToken{ID: in.ID})
		return nil, err
	})
}

func (h *Handler) addToken(ctx context.Context, in *struct {
	Wait
	Reason
	Body NewToken
}) (*struct {
	Created
	Body MadeToken
}, error) {
	req := from(ctx)
	if req.first != nil {
		return nil, shownOnce(req.once)
	}
	access, err := readToken(req.machine, in.Body, h.config.Now())
	if err != nil {
		return nil, err
	}
	secret, err := MintSecret(h.config.Random, &access)
	if err != nil {
		return nil, err
	}
	if req.once != (state.Once{}) {
		access.ID = onceID(req.once)
	}
	result, err := h.write(ctx, in.Wait, in.Reason.Reason, state.AddAccessToken{Access: access})
	if err != nil {
		return nil, err
	}
	if result.First != 0 {
		return nil, shownOnce(req.once)
	}
	return &struct {
		Created
		Body MadeToken
	}{Created{"/v1/tokens/" + access.ID}, MadeToken{PrivateText(secret), viewToken(&access)}}, nil
}

// onceID is the id of a token that is made with an Idempotency-Key: it follows
// from the request, so that a repetition can name the token.
func onceID(o state.Once) string {
	sum := sha256.Sum256(append(o.Key[:], o.Request[:]...))
	return hex.EncodeToString(sum[:8])
}

// shownOnce answers the repetition of a request that made a token: its secret is
// kept nowhere, and a reply without one would be taken for a token.
func shownOnce(o state.Once) *Problem {
	id := onceID(o)
	return problem(http.StatusConflict, codeConflict, state.OnceField,
		"this request made the token %s before, and its secret was in that reply alone; revoke %s and make another with a new key", id, id)
}

// MintSecret draws the secret and the id of an access token: 256 random bits
// behind a recognisable prefix. Only the hash enters the log.
func MintSecret(random io.Reader, access *state.AccessToken) (secret string, err error) {
	var b [32 + 8]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("drawing an access token: %w", err)
	}
	secret = secretMark + base64.RawURLEncoding.EncodeToString(b[:32])
	access.Hash = sha256.Sum256([]byte(secret))
	access.ID = hex.EncodeToString(b[32:])
	return secret, nil
}

func readToken(m state.Machine, in NewToken, at time.Time) (state.AccessToken, error) {
	out := state.AccessToken{Scope: state.Scope(in.Scope), Note: in.Note, CreatedAt: at.Unix()}
	switch id, of := strings.CutPrefix(in.Scope, tenantScope); {
	case of:
		if _, ok := m.Tenant(id); !ok {
			return out, invalid("scope", "there is no tenant %q", bounded(id))
		}
	case out.Scope != state.ScopeAdmin && out.Scope != state.ScopeRead && out.Scope != state.ScopeSigner:
		return out, invalid("scope", "scope %q is none of admin, read, signer, tenant:<id>", bounded(in.Scope))
	}
	for i, text := range in.Subnets {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return out, invalid(indexed("subnets", i), "%q is not a subnet such as 192.0.2.0/24", bounded(text))
		}
		if p != p.Masked() {
			return out, invalid(indexed("subnets", i), "%s has bits behind its length; write %s", p, p.Masked())
		}
		out.Subnets = append(out.Subnets, p)
	}
	if in.ExpiresAt != nil {
		if !in.ExpiresAt.After(at) {
			return out, invalid("expires_at", "%s is past", in.ExpiresAt.Format(time.RFC3339))
		}
		if in.ExpiresAt.UTC().Year() > lastYear {
			return out, invalid("expires_at", "%s is after the year %d; leave it out for a token that never expires", in.ExpiresAt.Format(time.RFC3339), lastYear)
		}
		out.ExpiresAt = in.ExpiresAt.Unix()
	}
	return out, nil
}

func viewToken(t *state.AccessToken) Token {
	out := Token{
		ID: t.ID, Scope: string(t.Scope), Subnets: []string{}, ExpiresAt: maybe(t.ExpiresAt),
		CreatedAt: moment(t.CreatedAt), Note: t.Note,
	}
	for _, s := range t.Subnets {
		out.Subnets = append(out.Subnets, s.String())
	}
	return out
}
