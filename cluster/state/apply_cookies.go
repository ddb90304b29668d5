package state

import "authd/zone"

// CookieSecrets are the secrets of DNS cookies (RFC 9018): all nodes answer with
// the same, so that a client's cookie is good at each of them.
type CookieSecrets struct {
	Current   zone.CookieSecret `cbor:"1,keyasint"`
	CurrentAt int64             `cbor:"2,keyasint"`
	// Previous is recognised besides; zero where there was none.
	Previous zone.CookieSecret `cbor:"3,keyasint"`
}

const (
	// cookiePeriod is how long a secret makes cookies.
	cookiePeriod = 24 * 3600
	// cookieFloor is how soon a secret may follow another: past the life of a
	// cookie, so that none is forgotten while it counts (RFC 9018 section 4.3).
	cookieFloor = 2 * 3600
)

// Served is what the name servers need of them.
func (c CookieSecrets) Served() zone.CookieSecrets {
	return zone.CookieSecrets{Current: c.Current, Previous: c.Previous}
}

// DueAt is when the next secret is due; 0: there is none yet.
func (c CookieSecrets) DueAt() int64 {
	if c.CurrentAt == 0 {
		return 0
	}
	return c.CurrentAt + cookiePeriod
}

// image is what an image holds: nothing where there are none.
func (c CookieSecrets) image() *CookieSecrets {
	if c == (CookieSecrets{}) {
		return nil
	}
	return &c
}

// setCookieSecret makes a secret the current one.
func (w *writer) setCookieSecret(c SetCookieSecret) Result {
	had := w.cookies
	switch {
	case c.Secret == zone.CookieSecret{}:
		return refused(invalid("secret", "a secret of zeroes: want 16 random octets"))
	case c.Secret == had.Current:
		return same
	case c.Secret == had.Previous:
		return refused(invalid("secret", "the secret before this one: want 16 random octets"))
	case had.CurrentAt != 0 && w.time < had.CurrentAt+cookieFloor:
		return refused(tooEarly("secret", had.CurrentAt+cookieFloor, "a secret that is %d s old: cookies made with the one before it still count", w.time-had.CurrentAt))
	}
	w.cookies = CookieSecrets{Current: c.Secret, CurrentAt: w.time, Previous: had.Current}
	return done
}
