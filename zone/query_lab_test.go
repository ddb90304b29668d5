//go:build lab

package zone

import "testing"

// Ten million mutations of another seed than the quick test's:
// go test -tags lab -run TenMillion -v ./zone
func TestParserAgreesOnTenMillionMutatedQueries(t *testing.T) { testMutations(t, 10_000_000, 9018) }
