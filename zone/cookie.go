package zone

import (
	"encoding/binary"
	"math/bits"
)

// CookieSecret is a key of server cookies (RFC 9018 section 4.4). Whoever has it can
// get past the rate limits with forged addresses, and do nothing else.
type CookieSecret [16]byte

// CookieSecrets are what server cookies are made and recognised with. All nodes
// behind one name need the same (RFC 9018 section 5).
type CookieSecrets struct {
	// Current makes cookies; zero: cookies are neither made nor looked at.
	Current CookieSecret
	// Previous is recognised besides; zero: there is none.
	Previous CookieSecret
}

// Sizes of a COOKIE option (RFC 7873 section 4) and ages of ours in seconds (RFC
// 9018 section 4.3).
const (
	optionCookie     = 10
	clientCookieSize = 8
	serverCookieSize = 16 // of ours; others' are 8 to 32
	minServerCookie  = 8
	maxServerCookie  = 32
	cookieSize       = clientCookieSize + serverCookieSize

	cookieVersion = 1
	cookieLife    = 3600
	cookieFresh   = 1800 // an older one is renewed while it still counts
	cookieAhead   = 300  // another node's clock may be ahead of ours
)

// cookieState is what a query's cookie says of its sender.
type cookieState uint8

const (
	cookieNone cookieState = iota // no cookie, or we have no secrets
	cookieNew                     // a client that has not learnt our cookie yet
	cookieGood                    // our cookie: the address is not forged
	cookieBad                     // not ours, or too old
	cookieStates
)

// cookieFits says whether a COOKIE option may be that long. Others are format
// errors (RFC 7873 section 5.2.2).
func cookieFits(length int) bool {
	server := length - clientCookieSize
	return server == 0 || server >= minServerCookie && server <= maxServerCookie
}

// judge says what a query's cookie proves, and writes the cookie to answer with into
// reply: the client's half and ours, renewed where it is due.
func (s *CookieSecrets) judge(reply *[cookieSize]byte, cookie []byte, from *source, now uint32) cookieState {
	if len(cookie) == 0 || from.length == 0 || s == nil || s.Current == (CookieSecret{}) {
		return cookieNone
	}
	state := cookieNew
	if len(cookie) > clientCookieSize {
		state = cookieBad
		if len(cookie) == cookieSize && cookie[clientCookieSize] == cookieVersion {
			made := binary.BigEndian.Uint32(cookie[clientCookieSize+4:])
			age := int32(now - made) // serial numbers (RFC 1982): the clock wraps in 2106
			if age <= cookieLife && age >= -cookieAhead {
				got := binary.LittleEndian.Uint64(cookie[cookieSize-8:])
				switch {
				case got == s.Current.hash(cookie, from):
					state = cookieGood
					if age <= cookieFresh {
						copy(reply[:], cookie)
						return state
					}
				case s.Previous != CookieSecret{} && got == s.Previous.hash(cookie, from):
					state = cookieGood
				}
			}
		}
	}
	copy(reply[:clientCookieSize], cookie)
	reply[8], reply[9], reply[10], reply[11] = cookieVersion, 0, 0, 0
	binary.BigEndian.PutUint32(reply[12:], now)
	binary.LittleEndian.PutUint64(reply[cookieSize-8:], s.Current.hash(reply[:], from))
	return state
}

// hash is the last part of a server cookie: over the client's half, version,
// reserved octets and time, and the client's address (RFC 9018 section 4.4).
func (s *CookieSecret) hash(cookie []byte, from *source) uint64 {
	const head = clientCookieSize + 8
	var input [head + 16]byte
	copy(input[:head], cookie)
	copy(input[head:], from.address[:from.length])
	return sipHash(s, input[:head+from.length])
}

// sipHash is SipHash-2-4 with 64 bits of output.
func sipHash(key *CookieSecret, data []byte) uint64 {
	k0, k1 := binary.LittleEndian.Uint64(key[:]), binary.LittleEndian.Uint64(key[8:])
	v0, v1 := k0^0x736f6d6570736575, k1^0x646f72616e646f6d
	v2, v3 := k0^0x6c7967656e657261, k1^0x7465646279746573
	last := uint64(len(data)) << 56
	for ; len(data) >= 8; data = data[8:] {
		word := binary.LittleEndian.Uint64(data)
		v3 ^= word
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
		v0 ^= word
	}
	for i, c := range data {
		last |= uint64(c) << (8 * i)
	}
	v3 ^= last
	v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	v0 ^= last
	v2 ^= 0xff
	for range 4 {
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	}
	return v0 ^ v1 ^ v2 ^ v3
}

// sipRound takes and gives values, so that they stay in registers.
func sipRound(v0, v1, v2, v3 uint64) (uint64, uint64, uint64, uint64) {
	v0 += v1
	v2 += v3
	v1 = bits.RotateLeft64(v1, 13) ^ v0
	v3 = bits.RotateLeft64(v3, 16) ^ v2
	v0 = bits.RotateLeft64(v0, 32)
	v2 += v1
	v0 += v3
	v1 = bits.RotateLeft64(v1, 17) ^ v2
	v3 = bits.RotateLeft64(v3, 21) ^ v0
	v2 = bits.RotateLeft64(v2, 32)
	return v0, v1, v2, v3
}
