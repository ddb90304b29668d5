//go:build !lab

package keys

import "testing"

func TestReleasesHaveNoLabSource(t *testing.T) {
	if source, ok := LabSource(1); ok || source != nil {
		t.Error("this build makes pairs that cannot sign")
	}
}
