//go:build lab && linux && !portable

package zone

import (
	"testing"
	"time"
)

// The acceptance at its rates, on a quiet machine of two cores or more:
// go test -tags lab -run 'HundredThousandASecond|TwentyThousandNames' -v ./zone
func TestClientResolvesThroughAHundredThousandASecond(t *testing.T) {
	f := floodOf{sockets: 8, perSecond: 100_000, lasts: 10 * time.Second, tries: 100}
	total := testFlood(t, f)
	if got, want := total.queries.Load(), int64(f.perSecond)*9; got < want {
		t.Errorf("%d queries sent in %s: the machine is too busy for this", got, f.lasts)
	}
	if total.out.Load() > total.in.Load() {
		t.Errorf("%d octets out to %d in", total.out.Load(), total.in.Load())
	}
}

func TestTwentyThousandNamesASecondAreAnsweredInFull(t *testing.T) { testDistinct(t, 200_000) }
