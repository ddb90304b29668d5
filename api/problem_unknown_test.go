package api

import (
	"errors"
	"fmt"
	"testing"

	"authd/cluster"
)

func TestWriteOfWhichAPartMayHaveHappenedIsUnknown(t *testing.T) {
	for _, also := range []error{cluster.ErrNoLeader, cluster.ErrStopped, cluster.ErrBusy, cluster.ErrNotCommitted} {
		if p := unwritten(fmt.Errorf("%w: %w", cluster.ErrUnknown, also)); p.Code != codeUnknown {
			t.Errorf("unknown and %q: %s says that nothing was changed", also, p.Code)
		}
		if p := unwritten(fmt.Errorf("writing: %w", also)); p.Code == codeUnknown {
			t.Errorf("%q alone: the caller is told that it is not known", also)
		}
	}
	if p := unwritten(errors.New("something else")); p.Code != codeUnknown {
		t.Errorf("an error of no kind: %s", p.Code)
	}
}
