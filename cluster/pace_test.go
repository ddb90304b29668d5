package cluster

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

func TestSnapshotReachesTheDiskPieceByPiece(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	p, err := newPace(path)
	must(t, err)
	piece := make([]byte, paceStep/4)
	for i := range 10 {
		_, err := f.Write(piece)
		must(t, err)
		must(t, p.wrote(len(piece), noRest))
		if behind := p.octets - p.synced; behind >= paceStep {
			t.Errorf("after %d pieces the disk lacks %d octets", i+1, behind)
		}
	}
	if p.synced != 2*paceStep {
		t.Errorf("the disk was waited for up to %d", p.synced)
	}
	p.close()
	p.close()
	if _, err := newPace(path + "-gone"); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestOldSnapshotsGoAStepAtATime(t *testing.T) {
	dir := t.TempDir()
	s, err := openSnapshots(dir, slog.New(slog.DiscardHandler), raftLogger(slog.New(slog.DiscardHandler)))
	must(t, err)
	for index := range uint64(4) {
		sink, err := s.Create(1, index+1, 1, raft.Configuration{}, 0, nil)
		must(t, err)
		own := sink.(*snapshotSink)
		own.own = true
		_, err = own.Write(make([]byte, 100))
		must(t, err)
		// Longer than a step, and nothing on the disk.
		must(t, os.Truncate(filepath.Join(dir, snapshotDir, sink.ID()+unfinished, stateFile), 3*dropStep))
		must(t, own.Close())
	}
	entries, err := os.ReadDir(filepath.Join(dir, snapshotDir))
	must(t, err)
	metas, err := s.List()
	must(t, err)
	if len(entries) != keptSnapshots || len(metas) != keptSnapshots || metas[0].Index != 4 || metas[1].Index != 3 {
		t.Errorf("left are %v, listed %v", entries, metas)
	}
}
