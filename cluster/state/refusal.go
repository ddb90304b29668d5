package state

import (
	"fmt"
	"strconv"
	"strings"

	"authd/zone"
)

// maxQuote bounds how much of an input a message repeats.
const maxQuote = 80

// quote repeats an input in a message, bounded and printable.
func quote(text string) string {
	if len(text) > maxQuote {
		return strconv.QuoteToASCII(text[:maxQuote]) + "…"
	}
	return strconv.QuoteToASCII(text)
}

// quoteName repeats a name in a message.
func quoteName(n zone.Name) string {
	if !wellFormed(n) {
		return quote(string(n))
	}
	return quote(n.Host())
}

func invalid(field, format string, args ...any) *Refusal {
	return &Refusal{Kind: Invalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

func notFound(field, format string, args ...any) *Refusal {
	return &Refusal{Kind: NotFound, Field: field, Message: fmt.Sprintf(format, args...)}
}

func conflict(field string, tokens []Token, format string, args ...any) *Refusal {
	return &Refusal{Kind: Conflict, Field: field, Message: fmt.Sprintf(format, args...), Conflicts: tokens}
}

func stale(field, format string, args ...any) *Refusal {
	return &Refusal{Kind: Stale, Field: field, Message: fmt.Sprintf(format, args...)}
}

func tooEarly(field string, at int64, format string, args ...any) *Refusal {
	return &Refusal{Kind: TooEarly, Field: field, At: at, Message: fmt.Sprintf(format, args...)}
}

// tokenList names claims in a message, the first few of them.
func tokenList(tokens []Token) string {
	const most = 4
	var b strings.Builder
	for i, t := range tokens {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(tokens)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(t.String())
	}
	return b.String()
}
