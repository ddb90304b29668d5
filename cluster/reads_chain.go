package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"authd/cluster/state"
)

// ReadsChain follows the lines of a journal of key reads. The zero value begins
// with whatever line comes first: older files may be archived elsewhere.
type ReadsChain struct {
	seq   uint64
	hash  state.AuditHash
	begun bool
	// Gaps are where lines say that entries are missing.
	Gaps []ReadsGap
	// Count is the number of entries seen.
	Count int
}

// End is the last entry's number, and the hash that the chain has with it.
func (c *ReadsChain) End() (uint64, state.AuditHash) { return c.seq, c.hash }

// Line checks one line, to the octet, without its end.
func (c *ReadsChain) Line(line []byte) (*ReadsLine, error) {
	if len(line) >= readsLine {
		return nil, fmt.Errorf("behind entry %d: a line of %d octets", c.seq, len(line))
	}
	var l ReadsLine
	if err := json.Unmarshal(line, &l); err != nil {
		return nil, fmt.Errorf("behind entry %d: not a line of a journal of key reads: %w", c.seq, err)
	}
	again, err := json.Marshal(l)
	if err != nil || !bytes.Equal(again, line) || (l.Read == nil) == (l.Gap == nil) {
		return nil, fmt.Errorf("behind entry %d: not a line that authd wrote", c.seq)
	}
	hash, err := state.ParseAuditHash(l.Hash)
	if err != nil {
		return nil, fmt.Errorf("behind entry %d: %w", c.seq, err)
	}
	if l.Gap != nil {
		if c.begun && l.Gap.After != c.seq || l.Gap.Until < l.Gap.After || l.Gap.Until > 1<<62 {
			return nil, fmt.Errorf("a gap after entry %d follows entry %d", l.Gap.After, c.seq)
		}
		c.Gaps = append(c.Gaps, *l.Gap)
		c.seq, c.hash, c.begun = l.Gap.Until, hash, true
		return &l, nil
	}
	return &l, c.read(l.Read, hash)
}

func (c *ReadsChain) read(r *KeyRead, hash state.AuditHash) error {
	if r.Seq == 0 || c.begun && r.Seq != c.seq+1 {
		return fmt.Errorf("entry %d follows entry %d: entries were added or taken away", r.Seq, c.seq)
	}
	// The first entry ever follows nothing; of another the one before is not given.
	if c.begun || r.Seq == 1 {
		next, err := r.Next(c.hash)
		if err != nil {
			return err
		}
		if next != hash {
			return fmt.Errorf("entry %d is not what it was: its hash should be %s", r.Seq, next)
		}
	}
	c.seq, c.hash, c.begun = r.Seq, hash, true
	c.Count++
	return nil
}

// errNoReads is why nothing could be checked.
var errNoReads = errors.New("no entries in the files given")

// Empty says that there was nothing to check.
func (c *ReadsChain) Empty() error {
	if c.Count == 0 && len(c.Gaps) == 0 {
		return errNoReads
	}
	return nil
}
