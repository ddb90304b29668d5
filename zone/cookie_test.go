package zone

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func secret(t testing.TB, text string) CookieSecret { return CookieSecret(unhex(t, text)) }

// The vectors of the algorithm's authors: key 00 to 0f, input 00, 00 01, ….
func TestSipHashIsThatOfItsAuthors(t *testing.T) {
	var key CookieSecret
	var input [64]byte
	for i := range input {
		input[i] = byte(i)
	}
	copy(key[:], input[:])
	for length, want := range map[int]uint64{0: 0x726fdb47dd0e0e31, 1: 0x74f839c593dc67fd, 8: 0x93f5f5799a932462, 15: 0xa129ca6149be45e5, 63: 0x958a324ceb064572} {
		if got := sipHash(&key, input[:length]); got != want {
			t.Errorf("%d octets: %x, want %x", length, got, want)
		}
	}
}

// RFC 9018 appendix A, and what section 4.3 says of age.
func TestServerCookies(t *testing.T) {
	const (
		first  = "2464c4abcf10c957010000005cf79f111f8130c3eee29480"
		second = "fc93fc62807ddb86"
		third  = "22681ab97d52c298"
		at1    = 1559731985
		at4    = 1559741961
	)
	one := CookieSecrets{Current: secret(t, "e5e973e5a6b2a43f48e7dc849e37bfcf")}
	rolled := CookieSecrets{Current: secret(t, "445536bcd2513298075a5d379663c962"), Previous: secret(t, "dd3bdf9344b678b185a6f5cb60fca715")}
	forgotten := CookieSecrets{Current: rolled.Current}
	const four, other, six = "198.51.100.100", "203.0.113.203", "2001:db8:220:1:59de:d0f4:8769:82b8"
	for _, c := range []struct {
		name, from, cookie string
		secrets            *CookieSecrets
		now                uint32
		want               cookieState
		reply              string
	}{
		{"A.1 first cookie", four, first[:16], &one, at1, cookieNew, first},
		{"A.2 renewed after 40 minutes", four, first, &one, at1 + 2400, cookieGood, "2464c4abcf10c957010000005cf7a871d4a564a1442aca77"},
		{"A.3 reserved octets are hashed as they came", other, second + "01abcdef5cf78f71a314227b6679ebf5", &one, 1559734700 - 900, cookieBad, ""},
		{"A.3 in time", other, second + "01abcdef5cf78f71a314227b6679ebf5", &one, 0x5cf78f71 + 3000, cookieGood, ""},
		{"A.4 made with the previous secret", six, third + "010000005cf7c57926556bd0934c72f8", &rolled, at4, cookieGood, third + "010000005cf7c609a6bb79d16625507a"},
		{"A.4 previous secret forgotten", six, third + "010000005cf7c57926556bd0934c72f8", &forgotten, at4, cookieBad, third + "010000005cf7c609a6bb79d16625507a"},
		{"young: repeated", four, first, &one, at1 + 1800, cookieGood, first},
		{"at the end of its life", four, first, &one, at1 + 3600, cookieGood, ""},
		{"a second later", four, first, &one, at1 + 3601, cookieBad, ""},
		{"of a clock five minutes ahead", four, first, &one, at1 - 300, cookieGood, first},
		{"of one further ahead", four, first, &one, at1 - 301, cookieBad, ""},
		{"of another address", other, first, &one, at1, cookieBad, ""},
		{"an octet changed", four, first[:47] + "1", &one, at1, cookieBad, first},
		{"another version", four, first[:16] + "02" + first[18:], &one, at1, cookieBad, first},
		{"of another length", four, first[:40], &one, at1, cookieBad, first},
		{"without secrets", four, first, &CookieSecrets{}, at1, cookieNone, ""},
		{"without a cookie", four, "", &one, at1, cookieNone, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			from := sourceOf(netip.MustParseAddr(c.from), false)
			var reply [cookieSize]byte
			if got := c.secrets.judge(&reply, unhex(t, c.cookie), &from, c.now); got != c.want {
				t.Errorf("state %d, want %d", got, c.want)
			}
			if got := hex.EncodeToString(reply[:]); c.reply != "" && got != c.reply {
				t.Errorf("replied %s, want %s", got, c.reply)
			}
			if c.want == cookieNone {
				return
			}
			var again [cookieSize]byte
			if got := c.secrets.judge(&again, reply[:], &from, c.now); got != cookieGood {
				t.Errorf("the cookie replied is %d to us, want good", got)
			}
		})
	}
}

func TestLengthsOfCookies(t *testing.T) {
	for length := range 64 {
		want := length == 8 || length >= 16 && length <= 40
		if cookieFits(length) != want {
			t.Errorf("%d octets: %t, want %t (RFC 7873 section 4)", length, !want, want)
		}
	}
}

func BenchmarkServerCookie(b *testing.B) {
	from := sourceOf(netip.MustParseAddr("198.51.100.100"), false)
	secrets := CookieSecrets{Current: CookieSecret{1}}
	var reply [cookieSize]byte
	secrets.judge(&reply, make([]byte, clientCookieSize), &from, 1000)
	cookie := append([]byte(nil), reply[:]...)
	for b.Loop() {
		secrets.judge(&reply, cookie, &from, 1000)
	}
}

// A secret that is not set recognises nothing: who knows that it is all zeroes
// could make cookies for any address.
func TestCookiesOfSecretsThatAreNotSetAreBad(t *testing.T) {
	from := sourceOf(netip.MustParseAddr("192.0.2.1"), false)
	const now = 1_800_000_000
	made := func(s *CookieSecret, version byte) []byte {
		cookie := make([]byte, cookieSize)
		copy(cookie, "client!!")
		cookie[clientCookieSize] = version
		binary.BigEndian.PutUint32(cookie[12:], now)
		binary.LittleEndian.PutUint64(cookie[cookieSize-8:], s.hash(cookie, &from))
		return cookie
	}
	secrets := &CookieSecrets{Current: CookieSecret{1}}
	var reply [cookieSize]byte
	for what, c := range map[string]struct {
		cookie []byte
		want   cookieState
	}{
		"ours":          {made(&secrets.Current, cookieVersion), cookieGood},
		"of no secret":  {made(&CookieSecret{}, cookieVersion), cookieBad},
		"of no version": {made(&secrets.Current, cookieVersion+1), cookieBad},
	} {
		if got := secrets.judge(&reply, c.cookie, &from, now); got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
	// A good one is repeated for half an hour, and made anew from then on.
	old := made(&secrets.Current, cookieVersion)
	for age, same := range map[uint32]bool{cookieFresh: true, cookieFresh + 1: false} {
		if got := secrets.judge(&reply, old, &from, now+age); got != cookieGood || (string(reply[:]) == string(old)) != same {
			t.Errorf("%d s old: %d, the same again: %v", age, got, !same)
		}
	}
}
