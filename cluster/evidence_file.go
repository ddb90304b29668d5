package cluster

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fxamacker/cbor/v2"
)

// evidenceFile is the content of the file: CBOR behind its SHA-256. The forms of
// its parts are those of the memory; there is no other reader.
type evidenceFile struct {
	Version int              `cbor:"1,keyasint"`
	Clean   bool             `cbor:"2,keyasint"` // nothing was counted afterwards
	Machine int64            `cbor:"3,keyasint"` // machine time of the node when it was written
	Since   int64            `cbor:"4,keyasint"`
	Gaps    []gap            `cbor:"5,keyasint"`
	Asked   map[uint64]asked `cbor:"6,keyasint"`
	Handed  handedBy         `cbor:"7,keyasint"`
	Latest  int64            `cbor:"8,keyasint"`
}

const (
	evidenceVersion = 1
	// maxEvidence bounds what a broken file makes us read.
	maxEvidence = 512 << 20
)

// save writes the counts. The machine's time is read first: what it says was
// applied when the counts were taken.
func (e *evidence) save(clean bool) error {
	f := evidenceFile{Version: evidenceVersion, Clean: clean, Machine: e.node.Machine().Time()}
	e.mu.Lock()
	f.Since, f.Gaps, f.Asked, f.Handed, f.Latest = e.since, e.gaps, e.asked, e.handed, e.latest
	body, err := cbor.Marshal(f)
	e.mu.Unlock()
	if err != nil {
		return fmt.Errorf("encoding evidence: %w", err)
	}
	sum := sha256.Sum256(body)
	err = replaceFile(e.path, func(w io.Writer) error {
		_, first := w.Write(sum[:])
		_, second := w.Write(body)
		return errors.Join(first, second)
	})
	if err != nil {
		return fmt.Errorf("writing evidence: %w", err)
	}
	return nil
}

// load reads what was saved; what happened after that is unknown.
func (e *evidence) load(now int64) error {
	info, err := os.Stat(e.path)
	if errors.Is(err, os.ErrNotExist) {
		e.lost(0, now)
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() > maxEvidence {
		return fmt.Errorf("%d octets, at most %d", info.Size(), maxEvidence)
	}
	data, err := os.ReadFile(e.path)
	if err != nil {
		return err
	}
	f, err := parseEvidence(data)
	if err != nil {
		return err
	}
	e.since, e.gaps, e.latest = f.Since, f.Gaps, f.Latest
	if f.Asked != nil {
		e.asked = f.Asked
	}
	for i, share := range f.Handed {
		if share != nil {
			e.handed[i] = share
		}
		for _, list := range share {
			e.entries += len(list)
		}
	}
	if !f.Clean {
		e.lost(f.Machine, now)
	}
	return nil
}

func parseEvidence(data []byte) (f evidenceFile, err error) {
	if len(data) < sha256.Size {
		return f, errors.New("cut short")
	}
	body := data[sha256.Size:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], data[:sha256.Size]) {
		return f, errors.New("its checksum is wrong")
	}
	mode, err := cbor.DecOptions{MaxMapPairs: maxAsked + maxHanded, MaxArrayElements: maxHanded + maxGaps}.DecMode()
	if err != nil {
		return f, err
	}
	if err := mode.Unmarshal(body, &f); err != nil {
		return f, err
	}
	if f.Version != evidenceVersion {
		return f, fmt.Errorf("version %d is not of this release", f.Version)
	}
	return f, nil
}
