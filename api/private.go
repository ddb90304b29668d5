package api

import (
	"fmt"
	"io"
	"log/slog"
)

// PrivateText is a secret on its way: a private key or a token in the body of a
// request or of a reply. JSON carries it; printing and logging do not show it.
type PrivateText string

const notShown = "(private)"

// String shows nothing of it.
func (PrivateText) String() string { return notShown }

// GoString is String.
func (PrivateText) GoString() string { return notShown }

// Format is String, whatever the verb.
func (PrivateText) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, notShown) }

// LogValue is String.
func (PrivateText) LogValue() slog.Value { return slog.StringValue(notShown) }
