package zone

import (
	"slices"
	"testing"
)

// RFC 2308 section 3: "The TTL of this record is set from the minimum of the
// MINIMUM field of the SOA record and the TTL of the SOA itself", for both
// kinds of negative answer, whoever's zone it is.
func TestRFC2308Section3(t *testing.T) {
	r := NewResponder(testTree(t, delegatedPlan(t, "example.test", testToken), cnamePlan(t, otherToken)), "")
	const own = "authority example.test. 300 SOA " + testToken + ".ns1.p.example. hostmaster.p.example. 105 7200 1800 1209600 300"
	const platform = "authority p.example. 300 SOA ns1.p.example. hostmaster.p.example. 7 7200 1800 1209600 300"
	for question, want := range map[string][]string{
		"nothing.example.test":           {"reply NXDOMAIN aa", own},
		"bounce.example.test":            {"reply NOERROR aa", own},
		"nothing.p.example":              {"reply NXDOMAIN aa", platform},
		otherToken + ".bounce.p.example": {"reply NOERROR aa", platform},
	} {
		if got := sections(t, r, name(t, question), TypeA); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", question, got, want)
		}
	}
}
