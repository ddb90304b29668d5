//go:build lab && linux && !portable

package zone

import (
	"runtime"
	"testing"
	"time"
)

// 10,000 idle and slow connections at the limits of production.
func TestClientGetsThroughTenThousandConnections(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	testCrowd(t, defaultLimits(), crowdOf{idle: 5000, slow: 5000, prefixes: 100, pause: 2 * time.Second}, 500)
	runtime.ReadMemStats(&after)
	if grown := int64(after.Sys) - int64(before.Sys); grown > 256<<20 {
		t.Errorf("memory grew by %d MiB, server and attackers together", grown>>20)
	} else {
		t.Logf("memory grew by %d MiB, server and attackers together", grown>>20)
	}
}
